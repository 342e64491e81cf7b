//! The two tasks that bring telemetry to the collector: one encodes and queues, one sends. The second is the only one that
//! ever waits for the collector.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, pending, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use log::info;

use super::Signal;
use super::config::Endpoint;
use super::dial::dial;
use super::exporter::{Action, Failure};
use super::http_request::{Response, ResponseParser, request_head};
use super::percent::hex;
use super::records::{self, Reader};
use super::settings::{Otlp, Settings};
use super::sink::{self, Labels, WORK};
use super::snapshot::queue_metrics;
use crate::cpu::registers::tsc;
use crate::cpu::{CoreId, current, time};
use crate::net::TcpStream;
use crate::replace::machine::Machine;
use crate::task::{sleep_until, spawn_on, timeout};

/// Starts to send, if there is a collector.
pub(super) fn start(otlp: Option<Otlp>, settings: Settings, machine: &'static Machine) {
    let Some(otlp) = otlp else {
        return records::close(Reader::Otlp);
    };
    let labels = Labels {
        endpoint: otlp.endpoint.url(),
        service_name: settings.service_name,
        attributes: settings.attributes,
        host_id: machine.host_id().into(),
        measurement: hex(&machine.measurement().0),
    };
    sink::open(labels);
    info!("telemetry goes to {}", otlp.endpoint.authority);
    let last = current::online().iter().last().unwrap_or(CoreId::BOOT);
    let sender = Sender {
        endpoint: otlp.endpoint,
        headers: otlp.headers,
        limit: otlp.timeout,
        connection: None,
    };
    spawn_on(last, encode(machine, otlp.logs_every, otlp.metrics_every)).detach();
    spawn_on(last, sender.run()).detach();
}

/// Sends what a predecessor has left, too.
pub(super) fn inherit(signal: Signal, body: &[u8]) {
    sink::with_exporter(|exporter| exporter.push(signal, body.into()));
    WORK.notify();
}

/// Queues what has come together, in time whatever the collector does.
async fn encode(machine: &'static Machine, logs_every: Duration, metrics_every: Duration) {
    let (mut logs_at, mut metrics_at) = (time::now(), time::now());
    loop {
        if time::now() >= logs_at {
            counted(Signal::Logs, sink::queue_logs);
            logs_at = time::now() + logs_every;
        }
        if time::now() >= metrics_at {
            counted(Signal::Metrics, || {
                queue_metrics(machine);
                true
            });
            metrics_at = time::now() + metrics_every;
        }
        WORK.notify();
        sleep_until(logs_at.min(metrics_at)).await;
    }
}

/// Encodes, and counts the cycles if there was something to encode.
fn counted(signal: Signal, encode: impl FnOnce() -> bool) {
    let start = tsc();
    if encode() {
        let cycles = tsc().saturating_sub(start);
        sink::with_exporter(|exporter| exporter.encoded(signal, cycles));
    }
}

/// Who sends.
struct Sender {
    endpoint: Endpoint,
    headers: Vec<(String, String)>,
    /// The longest that a request may take.
    limit: Duration,
    /// What the last answer has left open.
    connection: Option<TcpStream>,
}

/// Why there is no answer, and whether there was a part of one.
struct Silence {
    failure: Failure,
    heard: bool,
}

impl Sender {
    async fn run(mut self) {
        loop {
            let now = time::now();
            match sink::with_exporter(|exporter| exporter.next(now.0)).unwrap_or(Action::Idle) {
                Action::Send { signal, body, .. } => {
                    let mut cycles = 0;
                    let result = cycles_of(&mut cycles, self.exchange(signal, &body)).await;
                    let now = time::now().0;
                    sink::with_exporter(|exporter| {
                        exporter.sent(signal, cycles);
                        match result {
                            Ok(response) => exporter.on_response(
                                now,
                                response.status,
                                response.retry_after,
                                &response.body,
                            ),
                            Err(failure) => exporter.on_failure(now, failure),
                        }
                    });
                }
                Action::WaitUntil(ns) => work_or(sleep_until(time::Instant(ns))).await,
                Action::Idle => work_or(pending()).await,
            }
        }
    }

    /// One request and its answer, on the connection that is open or on a new one. An open connection that turns out to
    /// have been closed by the collector is no failure: the request is sent once more, on a new one.
    async fn exchange(&mut self, signal: Signal, body: &[u8]) -> Result<Response, Failure> {
        let head = request_head(&self.endpoint, signal, &self.headers, body.len());
        let until = time::now() + self.limit;
        if let Some(open) = self.connection.take() {
            match self.ask(open, &head, body, until).await {
                Err(Silence {
                    failure: Failure::Interrupted,
                    heard: false,
                }) => {}
                answered => return answered.map_err(|silence| silence.failure),
            }
        }
        let dialled = timeout(left(until), dial(&self.endpoint.host, self.endpoint.port)).await;
        let stream = dialled.ok().flatten().ok_or(Failure::Connect)?;
        let answered = self.ask(stream, &head, body, until).await;
        answered.map_err(|silence| silence.failure)
    }

    /// Asks on this connection, and keeps it if another request may follow.
    async fn ask(
        &mut self,
        mut stream: TcpStream,
        head: &[u8],
        body: &[u8],
        until: time::Instant,
    ) -> Result<Response, Silence> {
        let mut heard = false;
        let answer = timeout(left(until), converse(&mut stream, head, body, &mut heard)).await;
        let answer = answer.unwrap_or(Err(Failure::TimedOut));
        match &answer {
            Ok(response) if response.reusable => self.connection = Some(stream),
            // Its end is all that is still to come.
            Ok(response) if response.complete => drop(stream),
            // Whatever else the collector has to say, it need not.
            _ => stream.abort(),
        }
        answer.map_err(|failure| Silence { failure, heard })
    }
}

fn left(until: time::Instant) -> Duration {
    Duration::from_nanos(until.0.saturating_sub(time::now().0))
}

/// `future`'s result; the time-stamp counter's cycles that it ran are added to `cycles`, those that it waited are not.
async fn cycles_of<F: Future>(cycles: &mut u64, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let start = tsc();
        let poll = future.as_mut().poll(cx);
        *cycles += tsc().saturating_sub(start);
        poll
    })
    .await
}

/// Until there is something to send, or `wait` is over.
async fn work_or(wait: impl Future<Output = ()>) {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        let work = WORK.poll(cx).is_ready();
        if wait.as_mut().poll(cx).is_ready() || work {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Sends a request and reads its answer; `heard` tells whether anything came.
async fn converse(
    stream: &mut TcpStream,
    head: &[u8],
    body: &[u8],
    heard: &mut bool,
) -> Result<Response, Failure> {
    // A collector may refuse a request before it has read all of it, and close: what it said is still to be read.
    if stream.write_all(head).await.is_ok() {
        let _ = stream.write_all(body).await;
    }
    let mut parser = ResponseParser::new();
    let mut piece = vec![0; 1024];
    loop {
        let count = stream.read(&mut piece).await.map_err(|_| Failure::Interrupted)?;
        if count == 0 {
            return parser.end().map_err(Failure::from);
        }
        *heard = true;
        if let Some(response) = parser.feed(&piece[..count]).map_err(Failure::from)? {
            return Ok(response);
        }
    }
}

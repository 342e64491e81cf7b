//! The task that sends telemetry to the collector. It is the only one that ever waits for the collector.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::net::{Ipv4Addr, SocketAddrV4};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use log::{info, warn};

use super::config::{self, Endpoint, Host};
use super::exporter::{Action, Failure, REQUEST_TIMEOUT_NS};
use super::http_request::{Response, ResponseParser, request_head};
use super::percent::hex;
use super::sink::{self, Labels, WORK};
use super::snapshot::queue_metrics;
use super::{Signal, config::EndpointError};
use crate::cpu::{CoreId, current, time};
use crate::net::{Across, TcpOptions, TcpStream, default_network, resolve};
use crate::replace::handover::Handover;
use crate::replace::machine::Machine;
use crate::replace::probation;
use crate::start::Start;
use crate::task::{sleep_until, spawn_on, timeout};

type Pairs = Result<Vec<(String, String)>, config::PairsError>;

/// Log records wait this long for company.
const LOGS_EVERY: Duration = Duration::from_secs(1);
const METRICS_EVERY: Duration = Duration::from_secs(10);

/// Starts to send, if the command line names a collector.
pub(crate) fn start(start: &Start, handover: Option<&Handover>, machine: &'static Machine) {
    let Some(text) = &start.options.otel_endpoint else {
        return;
    };
    let endpoint = match config::endpoint(text) {
        Ok(endpoint) => endpoint,
        Err(error) => return complain(&error),
    };
    let pairs = |text: &Option<String>, parse: fn(&str) -> Pairs, key: &str| {
        parse(text.as_deref().unwrap_or_default()).unwrap_or_else(|error| {
            warn!("{key} is ignored: {error}");
            Vec::new()
        })
    };
    let options = &start.options;
    let headers = pairs(
        &options.otel_headers,
        config::headers,
        "OTEL_EXPORTER_OTLP_HEADERS",
    );
    let labels = Labels {
        service_name: options.otel_service_name.clone().unwrap_or_default(),
        attributes: pairs(
            &options.otel_resource_attributes,
            config::resource_attributes,
            "OTEL_RESOURCE_ATTRIBUTES",
        ),
        host_id: machine.host_id().into(),
        measurement: hex(&machine.measurement().0),
        entered: start.entered,
    };
    // On trial it stays with the predecessor, which would send it once more: [`inherit`].
    let handover = handover.filter(|_| !probation::is_on_trial());
    let undelivered = handover.iter().flat_map(|handover| &handover.undelivered);
    let undelivered = undelivered
        .filter_map(|(signal, body)| Some((Signal::from_index(usize::from(*signal))?, body.clone())));
    sink::open(labels, undelivered.collect());
    info!("telemetry goes to {}", endpoint.authority);
    let last = current::online().iter().last().unwrap_or(CoreId::BOOT);
    spawn_on(last, run(machine, endpoint, headers)).detach();
}

/// Sends what a predecessor has left undelivered, now that it does not come back.
pub(crate) fn inherit(handover: &Handover) {
    for (signal, body) in &handover.undelivered {
        if let Some(signal) = Signal::from_index(usize::from(*signal)) {
            sink::with_exporter(|exporter| exporter.push(signal, body.clone()));
        }
    }
    WORK.notify();
}

fn complain(error: &EndpointError) {
    warn!("no telemetry is sent: OTEL_EXPORTER_OTLP_ENDPOINT: {error}");
}

async fn run(machine: &'static Machine, endpoint: Endpoint, headers: Vec<(String, String)>) {
    let mut connection = None;
    let (mut logs_at, mut metrics_at) = (time::now(), time::now());
    loop {
        let now = time::now();
        if now >= logs_at {
            sink::queue_logs();
            logs_at = now + LOGS_EVERY;
        }
        if now >= metrics_at {
            queue_metrics(machine);
            metrics_at = now + METRICS_EVERY;
        }
        let action = sink::with_exporter(|exporter| exporter.next(now.0)).unwrap_or(Action::Idle);
        match action {
            Action::Send { signal, body, .. } => {
                let head = request_head(&endpoint, signal, &headers, body.len());
                let limit = Duration::from_nanos(REQUEST_TIMEOUT_NS);
                let result = match timeout(limit, exchange(&endpoint, &mut connection, &head, &body)).await {
                    Ok(result) => result,
                    Err(_) => Err(Failure::TimedOut),
                };
                let now = time::now().0;
                if !matches!(&result, Ok(response) if response.reusable) {
                    connection = None;
                }
                sink::with_exporter(|exporter| match result {
                    Ok(response) => {
                        exporter.on_response(now, response.status, response.retry_after, &response.body)
                    }
                    Err(failure) => exporter.on_failure(now, failure),
                });
            }
            Action::WaitUntil(ns) => work_or(time::Instant(ns).min(logs_at).min(metrics_at)).await,
            Action::Idle => work_or(logs_at.min(metrics_at)).await,
        }
    }
}

/// Until there is something to send, or `at`.
async fn work_or(at: time::Instant) {
    let mut sleep = pin!(sleep_until(at));
    poll_fn(|cx| {
        let work = WORK.poll(cx).is_ready();
        if sleep.as_mut().poll(cx).is_ready() || work {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// One request and its answer, on the connection that is open or on a new one. An open connection that turns out to have
/// been closed by the collector is no failure: the request is sent once more on a new one.
async fn exchange(
    endpoint: &Endpoint,
    connection: &mut Option<TcpStream>,
    head: &[u8],
    body: &[u8],
) -> Result<Response, Failure> {
    if let Some(open) = connection {
        match ask(open, head, body).await {
            Err(Failure::Interrupted) => *connection = None,
            result => return result,
        }
    }
    let address = address(endpoint).await?;
    let Some(network) = default_network() else {
        return Err(Failure::Connect);
    };
    // What a predecessor has not delivered, its successor sends: a connection that waited would have nothing to say.
    let options = TcpOptions {
        across: Across::Reset,
        ..TcpOptions::default()
    };
    let stream = TcpStream::connect_on(network, SocketAddrV4::new(address, endpoint.port), options)
        .await
        .map_err(|_| Failure::Connect)?;
    ask(connection.insert(stream), head, body).await
}

async fn address(endpoint: &Endpoint) -> Result<Ipv4Addr, Failure> {
    match &endpoint.host {
        Host::Address(address) => Ok(*address),
        Host::Name(name) => resolve(name).await.map_err(|_| Failure::Connect),
    }
}

async fn ask(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> Result<Response, Failure> {
    stream.write_all(head).await.map_err(|_| Failure::Interrupted)?;
    stream.write_all(body).await.map_err(|_| Failure::Interrupted)?;
    let mut parser = ResponseParser::new();
    let mut piece = vec![0; 1024];
    loop {
        let count = stream.read(&mut piece).await.map_err(|_| Failure::Interrupted)?;
        if count == 0 {
            return parser.end().map_err(Failure::from);
        }
        if let Some(response) = parser.feed(&piece[..count]).map_err(Failure::from)? {
            return Ok(response);
        }
    }
}

//! The task that sends log records to the syslog server. It is the only one that ever waits for that server.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use log::{info, warn};
use spin::Mutex;

use super::outbox::Outbox;
use super::{Message, Sender, frame};
use crate::cpu::{CoreId, current, random, time};
use crate::net::TcpStream;
use crate::replace::machine::Machine;
use crate::replace::status::Syslog;
use crate::start::identity;
use crate::task::{sleep, spawn_on, timeout};
use crate::telemetry::config::Server;
use crate::telemetry::dial::dial;
use crate::telemetry::records::{self, Reader};

/// The number of syslog's messages among what crosses the jump undelivered; OTLP's signals have 0 to 2.
pub(crate) const NUMBER: u8 = 3;

/// Records wait this long for company.
const EVERY: Duration = Duration::from_secs(1);
/// The longest that connecting, or the server's taking what was sent, may last.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the first failure; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

struct State {
    server: String,
    sender: Sender,
    outbox: Outbox,
    /// Of the next message.
    number: u64,
    /// Records that this task was too slow for, as far as they are numbered.
    missed: u64,
    connected: bool,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// How it stands, for `/v1/status`; `None`: there is no syslog server.
pub(crate) fn status() -> Option<Syslog> {
    collect();
    let state = STATE.lock();
    let state = state.as_ref()?;
    let (queued, sent, dropped) = state.outbox.counts();
    Some(Syslog {
        server: state.server.clone(),
        connected: state.connected,
        queued,
        sent,
        dropped: dropped + state.missed,
    })
}

/// What has not arrived, for the successor.
pub(crate) fn undelivered(max_bytes: usize) -> Vec<u8> {
    collect();
    with(|state| state.outbox.undelivered(max_bytes)).unwrap_or_default()
}

/// Starts to send to `server`, if there is one.
pub(crate) fn start(server: Option<Server>, machine: &'static Machine) {
    let Some(server) = server else {
        return records::close(Reader::Syslog);
    };
    let image = identity().manifest();
    let sender = Sender {
        host: machine.host_id().into(),
        image: image.name.clone(),
        version: image.version.clone(),
        generation: identity().generation,
        address: machine.network().configuration().map(|it| it.address),
    };
    *STATE.lock() = Some(State {
        server: server.name.clone(),
        sender,
        outbox: Outbox::default(),
        number: 0,
        missed: 0,
        connected: false,
    });
    info!("log records go to {} by syslog", server.name);
    let last = current::online().iter().last().unwrap_or(CoreId::BOOT);
    spawn_on(last, run(server)).detach();
}

/// Sends what a predecessor has left, too.
pub(crate) fn inherit(messages: &[u8]) {
    with(|state| state.outbox.take_over(messages));
}

fn with<R>(action: impl FnOnce(&mut State) -> R) -> Option<R> {
    STATE.lock().as_mut().map(action)
}

/// Makes messages of the records that have come together.
fn collect() {
    with(|state| {
        let (new, missed) = records::take(Reader::Syslog);
        // What was missed has a number too: a gap says so.
        state.number += missed - state.missed;
        state.missed = missed;
        for record in new {
            let message = Message {
                unix_ns: time::unix(time::Instant(record.machine_ns)),
                machine_ns: record.machine_ns,
                level: record.level,
                target: &record.target,
                text: &record.message,
                number: state.number,
            };
            state.number += 1;
            state.outbox.push(frame(&state.sender, &message));
        }
    });
}

/// How long it is since things went well.
#[derive(Default)]
struct Trouble {
    failures: u32,
    /// Records that were lost, as far as that has been logged.
    told: u64,
}

impl Trouble {
    /// Doubles from the first pause to the longest, minus up to half of it at random. It is said once that something is
    /// wrong, and not again before it has been well: what is said is a record too.
    fn pause(&mut self, server: &Server) -> Duration {
        if self.failures == 0 {
            warn!(
                "the syslog server {} does not take log records: they wait",
                server.name
            );
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(8))
            .min(LONGEST_PAUSE);
        self.failures += 1;
        pause - Duration::from_nanos(random::number() % (pause.as_nanos() as u64 / 2))
    }

    fn ends(&mut self) {
        self.failures = 0;
        let dropped = status().map_or(0, |status| status.dropped);
        if dropped > self.told {
            warn!(
                "{} log records were lost for want of room before the syslog server took them",
                dropped - self.told
            );
            self.told = dropped;
        }
    }
}

async fn run(server: Server) {
    let mut trouble = Trouble::default();
    loop {
        let well = match timeout(PATIENCE, dial(&server.host, server.port))
            .await
            .ok()
            .flatten()
        {
            Some(mut stream) => {
                with(|state| state.connected = true);
                let well = serve(&mut stream, &mut trouble).await;
                with(|state| state.connected = false);
                stream.abort();
                well
            }
            None => false,
        };
        let pause = if well { EVERY } else { trouble.pause(&server) };
        let until = time::now() + pause;
        // As long as there is nothing to say, nobody is asked for a connection.
        while time::now() < until || with(|state| state.outbox.is_empty()) == Some(true) {
            sleep(EVERY).await;
            collect();
        }
    }
}

/// Sends until the connection ends, or the server does what a syslog server does not: it never says anything. Returns whether
/// all that was given to it has arrived.
async fn serve(stream: &mut TcpStream, trouble: &mut Trouble) -> bool {
    loop {
        collect();
        while let Some(batch) = with(|state| state.outbox.next()).flatten() {
            let sending = async {
                stream.write_all(&batch).await.ok()?;
                stream.flush().await.ok()
            };
            if timeout(PATIENCE, sending).await.ok().flatten().is_none() {
                with(|state| state.outbox.failed());
                return false;
            }
            with(|state| state.outbox.arrived());
            trouble.ends();
        }
        if timeout(EVERY, stream.read(&mut [0; 1])).await.is_ok() {
            return true;
        }
    }
}

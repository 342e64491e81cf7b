//! When to send what: the retry rules of OTLP/HTTP ("OTLP/HTTP Response", "Failures", "Throttling"), without I/O.
//!
//! The caller has one loop and one connection: ask [`Exporter::next`], send, report by [`Exporter::on_response`] or
//! [`Exporter::on_failure`], repeat. A request that is never reported blocks the exporter, so the caller's loop puts a
//! limit on it, [`REQUEST_TIMEOUT_NS`] where nobody chose another.
//!
//! - 2xx: delivered, whatever the partial success says; what was rejected is counted.
//! - 429, 502, 503, 504: sent again after `Retry-After` or a growing pause, until [`Policy::give_up_after_ns`].
//! - any other status, redirects too: the collector will not take it; counted as rejected.
//! - no connection, or none in time: everything pauses, nothing is given up, since that says nothing about a request. The
//!   queue's bounds see to it that this costs no memory.
//! - connection lost or no answer in time: as 503.
//! - an answer that is not HTTP: as a status that must not be retried.

use alloc::vec::Vec;
use prost::Message;

use super::Signal;
pub use super::counters::Counters;
use super::proto::ExportResponse;
use super::queue::{Body, Limits, Queue};

/// The longest a request may take, from the connection to the answer's last byte (OTLP exporter, "Timeout": 10 s).
pub const REQUEST_TIMEOUT_NS: u64 = 10 * SECOND;

const SECOND: u64 = 1_000_000_000;

/// How patient the exporter is. All in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Pause after the first failure; doubles with each further one.
    pub first_pause_ns: u64,
    /// The longest pause that we choose.
    pub longest_pause_ns: u64,
    /// The longest pause that a collector can impose by `Retry-After`.
    pub longest_retry_after_ns: u64,
    /// A request that the collector has failed to take for so long is dropped.
    pub give_up_after_ns: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            first_pause_ns: SECOND,
            longest_pause_ns: 15 * SECOND,
            longest_retry_after_ns: 3600 * SECOND,
            give_up_after_ns: 3600 * SECOND,
        }
    }
}

/// What the caller does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this request and report how it went.
    Send {
        /// Decides the path.
        signal: Signal,
        /// The request's body.
        body: Body,
        /// 1 for the first time.
        attempt: u32,
    },
    /// Ask again at this time (always later than now), or after a push.
    WaitUntil(u64),
    /// Nothing to do until a push, or until the request under way was reported.
    Idle,
}

/// How a request failed without an HTTP status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The collector's name was not found, or no connection came about, or not in time.
    Connect,
    /// The connection ended before the answer did.
    Interrupted,
    /// There was a connection, but no whole answer in time.
    TimedOut,
    /// What came back is not HTTP, or breaks its bounds.
    NotHttp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    until_ns: u64,
    failures: u32,
}

/// The exporter: queue, pauses, counters.
#[derive(Debug)]
pub struct Exporter {
    queue: Queue,
    policy: Policy,
    random: u64,
    now_ns: u64,
    sending: Option<Signal>,
    /// After failures to connect.
    collector: Pause,
    /// After the collector's answers: it may be busy with one signal and not with another.
    signals: [Pause; 3],
    delivered: [u64; 3],
    rejected: [u64; 3],
    retries: u64,
    rejected_items: u64,
    encode_cycles: [u64; 3],
    send_cycles: [u64; 3],
}

impl Exporter {
    /// An exporter with nothing to do. `seed` spreads the retries of many machines over time; it needs no secrecy.
    pub fn new(limits: Limits, policy: Policy, seed: u64) -> Self {
        Exporter {
            queue: Queue::new(limits),
            policy,
            random: seed | 1,
            now_ns: 0,
            sending: None,
            collector: Pause::default(),
            signals: [Pause::default(); 3],
            delivered: [0; 3],
            rejected: [0; 3],
            retries: 0,
            rejected_items: 0,
            encode_cycles: [0; 3],
            send_cycles: [0; 3],
        }
    }

    /// Queues a request; may drop the oldest of its signal. Also takes what a predecessor left undelivered.
    pub fn push(&mut self, signal: Signal, body: Vec<u8>) {
        self.queue.push(signal, body);
    }

    /// What waits, for the next instar: see [`Queue::undelivered`].
    pub fn undelivered(&self, max_bytes: usize) -> Vec<(Signal, Vec<u8>)> {
        self.queue.undelivered(max_bytes)
    }

    /// What became of requests so far.
    pub fn counters(&self) -> Counters {
        Counters {
            delivered: self.delivered,
            rejected: self.rejected,
            dropped: Signal::ALL.map(|signal| self.queue.dropped(signal)),
            retries: self.retries,
            rejected_items: self.rejected_items,
            encode_cycles: self.encode_cycles,
            send_cycles: self.send_cycles,
            queued_bytes: self.queue.bytes() as u64,
            queued: self.queue.len() as u64,
        }
    }

    /// Encoding a request took so many cycles.
    pub fn encoded(&mut self, signal: Signal, cycles: u64) {
        self.encode_cycles[signal.index()] += cycles;
    }

    /// Sending a request and reading its answer took so many cycles.
    pub fn sent(&mut self, signal: Signal, cycles: u64) {
        self.send_cycles[signal.index()] += cycles;
    }

    /// What to do now: the oldest request whose signal does not pause. `now_ns` is any clock that does not go back; if it
    /// does, it is taken to stand still.
    pub fn next(&mut self, now_ns: u64) -> Action {
        let now = self.advance(now_ns);
        if self.sending.is_some() {
            return Action::Idle;
        }
        let mut oldest = None;
        let mut wait: Option<u64> = None;
        for signal in Signal::ALL {
            let Some(entry) = self.queue.front(signal) else {
                continue;
            };
            let until = self.collector.until_ns.max(self.signals[signal.index()].until_ns);
            if until > now {
                wait = Some(wait.map_or(until, |wait| wait.min(until)));
            } else if oldest.is_none_or(|(order, _)| entry.order < order) {
                oldest = Some((entry.order, signal));
            }
        }
        let entry = oldest.and_then(|(_, signal)| Some((signal, self.queue.front(signal)?)));
        let Some((signal, entry)) = entry else {
            return wait.map_or(Action::Idle, Action::WaitUntil);
        };
        entry.attempts = entry.attempts.saturating_add(1);
        let (body, attempt) = (entry.body.clone(), entry.attempts);
        self.retries += u64::from(attempt > 1);
        self.sending = Some(signal);
        self.queue.set_sending(signal, true);
        Action::Send {
            signal,
            body,
            attempt,
        }
    }

    /// The collector answered the request under way. `retry_after` in seconds; `body` is the answer's, or as much of it
    /// as was read. Without a request under way this does nothing.
    pub fn on_response(&mut self, now_ns: u64, status: u16, retry_after: Option<u32>, body: &[u8]) {
        let now = self.advance(now_ns);
        let Some(signal) = self.sending.take() else { return };
        self.collector = Pause::default();
        match status {
            200..=299 => {
                self.delivered[signal.index()] += 1;
                // A body that does not decode is no reason to send again: the status decides.
                let partial = ExportResponse::decode(body)
                    .ok()
                    .and_then(|response| response.partial_success);
                let rejected = partial.map_or(0, |partial| partial.rejected.max(0));
                self.rejected_items = self.rejected_items.saturating_add(rejected.unsigned_abs());
                self.settle(signal);
            }
            429 | 502 | 503 | 504 => self.pause_signal(now, signal, retry_after),
            _ => {
                self.rejected[signal.index()] += 1;
                self.settle(signal);
            }
        }
    }

    /// The request under way got no answer. Without one this does nothing.
    pub fn on_failure(&mut self, now_ns: u64, failure: Failure) {
        let now = self.advance(now_ns);
        let Some(signal) = self.sending.take() else { return };
        match failure {
            Failure::Connect => {
                self.queue.set_sending(signal, false);
                let pause = self.pause_ns(self.collector.failures);
                self.collector.failures = self.collector.failures.saturating_add(1);
                self.collector.until_ns = now.saturating_add(pause);
            }
            Failure::Interrupted | Failure::TimedOut => self.pause_signal(now, signal, None),
            Failure::NotHttp => {
                self.rejected[signal.index()] += 1;
                self.settle(signal);
            }
        }
    }

    /// Ends all pauses that we chose ourselves after failing to connect: for when the network has come up.
    pub fn network_is_up(&mut self) {
        self.collector = Pause::default();
    }

    fn advance(&mut self, now_ns: u64) -> u64 {
        self.now_ns = self.now_ns.max(now_ns);
        self.now_ns
    }

    fn settle(&mut self, signal: Signal) {
        self.queue.pop(signal);
        self.signals[signal.index()] = Pause::default();
    }

    fn pause_signal(&mut self, now: u64, signal: Signal, retry_after: Option<u32>) {
        self.queue.set_sending(signal, false);
        let asked = u64::from(retry_after.unwrap_or(0)).saturating_mul(SECOND);
        let chosen = self.pause_ns(self.signals[signal.index()].failures);
        // Never sooner than our own pause: "Retry-After: 0" must not make a tight loop.
        let pause = chosen.max(asked.min(self.policy.longest_retry_after_ns));
        let state = &mut self.signals[signal.index()];
        state.failures = state.failures.saturating_add(1);
        state.until_ns = now.saturating_add(pause);
        let since = self
            .queue
            .front(signal)
            .map(|entry| *entry.failing_since_ns.get_or_insert(now));
        if since.is_some_and(|since| now - since >= self.policy.give_up_after_ns) {
            self.queue.drop_front(signal);
        }
    }

    /// Doubles from the first pause to the longest, minus up to half of it at random.
    fn pause_ns(&mut self, failures: u32) -> u64 {
        let doubled = self.policy.first_pause_ns.saturating_mul(1 << failures.min(30));
        let pause = doubled.min(self.policy.longest_pause_ns).max(1);
        // xorshift64: good enough to spread machines over time.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        pause - self.random % (pause / 2 + 1)
    }
}

//! Metrics, events, spans, and their export by OTLP/HTTP to any OpenTelemetry collector.
//!
//! Everything here is pure: no device, no clock, no socket. Time is an argument, randomness a seed, and the caller
//! moves the bytes:
//!
//! 1. [`otlp::body`], [`logs::body`] and [`span::body`] encode one request each;
//! 2. [`exporter::Exporter::push`] queues it, within bounds;
//! 3. the caller's loop asks [`exporter::Exporter::next`] what to do, writes [`http_request::request_head`] and the
//!    body to a socket, feeds what comes back to a [`http_request::ResponseParser`], and reports to the exporter.
//!
//! Metrics go two ways: [`metrics::families`] makes families of points of a snapshot, [`otlp`] writes them for a collector, and
//! [`prometheus`] for who comes and asks. What may leave the machine is listed in [`names`], and free text passes by [`allowed`]; an application's own metrics are
//! made with [`Counter`], [`Gauge`] and [`Histogram`].

pub mod allowed;
mod attributes;
pub mod config;
pub mod counters;
#[cfg(any(feature = "otlp", feature = "syslog"))]
mod dial;
#[cfg(feature = "otlp")]
pub mod exporter;
pub(crate) mod flushes;
mod histogram;
#[cfg(feature = "otlp")]
mod http_date;
#[cfg(feature = "otlp")]
pub mod http_request;
pub mod instruments;
#[cfg(feature = "otlp")]
pub mod logs;
pub mod metrics;
pub mod model;
pub mod names;
#[cfg(feature = "otlp")]
pub mod otlp;
mod percent;
#[cfg(feature = "prometheus")]
pub mod prometheus;
#[cfg(feature = "otlp")]
mod proto;
#[cfg(feature = "otlp")]
pub(crate) mod push;
#[cfg(feature = "otlp")]
pub mod queue;
#[cfg(any(feature = "otlp", feature = "syslog"))]
mod records;
pub mod resource;
#[cfg(feature = "prometheus")]
mod scrape;
pub mod settings;
#[cfg(feature = "otlp")]
pub(crate) mod sink;
pub mod snapshot;
pub mod span;
pub mod story;
#[cfg(feature = "syslog")]
pub mod syslog;
mod units;
#[cfg(feature = "otlp")]
pub(crate) mod upgrade;
#[cfg(not(feature = "otlp"))]
mod without_otlp;

#[cfg(all(test, feature = "otlp"))]
mod exporter_tests;
#[cfg(all(test, feature = "otlp"))]
mod http_request_tests;
#[cfg(test)]
mod instruments_tests;
#[cfg(all(test, feature = "otlp", feature = "prometheus"))]
mod manual_tests;
#[cfg(all(test, feature = "otlp"))]
mod metrics_tests;
#[cfg(all(test, feature = "otlp", feature = "prometheus"))]
mod prometheus_tests;
#[cfg(all(test, feature = "otlp"))]
mod story_tests;
#[cfg(all(test, feature = "otlp"))]
mod wire_tests;

pub use attributes::{Resource, Value};
pub use instruments::{Counter, Gauge, Histogram};
#[cfg(feature = "prometheus")]
pub(crate) use scrape::scrape;
#[cfg(not(feature = "otlp"))]
pub(crate) use without_otlp::{sink, upgrade};

use alloc::vec::Vec;

use log::warn;

use crate::cpu::time::Instant;
use crate::replace::handover::Handover;
use crate::replace::machine::Machine;
use crate::replace::probation;
use crate::replace::status::Syslog;
use crate::start::{Start, identity};

/// Keeps a log record for whoever sends it.
pub(crate) fn keep_record(now: Instant, record: &log::Record<'_>) {
    #[cfg(any(feature = "otlp", feature = "syslog"))]
    records::keep(now, record);
    #[cfg(not(any(feature = "otlp", feature = "syslog")))]
    let _ = (now, record);
}

/// Starts to send what the command line or the manifest asks for, and what a predecessor could not deliver.
pub(crate) fn start(start: &Start, handover: Option<&Handover>, machine: &'static Machine) {
    let manifest = identity().manifest();
    let mut settings = settings::Settings::read(&start.options.telemetry, &manifest.environment);
    for ignored in &settings.ignored {
        warn!("telemetry: {ignored}");
    }
    let (otlp, syslog) = (settings.otlp.take(), settings.syslog.take());
    #[cfg(feature = "syslog")]
    syslog::push::start(syslog, machine);
    #[cfg(feature = "otlp")]
    push::start(otlp, settings, machine);
    #[cfg(not(feature = "syslog"))]
    without(syslog.is_some(), "syslog");
    #[cfg(not(feature = "otlp"))]
    without(otlp.is_some(), "OTLP");
    #[cfg(not(any(feature = "otlp", feature = "syslog")))]
    let _ = machine;
    // On trial it stays with the predecessor, which would send it once more.
    if let Some(handover) = handover.filter(|_| !probation::is_on_trial()) {
        inherit(handover);
    }
}

/// Sends what a predecessor has left undelivered, when it does not come back.
pub(crate) fn inherit(handover: &Handover) {
    #[cfg(feature = "otlp")]
    sink::with_exporter(|exporter| exporter.were_dropped(handover.left_behind));
    for (number, bytes) in &handover.undelivered {
        #[cfg(feature = "otlp")]
        if let Some(signal) = Signal::from_index(usize::from(*number)) {
            push::inherit(signal, bytes);
        }
        #[cfg(feature = "syslog")]
        if *number == syslog::push::NUMBER {
            syslog::push::inherit(bytes);
        }
        #[cfg(not(any(feature = "otlp", feature = "syslog")))]
        let _ = (number, bytes);
    }
}

#[cfg(not(all(feature = "otlp", feature = "syslog")))]
fn without(wanted: bool, what: &str) {
    if wanted {
        warn!("telemetry: nothing is sent by {what}: this image was built without it");
    }
}

/// How sending to a syslog server gets on; `None`: there is none.
pub(crate) fn syslog_status() -> Option<Syslog> {
    #[cfg(feature = "syslog")]
    return syslog::push::status();
    #[cfg(not(feature = "syslog"))]
    None
}

/// What has not been delivered, for the successor: numbers of signals, and bodies of at most `max_bytes` in sum; and how many
/// requests of each signal found no room there.
pub(crate) fn undelivered(max_bytes: usize) -> (Vec<(u8, Vec<u8>)>, [u64; 3]) {
    #[cfg_attr(
        not(any(feature = "otlp", feature = "syslog")),
        expect(unused_mut, reason = "nothing is added")
    )]
    let mut undelivered = Vec::new();
    #[cfg(feature = "syslog")]
    let max_bytes = {
        // Where there is a collector it has the larger share, since traces go there.
        let share = if sink::endpoint().is_some() { 4 } else { 1 };
        let messages = syslog::push::undelivered(max_bytes / share);
        let left = max_bytes - messages.len();
        if !messages.is_empty() {
            undelivered.push((syslog::push::NUMBER, messages));
        }
        left
    };
    #[cfg(feature = "otlp")]
    let left_behind = {
        let (requests, left_behind) = sink::undelivered(max_bytes);
        let numbered = |(signal, body): (Signal, _)| (signal.index() as u8, body);
        undelivered.extend(requests.into_iter().map(numbered));
        left_behind
    };
    #[cfg(not(feature = "otlp"))]
    let (_, left_behind) = (max_bytes, [0; 3]);
    (undelivered, left_behind)
}

/// The three kinds of telemetry, each with its own request and its own path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Numbers: `/v1/metrics`.
    Metrics,
    /// Log records: `/v1/logs`.
    Logs,
    /// Spans: `/v1/traces`.
    Traces,
}

impl Signal {
    /// All signals, in the order of [`Signal::index`].
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    /// The path that is appended to the endpoint (OTLP specification, "OTLP/HTTP Request").
    pub const fn path(self) -> &'static str {
        match self {
            Signal::Metrics => "/v1/metrics",
            Signal::Logs => "/v1/logs",
            Signal::Traces => "/v1/traces",
        }
    }

    /// The signal's name, as the telemetry about telemetry has it.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
            Signal::Traces => "traces",
        }
    }

    /// The signal's place in arrays that hold one item a signal; also its number in a handover record.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The signal with this [`Signal::index`].
    pub fn from_index(index: usize) -> Option<Signal> {
        Self::ALL.get(index).copied()
    }
}

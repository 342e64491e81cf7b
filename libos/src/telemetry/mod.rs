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
//! [`prometheus`] for who comes and asks. What may leave the machine is listed in [`names`]; an application's own metrics are
//! made with [`Counter`], [`Gauge`] and [`Histogram`].

pub mod config;
pub mod exporter;
pub(crate) mod flushes;
mod histogram;
mod http_date;
pub mod http_request;
pub mod instruments;
pub mod logs;
pub mod metrics;
pub mod model;
pub mod names;
pub mod otlp;
mod percent;
#[cfg(feature = "prometheus")]
pub mod prometheus;
mod proto;
pub(crate) mod push;
pub mod queue;
pub(crate) mod records;
pub mod resource;
#[cfg(feature = "prometheus")]
mod scrape;
pub mod settings;
pub(crate) mod sink;
mod snapshot;
pub mod span;
pub mod story;
pub mod syslog;
mod units;
pub(crate) mod upgrade;

#[cfg(test)]
mod exporter_tests;
#[cfg(test)]
mod http_request_tests;
#[cfg(test)]
mod instruments_tests;
#[cfg(all(test, feature = "prometheus"))]
mod manual_tests;
#[cfg(test)]
mod metrics_tests;
#[cfg(all(test, feature = "prometheus"))]
mod prometheus_tests;
#[cfg(test)]
mod story_tests;
#[cfg(test)]
mod wire_tests;

pub use instruments::{Counter, Gauge, Histogram};
pub use proto::{Resource, Value};
#[cfg(feature = "prometheus")]
pub(crate) use scrape::scrape;

use alloc::vec::Vec;

use log::warn;

use crate::replace::handover::Handover;
use crate::replace::machine::Machine;
use crate::start::{Start, identity};
use records::Reader;

/// Starts to send what the command line or the manifest asks for, what a predecessor could not deliver first.
pub(crate) fn start(start: &Start, handover: Option<&Handover>, machine: &'static Machine) {
    let manifest = identity().manifest();
    let settings = settings::Settings::read(&start.options.telemetry, &manifest.environment);
    for ignored in &settings.ignored {
        warn!("telemetry: {ignored}");
    }
    match settings.otlp {
        Some(otlp) => {
            let names = (settings.service_name, settings.attributes);
            push::start(otlp, names, handover, machine)
        }
        None => records::close(Reader::Otlp),
    }
    match settings.syslog {
        Some(server) => syslog::push::start(server, handover, machine),
        None => records::close(Reader::Syslog),
    }
}

/// What has not been delivered, for the successor: numbers of signals, and bodies of at most `max_bytes` in sum.
pub(crate) fn undelivered(max_bytes: usize) -> Vec<(u8, Vec<u8>)> {
    // Where there is a collector it has the larger share, since traces go there.
    let share = if sink::endpoint().is_some() { 4 } else { 1 };
    let messages = syslog::push::undelivered(max_bytes / share);
    let requests = sink::undelivered(max_bytes - messages.len());
    let requests = requests
        .into_iter()
        .map(|(signal, body)| (signal.index() as u8, body));
    let messages = (!messages.is_empty()).then_some((syslog::push::NUMBER, messages));
    requests.chain(messages).collect()
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

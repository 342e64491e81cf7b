//! Where the instar's own telemetry collects until it is sent to the collector.

use alloc::string::String;
use alloc::vec::Vec;

use spin::Mutex;

use super::exporter::{Counters, Exporter, Policy};
use super::queue::Limits;
use super::records::{self, Reader};
use super::resource::{Identity, resource};
use super::{Resource, Signal, logs};
use crate::confidential;
use crate::cpu::{random, time};
use crate::net::Notify;
use crate::start::identity;

/// What is sent, and as whom.
pub(super) struct Sink {
    pub endpoint: String,
    pub exporter: Exporter,
    pub resource: Resource,
    pub attributes: Vec<(String, String)>,
    pub service_name: String,
    pub host_id: String,
}

static SINK: Mutex<Option<Sink>> = Mutex::new(None);
/// Told when there is something to send.
pub(super) static WORK: Notify = Notify::new();

/// What the collector is told of this instar, besides what it is.
pub(super) struct Labels {
    /// Where it goes.
    pub endpoint: String,
    pub service_name: String,
    pub attributes: Vec<(String, String)>,
    pub host_id: String,
    pub measurement: String,
}

/// Starts to collect for a collector.
pub(super) fn open(labels: Labels) {
    let image = &identity().manifest();
    let Labels {
        endpoint,
        service_name,
        attributes,
        host_id,
        measurement,
    } = labels;
    let of_this_instar = resource(&Identity {
        service_name: &service_name,
        image_name: &image.name,
        image_version: &image.version,
        revision: &image.revision,
        instance_id: identity().instance_id,
        generation: identity().generation.into(),
        host_id: &host_id,
        measurement: &measurement,
        platform: confidential::platform(),
        tdx_module: confidential::tdx_module(),
        attributes: &attributes,
    });
    let exporter = Exporter::new(Limits::default(), Policy::default(), random::number());
    *SINK.lock() = Some(Sink {
        endpoint,
        exporter,
        resource: of_this_instar,
        attributes,
        service_name,
        host_id,
    });
}

/// Does something with what is sent, if there is a collector.
pub(super) fn with<R>(action: impl FnOnce(&mut Sink) -> R) -> Option<R> {
    SINK.lock().as_mut().map(action)
}

/// Does something with the exporter, if there is a collector.
pub(super) fn with_exporter<R>(action: impl FnOnce(&mut Exporter) -> R) -> Option<R> {
    with(|sink| action(&mut sink.exporter))
}

/// Where telemetry goes, if it goes anywhere.
pub(crate) fn endpoint() -> Option<String> {
    with(|sink| sink.endpoint.clone())
}

/// The exporter's counters; zeros without a collector.
pub(crate) fn counters() -> Counters {
    with_exporter(|exporter| exporter.counters()).unwrap_or_default()
}

/// How many requests the collector has taken from this instar.
pub(crate) fn delivered() -> u64 {
    with_exporter(|exporter| exporter.counters().delivered.iter().sum()).unwrap_or(0)
}

/// Log records that were lost before they were queued.
pub(crate) fn dropped_records() -> u64 {
    records::missed(Reader::Otlp)
}

/// What has not been delivered, for the successor.
pub(super) fn undelivered(max_bytes: usize) -> Vec<(Signal, Vec<u8>)> {
    queue_logs();
    with_exporter(|exporter| exporter.undelivered(max_bytes)).unwrap_or_default()
}

/// Queues the log records that have come together; whether there were any.
pub(super) fn queue_logs() -> bool {
    let mut sink = SINK.lock();
    let Some(sink) = sink.as_mut() else { return false };
    let (kept, _) = records::take(Reader::Otlp);
    if kept.is_empty() {
        return false;
    }
    let records: Vec<logs::Record<'_>> = kept
        .iter()
        .map(|kept| logs::Record {
            machine_ns: kept.machine_ns,
            level: kept.level,
            target: &kept.target,
            message: &kept.message,
            trace: kept.trace,
        })
        .collect();
    let boot = time::unix(time::Instant(0));
    sink.exporter.push(
        Signal::Logs,
        logs::body(boot, time::unix(time::now()), &sink.resource, &records),
    );
    true
}

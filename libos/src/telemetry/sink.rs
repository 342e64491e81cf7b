//! Where the instar's own telemetry collects until it is sent: log records, and the spans of a replacement.

use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use log::Level;
use spin::Mutex;

use super::exporter::{Counters, Exporter, Policy};
use super::percent::hex;
use super::queue::Limits;
use super::resource::{Identity, resource, set_measurement};
use super::span::{self, SpanId, TraceId};
use super::{Resource, Signal, logs, metrics, names};
use crate::confidential::{self, private};
use crate::cpu::{self, current, machine_check, random, time};
use crate::memory;
use crate::net::Notify;
use crate::replace::handover::Handover;
use crate::replace::machine::Machine;
use crate::replace::timeline::{Phase, Timeline};
use crate::start::identity;

/// Log records kept while they wait to be encoded.
const MAX_RECORDS: usize = 128;

struct Kept {
    machine_ns: u64,
    level: Level,
    target: String,
    message: String,
}

struct Sink {
    exporter: Exporter,
    resource: Resource,
    attributes: Vec<(String, String)>,
    service_name: String,
    host_id: String,
    entered: time::Instant,
}

static RECORDS: Mutex<VecDeque<Kept>> = Mutex::new(VecDeque::new());
static SINK: Mutex<Option<Sink>> = Mutex::new(None);
/// Told when there is something to send.
pub(super) static WORK: Notify = Notify::new();

/// Keeps a log record until it is sent; the oldest goes when there are too many.
pub(crate) fn record(now: time::Instant, record: &log::Record<'_>) {
    let message = format!("{}", record.args());
    let kept = Kept {
        machine_ns: now.0,
        level: record.level(),
        target: record.target().to_owned(),
        message,
    };
    let mut records = RECORDS.lock();
    if records.len() == MAX_RECORDS {
        records.pop_front();
    }
    records.push_back(kept);
}

/// What the collector is told of this instar, besides what it is.
pub(super) struct Labels {
    pub service_name: String,
    pub attributes: Vec<(String, String)>,
    pub host_id: String,
    pub measurement: String,
    pub entered: time::Instant,
}

/// Starts to collect for a collector, with what a predecessor could not deliver.
pub(super) fn open(labels: Labels, undelivered: Vec<(Signal, Vec<u8>)>) {
    let image = &identity().manifest();
    let Labels {
        service_name,
        attributes,
        host_id,
        measurement,
        entered,
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
    let mut exporter = Exporter::new(Limits::default(), Policy::default(), random::number());
    for (signal, body) in undelivered {
        exporter.push(signal, body);
    }
    *SINK.lock() = Some(Sink {
        exporter,
        resource: of_this_instar,
        attributes,
        service_name,
        host_id,
        entered,
    });
}

/// Does something with the exporter, if there is a collector.
pub(super) fn with_exporter<R>(action: impl FnOnce(&mut Exporter) -> R) -> Option<R> {
    SINK.lock().as_mut().map(|sink| action(&mut sink.exporter))
}

/// The exporter's counters; zeros without a collector.
pub(crate) fn counters() -> Counters {
    with_exporter(|exporter| exporter.counters()).unwrap_or_default()
}

/// How many requests the collector has taken from this instar.
pub(crate) fn delivered() -> u64 {
    with_exporter(|exporter| exporter.counters().delivered.iter().sum()).unwrap_or(0)
}

/// What has not been delivered, for the successor.
pub(crate) fn undelivered(max_bytes: usize) -> Vec<(Signal, Vec<u8>)> {
    queue_logs();
    with_exporter(|exporter| exporter.undelivered(max_bytes)).unwrap_or_default()
}

/// Queues the log records that have come together.
pub(super) fn queue_logs() {
    let mut sink = SINK.lock();
    let Some(sink) = sink.as_mut() else { return };
    let kept: Vec<Kept> = RECORDS.lock().drain(..).collect();
    if kept.is_empty() {
        return;
    }
    let records: Vec<logs::Record<'_>> = kept
        .iter()
        .map(|kept| logs::Record {
            machine_ns: kept.machine_ns,
            level: kept.level,
            target: &kept.target,
            message: &kept.message,
            trace_id: None,
        })
        .collect();
    let boot = time::unix(time::Instant(0));
    sink.exporter.push(
        Signal::Logs,
        logs::body(boot, time::unix(time::now()), &sink.resource, &records),
    );
}

/// Queues the machine's numbers.
pub(super) fn queue_metrics(machine: &Machine) {
    let mut sink = SINK.lock();
    let Some(sink) = sink.as_mut() else { return };
    let now = time::now();
    let counts = memory::counts();
    let (heap_bytes, heap_used) = memory::heap::usage();
    let frames = machine.network().stats().frames;
    let (committed, failed, rolled_back) = machine.replacements();
    set_measurement(&mut sink.resource, &hex(&machine.measurement().0));
    let private = private::summary();
    let snapshot = metrics::Snapshot {
        now_unix_ns: time::unix(now),
        start_unix_ns: time::unix(sink.entered),
        boot_unix_ns: time::unix(time::Instant(0)),
        uptime_ns: (now - sink.entered).as_nanos() as u64,
        chunk_bytes: memory::CHUNK,
        chunks: metrics::Chunks {
            free: counts.free,
            own: counts.own,
            staged: counts.staged,
            predecessor: counts.predecessor,
            private: counts.private,
            preserved: counts.preserved,
        },
        private_pages: metrics::PrivatePages {
            module: private.module,
            td: private.td,
        },
        heap_bytes,
        heap_used,
        cores_online: current::online().len() as u64,
        network: metrics::Network {
            rx_bytes: frames.rx_bytes,
            tx_bytes: frames.tx_bytes,
            rx_packets: frames.rx_frames,
            tx_packets: frames.tx_frames,
            rx_drops: frames.rx_dropped,
            tx_drops: frames.tx_dropped,
        },
        replacements: metrics::Replacements {
            committed,
            rolled_back,
            failed,
        },
        security_floor: machine.floor(),
        machine_checks: machine_check::count(),
        nmis: cpu::nmis(),
        telemetry: sink.exporter.counters(),
    };
    let body = metrics::body(&sink.resource, &snapshot);
    sink.exporter.push(Signal::Metrics, body);
}

/// An order was accepted: the spans of what came before it.
pub(crate) fn replacement_begins(machine: &Machine, timeline: &Timeline) {
    let before = [Phase::Receive, Phase::Verify, Phase::Stage];
    queue_spans(timeline, |sink| {
        let spans = spans(timeline, |span| before.contains(&span.name));
        span::body(time::unix(time::Instant(0)), &[(&sink.resource, &spans)])
    });
    queue_metrics(machine);
}

/// A replacement ended before the jump, or the successor gave the machine back: why is in the timeline, and `kind` names it.
pub(crate) fn replacement_failed(machine: &Machine, timeline: &Timeline, kind: &'static str) {
    queue_spans(timeline, |sink| {
        let before = [Phase::Receive, Phase::Verify, Phase::Stage];
        let mut spans = spans(timeline, |span| !before.contains(&span.name));
        spans.extend(flushes(timeline, identity().generation));
        let mut root = root(timeline);
        root.outcome = span::Outcome::Error(timeline.reason.clone());
        spans.push(root.with(names::ERROR_TYPE, kind));
        span::body(time::unix(time::Instant(0)), &[(&sink.resource, &spans)])
    });
    queue_metrics(machine);
}

/// A replacement was committed: what the predecessor could not tell any more, and what this instar did.
pub(crate) fn replacement_committed(machine: &Machine, predecessor: &Handover, timeline: &Timeline) {
    queue_spans(timeline, |sink| {
        let of_predecessor = resource(&Identity {
            service_name: &sink.service_name,
            image_name: &predecessor.predecessor.name,
            image_version: &predecessor.predecessor.version,
            revision: "",
            instance_id: predecessor.predecessor.instance_id,
            generation: predecessor.generation.into(),
            host_id: &sink.host_id,
            measurement: "",
            platform: confidential::platform(),
            tdx_module: confidential::tdx_module(),
            attributes: &sink.attributes,
        });
        let late = [
            Phase::EarlyFlush,
            Phase::Quiesce,
            Phase::Reset,
            Phase::Stop,
            Phase::Flush,
            Phase::Jump,
        ];
        let mut theirs = spans(timeline, |span| {
            span.generation == predecessor.generation && late.contains(&span.name)
        });
        theirs.extend(flushes(timeline, predecessor.generation));
        let mut ours = spans(timeline, |span| span.generation == identity().generation);
        ours.push(root(timeline));
        span::body(
            time::unix(time::Instant(0)),
            &[(&of_predecessor, &theirs), (&sink.resource, &ours)],
        )
    });
    queue_metrics(machine);
}

fn queue_spans(_: &Timeline, encode: impl FnOnce(&Sink) -> Vec<u8>) {
    let mut guard = SINK.lock();
    if let Some(sink) = guard.as_mut() {
        let body = encode(sink);
        sink.exporter.push(Signal::Traces, body);
    }
    drop(guard);
    WORK.notify();
}

fn trace(timeline: &Timeline) -> (TraceId, SpanId) {
    (TraceId::new(timeline.trace_id), SpanId::new(timeline.root_span))
}

fn spans(timeline: &Timeline, wanted: impl Fn(&crate::replace::timeline::Span) -> bool) -> Vec<span::Span> {
    let (trace_id, root) = trace(timeline);
    let numbered = (1_u32..).zip(&timeline.spans).filter(|(_, span)| wanted(span));
    numbered
        .map(|(index, phase)| {
            let id = trace_id.span_id(phase.generation.into(), index);
            let span = span::Span::new(
                phase.name.name(),
                trace_id,
                id,
                Some(root),
                phase.start_ns,
                phase.end_ns,
            );
            match phase.name {
                Phase::Reset => span.with(names::PRIVATE_PAGES_RESET, timeline.private_pages_reset),
                _ => span,
            }
        })
        .collect()
}

/// A span for each core's flush, within the span of all of them: early, and in the stop.
fn flushes(timeline: &Timeline, generation: u32) -> Vec<span::Span> {
    let (trace_id, root) = trace(timeline);
    let mut spans = Vec::with_capacity(timeline.early_flushes.len() + timeline.flushes.len());
    for (phase, flushes, first) in [
        (Phase::EarlyFlush, &timeline.early_flushes, 2000),
        (Phase::Flush, &timeline.flushes, 1000),
    ] {
        let id = |index: u32| trace_id.span_id(generation.into(), index);
        let parent = timeline
            .spans
            .iter()
            .position(|span| span.name == phase)
            .map_or(root, |index| id(index as u32 + 1));
        spans.extend(flushes.iter().map(|flush| {
            let id = id(first + flush.core);
            span::Span::new(
                "flush core",
                trace_id,
                id,
                Some(parent),
                flush.start_ns,
                flush.end_ns,
            )
            .with(names::CORE, u64::from(flush.core))
            .with(names::FLUSH_CYCLES, flush.cycles)
        }));
    }
    spans
}

/// The span of the whole replacement: from the image's first byte to the end of the last phase.
fn root(timeline: &Timeline) -> span::Span {
    let (trace_id, root) = trace(timeline);
    let start = timeline.spans.iter().map(|span| span.start_ns).min().unwrap_or(0);
    let end = timeline
        .spans
        .iter()
        .map(|span| span.end_ns)
        .max()
        .unwrap_or(start);
    span::Span::new("replacement", trace_id, root, None, start, end)
        .with(names::FROM_VERSION, timeline.from.as_str())
        .with(names::TO_VERSION, timeline.to.as_str())
        .with(names::OUTCOME, timeline.outcome.name())
}

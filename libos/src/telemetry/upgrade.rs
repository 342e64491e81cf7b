//! The spans of one replacement: what is told when an order was accepted, and when it has ended.

use alloc::vec::Vec;

use super::resource::{Identity, resource};
use super::sink::{self, Sink, WORK};
use super::snapshot::queue_metrics;
use super::span::{self, SpanId, TraceId};
use super::{Signal, names};
use crate::confidential;
use crate::cpu::time;
use crate::replace::handover::Handover;
use crate::replace::machine::Machine;
use crate::replace::timeline::{self, Phase, Timeline};
use crate::start::identity;

/// An order was accepted: the spans of what came before it.
pub(crate) fn replacement_begins(machine: &Machine, timeline: &Timeline) {
    let before = [Phase::Receive, Phase::Verify, Phase::Stage];
    queue_spans(|sink| {
        let spans = spans(timeline, |span| before.contains(&span.name));
        span::body(time::unix(time::Instant(0)), &[(&sink.resource, &spans)])
    });
    queue_metrics(machine);
}

/// A replacement ended before the jump, or the successor gave the machine back: why is in the timeline, and `kind` names it.
pub(crate) fn replacement_failed(machine: &Machine, timeline: &Timeline, kind: &'static str) {
    queue_spans(|sink| {
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
    queue_spans(|sink| {
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

fn queue_spans(encode: impl FnOnce(&Sink) -> Vec<u8>) {
    sink::with(|sink| {
        let body = encode(sink);
        sink.exporter.push(Signal::Traces, body);
    });
    WORK.notify();
}

fn trace(timeline: &Timeline) -> (TraceId, SpanId) {
    (TraceId::new(timeline.trace_id), SpanId::new(timeline.root_span))
}

fn spans(timeline: &Timeline, wanted: impl Fn(&timeline::Span) -> bool) -> Vec<span::Span> {
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

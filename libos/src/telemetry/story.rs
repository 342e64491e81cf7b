//! From a replacement's timeline to the spans of its trace.
//!
//! The whole trace is told at once, at the end, by the instar that is left: the root, under it the phases, under the phases of
//! the flushes a span for each core. So it is whole or not there, and each span is told once.

use alloc::string::String;
use alloc::vec::Vec;

use super::Value;
use super::names;
use super::span::{Outcome, Span, SpanId};
use crate::replace::timeline::{self, CoreFlush, Phase, Timeline};

/// What the timeline does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts<'a> {
    /// `instar.flush`.
    pub flush_policy: &'a str,
    /// Cores of the machine.
    pub cores: u64,
    /// Size of the successor's ELF.
    pub elf_bytes: u64,
    /// Why it was not committed: the error's code; `None` if it was.
    pub error: Option<&'a str>,
}

/// What the instar of `generation` did: its phases, and its cores' flushes.
pub fn parts(timeline: &Timeline, generation: u32, facts: &Facts) -> Vec<Span> {
    let mut spans = Vec::new();
    let numbered = (1..).zip(&timeline.spans);
    for (index, phase) in numbered.filter(|(_, phase)| phase.generation == generation) {
        let span = part_of_phase(timeline, phase, index, facts);
        let flushes: (&[CoreFlush], u32) = match phase.name {
            Phase::EarlyFlush => (&timeline.early_flushes, 2000),
            Phase::Flush => (&timeline.flushes, 1000),
            _ => (&[], 0),
        };
        let (flushes, first) = flushes;
        let (parent, generation) = (span.span_id, u64::from(generation));
        spans.push(span);
        spans.extend(flushes.iter().map(|flush| {
            let id = timeline.root().span_id.part(generation, first + flush.core);
            span_of(
                timeline,
                "flush core",
                id,
                Some(parent),
                (flush.start_ns, flush.end_ns),
            )
            .with(names::CORE, u64::from(flush.core))
            .with(names::FLUSH_CYCLES, flush.cycles)
        }));
    }
    spans
}

fn part_of_phase(timeline: &Timeline, phase: &timeline::Span, index: u32, facts: &Facts) -> Span {
    let root = timeline.root().span_id;
    let id = root.part(phase.generation.into(), index);
    let (start, end) = (phase.start_ns, phase.end_ns);
    let mut span = span_of(timeline, phase.name.name(), id, Some(root), (start, end));
    if phase.name == Phase::Reset {
        span = span.with(names::PRIVATE_PAGES_RESET, timeline.private_pages_reset);
    }
    if phase.cut_off {
        span.outcome = Outcome::Error(String::from("did not come to its end"));
        if let Some(error) = facts.error {
            span = span.with(names::ERROR_TYPE, error);
        }
    }
    span
}

/// The span of the whole replacement: from the image's first byte to the end of the last phase.
pub fn root(timeline: &Timeline, facts: &Facts) -> Span {
    let start = timeline.spans.iter().map(|span| span.start_ns).min();
    let start = start.unwrap_or(0);
    let end = timeline.spans.iter().map(|span| span.end_ns).max();
    let parent = timeline.parent.map(|parent| SpanId::new(parent.span_id));
    let id = timeline.root().span_id;
    let mut root = span_of(timeline, "replacement", id, parent, (start, end.unwrap_or(start)))
        .with(names::FROM_VERSION, timeline.from.as_str())
        .with(names::TO_VERSION, timeline.to.as_str())
        .with(names::OUTCOME, timeline.outcome.name())
        .with(names::FLUSH_POLICY, facts.flush_policy)
        .with(names::FLUSHED, Value::Bool(!timeline.flushes.is_empty()))
        .with(names::CORES, facts.cores)
        .with(names::ELF_BYTES, facts.elf_bytes);
    root.parent_is_remote = parent.is_some();
    if let Some(error) = facts.error {
        root.outcome = Outcome::Error(timeline.reason.clone());
        root = root.with(names::ERROR_TYPE, error);
    }
    root
}

fn span_of(
    timeline: &Timeline,
    name: &'static str,
    id: SpanId,
    parent: Option<SpanId>,
    (start, end): (u64, u64),
) -> Span {
    let context = timeline.root();
    let mut span = Span::new(name, context.trace_id, id, parent, start, end);
    span.flags = context.flags;
    span
}

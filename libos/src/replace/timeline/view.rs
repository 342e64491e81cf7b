//! A replacement's story as `/v1/status` tells it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::{CoreFlush, Phase, Span, Timeline};
use crate::replace::hex;

impl Timeline {
    /// `phases_ms` of `/v1/status`.
    #[must_use]
    pub fn phases_ms(&self) -> PhasesMs {
        let ms = |phase| self.phase_ns(phase).map(milliseconds);
        PhasesMs {
            receive: ms(Phase::Receive),
            verify: ms(Phase::Verify),
            stage: ms(Phase::Stage),
            order: ms(Phase::Order),
            early_flush: ms(Phase::EarlyFlush),
            quiesce: ms(Phase::Quiesce),
            reset: ms(Phase::Reset),
            stop: ms(Phase::Stop),
            flush: ms(Phase::Flush),
            jump: ms(Phase::Jump),
            start: ms(Phase::Start),
            network: ms(Phase::Network),
            first_answer: ms(Phase::FirstAnswer),
            cores: ms(Phase::Cores),
            probation: ms(Phase::Probation),
            commit: ms(Phase::Commit),
            rollback: ms(Phase::Rollback),
        }
    }

    /// `last_replacement` of `/v1/status`.
    #[must_use]
    pub fn last_replacement(&self) -> LastReplacement<'_> {
        let flush = |flush: &CoreFlush| FlushView {
            core: flush.core,
            cycles: flush.cycles,
            ns: flush.end_ns.saturating_sub(flush.start_ns),
        };
        let span = |span: &Span| SpanView {
            name: span.name.name(),
            generation: span.generation,
            start_ns: span.start_ns,
            end_ns: span.end_ns,
            cut_off: span.cut_off,
        };
        LastReplacement {
            trace_id: hex(&self.trace_id),
            span_id: hex(&self.root_span),
            from: &self.from,
            to: &self.to,
            outcome: self.outcome.name(),
            phases_ms: self.phases_ms(),
            blackout_ms: self.blackout_ns().map(milliseconds),
            private_pages_reset: self.private_pages_reset,
            reason: (!self.reason.is_empty()).then_some(&*self.reason),
            recovery_ms: self.phase_ns(Phase::Rollback).map(milliseconds),
            flush: self.flushes.iter().map(flush).collect(),
            early_flush: self.early_flushes.iter().map(flush).collect(),
            spans: self.spans.iter().map(span).collect(),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 ns are 104 days; beyond, a nanosecond does not matter"
)]
pub(in crate::replace) const fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// `phases_ms`: milliseconds; `None` until it is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each field is the phase of its name")]
pub struct PhasesMs {
    pub receive: Option<f64>,
    pub verify: Option<f64>,
    pub stage: Option<f64>,
    pub order: Option<f64>,
    pub early_flush: Option<f64>,
    pub quiesce: Option<f64>,
    pub reset: Option<f64>,
    pub stop: Option<f64>,
    pub flush: Option<f64>,
    pub jump: Option<f64>,
    pub start: Option<f64>,
    pub network: Option<f64>,
    pub first_answer: Option<f64>,
    pub cores: Option<f64>,
    pub probation: Option<f64>,
    pub commit: Option<f64>,
    pub rollback: Option<f64>,
}

/// `last_replacement` of `/v1/status`, ready to serialise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastReplacement<'a> {
    trace_id: String,
    span_id: String,
    from: &'a str,
    to: &'a str,
    outcome: &'static str,
    reason: Option<&'a str>,
    recovery_ms: Option<f64>,
    phases_ms: PhasesMs,
    blackout_ms: Option<f64>,
    private_pages_reset: u64,
    flush: Vec<FlushView>,
    early_flush: Vec<FlushView>,
    spans: Vec<SpanView>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct FlushView {
    core: u32,
    cycles: u64,
    ns: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct SpanView {
    name: &'static str,
    generation: u32,
    start_ns: u64,
    end_ns: u64,
    cut_off: bool,
}

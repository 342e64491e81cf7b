//! How the last replacements of this machine ended: the short form of their timelines, handed from instar to instar.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::timeline::{MAX_VERSION, Outcome, Timeline, milliseconds};
use super::{bounded, hex};
use crate::telemetry::allowed;

/// Most replacements that are kept.
pub const MAX_PAST: usize = 16;
/// Longest reason, in bytes; what is longer is cut.
pub const MAX_REASON: usize = 256;

/// A replacement that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Past {
    /// The trace id of its spans.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub trace_id: [u8; 16],
    /// The predecessor's version.
    #[cbor(
        n(1),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_VERSION>"
    )]
    pub from: String,
    /// The successor's version.
    #[cbor(
        n(2),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_VERSION>"
    )]
    pub to: String,
    /// How it ended.
    #[n(3)]
    pub outcome: Outcome,
    /// Why, if it did not end with a commit.
    #[cbor(
        n(4),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_REASON>"
    )]
    pub reason: String,
    /// How long nobody answered, if it is known.
    #[n(5)]
    pub blackout_ns: Option<u64>,
    /// The span that all others are part of, which tells it from another replacement of the same trace; zeros from an older
    /// version.
    #[cbor(n(6), default, with = "minicbor::bytes")]
    pub root_span: [u8; 8],
}

/// As much of a reason as is kept.
fn shortened(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    reason
}

/// The last replacements, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Vec<Past>);

impl History {
    /// What a predecessor handed over, which may be of a version that kept in reasons what must not leave the machine.
    #[must_use]
    pub fn of(mut past: Vec<Past>) -> Self {
        for past in &mut past {
            past.reason = shortened(allowed::text(&past.reason));
        }
        Self(past)
    }

    /// Notes how a replacement has ended, or what else has become known of it; `reason` is empty for a commit.
    pub fn note(&mut self, timeline: &Timeline, reason: &str) {
        let past = Past {
            trace_id: timeline.trace_id,
            from: timeline.from.clone(),
            to: timeline.to.clone(),
            outcome: timeline.outcome,
            reason: shortened(reason.into()),
            blackout_ns: timeline.blackout_ns(),
            root_span: timeline.root_span,
        };
        let same = |it: &&mut Past| (it.trace_id, it.root_span) == (past.trace_id, past.root_span);
        if let Some(same) = self.0.iter_mut().find(same) {
            *same = past;
            return;
        }
        if self.0.len() >= MAX_PAST {
            self.0.remove(0);
        }
        self.0.push(past);
    }

    /// The replacements, the newest last.
    #[must_use]
    pub fn past(&self) -> &[Past] {
        &self.0
    }

    /// `history` of `/v1/status`.
    #[must_use]
    pub fn view(&self) -> Vec<PastView<'_>> {
        let view = |past| {
            let Past {
                trace_id,
                from,
                to,
                outcome,
                reason,
                blackout_ns,
                root_span,
            }: &Past = past;
            PastView {
                from,
                to,
                outcome: outcome.name(),
                reason: (!reason.is_empty()).then_some(reason),
                trace_id: hex(trace_id),
                span_id: hex(root_span),
                blackout_ms: blackout_ns.map(milliseconds),
            }
        };
        self.0.iter().map(view).collect()
    }
}

/// One of `history` in `/v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PastView<'a> {
    from: &'a str,
    to: &'a str,
    outcome: &'static str,
    reason: Option<&'a str>,
    trace_id: String,
    span_id: String,
    blackout_ms: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::super::timeline::Phase;
    use super::*;
    use alloc::string::ToString;

    fn timeline(number: u8, outcome: Outcome) -> Timeline {
        let mut timeline = Timeline::new([number; 16], [0; 8], "1.0.0".to_string(), "1.1.0".to_string());
        timeline.outcome = outcome;
        timeline
    }

    #[test]
    fn the_last_sixteen_are_kept() {
        let mut history = History::default();
        for number in 0..40 {
            history.note(&timeline(number, Outcome::Committed), "");
        }
        let numbers: Vec<u8> = history.past().iter().map(|past| past.trace_id[0]).collect();
        assert_eq!(numbers, (24..40).collect::<Vec<_>>());
    }

    #[test]
    fn what_becomes_known_later_is_the_same_replacement() {
        let mut history = History::default();
        let mut first = timeline(1, Outcome::Committed);
        history.note(&first, "");
        history.note(&timeline(2, Outcome::Failed), "stop-failed: core 3 did not stop");
        first.record(Phase::Quiesce, 1, 0, 1_000_000);
        first.record(Phase::FirstAnswer, 2, 0, 6_000_000);
        history.note(&first, "");
        assert_eq!(history.past().len(), 2);
        let text = serde_json::to_string(&history.view()).expect("JSON");
        let trace = |digit: &str| digit.repeat(16);
        assert_eq!(
            text,
            alloc::format!(
                r#"[{{"from":"1.0.0","to":"1.1.0","outcome":"committed","reason":null,"trace_id":"{}","span_id":"0000000000000000","blackout_ms":5.0}},{{"from":"1.0.0","to":"1.1.0","outcome":"failed","reason":"stop-failed: core 3 did not stop","trace_id":"{}","span_id":"0000000000000000","blackout_ms":null}}]"#,
                trace("01"),
                trace("02")
            )
        );
    }

    /// A pipeline that tries twice has one trace for both.
    #[test]
    fn two_replacements_of_one_trace_are_two() {
        let mut history = History::default();
        let mut again = timeline(1, Outcome::Committed);
        again.root_span = [7; 8];
        history.note(&timeline(1, Outcome::RolledBack), "panic");
        history.note(&again, "");
        let outcomes: Vec<_> = history.past().iter().map(|past| past.outcome).collect();
        assert_eq!(outcomes, [Outcome::RolledBack, Outcome::Committed]);
    }

    #[test]
    fn a_long_reason_is_cut_where_a_character_ends() {
        let mut history = History::default();
        history.note(&timeline(1, Outcome::RolledBack), &"é".repeat(200));
        history.note(
            &timeline(2, Outcome::RolledBack),
            &("x".to_string() + &"é".repeat(200)),
        );
        let lengths: Vec<usize> = history.past().iter().map(|past| past.reason.len()).collect();
        assert_eq!(lengths, [256, 255]);
    }
}

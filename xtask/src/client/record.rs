//! What an echo client saw: pure, so that the figures of an upgrade are tested without one.

use crate::stats::Spread;
use std::ops::Range;

/// One request. Times count in nanoseconds from the client's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was sent.
    pub sent_ns: u64,
    /// When its answer came, if one did.
    pub answered_ns: Option<u64>,
}

/// Silence between two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the request of the last answer before it was sent. What was sent after it may have been lost to this gap.
    pub last_sent_ns: u64,
    /// When the last answer before it came.
    pub start_ns: u64,
    /// When the first answer after it came.
    pub end_ns: u64,
}

impl Gap {
    /// Its length.
    pub fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }

    /// Its length in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
    pub fn length_ms(&self) -> f64 {
        self.length_ns() as f64 / 1e6
    }

    /// The requests that it can have swallowed, by the time at which they were sent.
    pub fn swallowed(&self) -> Range<u64> {
        self.last_sent_ns..self.end_ns
    }
}

/// Everything that a client saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EchoRecord {
    /// The requests, in the order in which they were sent.
    pub samples: Vec<Sample>,
    /// Answers that came more than once.
    pub duplicates: u64,
    /// Datagrams that were no answers.
    pub strangers: u64,
    /// How late the client itself was at worst: a gap of that length may be the client's own.
    pub latest_ns: u64,
}

impl EchoRecord {
    /// How many requests were sent in `window`.
    pub fn sent(&self, window: Range<u64>) -> usize {
        self.samples
            .iter()
            .filter(|s| window.contains(&s.sent_ns))
            .count()
    }

    /// How many requests sent in `window` were answered.
    pub fn answered(&self, window: Range<u64>) -> usize {
        self.samples
            .iter()
            .filter(|s| window.contains(&s.sent_ns) && s.answered_ns.is_some())
            .count()
    }

    /// When the requests without an answer were sent, but for those that one of `excused` can have swallowed.
    pub fn lost_outside(&self, excused: &[Gap]) -> Vec<u64> {
        self.samples
            .iter()
            .filter(|s| s.answered_ns.is_none())
            .map(|s| s.sent_ns)
            .filter(|at| !excused.iter().any(|gap| gap.swallowed().contains(at)))
            .collect()
    }

    /// The silences between two answers that are longer than `threshold_ns` and touch `window`.
    pub fn gaps(&self, threshold_ns: u64, window: Range<u64>) -> Vec<Gap> {
        let mut answers: Vec<_> = self
            .samples
            .iter()
            .filter_map(|s| s.answered_ns.map(|at| (at, s.sent_ns)))
            .collect();
        answers.sort_unstable();
        answers
            .iter()
            .zip(answers.iter().skip(1))
            .map(|(before, after)| Gap {
                last_sent_ns: before.1,
                start_ns: before.0,
                end_ns: after.0,
            })
            .filter(|gap| gap.length_ns() > threshold_ns)
            .filter(|gap| gap.start_ns < window.end && gap.end_ns > window.start)
            .collect()
    }

    /// The longest silence between two answers that touches `window`.
    pub fn longest_gap(&self, window: Range<u64>) -> Option<Gap> {
        self.gaps(0, window).into_iter().max_by_key(Gap::length_ns)
    }

    /// The times from request to answer, in milliseconds, of what was sent in `window`.
    #[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
    pub fn latency_ms(&self, window: Range<u64>) -> Option<Spread> {
        let taken = self
            .samples
            .iter()
            .filter(|s| window.contains(&s.sent_ns))
            .filter_map(|s| s.answered_ns.map(|at| at.saturating_sub(s.sent_ns) as f64 / 1e6));
        Spread::of(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Range<u64> = 0..u64::MAX;

    /// Requests every 10, answered 3 later, but for those sent in `lost`.
    fn record(lost: Range<u64>) -> EchoRecord {
        let samples = (0..100)
            .map(|i| i * 10)
            .map(|sent_ns| Sample {
                sent_ns,
                answered_ns: (!lost.contains(&sent_ns)).then_some(sent_ns + 3),
            })
            .collect();
        EchoRecord {
            samples,
            ..EchoRecord::default()
        }
    }

    #[test]
    fn the_longest_gap_is_between_two_answers() {
        let gap = record(500..540).longest_gap(ALL).expect("a gap");
        assert_eq!(
            gap,
            Gap {
                last_sent_ns: 490,
                start_ns: 493,
                end_ns: 543
            }
        );
        assert_eq!(gap.length_ns(), 50);
        assert_eq!(record(0..0).longest_gap(ALL).expect("a gap").length_ns(), 10);
        assert_eq!(record(ALL).longest_gap(ALL), None);
    }

    #[test]
    fn a_window_without_the_blackout_has_no_long_gap() {
        let record = record(500..540);
        assert_eq!(record.longest_gap(0..490).expect("a gap").length_ns(), 10);
        assert_eq!(record.longest_gap(520..530).expect("a gap").length_ns(), 50);
        assert_eq!(record.gaps(10, ALL).len(), 1);
        assert!(record.gaps(50, ALL).is_empty());
    }

    #[test]
    fn answers_out_of_order_do_not_make_gaps() {
        let mut record = record(0..0);
        record.samples[10].answered_ns = Some(205);
        let gap = record.longest_gap(ALL).expect("a gap");
        assert_eq!(
            gap,
            Gap {
                last_sent_ns: 90,
                start_ns: 93,
                end_ns: 113
            }
        );
    }

    #[test]
    fn losses_are_excused_by_their_gap_only() {
        let mut record = record(500..540);
        record.samples[7].answered_ns = None;
        let blackout = record.longest_gap(ALL).expect("a gap");
        assert_eq!(record.lost_outside(&[blackout]), [70]);
        assert_eq!(record.lost_outside(&[]).len(), 5);
        assert_eq!((record.sent(ALL), record.answered(ALL)), (100, 95));
        assert_eq!((record.sent(500..540), record.answered(500..540)), (4, 0));
    }

    #[test]
    fn latencies_are_of_answered_requests() {
        let spread = record(500..540).latency_ms(ALL).expect("a spread");
        assert_eq!(spread.count, 96);
        assert!((spread.median - 3e-6).abs() < 1e-12);
        assert!(record(500..540).latency_ms(510..520).is_none());
    }
}

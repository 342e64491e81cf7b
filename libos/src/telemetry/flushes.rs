//! How long flushes took, in the replacements that this instar took part in.
//!
//! An instar's own count, which begins with it: a successor counts the flushes of the replacement that brought it here, and an
//! instar that goes on after a replacement counts that one's. So each flush that somebody lived to tell of is counted once on a
//! machine, and nothing has to be handed over.

use super::histogram::Buckets;
use super::model::Distribution;
use crate::replace::timeline::{CoreFlush, Timeline};

/// From a cache that holds little to that of a large server, in seconds.
const BOUNDS: &[f64] = &[
    0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];

static IN_STOP: Buckets = Buckets::new(BOUNDS);
static EARLY: Buckets = Buckets::new(BOUNDS);

/// Counts the flushes of a replacement that this instar lived to see the end of.
pub(crate) fn count(timeline: &Timeline) {
    for (flushes, durations) in [(&timeline.flushes, &IN_STOP), (&timeline.early_flushes, &EARLY)] {
        for flush in flushes {
            durations.record(seconds(flush));
        }
    }
}

fn seconds(flush: &CoreFlush) -> f64 {
    flush.end_ns.saturating_sub(flush.start_ns) as f64 / 1e9
}

/// In stops, and before them.
pub(super) fn read() -> [Distribution; 2] {
    [IN_STOP.read(), EARLY.read()]
}

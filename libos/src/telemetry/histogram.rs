//! Buckets that count without a lock.

use core::sync::atomic::{AtomicU64, Ordering};

use super::model::Distribution;

/// Most bounds of a histogram.
pub(super) const MAX_BOUNDS: usize = 16;

/// Counts by size.
#[derive(Debug)]
pub(super) struct Buckets {
    bounds: &'static [f64],
    counts: [AtomicU64; MAX_BOUNDS + 1],
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Buckets {
    /// # Panics
    /// If there are more than [`MAX_BOUNDS`], or they are not ascending and finite: at compile time, for a `static`.
    pub const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() <= MAX_BOUNDS, "a histogram has at most 16 bounds");
        let mut index = 0;
        while index < bounds.len() {
            assert!(bounds[index].is_finite(), "a histogram's bounds are finite");
            assert!(
                index == 0 || bounds[index - 1] < bounds[index],
                "a histogram's bounds ascend"
            );
            index += 1;
        }
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; MAX_BOUNDS + 1],
            sum: AtomicU64::new(0),
        }
    }

    /// Counts `value`; what is no number is not counted.
    pub fn record(&self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // It always adds: the closure never declines.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// What has been counted.
    pub fn read(&self) -> Distribution {
        let counts = self.counts.iter().take(self.bounds.len() + 1);
        Distribution {
            bounds: self.bounds,
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_equals_a_bound_is_within_it() {
        let buckets = Buckets::new(&[0.5, 1.0]);
        for value in [0.0, 0.5, 0.75, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            buckets.record(value);
        }
        let read = buckets.read();
        assert_eq!((&read.counts[..], read.sum), (&[2, 2, 1][..], 3.75));
        assert_eq!(read.count(), 5);
    }

    #[test]
    fn without_bounds_it_counts_and_sums() {
        let buckets = Buckets::new(&[]);
        buckets.record(-2.0);
        assert_eq!(buckets.read().counts, [1]);
    }

    #[test]
    fn the_largest_fits() {
        const BOUNDS: [f64; MAX_BOUNDS] = [
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
        ];
        let buckets = Buckets::new(&BOUNDS);
        buckets.record(16.0);
        assert_eq!(buckets.read().counts.last(), Some(&1));
    }

    #[test]
    #[should_panic(expected = "ascend")]
    fn bounds_that_do_not_ascend() {
        Buckets::new(&[1.0, 1.0]);
    }

    #[test]
    #[should_panic(expected = "finite")]
    fn bounds_that_are_no_numbers() {
        Buckets::new(&[f64::NAN]);
    }

    #[test]
    #[should_panic(expected = "at most 16")]
    fn too_many_bounds() {
        Buckets::new(&[0.0; MAX_BOUNDS + 1]);
    }
}

//! Medians and spreads.

use serde::Serialize;

/// How measured values lie. Quantiles are measured values themselves (nearest rank), not values between two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// A quarter is not above it.
    pub p25: f64,
    /// Half is not above it.
    pub median: f64,
    /// Three quarters are not above it.
    pub p75: f64,
    /// All but one in a hundred are not above it.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// How many there are.
    #[serde(rename = "n")]
    pub count: usize,
}

impl Spread {
    /// The spread of `values`; `None` if there are none. Values that are no numbers are left out.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |percent| percentile(&sorted, percent);
        Some(Self {
            min: at(0)?,
            p25: at(25)?,
            median: at(50)?,
            p75: at(75)?,
            p99: at(99)?,
            max: at(100)?,
            count: sorted.len(),
        })
    }
}

/// The smallest value that `percent` of all `sorted` values are not above.
pub fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent.min(100)).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        let expected = [
            (0, 1.0),
            (25, 1.0),
            (26, 2.0),
            (50, 2.0),
            (75, 3.0),
            (99, 4.0),
            (100, 4.0),
            (999, 4.0),
        ];
        for (percent, value) in expected {
            assert_eq!(percentile(&sorted, percent), Some(value), "{percent}");
        }
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_spread_is_sorted_first() {
        let spread = Spread::of([5.0, f64::NAN, 1.0, 3.0]).expect("a spread");
        assert_eq!(
            (spread.min, spread.median, spread.max, spread.count),
            (1.0, 3.0, 5.0, 3)
        );
        assert_eq!(Spread::of([]), None);
    }
}

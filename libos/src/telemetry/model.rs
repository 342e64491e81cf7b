//! Metrics between where they are gathered and how they are written: families of points. OTLP ([`super::otlp`]) and
//! Prometheus's text ([`super::prometheus`]) are two ways to write the same.

use alloc::vec::Vec;

use super::names::{Attribute, Metric};

/// A metric with its present values.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// What is measured.
    pub metric: Metric,
    /// One for each combination of attributes.
    pub points: Vec<Point>,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// What distinguishes it from the others of its family.
    pub attributes: [Option<(Attribute, Label)>; 2],
    /// Since when it has been counted, in Unix nanoseconds.
    pub start_unix_ns: u64,
    /// The value.
    pub value: Value,
}

impl Point {
    /// Its attributes.
    pub fn attributes(&self) -> impl Iterator<Item = (Attribute, Label)> {
        self.attributes.iter().flatten().copied()
    }
}

/// An attribute's value: nothing that is made up at run time but a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A word of this image.
    Text(&'static str),
    /// A number: of a core.
    Number(u64),
}

/// What a point says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// How often something was how large.
    Histogram(Distribution),
}

impl From<u64> for Value {
    /// OTLP has signed numbers only; what is beyond them becomes the greatest.
    fn from(number: u64) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds, ascending; what is equal to a bound is within it.
    pub bounds: &'static [f64],
    /// How many were within each bound and not within the one before; the last is for those beyond all bounds.
    pub counts: Vec<u64>,
    /// The sum of all.
    pub sum: f64,
}

impl Distribution {
    /// How many there were in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

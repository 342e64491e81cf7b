//! Ways to be replaced that are compared. They take turns, so that whatever else the host does meets all of them alike.

use super::{Run, print_heading, print_spread, progress_bar};
use crate::control::Replacement;
use crate::machine::{Builder, Machine};
use crate::scene::Cast;
use crate::stats::Spread;
use crate::timeline::duration;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// A way to be replaced.
pub(super) struct Way {
    pub name: &'static str,
    /// What is different about the machine.
    pub machine: fn(Builder) -> Builder,
    /// What happens before its clients start to ask.
    pub prepare: fn(&Machine) -> Result<()>,
}

impl Way {
    /// A way for which the machine needs no preparation.
    pub const fn of(name: &'static str, machine: fn(Builder) -> Builder) -> Self {
        Self {
            name,
            machine,
            prepare: |_| Ok(()),
        }
    }
}

/// Takes one value or several out of a run; none where the way does not do what is measured.
type Take = fn(&Run, &Replacement) -> Vec<f64>;

/// What is measured of each way.
pub(super) struct Figure {
    /// For people.
    pub name: &'static str,
    /// In JSON.
    pub key: &'static str,
    pub take: Take,
    /// How a value is written for people.
    pub write: fn(f64) -> String,
}

/// A figure in milliseconds.
pub(super) const fn ms(name: &'static str, key: &'static str, take: Take) -> Figure {
    Figure {
        name,
        key,
        take,
        write: duration,
    }
}

pub(super) const BLACKOUT_OUTSIDE: Figure = ms("blackout outside", "blackout_outside_ms", |run, _| {
    run.outside.into_iter().collect()
});

pub(super) const BLACKOUT_INSIDE: Figure = ms("blackout inside", "blackout_inside_ms", |run, _| {
    run.inside.into_iter().collect()
});

/// How long this phase took, if it happened.
pub(super) fn phase(told: &Replacement, name: &str) -> Vec<f64> {
    told.phases_ms.get(name).copied().flatten().into_iter().collect()
}

/// The runs of one way.
type Runs = Vec<(Run, Replacement)>;

/// Measures each of `ways` `runs` times.
pub(super) fn measure(
    runs: u32,
    ways: &[Way],
    builder: impl Fn() -> Builder,
    cast: &Cast,
) -> Result<Vec<Runs>> {
    let bar = progress_bar(u64::from(runs));
    let mut measured: Vec<Runs> = ways.iter().map(|_| Vec::new()).collect();
    for number in 1..=runs {
        for (way, measured) in ways.iter().zip(&mut measured) {
            let one = || {
                let (run, told) = super::measure((way.machine)(builder()), cast, way.prepare)?;
                Ok((run, told.context("the machine tells nothing of its replacement")?))
            };
            let one: Result<_> = one();
            measured.push(one.with_context(|| format!("run {number} of {runs}, {}", way.name))?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measured)
}

fn spread(runs: &Runs, figure: &Figure) -> Option<Spread> {
    Spread::of(runs.iter().flat_map(|(run, told)| (figure.take)(run, told)))
}

/// The figures of each way, by name.
pub(super) fn json(ways: &[Way], figures: &[Figure], measured: &[Runs]) -> Value {
    let of_way = |(way, runs): (&Way, &Runs)| {
        let figures: Map<String, Value> = figures
            .iter()
            .map(|figure| (figure.key.to_owned(), json!(spread(runs, figure))))
            .collect();
        (way.name.to_owned(), figures.into())
    };
    ways.iter()
        .zip(measured)
        .map(of_way)
        .collect::<Map<_, _>>()
        .into()
}

/// A table for each way.
pub(super) fn print(ways: &[Way], figures: &[Figure], measured: &[Runs]) {
    for (way, runs) in ways.iter().zip(measured) {
        print_heading(way.name);
        for figure in figures {
            // What this way does not do has no figures.
            if let Some(spread) = spread(runs, figure) {
                print_spread(figure.name, Some(spread), figure.write);
            }
        }
        println!();
    }
}

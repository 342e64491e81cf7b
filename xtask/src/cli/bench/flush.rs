//! `bench flush`: what writing back the caches costs, and what an early flush is worth.
//!
//! The ways to do it take turns, so that whatever else the host does meets all of them alike.

use super::{Run, host, print_heading, print_spread, progress_bar, qemu_version};
use crate::control::{CoreFlush, Replacement};
use crate::exit::Exit;
use crate::machine::{Builder, Flush};
use crate::stats::Spread;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// A way to flush.
struct Way {
    name: &'static str,
    flush: Flush,
    /// `instar.early-flush`.
    early: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        name: "no flush",
        flush: Flush::Never,
        early: "never",
    },
    Way {
        name: "in the stop only",
        flush: Flush::Always,
        early: "never",
    },
    Way {
        name: "early, one by one",
        flush: Flush::Always,
        early: "serial",
    },
    Way {
        name: "early, all at once",
        flush: Flush::Always,
        early: "simultaneous",
    },
];

/// Takes one value or several out of a run.
type Figure = (&'static str, &'static str, fn(&Run, &Replacement) -> Vec<f64>);

/// Name for people, name in JSON, value in milliseconds.
const FIGURES: [Figure; 7] = [
    ("blackout outside", "blackout_outside_ms", |run, _| {
        run.outside.into_iter().collect()
    }),
    ("blackout inside", "blackout_inside_ms", |run, _| {
        run.inside.into_iter().collect()
    }),
    ("all cores stop, with flush", "stop_ms", |_, told| {
        phase(told, "stop")
    }),
    ("from first to last flush", "flush_ms", |_, told| {
        phase(told, "flush")
    }),
    ("one core's flush in the stop", "core_flush_ms", |_, told| {
        cores(&told.flush)
    }),
    ("all early flushes", "early_flush_ms", |_, told| {
        phase(told, "early_flush")
    }),
    ("one core's early flush", "core_early_flush_ms", |_, told| {
        cores(&told.early_flush)
    }),
];

fn phase(told: &Replacement, name: &str) -> Vec<f64> {
    told.phases_ms.get(name).copied().flatten().into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
fn cores(flushes: &[CoreFlush]) -> Vec<f64> {
    flushes.iter().map(|flush| flush.ns as f64 / 1e6).collect()
}

/// Measures each way `runs` times, in turns, and prints the figures.
pub(super) fn run(
    runs: u32,
    as_json: bool,
    builder: impl Fn() -> Builder,
    measure: impl Fn(Builder) -> Result<(Run, Replacement)>,
) -> Result<Exit> {
    let bar = progress_bar(u64::from(runs));
    let mut measured: [Vec<(Run, Replacement)>; 4] = Default::default();
    for number in 1..=runs {
        for (way, measured) in WAYS.iter().zip(&mut measured) {
            let machine = builder()
                .flush(way.flush)
                .append(&format!("instar.early-flush={}", way.early));
            measured.push(measure(machine).with_context(|| format!("run {number} of {runs}, {}", way.name))?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let spread = |measured: &[(Run, Replacement)], (_, _, take): &Figure| {
        Spread::of(measured.iter().flat_map(|(run, told)| take(run, told)))
    };
    if as_json {
        let ways: Map<String, Value> = WAYS
            .iter()
            .zip(&measured)
            .map(|(way, measured)| {
                let figures: Map<String, Value> = FIGURES
                    .iter()
                    .map(|figure| (figure.1.to_owned(), json!(spread(measured, figure))))
                    .collect();
                (way.name.to_owned(), figures.into())
            })
            .collect();
        println!(
            "{}",
            json!({"runs": runs, "machine": {"host": host(), "qemu": qemu_version()}, "ways": ways})
        );
        return Ok(Exit::Ok);
    }
    for (way, measured) in WAYS.iter().zip(&measured) {
        print_heading(way.name);
        for figure in &FIGURES {
            // What this way does not do has no figures.
            if let Some(spread) = spread(measured, figure) {
                print_spread(figure.0, Some(spread));
            }
        }
        println!();
    }
    Ok(Exit::Ok)
}

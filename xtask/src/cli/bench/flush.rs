//! `bench flush`: what writing back the caches costs, and what an early flush is worth.

use super::turns::{self, Figure, Way, ms, phase};
use super::{Options, host, qemu_version};
use crate::control::CoreFlush;
use crate::exit::Exit;
use crate::machine::{Builder, Flush};
use crate::scene::Cast;
use anyhow::Result;
use serde_json::json;

const WAYS: [Way; 4] = [
    Way::of("no flush", |builder| flush(builder, Flush::Never, "never")),
    Way::of("in the stop only", |builder| {
        flush(builder, Flush::Always, "never")
    }),
    Way::of("early, one by one", |builder| {
        flush(builder, Flush::Always, "serial")
    }),
    Way::of("early, all at once", |builder| {
        flush(builder, Flush::Always, "simultaneous")
    }),
];

/// A machine with `instar.flush` and `instar.early-flush`.
fn flush(builder: Builder, flush: Flush, early: &str) -> Builder {
    builder
        .flush(flush)
        .append(&format!("instar.early-flush={early}"))
}

const FIGURES: [Figure; 7] = [
    turns::BLACKOUT_OUTSIDE,
    turns::BLACKOUT_INSIDE,
    ms("all cores stop, with flush", "stop_ms", |_, told| {
        phase(told, "stop")
    }),
    ms("from first to last flush", "flush_ms", |_, told| {
        phase(told, "flush")
    }),
    ms("one core's flush in the stop", "core_flush_ms", |_, told| {
        cores(&told.flush)
    }),
    ms("all early flushes", "early_flush_ms", |_, told| {
        phase(told, "early_flush")
    }),
    ms("one core's early flush", "core_early_flush_ms", |_, told| {
        cores(&told.early_flush)
    }),
];

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
fn cores(flushes: &[CoreFlush]) -> Vec<f64> {
    flushes.iter().map(|flush| flush.ns as f64 / 1e6).collect()
}

/// Measures each way `--runs` times, in turns, and prints the figures.
pub(super) fn run(options: &Options, builder: impl Fn() -> Builder, cast: &Cast) -> Result<Exit> {
    let measured = turns::measure(options.runs, &WAYS, builder, cast)?;
    if options.json {
        let machine = json!({"host": host(), "qemu": qemu_version()});
        let ways = turns::json(&WAYS, &FIGURES, &measured);
        println!(
            "{}",
            json!({"runs": options.runs, "machine": machine, "ways": ways})
        );
    } else {
        turns::print(&WAYS, &FIGURES, &measured);
    }
    Ok(Exit::Ok)
}

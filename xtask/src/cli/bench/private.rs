//! `bench private`: how fast private pages are reset, and what that costs the blackout.
//!
//! QEMU resets many free pages as a replacement would; it has no TDX KeyIDs, so that it cannot have private ones. Bochs has, and
//! is replaced with and without. Its times are those of an interpreter.

use super::turns::{self, Figure, Way, ms, phase};
use super::{Options, host, print_heading, print_host, print_spread, progress_bar, qemu_version};
use crate::control::Replacement;
use crate::exit::{Exit, Failure};
use crate::http::{self, Limits};
use crate::install;
use crate::machine::{Bochs, Flush, Machine, Rig};
use crate::scene::{self, Cast};
use crate::stats::Spread;
use crate::timeline::duration;
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeSet;

/// How much is reset at a time under QEMU.
const BYTES: u64 = 64 << 20;

/// How often, in each run. The first time much is translated that runs for the first time.
const TIMES: u32 = 5;

/// More replacements of Bochs than this show no more.
const BOCHS_RUNS: u32 = 5;

/// Bochs's cores take turns on one of the host's.
const BOCHS_CORES: u32 = 2;

/// Resetting a page: as the vault tells it.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    pages: f64,
    ms: f64,
    method: String,
}

const WAYS: [Way; 2] = [
    Way::of("0 private pages", |builder| builder),
    Way {
        prepare: |machine| tell(machine, "/take/40/td/8").map(drop),
        ..Way::of("4096 private pages", |builder| builder)
    },
];

const FIGURES: [Figure; 5] = [
    Figure {
        name: "pages reset",
        key: "pages_reset",
        take: |_, told| vec![pages(told)],
        write: whole,
    },
    ms("reset, while clients are served", "reset_ms", |_, told| {
        phase(told, "reset")
    }),
    Figure {
        name: "pages per second",
        key: "pages_per_second",
        take: |_, told| match pages(told) {
            0.0 => Vec::new(),
            pages => phase(told, "reset").iter().map(|ms| rate(pages, *ms)).collect(),
        },
        write: whole,
    },
    turns::BLACKOUT_INSIDE,
    turns::BLACKOUT_OUTSIDE,
];

#[expect(clippy::cast_precision_loss, reason = "2^53 pages are 32 EiB")]
fn pages(told: &Replacement) -> f64 {
    told.private_pages_reset as f64
}

fn rate(pages: f64, ms: f64) -> f64 {
    pages / ms * 1000.0
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

/// Measures both, and prints the figures.
pub(super) fn run(options: &Options) -> Result<Exit> {
    install::ensure(install::FOR_BOCHS, !options.no_install)?;
    let cast = Cast::build("vault")?;
    let builder = || Machine::builder(&cast.first.first_stage, &cast.first.path).memory_mib(options.memory);
    let bar = progress_bar(u64::from(options.runs));
    let mut measured = Vec::new();
    for number in 1..=options.runs {
        let one = measure(builder().cores(options.smp).start()?);
        measured.extend(one.with_context(|| format!("run {number} of {} under QEMU", options.runs))?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let bochs = || {
        builder()
            .rig(Rig::Bochs(Bochs::default()))
            .cores(BOCHS_CORES)
            .flush(Flush::Auto)
    };
    let bochs_runs = options.runs.min(BOCHS_RUNS);
    let replaced = turns::measure(bochs_runs, &WAYS, bochs, &cast).context("under Bochs")?;

    let methods: BTreeSet<_> = measured.iter().map(|one| one.method.as_str()).collect();
    let took = Spread::of(measured.iter().map(|one| one.ms));
    let speed = Spread::of(measured.iter().map(|one| rate(one.pages, one.ms)));
    let movdir64b = methods.contains("Movdir64b");
    if options.json {
        let object = json!({
            "machine": {"host": host(), "qemu": qemu_version()},
            "movdir64b_executed": movdir64b,
            "qemu": {
                "runs": options.runs,
                "cores": options.smp,
                "bytes": BYTES,
                "methods": methods,
                "reset_ms": took,
                "pages_per_second": speed,
            },
            "bochs": {
                "runs": bochs_runs,
                "cores": BOCHS_CORES,
                "times": "emulated",
                "ways": turns::json(&WAYS, &FIGURES, &replaced),
            },
        });
        println!("{object}");
        return Ok(Exit::Ok);
    }
    println!(
        "vault, QEMU, {} cores, {} runs, {TIMES} times {} MiB of free memory in each",
        options.smp,
        options.runs,
        BYTES >> 20
    );
    print_host();
    let methods = methods.into_iter().collect::<Vec<_>>().join(", ");
    print_heading(&format!("reset by {methods}"));
    print_spread("reset", took, duration);
    print_spread("pages per second", speed, whole);
    println!("\nvault, Bochs, {BOCHS_CORES} cores, 32 TDX KeyIDs, {bochs_runs} runs of each, in turns");
    println!(
        "Bochs interprets: its times are emulated, and compare the ways with each other and nothing else. Outside, an"
    );
    println!(
        "echo is asked for every {:?}: what is less than that apart is the same.\n",
        scene::interval(&Rig::Bochs(Bochs::default()))
    );
    turns::print(&WAYS, &FIGURES, &replaced);
    if !movdir64b {
        println!("MOVDIR64B has not been executed: neither emulator has it.");
    }
    Ok(Exit::Ok)
}

/// Says something to the vault.
fn tell(machine: &Machine, path: &str) -> Result<String> {
    let answer = http::get(machine.addresses().http, path, Limits::patient())
        .with_context(|| format!("no answer to {path}"))?;
    match answer.status {
        200 => Ok(answer.text()),
        _ => {
            let what = format!("the vault does not {path}: {}", answer.text());
            Err(Failure::new(Exit::Refused, what).into())
        }
    }
}

/// One run under QEMU.
fn measure(mut machine: Machine) -> Result<Vec<Measured>> {
    machine.wait_ready(scene::BOOT)?;
    let one = |_| {
        let text = tell(&machine, &format!("/measure/{BYTES}"))?;
        parse(&text).with_context(|| format!("the vault's answer `{text}` is not understood"))
    };
    (0..TIMES).map(one).collect()
}

/// Reads pages, nanoseconds, method.
fn parse(text: &str) -> Option<Measured> {
    let mut words = text.split_whitespace();
    let mut number = || words.next()?.parse::<f64>().ok().filter(|number| *number > 0.0);
    let (pages, ns) = (number()?, number()?);
    Some(Measured {
        pages,
        ms: ns / 1e6,
        method: words.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vaults_answer_is_read() {
        let read = parse("16384 8000000 PlainStores").expect("read");
        assert_eq!((read.ms, read.method.as_str()), (8.0, "PlainStores"));
        assert_eq!(whole(rate(read.pages, read.ms)), "2048000");
        for bad in ["", "16384", "16384 0 PlainStores", "16384 8 ", "a b c"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}

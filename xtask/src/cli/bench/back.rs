//! `bench back`: from a successor's failure to the predecessor's first answer.
//!
//! One machine survives all runs. Outside counts from the moment at which the machine noticed the failure (its own clock, set
//! against this computer's by `/v1/status`) until the first echo arrives here; inside until the predecessor accepts connections.

use super::{Options, host, print_heading, print_host, print_spread, progress_bar, qemu_version};
use crate::exit::Exit;
use crate::failing::{self, Cast, Seen, Successor};
use crate::machine::Machine;
use crate::scene;
use crate::stats::Spread;
use crate::timeline::duration;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::time::Duration;

const WAYS: [Successor; 3] = [Successor::Panic, Successor::Hang, Successor::Order];

/// How long the clients ask before and after.
const CALM: Duration = Duration::from_millis(300);

pub(super) fn run(options: &Options) -> Result<Exit> {
    let cast = Cast::build()?;
    let mut machine = Machine::builder(&cast.first.first_stage, &cast.first.path)
        .cores(options.smp)
        .memory_mib(options.memory)
        .flush(options.flush)
        .start()?;
    machine.wait_ready(scene::BOOT)?;
    let bar = progress_bar(u64::from(options.runs));
    let mut seen: [Vec<Seen>; WAYS.len()] = Default::default();
    for number in 1..=options.runs {
        for (way, seen) in WAYS.iter().zip(&mut seen) {
            let run = failing::give_back_under_load(&machine, &cast, *way, CALM, |_| {})
                .with_context(|| format!("run {number} of {}, {}", options.runs, way.name()))?;
            seen.push(run);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let outside = |runs: &[Seen]| Spread::of(runs.iter().filter_map(|run| run.outside));
    let inside = |runs: &[Seen]| Spread::of(runs.iter().filter_map(Seen::inside));
    let uncertainty = Spread::of(seen.iter().flatten().map(|run| run.uncertainty));
    if options.json {
        let ways: Map<String, Value> = WAYS
            .iter()
            .zip(&seen)
            .map(|(way, runs)| {
                let recovery = json!({"outside": outside(runs), "inside": inside(runs)});
                (way.name().to_owned(), json!({"recovery_ms": recovery}))
            })
            .collect();
        let machine = json!({"host": host(), "qemu": qemu_version()});
        println!(
            "{}",
            json!({
                "runs": options.runs,
                "cores": options.smp,
                "memory_mib": options.memory,
                "flush": options.flush.to_string(),
                "machine": machine,
                "back": ways,
                "clock_uncertainty_ms": uncertainty,
            })
        );
        return Ok(Exit::Ok);
    }
    print_host();
    print_heading("the way back");
    for (way, runs) in WAYS.iter().zip(&seen) {
        print_spread(
            &format!("{}, first answer outside", way.name()),
            outside(runs),
            duration,
        );
        print_spread(
            &format!("{}, serving again inside", way.name()),
            inside(runs),
            duration,
        );
    }
    print_spread("clock uncertainty of outside", uncertainty, duration);
    Ok(Exit::Ok)
}

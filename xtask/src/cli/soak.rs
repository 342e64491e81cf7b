//! `soak`: a long series of good, bad and failing images and orders.

use crate::exit::Exit;
use crate::soak::{self, Plan};
use crate::stats::Spread;
use crate::timeline::duration;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Args)]
pub(super) struct Options {
    /// How many steps
    #[arg(long, value_name = "N", default_value_t = 1000)]
    count: u32,
    /// What they are drawn from [default: the time, and it is printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many cores
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs()
    });
    eprintln!("seed {seed}, {} steps, {} cores", options.count, options.smp);
    let plan = Plan {
        count: options.count,
        seed,
        cores: options.smp,
    };
    let report = soak::run(plan, |number, step| eprintln!("{number:>4} {step}"))?;
    let recovery = Spread::of(report.recovery_ms.iter().copied());
    if options.json {
        println!(
            "{}",
            json!({
                "seed": seed,
                "count": options.count,
                "cores": options.smp,
                "steps": report.steps,
                "committed": report.committed,
                "rolled_back": report.rolled_back,
                "refused": report.refused,
                "recovery_ms": recovery,
            })
        );
        return Ok(Exit::Ok);
    }
    println!(
        "seed {seed}: {} steps, and every invariant held after each: {} committed, {} given back, {} refused",
        options.count, report.committed, report.rolled_back, report.refused
    );
    if let Some(recovery) = recovery {
        println!(
            "the predecessor served again {} after a failure was noticed (median; slowest {})",
            duration(recovery.median),
            duration(recovery.max)
        );
    }
    Ok(Exit::Ok)
}

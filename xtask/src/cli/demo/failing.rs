//! `demo --successor`: an upgrade that fails, and the way back.

use super::{CALM, Options, TELEMETRY};
use crate::collect::Collector;
use crate::exit::Exit;
use crate::failing::{self, Cast, Seen, Successor};
use crate::machine::{Flush, Machine, Rig};
use crate::scene;
use crate::timeline::duration;
use anyhow::Result;
use serde_json::json;

pub(super) fn run(options: &Options, successor: Successor, rig: Rig) -> Result<Exit> {
    eprintln!("building trial 1.0.0, signed with the development key");
    let cast = Cast::build()?;
    let collector = Collector::start("127.0.0.1:0")?;
    eprintln!(
        "booting it: {}, {} cores, {} MiB",
        rig.name(),
        options.smp,
        options.memory
    );
    let endpoint = format!("http://10.0.2.2:{}", collector.address().port());
    let mut machine = Machine::builder(&cast.first.first_stage, &cast.first.path)
        .cores(options.smp)
        .memory_mib(options.memory)
        .rig(rig)
        .flush(options.flush.unwrap_or(Flush::Always))
        .append(&format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}"))
        .start()?;
    machine.wait_ready(scene::BOOT)?;
    let seen = failing::give_back_under_load(&machine, &cast, successor, CALM, |step| eprintln!("{step}"))?;
    let trace = seen.told["trace_id"].as_str().unwrap_or_default();
    let reported = collector
        .wait_for(|received| received.trace(trace).is_some(), TELEMETRY)
        .is_ok();
    if options.json {
        println!("{}", to_json(successor, &seen, reported));
    } else {
        print!("{}", text(&seen, reported));
    }
    let good = reported && seen.told["outcome"] == "rolled-back" && seen.cores == u64::from(options.smp);
    Ok(if good { Exit::Ok } else { Exit::Failed })
}

fn to_json(successor: Successor, seen: &Seen, reported: bool) -> serde_json::Value {
    let all = 0..u64::MAX;
    let (sent, answered) = (seen.echo.sent(all.clone()), seen.echo.answered(all));
    json!({
        "successor": successor.name(),
        "from": seen.told["from"],
        "to": seen.version,
        "outcome": seen.told["outcome"].as_str().map(|outcome| outcome.replace('-', "_")),
        "reason": seen.told["reason"],
        "recovery_ms": {
            "outside": seen.outside,
            "outside_uncertainty": seen.uncertainty,
            "inside": seen.inside(),
        },
        "cores": seen.cores,
        "requests": {"sent": sent, "answered": answered, "failed": sent - answered},
        "telemetry": {"trace_id": seen.told["trace_id"], "reported": reported},
    })
}

fn text(seen: &Seen, reported: bool) -> String {
    let known = |ms: Option<f64>| ms.map_or("unknown".to_owned(), duration);
    let field = |name: &str| seen.told[name].as_str().unwrap_or("unknown").to_owned();
    let all = 0..u64::MAX;
    format!(
        "\ntrial {} → {}: {}\n\n  reason     {}\n  way back   {} until the clients were answered (± {}), {} as the machine saw it\n  \
         cores      {}\n  echo       {} sent, {} answered\n  collector  {}\n",
        field("from"),
        seen.version,
        field("outcome"),
        field("reason").lines().next().unwrap_or_default(),
        known(seen.outside),
        duration(seen.uncertainty),
        known(seen.inside()),
        seen.cores,
        seen.echo.sent(all.clone()),
        seen.echo.answered(all),
        if reported { "was told" } else { "heard nothing" },
    )
}

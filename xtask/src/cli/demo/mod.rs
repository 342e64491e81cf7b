//! `demo`: the main job, start to end.

mod failing;
mod report;

use super::machine::{RigName, RigOptions};
use crate::collect::{Collector, Counts};
use crate::exit::Exit;
use crate::failing::Successor;
use crate::machine::{Flush, Machine, bochs};
use crate::scene::{self, Cast, Seen};
use anyhow::{Context, Result};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the clients ask before and after the upgrade.
const CALM: Duration = Duration::from_millis(1500);

/// How long both instars may take to tell the collector.
const TELEMETRY: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    rig: RigOptions,
    /// How many cores
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    smp: u32,
    /// How much memory: 256, 24M, 1G
    #[arg(long, value_name = "M", default_value = "256M", value_parser = crate::machine::parse_memory)]
    memory: u32,
    /// When caches are flushed [default: always, so that there is something to see on QEMU's machine without memory
    /// encryption; with `--rig bochs` auto]
    #[arg(long, value_enum)]
    flush: Option<Flush>,
    /// The upgrade fails, in this way: shows how the machine goes back
    #[arg(long, value_enum)]
    successor: Option<Successor>,
    /// Install nothing, even if something is missing
    #[arg(long)]
    no_install: bool,
    /// Print one JSON object instead of the timeline
    #[arg(long)]
    json: bool,
}

/// What the collector received of one upgrade.
#[derive(Clone, Debug, Default)]
struct Told {
    predecessor: Counts,
    successor: Counts,
    /// Whether the upgrade's trace hangs together, with spans of both instars; `None` if there is no such trace.
    complete: Option<bool>,
}

/// What the emulator logged of the replacement.
struct Witnessed {
    log: PathBuf,
    /// The cores that flushed, in that order, after the push began and before the successor's first output.
    cores: Vec<u32>,
}

/// Everything that the demo measured.
struct Outcome<'a> {
    cast: &'a Cast,
    boot: Duration,
    /// Between two echo requests.
    interval: Duration,
    seen: Seen,
    told: Told,
    /// `None`: this emulator logs no flushes.
    witnessed: Option<Witnessed>,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    let rig = options.rig.rig()?;
    options.rig.ensure_programs(!options.no_install)?;
    if let Some(successor) = options.successor {
        return failing::run(&options, successor, rig);
    }
    let flush = options.flush.unwrap_or(match options.rig.rig {
        RigName::Qemu => Flush::Always,
        RigName::Bochs => Flush::Auto,
    });
    eprintln!("building hello 1.0.0 and 1.1.0, signed with the development key");
    let cast = Cast::build("hello")?;
    let collector = Collector::start("127.0.0.1:0")?;
    let endpoint = format!("http://10.0.2.2:{}", collector.address().port());
    eprintln!(
        "booting hello 1.0.0: {}, {} cores, {} MiB, telemetry to a collector here",
        rig.name(),
        options.smp,
        options.memory
    );
    let mut machine = Machine::builder(&cast.first.first_stage, &cast.first.path)
        .cores(options.smp)
        .memory_mib(options.memory)
        .rig(rig)
        .flush(flush)
        .append(&format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}"))
        .start()?;
    let boot = scene::first_answer(&mut machine)?;
    machine.wait_ready(scene::BOOT)?;
    let interval = scene::interval(machine.rig());
    eprintln!("asking it all the time: a UDP echo every {interval:?}, and HTTP in a loop");
    let log = machine.rig_log().map(Path::to_owned);
    let logged = log.as_deref().map(fs::metadata).transpose().context("no log")?;
    let seen = scene::upgrade_under_load(&mut machine, &cast, CALM, |step| eprintln!("{step}"))?;
    eprintln!("waiting for what both instars tell the collector");
    let told = listen(&collector, &seen);
    let witnessed = match (log, logged) {
        (Some(log), Some(logged)) => Some(witnessed(log, logged.len())?),
        _ => None,
    };
    let outcome = Outcome {
        cast: &cast,
        boot,
        interval,
        seen,
        told,
        witnessed,
    };
    if options.json {
        println!("{}", report::json(&outcome));
    } else {
        print!("{}", report::text(&outcome));
    }
    let both = outcome.told.predecessor.total() > 0 && outcome.told.successor.total() > 0;
    let stayed = outcome.seen.after.image.version == cast.second.manifest.version;
    Ok(if both && stayed { Exit::Ok } else { Exit::Failed })
}

/// Reads what was logged since the log had `before` bytes.
fn witnessed(log: PathBuf, before: u64) -> Result<Witnessed> {
    let text = fs::read(&log).with_context(|| format!("could not read {}", log.display()))?;
    let since = usize::try_from(before).ok().and_then(|before| text.get(before..));
    let parts = bochs::parts(&String::from_utf8_lossy(since.unwrap_or_default()));
    let cores = parts.first().map(bochs::Part::cores).unwrap_or_default();
    Ok(Witnessed { log, cores })
}

/// Waits for the upgrade's trace with spans of both instars; after the time limit, what came is what there is.
fn listen(collector: &Collector, seen: &Seen) -> Told {
    let trace_id = seen.accepted.trace_id.as_str();
    let (predecessor, successor) = (seen.before.generation, seen.after.generation);
    let complete =
        |received: &crate::collect::Received| received.trace(trace_id).map(|trace| trace.is_complete());
    let received = collector
        .wait_for(
            |received| {
                complete(received) == Some(true)
                    && received.from_generation(predecessor).total() > 0
                    && received.from_generation(successor).points > 0
            },
            TELEMETRY,
        )
        .unwrap_or_else(|_| collector.received());
    Told {
        predecessor: received.from_generation(predecessor),
        successor: received.from_generation(successor),
        complete: complete(&received),
    }
}

//! `demo`: the main job, start to end.

mod report;

use crate::collect::{Collector, Counts};
use crate::exit::Exit;
use crate::machine::{Flush, Machine};
use crate::scene::{self, Cast, Seen};
use anyhow::Result;
use clap::Args;
use std::time::Duration;

/// How long the clients ask before and after the upgrade.
const CALM: Duration = Duration::from_millis(1500);

/// How long both instars may take to tell the collector.
const TELEMETRY: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(super) struct Options {
    /// How many cores
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    smp: u32,
    /// How much memory: 256, 24M, 1G
    #[arg(long, value_name = "M", default_value = "256M", value_parser = crate::machine::parse_memory)]
    memory: u32,
    /// When caches are flushed; always, so that there is something to see on a machine without memory encryption
    #[arg(long, value_enum, default_value_t = Flush::Always)]
    flush: Flush,
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

/// Everything that the demo measured.
struct Outcome<'a> {
    cast: &'a Cast,
    boot: Duration,
    seen: Seen,
    told: Told,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    crate::install::ensure(crate::install::FOR_MACHINES, !options.no_install)?;
    eprintln!("building hello 1.0.0 and 1.1.0, signed with the development key");
    let cast = Cast::build()?;
    let collector = Collector::start("127.0.0.1:0")?;
    let endpoint = format!("http://10.0.2.2:{}", collector.address().port());
    eprintln!(
        "booting hello 1.0.0: {} cores, {} MiB, telemetry to a collector here",
        options.smp, options.memory
    );
    let mut machine = Machine::builder(&cast.first.first_stage, &cast.first.path)
        .cores(options.smp)
        .memory_mib(options.memory)
        .flush(options.flush)
        .append(&format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}"))
        .start()?;
    let boot = scene::first_answer(&mut machine)?;
    machine.wait_ready(scene::BOOT)?;
    eprintln!("asking it all the time: a UDP echo every 0.2 ms, and HTTP in a loop");
    let seen = scene::upgrade_under_load(&mut machine, &cast, CALM, |step| eprintln!("{step}"))?;
    eprintln!("waiting for what both instars tell the collector");
    let told = listen(&collector, &seen);
    let outcome = Outcome {
        cast: &cast,
        boot,
        seen,
        told,
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

//! `bench`: the figures, as medians with their spread.

mod back;
mod flush;
mod private;
mod telemetry;
mod turns;

use crate::control::Replacement;
use crate::exit::{Exit, exit_of};
use crate::install;
use crate::machine::{Builder, Flush, Machine, QEMU};
use crate::scene::{self, Cast};
use crate::stats::Spread;
use crate::timeline::duration;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::fs;
use std::io::IsTerminal;
use std::process::Command;
use std::time::Duration;

/// How long the clients ask before and after each upgrade.
const CALM: Duration = Duration::from_millis(500);

/// The least memory is looked for below this, in MiB, and above it only if this is too little.
const ENOUGH: u32 = 64;

/// Where the search for the least memory gives up, in MiB.
const TOO_MUCH: u32 = 4096;

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// The main job: boot, upgrade under load
    #[default]
    Upgrade,
    /// What writing back the caches costs: not at all, in the stop, and early, one by one and all at once
    Flush,
    /// From a successor's failure to the predecessor's first answer: panic, hang and order
    Back,
    /// What telemetry costs the application, with a good collector and with each faulty one, and in itself
    Telemetry,
    /// How fast private pages are reset (QEMU), and what that costs the blackout (Bochs with TDX KeyIDs, two boots a run, 5
    /// runs at the most)
    Private,
}

#[derive(Args)]
pub(super) struct Options {
    /// What is measured
    #[arg(value_enum, default_value_t)]
    subject: Subject,
    /// How often each figure is measured
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// How many cores
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    smp: u32,
    /// How much memory, but for the search for the least
    #[arg(long, value_name = "M", default_value = "256M", value_parser = crate::machine::parse_memory)]
    memory: u32,
    /// When caches are flushed (`bench upgrade`)
    #[arg(long, value_enum, default_value_t = Flush::Always)]
    flush: Flush,
    /// Do not look for the least memory
    #[arg(long)]
    no_least_memory: bool,
    /// Install nothing, even if something is missing
    #[arg(long)]
    no_install: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One run's figures, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Run {
    boot: f64,
    outside: Option<f64>,
    inside: Option<f64>,
    /// The longest silence while the image was received, verified and staged.
    staging: Option<f64>,
    lost_outside: usize,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    install::ensure(install::FOR_QEMU, !options.no_install)?;
    if options.subject == Subject::Private {
        return private::run(&options);
    }
    if options.subject == Subject::Back {
        return back::run(&options);
    }
    let cast = Cast::build("hello")?;
    let builder = || {
        Machine::builder(&cast.first.first_stage, &cast.first.path)
            .cores(options.smp)
            .memory_mib(options.memory)
            .flush(options.flush)
    };
    if options.subject == Subject::Flush {
        return flush::run(&options, builder, &cast);
    }
    if options.subject == Subject::Telemetry {
        return telemetry::run(&options, builder, &cast);
    }
    let bar = progress_bar(u64::from(options.runs));
    let mut runs = Vec::new();
    for number in 1..=options.runs {
        let (run, _) = measure(builder(), &cast, |_| Ok(()))
            .with_context(|| format!("run {number} of {}", options.runs))?;
        runs.push(run);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let least = if options.no_least_memory {
        None
    } else {
        least_memory(&cast, &builder)?
    };

    let spread = |take: fn(&Run) -> Option<f64>| Spread::of(runs.iter().filter_map(take));
    let figures = [
        ("blackout outside", spread(|run| run.outside)),
        ("blackout inside", spread(|run| run.inside)),
        ("cold boot to first answer", spread(|run| Some(run.boot))),
        ("longest silence while staging", spread(|run| run.staging)),
    ];
    let lost: usize = runs.iter().map(|run| run.lost_outside).sum();
    if options.json {
        let [outside, inside, boot, staging] = figures.map(|(_, spread)| spread);
        let object = json!({
            "runs": runs.len(),
            "cores": options.smp,
            "memory_mib": options.memory,
            "flush": options.flush.to_string(),
            "machine": {"host": host(), "qemu": qemu_version()},
            "blackout_ms": {"outside": outside, "inside": inside},
            "cold_boot_ms": boot,
            "staging_longest_gap_ms": staging,
            "lost_outside_blackout": lost,
            "image_bytes": cast.first.image_bytes,
            "elf_bytes": cast.first.elf.file_bytes,
            "least_memory_mib": least,
        });
        println!("{object}");
        return Ok(Exit::Ok);
    }
    println!(
        "hello, {} cores, {} MiB, flush={}, {} runs",
        options.smp,
        options.memory,
        options.flush,
        runs.len()
    );
    print_host();
    print_heading("");
    for (name, spread) in figures {
        print_spread(name, spread, duration);
    }
    println!("{:<32}{lost:>11}", "echoes lost outside blackouts");
    println!("{:<32}{:>11}", "image, bytes", cast.first.image_bytes);
    println!("{:<32}{:>11}", "ELF, bytes", cast.first.elf.file_bytes);
    if !options.no_least_memory {
        let least = least.map_or("more".to_owned(), |mib| format!("{mib} MiB"));
        println!("{:<32}{least:>11}", "least memory (serves, upgrades)");
    }
    Ok(Exit::Ok)
}

fn print_host() {
    let qemu = qemu_version().unwrap_or_else(|| "QEMU of unknown version".to_owned());
    println!("on {}; {qemu}\n", host());
}

fn print_heading(title: &str) {
    println!(
        "{title:<32}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "median", "min", "25 %", "75 %", "max"
    );
}

fn print_spread(name: &str, spread: Option<Spread>, write: fn(f64) -> String) {
    let cells = spread.map_or([None; 5], |s| [s.median, s.min, s.p25, s.p75, s.max].map(Some));
    let [median, min, p25, p75, max] = cells.map(|ms| ms.map_or("-".to_owned(), write));
    println!("{name:<32}{median:>11}{min:>11}{p25:>11}{p75:>11}{max:>11}");
}

/// One upgrade under load of a machine that has been prepared for it, and what the machine tells of it.
fn measure(
    builder: Builder,
    cast: &Cast,
    prepare: impl FnOnce(&Machine) -> Result<()>,
) -> Result<(Run, Option<Replacement>)> {
    let mut machine = builder.start()?;
    let boot = scene::first_answer(&mut machine)?;
    machine.wait_ready(scene::BOOT)?;
    prepare(&machine)?;
    let seen = scene::upgrade_under_load(&mut machine, cast, CALM, |_| {})?;
    let blackout = seen.blackout();
    let staging = seen
        .echo
        .longest_gap(seen.moments.push_ns..seen.moments.staged_ns);
    let run = Run {
        boot: boot.as_secs_f64() * 1000.0,
        outside: blackout.map(|gap| gap.length_ms()),
        inside: seen
            .after
            .last_replacement
            .as_ref()
            .and_then(|told| told.blackout_ms),
        staging: staging.map(|gap| gap.length_ms()),
        lost_outside: seen.echo.lost_outside(blackout.as_slice()).len(),
    };
    Ok((run, seen.after.last_replacement))
}

/// The least memory, in MiB, with which the machine boots, serves, upgrades, and serves again.
fn least_memory(cast: &Cast, builder: &impl Fn() -> Builder) -> Result<Option<u32>> {
    let mut high = ENOUGH;
    while !works(cast, builder().memory_mib(high))? {
        high *= 2;
        if high > TOO_MUCH {
            return Ok(None);
        }
    }
    // What fails is always below what works: the answer is the least that worked.
    let mut low = 0;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if works(cast, builder().memory_mib(middle))? {
            high = middle;
        } else {
            low = middle;
        }
        eprintln!("least memory: more than {low} MiB, {high} MiB are enough");
    }
    Ok(Some(high))
}

/// Whether such a machine serves before and after an upgrade. Everything that the machine does wrong means no.
fn works(cast: &Cast, builder: Builder) -> Result<bool> {
    let attempt = || -> Result<()> {
        let mut machine = builder.start()?;
        machine.wait_ready(Duration::from_secs(10))?;
        scene::upgrade_under_load(&mut machine, cast, Duration::from_millis(100), |_| {})?;
        machine.wait_ready(Duration::from_secs(10)).map(drop)
    };
    match attempt() {
        Ok(()) => Ok(true),
        Err(error) if matches!(exit_of(&error), Exit::NoAnswer | Exit::Refused | Exit::WentBack) => Ok(false),
        Err(error) => Err(error),
    }
}

fn progress_bar(runs: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(runs), ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(runs);
    if let Ok(style) = ProgressStyle::with_template("run [{bar:40}] {pos}/{len}, {eta} left") {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar
}

/// The processor's name and how many of its cores there are.
fn host() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {}", model.unwrap_or("an unknown processor"))
}

fn qemu_version() -> Option<String> {
    let output = Command::new(QEMU).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .map(str::to_owned)
}

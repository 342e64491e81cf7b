//! `bench telemetry`: what telemetry costs the application, and what it costs in itself.
//!
//! Each run boots two machines for each way, one after the other: one without telemetry and one whose collector is like this,
//! in the other order every other time, so that whatever else the host does meets both alike. In one way both are without
//! telemetry: what these differ by is noise. The same clients ask all of them, while refused orders make the machine log. Then a
//! machine is left alone with a collector for a minute, and replaced; and the image is built with each exporter alone.

mod cost;

use super::{Options, host, print_host, progress_bar, qemu_version};
use crate::collect::{Collector, Fault};
use crate::exit::Exit;
use crate::http::{self, Limits};
use crate::machine::Builder;
use crate::scene::{self, Cast};
use crate::stats::Spread;
use crate::timeline::duration;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the clients ask in each run.
const LOAD: Duration = Duration::from_secs(2);

/// Each asks for the next answer when it has the last.
const CLIENTS: usize = 2;

/// Between two orders that are refused, and so logged.
const LOG_EVERY: Duration = Duration::from_millis(100);

/// What the machine's collector is like.
struct Way {
    name: &'static str,
    /// `None`: no telemetry.
    collector: Option<fn() -> Fault>,
}

const fn with(name: &'static str, fault: fn() -> Fault) -> Way {
    Way {
        name,
        collector: Some(fault),
    }
}

const fn without(name: &'static str) -> Way {
    Way {
        name,
        collector: None,
    }
}

const WAYS: [Way; 12] = [
    without("no telemetry: noise"),
    with("a good collector", || Fault::None),
    with("refuses", || Fault::Refuse),
    with("resets", || Fault::Reset),
    with("429, Retry-After: 1", || Fault::Status(429, Some(1))),
    with("400", || Fault::Status(400, None)),
    with("503", || Fault::Status(503, None)),
    with("half an answer", || Fault::HalfAnswer),
    with("one byte a second", || Fault::SlowBytes(Duration::from_secs(1))),
    with("100 MB of answer", || Fault::HugeAnswer(100_000_000)),
    with("redirects", || {
        Fault::Redirect("http://10.0.2.2:9/v1/logs".into())
    }),
    with("never answers", || Fault::NeverAnswer),
];

/// What the clients saw of one machine.
#[derive(Clone, Copy, Debug)]
struct Load {
    median_ms: f64,
    p99_ms: f64,
    per_second: f64,
}

/// The same load of two machines.
#[derive(Clone, Copy, Debug)]
struct Pair {
    without: Load,
    with: Load,
}

/// A figure of a load.
struct Figure {
    /// For people.
    name: &'static str,
    /// In JSON.
    key: &'static str,
    take: fn(&Load) -> f64,
    write: fn(f64) -> String,
}

const FIGURES: [Figure; 3] = [
    Figure {
        name: "median latency",
        key: "median_ms",
        take: |load| load.median_ms,
        write: duration,
    },
    Figure {
        name: "p99 latency",
        key: "p99_ms",
        take: |load| load.p99_ms,
        write: duration,
    },
    Figure {
        name: "answers per second",
        key: "per_second",
        take: |load| load.per_second,
        write: |value| format!("{value:.0}"),
    },
];

/// Measures, and prints the figures.
pub(super) fn run(options: &Options, builder: impl Fn() -> Builder, cast: &Cast) -> Result<Exit> {
    let bar = progress_bar(u64::from(options.runs));
    let mut measured: Vec<Vec<Pair>> = WAYS.iter().map(|_| Vec::new()).collect();
    for number in 1..=options.runs {
        for (way, pairs) in WAYS.iter().zip(&mut measured) {
            let pair = pair(&builder, way, number % 2 == 0);
            pairs.push(pair.with_context(|| format!("run {number} of {}, {}", options.runs, way.name))?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let cost = cost::measure(builder(), cast)?;
    if options.json {
        let ways: Map<String, Value> = WAYS
            .iter()
            .zip(&measured)
            .map(|(way, pairs)| (way.name.to_owned(), pairs_json(pairs)))
            .collect();
        let machine = json!({"host": host(), "qemu": qemu_version()});
        println!(
            "{}",
            json!({"runs": options.runs, "cores": options.smp, "machine": machine, "ways": ways, "cost": cost})
        );
        return Ok(Exit::Ok);
    }
    println!(
        "hello, {} cores, {} runs; {CLIENTS} clients for {LOAD:?}, {} log records a second",
        options.smp,
        options.runs,
        Duration::from_secs(1).as_millis() / LOG_EVERY.as_millis()
    );
    print_host();
    for figure in &FIGURES {
        print_figure(figure, &measured);
    }
    cost::print(&cost);
    Ok(Exit::Ok)
}

fn pair(builder: impl Fn() -> Builder, way: &Way, with_first: bool) -> Result<Pair> {
    const WITHOUT: Way = without("");
    if with_first {
        let with = under_load(builder(), way)?;
        let without = under_load(builder(), &WITHOUT)?;
        return Ok(Pair { without, with });
    }
    let without = under_load(builder(), &WITHOUT)?;
    let with = under_load(builder(), way)?;
    Ok(Pair { without, with })
}

/// Each pair's figure with over that without.
fn ratios(pairs: &[Pair], figure: &Figure) -> Option<Spread> {
    Spread::of(
        pairs
            .iter()
            .map(|pair| (figure.take)(&pair.with) / (figure.take)(&pair.without)),
    )
}

fn pairs_json(pairs: &[Pair]) -> Value {
    let figures = FIGURES.iter().map(|figure| {
        let of = |load: fn(&Pair) -> &Load| Spread::of(pairs.iter().map(|pair| (figure.take)(load(pair))));
        let figures = json!({
            "without": of(|pair| &pair.without),
            "with": of(|pair| &pair.with),
            "ratio": ratios(pairs, figure),
        });
        (figure.key.to_owned(), figures)
    });
    Value::Object(figures.collect())
}

fn print_figure(figure: &Figure, measured: &[Vec<Pair>]) {
    println!(
        "{:<24}{:>11}{:>11}{:>11}{:>9}{:>9}{:>9}{:>9}",
        figure.name, "without", "with", "ratio", "min", "25 %", "75 %", "max"
    );
    for (way, pairs) in WAYS.iter().zip(measured) {
        let median = |load: fn(&Pair) -> &Load| {
            let spread = Spread::of(pairs.iter().map(|pair| (figure.take)(load(pair))));
            spread.map_or("-".to_owned(), |spread| (figure.write)(spread.median))
        };
        let ratio = ratios(pairs, figure).map_or([f64::NAN; 5], |s| [s.median, s.min, s.p25, s.p75, s.max]);
        let [middle, min, p25, p75, max] = ratio.map(|ratio| format!("{ratio:.3}"));
        println!(
            "{:<24}{:>11}{:>11}{middle:>11}{min:>9}{p25:>9}{p75:>9}{max:>9}",
            way.name,
            median(|pair| &pair.without),
            median(|pair| &pair.with)
        );
    }
    println!();
}

/// A machine under load whose collector is like this.
fn under_load(builder: Builder, way: &Way) -> Result<Load> {
    let collector = way
        .collector
        .map(|fault| Collector::start_with("127.0.0.1:0", fault()));
    let collector = collector.transpose()?;
    let builder = match &collector {
        Some(collector) => builder.append(&endpoint(collector)),
        None => builder,
    };
    let mut machine = builder.start()?;
    machine.wait_ready(scene::BOOT)?;
    let (http, control) = (machine.addresses().http, machine.addresses().control);
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let answers = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| ask(http, begin))).collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Whether it is heard is not the point.
                let _ = http::send(
                    control,
                    "POST",
                    "/v1/orders",
                    &[],
                    b"no order",
                    Limits::short(),
                    |_| {},
                );
                thread::sleep(LOG_EVERY);
            }
        });
        let answers = clients
            .into_iter()
            .map(|client| client.join().unwrap_or_default());
        let answers = answers.flatten().collect::<Vec<_>>();
        stop.store(true, Ordering::Relaxed);
        answers
    });
    #[expect(clippy::cast_precision_loss, reason = "in seconds nobody gets 2^53 answers")]
    let per_second = answers.len() as f64 / begin.elapsed().as_secs_f64();
    let spread = Spread::of(answers).context("the machine answered nobody")?;
    Ok(Load {
        median_ms: spread.median,
        p99_ms: spread.p99,
        per_second,
    })
}

fn endpoint(collector: &Collector) -> String {
    format!(
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{}",
        collector.address().port()
    )
}

/// How long each answer took, in milliseconds.
fn ask(address: SocketAddr, begin: Instant) -> Vec<f64> {
    let mut taken = Vec::new();
    while begin.elapsed() < LOAD {
        let asked = Instant::now();
        if http::get(address, "/", Limits::patient()).is_ok_and(|answer| answer.status == 200) {
            taken.push(asked.elapsed().as_secs_f64() * 1000.0);
        }
    }
    taken
}

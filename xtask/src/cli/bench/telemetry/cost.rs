//! What telemetry costs in itself: bytes on the wire, cycles, and bytes of the image.

use super::super::CALM;
use super::endpoint;
use crate::build::{self, BuildOptions};
use crate::collect::{Collector, Received};
use crate::machine::Builder;
use crate::scene::{self, Cast};
use crate::workspace;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long the machine is left alone, by its own clock, in nanoseconds.
const IDLE_NS: u64 = 60_000_000_000;

/// An emulated machine's clock may be slow.
const PATIENCE: Duration = Duration::from_secs(240);

/// Exporters, as the image's Cargo features call them.
const EXPORTERS: [(&str, &str); 5] = [
    ("none", ""),
    ("OTLP", "libos/otlp"),
    ("Prometheus", "libos/prometheus"),
    ("syslog", "libos/syslog"),
    ("all", "libos/otlp,libos/prometheus,libos/syslog"),
];

/// What one machine sends in a minute in which nobody asks it anything, what a replacement adds, and what exporting takes.
pub(super) fn measure(builder: Builder, cast: &Cast) -> Result<Value> {
    let collector = Collector::start("127.0.0.1:0")?;
    let mut machine = builder.append(&endpoint(&collector)).start()?;
    machine.wait_ready(scene::BOOT)?;
    let points = |received: &Received| received.points().next().is_some();
    collector.wait_for(points, PATIENCE)?;
    let start = collector.received();
    let told = |received: &Received| received.points().map(|point| point.time_ns).max();
    let over = told(&start).map(|ns| ns + IDLE_NS);
    let idle = collector.wait_for(|received| told(received) >= over, PATIENCE)?;
    scene::upgrade_under_load(&mut machine, cast, CALM, |_| {})?;
    let trace = |received: &Received| received.traces().iter().any(|trace| trace.is_complete());
    let upgraded = collector.wait_for(trace, PATIENCE)?;
    Ok(json!({
        "idle_minute": sent_between(&start, &idle),
        "replacement": sent_between(&idle, &upgraded),
        "cycles_per_request": cycles_per_request(&idle),
        "elf_bytes": elf_bytes()?,
    }))
}

/// The size of the ELF with each exporter.
fn elf_bytes() -> Result<Value> {
    let mut sizes = Map::new();
    for (name, features) in EXPORTERS {
        let image = build::build_app(&BuildOptions {
            features: Some(features.to_owned()).filter(|features| !features.is_empty()),
            no_default_features: true,
            output: Some(workspace::out_dir().join("exporters.tar")),
            ..BuildOptions::new("hello")
        })?;
        sizes.insert(name.to_owned(), image.elf.file_bytes.into());
    }
    Ok(Value::Object(sizes))
}

/// Requests and bytes between two moments, by signal.
fn sent_between(before: &Received, after: &Received) -> Value {
    let mut signals = Map::new();
    for path in ["/v1/metrics", "/v1/logs", "/v1/traces"] {
        let new = after.arrivals.iter().skip(before.arrivals.len());
        let new: Vec<_> = new.filter(|arrival| arrival.path == path).collect();
        let body: usize = new.iter().map(|arrival| arrival.body_bytes).sum();
        let head: usize = new.iter().map(|arrival| arrival.head_bytes).sum();
        let sent = json!({"requests": new.len(), "body_bytes": body, "http_bytes": head + body});
        signals.insert(path.trim_start_matches("/v1/").to_owned(), sent);
    }
    signals.insert(
        "answers".to_owned(),
        json!({"http_bytes": after.answered_bytes - before.answered_bytes}),
    );
    Value::Object(signals)
}

/// The time-stamp counter's cycles for each request that was taken, by signal and step, as the machine counted them.
fn cycles_per_request(received: &Received) -> Value {
    let newest = |metric: &str, signal: &str, name: &str, value: &str| {
        let is = |key: &str, value: &str, attributes: &Map<String, Value>| {
            attributes.get(key).and_then(Value::as_str) == Some(value)
        };
        let of_metric = received.points().rev().filter(|point| point.metric == metric);
        let mut found = of_metric.filter(|point| {
            is("instar.telemetry.signal", signal, &point.attributes) && is(name, value, &point.attributes)
        });
        found.next().and_then(|point| point.value.as_u64()).unwrap_or(0)
    };
    let mut signals = Map::new();
    for signal in ["metrics", "logs"] {
        let requests = newest(
            "instar.telemetry.requests",
            signal,
            "instar.telemetry.result",
            "delivered",
        );
        let cycles = |step: &str| {
            let cycles = newest("instar.telemetry.cycles", signal, "instar.telemetry.step", step);
            cycles.checked_div(requests)
        };
        let figures = json!({"requests": requests, "encode": cycles("encode"), "send": cycles("send")});
        signals.insert(signal.to_owned(), figures);
    }
    Value::Object(signals)
}

/// For people.
pub(super) fn print(cost: &Value) {
    for (key, title) in [
        ("idle_minute", "a minute in which nobody asks"),
        ("replacement", "a replacement, and what else was due"),
    ] {
        println!(
            "{title:<40}{:>11}{:>11}{:>11}",
            "requests", "bodies, B", "HTTP, B"
        );
        for signal in ["metrics", "logs", "traces", "answers"] {
            let cell = |figure: &str| {
                cost[key][signal][figure]
                    .as_u64()
                    .map_or("-".into(), |n| n.to_string())
            };
            let cells = [cell("requests"), cell("body_bytes"), cell("http_bytes")];
            println!("{signal:<40}{:>11}{:>11}{:>11}", cells[0], cells[1], cells[2]);
        }
        println!();
    }
    println!("{:<40}{:>11}{:>11}", "TSC cycles a request", "encode", "send");
    for signal in ["metrics", "logs"] {
        let cell = |step: &str| {
            let cycles = cost["cycles_per_request"][signal][step].as_u64();
            cycles.map_or("-".into(), |cycles| cycles.to_string())
        };
        println!("{signal:<40}{:>11}{:>11}", cell("encode"), cell("send"));
    }
    let bytes = |name: &str| cost["elf_bytes"][name].as_i64().unwrap_or(0);
    println!(
        "\n{:<40}{:>11}{:>11}",
        "ELF with these exporters", "bytes", "more"
    );
    for (name, _) in EXPORTERS {
        println!("{name:<40}{:>11}{:>11}", bytes(name), bytes(name) - bytes("none"));
    }
}

//! What the demo found out, for people and for scripts. Nothing in here is filled in: what is unknown is `null`.

use super::Outcome;
use crate::client::Gap;
use crate::collect::Counts;
use crate::stats::Spread;
use crate::timeline::{self, PHASES, duration};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Requests by what became of them.
struct Requests {
    sent: usize,
    answered: usize,
}

impl Requests {
    fn json(&self) -> Value {
        json!({"sent": self.sent, "answered": self.answered, "failed": self.sent - self.answered})
    }
}

fn echo_requests(outcome: &Outcome<'_>) -> Requests {
    let all = 0..u64::MAX;
    Requests {
        sent: outcome.seen.echo.sent(all.clone()),
        answered: outcome.seen.echo.answered(all),
    }
}

fn http_requests(outcome: &Outcome<'_>) -> Requests {
    Requests {
        sent: outcome.seen.http.questions.len(),
        answered: outcome.seen.http.answered(),
    }
}

/// One JSON object.
pub(super) fn json(outcome: &Outcome<'_>) -> Value {
    let Outcome {
        cast,
        boot,
        seen,
        told,
        witnessed,
        ..
    } = outcome;
    let replacement = seen.after.last_replacement.as_ref();
    let mut phases = Map::new();
    for phase in PHASES {
        let took = replacement.and_then(|told| told.phases_ms.get(phase).copied().flatten());
        phases.insert(phase.to_owned(), json!(took));
    }
    let (echo, http) = (echo_requests(outcome), http_requests(outcome));
    let both = Requests {
        sent: echo.sent + http.sent,
        answered: echo.answered + http.answered,
    };
    let mut requests = both.json();
    requests["echo"] = echo.json();
    requests["http"] = http.json();
    requests["lost_outside_blackout"] = json!(lost_outside(outcome).len());
    let mut client = Map::new();
    for (name, window) in seen.windows() {
        let longest = seen.echo.longest_gap(window.clone()).map(|gap| gap.length_ms());
        client.insert(
            name.to_owned(),
            json!({"latency_ms": seen.echo.latency_ms(window), "longest_gap_ms": longest}),
        );
    }
    json!({
        "image": {
            "name": cast.second.manifest.name,
            "from": seen.before.image.version,
            "to": seen.after.image.version,
            "elf_bytes": cast.second.elf.file_bytes,
            "image_bytes": cast.second.image_bytes,
        },
        "cores": seen.after.cores.online,
        "flush": replacement.map(|told| &told.flush),
        "phases_ms": phases,
        "blackout_ms": {
            "outside": seen.blackout().map(|gap| gap.length_ms()),
            "inside": replacement.and_then(|told| told.blackout_ms),
        },
        "requests": requests,
        "telemetry": {
            "from_predecessor": told.predecessor.total(),
            "from_successor": told.successor.total(),
            "trace_id": Some(&seen.accepted.trace_id).filter(|id| !id.is_empty()),
            "trace_complete": told.complete,
        },
        "outcome": replacement.map(|told| &told.outcome),
        "boot_ms": boot.as_secs_f64() * 1000.0,
        "client": client,
        "client_latest_ms": to_ms(seen.echo.latest_ns),
        "rig_log": witnessed.as_ref().map(|rig| &rig.log),
        "rig_flushes": witnessed.as_ref().map(|rig| &rig.cores),
    })
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
fn to_ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// When the echoes were sent that got lost without the blackout's being to blame.
fn lost_outside(outcome: &Outcome<'_>) -> Vec<u64> {
    let blackout: Vec<Gap> = outcome.seen.blackout().into_iter().collect();
    outcome.seen.echo.lost_outside(&blackout)
}

/// A page that a person likes to read.
pub(super) fn text(outcome: &Outcome<'_>) -> String {
    let Outcome {
        cast,
        boot,
        seen,
        told,
        witnessed,
        ..
    } = outcome;
    let mut text = String::new();
    let replacement = seen.after.last_replacement.as_ref();
    let known = |ms: Option<f64>| ms.map_or("unknown".to_owned(), duration);
    _ = writeln!(
        text,
        "\n{} {} → {}: {}\n",
        cast.second.manifest.name,
        seen.before.image.version,
        seen.after.image.version,
        replacement.map_or("no outcome was told", |told| told.outcome.as_str())
    );
    let mut line = |name: &str, value: String| _ = writeln!(text, "  {name:<10} {value}");
    let outside = seen.blackout().map(|gap| gap.length_ms());
    let inside = replacement.and_then(|told| told.blackout_ms);
    line(
        "blackout",
        format!(
            "{} as the clients saw it, {} as the machine saw it",
            known(outside),
            known(inside)
        ),
    );
    line(
        "cold boot",
        format!(
            "{} from starting the virtual machine to its first answer",
            duration(boot.as_secs_f64() * 1000.0)
        ),
    );
    line(
        "image",
        format!(
            "{} (ELF {})",
            kib(cast.second.image_bytes),
            kib(cast.second.elf.file_bytes)
        ),
    );
    let (echo, http) = (echo_requests(outcome), http_requests(outcome));
    for (name, requests) in [("echo", &echo), ("HTTP", &http)] {
        let failed = requests.sent - requests.answered;
        line(
            name,
            format!(
                "{} sent, {} answered, {failed} not",
                requests.sent, requests.answered
            ),
        );
    }
    line(
        "lost",
        format!(
            "{} echoes besides those of the blackout",
            lost_outside(outcome).len()
        ),
    );
    if let (Some(first), Some(last)) = (&seen.http.first, &seen.http.last) {
        line("it said", format!("`{}`, then `{}`", first.trim(), last.trim()));
    }
    if let Some(rig) = witnessed {
        let cores: Vec<_> = rig.cores.iter().map(u32::to_string).collect();
        let flushed = match cores.as_slice() {
            [] => "no core flushed".to_owned(),
            cores => format!("cores flushed in this order: {}", cores.join(", ")),
        };
        line("emulator", format!("{flushed} ({})", rig.log.display()));
    }
    text.push('\n');
    clients(&mut text, outcome);
    if let Some(replacement) = replacement {
        text.push_str(&timeline::draw(replacement));
    }
    text.push_str("  what the collector received\n");
    for (generation, version, counts) in [
        (
            seen.before.generation,
            &seen.before.image.version,
            told.predecessor,
        ),
        (seen.after.generation, &seen.after.image.version, told.successor),
    ] {
        let Counts { spans, logs, points } = counts;
        let who = format!("instar {generation}");
        _ = writeln!(
            text,
            "    {who:<10} {version:<8} {spans:>3} spans, {logs:>3} log records, {points:>4} points"
        );
    }
    let trace = match told.complete {
        Some(true) => "whole, from both instars",
        Some(false) => "with gaps",
        None => "not received",
    };
    _ = writeln!(text, "    trace {}: {trace}", seen.accepted.trace_id);
    text
}

/// What the echo client saw before, during and after.
fn clients(text: &mut String, outcome: &Outcome<'_>) {
    let seen = &outcome.seen;
    let every = format!("an echo every {:?}", outcome.interval);
    _ = writeln!(
        text,
        "  {every:<24}     median         99 %      slowest  longest silence"
    );
    for (name, window) in seen.windows() {
        let name = match name {
            "staging" => "receive, verify, stage",
            name => name,
        };
        let silence = seen.echo.longest_gap(window.clone()).map(|gap| gap.length_ms());
        let cell = |ms: Option<f64>| ms.map_or("-".to_owned(), duration);
        let spread = seen.echo.latency_ms(window);
        let of = |take: fn(&Spread) -> f64| cell(spread.as_ref().map(take));
        _ = writeln!(
            text,
            "    {name:<22} {:>10}  {:>11}  {:>11}  {:>15}",
            of(|s| s.median),
            of(|s| s.p99),
            of(|s| s.max),
            cell(silence)
        );
    }
}

fn kib(bytes: u64) -> String {
    format!("{}.{} KiB", bytes / 1024, bytes % 1024 * 10 / 1024)
}

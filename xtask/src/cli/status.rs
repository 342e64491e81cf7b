//! `status`.

use crate::control::{self, Status};
use crate::exit::Exit;
use crate::http::Limits;
use crate::timeline;
use anyhow::Result;
use clap::Args;
use std::fmt::Write as _;

#[derive(Args)]
pub(super) struct Options {
    /// The machine's control address: HOST or HOST:PORT
    #[arg(value_name = "ADDR")]
    address: String,
    /// Print the machine's own JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    let address = control::parse_address(&options.address)?;
    let doing = format!("asking {address} for its status");
    if options.json {
        let status = control::raw_status(address, Limits::patient()).map_err(|e| e.during(&doing))?;
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        let status = control::status(address, Limits::patient()).map_err(|e| e.during(&doing))?;
        print!("{}", describe(&status));
    }
    Ok(Exit::Ok)
}

fn describe(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<12} {value}");
    let image = &status.image;
    let revision = if image.revision.is_empty() {
        String::new()
    } else {
        format!(", revision {}", image.revision)
    };
    line(
        "image",
        format!(
            "{} {} (security version {}{revision})",
            image.name, image.version, image.security_version
        ),
    );
    line("generation", status.generation.to_string());
    line("state", status.state.clone());
    line("host", status.host_id.clone());
    line(
        "up",
        format!(
            "{} (the machine: {})",
            seconds(status.uptime_ns),
            seconds(status.machine_ns)
        ),
    );
    line(
        "cores",
        format!("{} of {} online", status.cores.online, status.cores.present),
    );
    let chunks = status.memory.chunks;
    line(
        "memory",
        format!(
            "{} chunks of {} KiB: {} free, {} own, {} staged, {} the predecessor's, {} private; heap {} of {} KiB used",
            chunks.total,
            status.memory.chunk_bytes / 1024,
            chunks.free,
            chunks.own,
            chunks.staged,
            chunks.predecessor,
            chunks.private,
            status.memory.heap.used / 1024,
            status.memory.heap.bytes / 1024
        ),
    );
    let private = &status.private_memory;
    if private.records > 0 {
        line(
            "private",
            format!(
                "{} pages in {} pieces; a replacement hands {} over and resets the others",
                private.pages, private.records, private.to_hand_over
            ),
        );
    }
    let flush = &status.flush;
    let will = if flush.will_flush {
        "caches are flushed"
    } else {
        "caches are not flushed"
    };
    line("flush", format!("{}: {will} ({})", flush.policy, flush.why));
    let network = &status.network;
    let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    line(
        "network",
        format!(
            "{} by {}, gateway {}, names from {}",
            or(&network.address),
            or(&network.origin),
            or(&network.gateway),
            if network.dns.is_empty() {
                "nowhere".to_owned()
            } else {
                network.dns.join(", ")
            }
        ),
    );
    let telemetry = &status.telemetry;
    line(
        "telemetry",
        match &telemetry.endpoint {
            None => "told to nobody".to_owned(),
            Some(to) => format!(
                "to {to}: {} delivered, {} queued, {} dropped",
                telemetry.delivered, telemetry.queued, telemetry.dropped
            ),
        },
    );
    line(
        "staged",
        status.staged.as_ref().map_or("nothing".to_owned(), |staged| {
            format!("{} {} ({} bytes)", staged.name, staged.version, staged.elf_bytes)
        }),
    );
    match &status.last_replacement {
        None => line("replaced", "not since the cold boot".to_owned()),
        Some(last) => {
            let blackout = last.blackout_ms.map_or("unknown".to_owned(), timeline::duration);
            line(
                "replaced",
                format!(
                    "{} by {}: {}, blackout {blackout}, trace {}",
                    last.from, last.to, last.outcome, last.trace_id
                ),
            );
            text.push_str(&timeline::draw(last));
        }
    }
    text
}

fn seconds(ns: u64) -> String {
    format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_status_can_be_described() {
        let text = describe(&Status {
            uptime_ns: 1_234_567_890,
            ..Status::default()
        });
        assert!(
            text.contains("1.234 s") && text.contains("not since the cold boot"),
            "{text}"
        );
        assert!(text.lines().count() > 10);
    }
}

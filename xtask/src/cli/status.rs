//! `status`.

use crate::control::{self, Confidential, Status, TdxModule};
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
    if let Some(floor) = status.floor {
        line("floor", floor.to_string());
    }
    if let Some(measured) = &status.measurement {
        line("measured", measured.describe());
    }
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
            "{} chunks of {} KiB: {} free, {} own, {} staged, {} the predecessor's, {} private, {} preserved; heap {} of {} KiB used",
            chunks.total,
            status.memory.chunk_bytes / 1024,
            chunks.free,
            chunks.own,
            chunks.staged,
            chunks.predecessor,
            chunks.private,
            chunks.preserved,
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
    if let Some(confidential) = &status.confidential {
        line("platform", platform(confidential));
        line("tdx module", tdx_module(&confidential.tdx_module));
    }
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

fn platform(confidential: &Confidential) -> String {
    let mut words = vec![format!("{} {}", confidential.vendor, confidential.role)];
    if confidential.hypervisor {
        words.push("under a hypervisor".to_owned());
    }
    if let Some(tdx) = &confidential.tdx {
        let first = tdx
            .first_tdx_keyid
            .map_or(String::new(), |first| format!(" from {first} on"));
        words.push(format!(
            "TDX {} by the BIOS ({} TDX KeyIDs{first}, {} MKTME KeyIDs)",
            if tdx.enabled { "enabled" } else { "not enabled" },
            tdx.tdx_keyids,
            tdx.mktme_keyids
        ));
    }
    if let Some(sme) = &confidential.sme {
        words.push(format!("SME {sme}"));
    }
    let sev = confidential.sev.unwrap_or_default();
    let flags = [
        (sev.es, "SEV-ES"),
        (sev.snp, "SEV-SNP"),
        (confidential.movdir64b, "MOVDIR64B"),
        (confidential.wbnoinvd, "WBNOINVD"),
        (confidential.partial_write_erratum, "partial-write erratum"),
    ];
    words.extend(
        flags
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| (*name).to_owned()),
    );
    words.join(", ")
}

fn tdx_module(module: &TdxModule) -> String {
    match &module.version {
        Some(version) => version.clone(),
        None if module.present => format!("of unknown version ({})", module.why),
        None => format!("none ({})", module.why),
    }
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
        assert!(!text.contains("platform"), "{text}");
    }

    #[test]
    fn the_platform_is_described() {
        let text = platform(&Confidential {
            role: "host".to_owned(),
            vendor: "intel".to_owned(),
            tdx: Some(control::Tdx {
                enabled: true,
                mktme_keyids: 16,
                tdx_keyids: 32,
                first_tdx_keyid: Some(17),
            }),
            sme: Some("absent".to_owned()),
            movdir64b: true,
            ..Confidential::default()
        });
        let mut module = TdxModule {
            why: "SEAMCALL is not known here (#UD)".to_owned(),
            ..TdxModule::default()
        };
        assert_eq!(tdx_module(&module), "none (SEAMCALL is not known here (#UD))");
        (module.present, module.version) = (true, Some("1.5.06 build 744".to_owned()));
        assert_eq!(tdx_module(&module), "1.5.06 build 744");
        assert_eq!(
            text,
            "intel host, TDX enabled by the BIOS (32 TDX KeyIDs from 17 on, 16 MKTME KeyIDs), SME absent, MOVDIR64B"
        );
    }
}

//! What `cargo xtask collect` prints.

use super::received::Item;
use super::trace::Trace;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::io::{Result, Write};
use std::net::SocketAddr;

/// Prints items as they come, and each upgrade once it is complete.
pub(super) struct Show {
    json: bool,
    instances: HashSet<String>,
    /// Number of spans with which a trace was shown.
    shown: HashMap<String, usize>,
}

impl Show {
    pub fn new(json: bool) -> Self {
        Show {
            json,
            instances: HashSet::new(),
            shown: HashMap::new(),
        }
    }

    pub fn listening(&self, out: &mut impl Write, address: SocketAddr) -> Result<()> {
        if self.json {
            writeln!(
                out,
                "{}",
                json!({"kind": "listening", "address": address.to_string()})
            )?;
        } else {
            writeln!(
                out,
                "listening on http://{address} (OTEL_EXPORTER_OTLP_ENDPOINT; a page for a browser is there, too)"
            )?;
        }
        out.flush()
    }

    /// Items as they came in. Metrics are shown by `--json` only: they come by the dozen, and say little each.
    pub fn items(&mut self, out: &mut impl Write, items: &[Item]) -> Result<()> {
        for item in items {
            if self.json {
                writeln!(out, "{}", item.json())?;
                continue;
            }
            let source = item.source();
            // Bounded: whoever sends a million instances gets the first lines again.
            if self.instances.len() > 10_000 {
                self.instances.clear();
            }
            if self.instances.insert(source.instance.clone()) {
                let generation = source
                    .generation
                    .map_or_else(String::new, |number| format!(" generation {number}"));
                let (service, version) = (clean(&source.service), clean(&source.version));
                let (host, instance) = (clean(&source.host), clean(&source.instance));
                writeln!(
                    out,
                    "● {service} {version}{generation} on {host}, instance {instance}"
                )?;
            }
            if let Item::Log(log) = item {
                let generation = source
                    .generation
                    .map_or_else(|| "-".into(), |number| number.to_string());
                let (host, target) = (clean(&source.host), clean(&log.target));
                let (severity, message) = (clean(&log.severity), clean(&log.message));
                writeln!(
                    out,
                    "{} {host} {generation} {severity:5} {target}: {message}",
                    clock(log.time_ns)
                )?;
            }
        }
        Ok(())
    }

    /// Upgrades that are complete and were not shown yet, or have grown since.
    pub fn traces(&mut self, out: &mut impl Write, traces: Vec<Trace>) -> Result<()> {
        if self.json {
            return Ok(());
        }
        for trace in traces.into_iter().filter(Trace::is_complete) {
            let shown = self.shown.insert(trace.trace_id.clone(), trace.spans.len());
            if shown != Some(trace.spans.len()) {
                write!(out, "\n{}\n", trace.waterfall())?;
            }
        }
        if self.shown.len() > 10_000 {
            self.shown.clear();
        }
        Ok(())
    }
}

/// Text from outside without control characters: no sender moves our cursor, ends our line, or turns its direction.
pub(super) fn clean(text: &str) -> String {
    let harmful = |character: char| {
        character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|character| if harmful(character) { '\u{fffd}' } else { character })
        .collect()
}

/// Time of day in UTC, to the millisecond.
fn clock(unix_ns: u64) -> String {
    let ms = unix_ns / 1_000_000 % 86_400_000;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
}

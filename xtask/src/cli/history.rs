//! `history`.

use crate::control::{self, Past, Status};
use crate::exit::Exit;
use crate::http::Limits;
use crate::timeline;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::fmt::Write as _;

#[derive(Args)]
pub(super) struct Options {
    /// The machine's control address: HOST or HOST:PORT
    #[arg(value_name = "ADDR")]
    address: String,
    /// Print one JSON object: {"floor", "measurement", "history"}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    let address = control::parse_address(&options.address)?;
    let doing = format!("asking {address} for its history");
    let status = control::status(address, Limits::patient()).map_err(|e| e.during(&doing))?;
    if options.json {
        println!(
            "{}",
            json!({"floor": status.floor, "measurement": status.measurement, "history": status.history})
        );
    } else {
        print!("{}", describe(&status));
    }
    Ok(Exit::Ok)
}

fn describe(status: &Status) -> String {
    let mut text = String::new();
    for past in &status.history {
        _ = writeln!(text, "{}", line(past));
    }
    if text.is_empty() {
        text.push_str("no replacement has ended since the cold boot\n");
    }
    let image = &status.image;
    _ = writeln!(
        text,
        "now {} {}, generation {}",
        image.name, image.version, status.generation
    );
    if let Some(floor) = status.floor {
        _ = writeln!(text, "floor: {floor}");
    }
    if let Some(measured) = &status.measurement {
        _ = writeln!(text, "measured: {}", measured.describe());
    }
    text
}

fn line(past: &Past) -> String {
    let mut text = format!("{} by {}: {}", past.from, past.to, past.outcome);
    if let Some(blackout) = past.blackout_ms {
        _ = write!(text, ", blackout {}", timeline::duration(blackout));
    }
    if let Some(reason) = &past.reason {
        _ = write!(text, ", {reason}");
    }
    _ = write!(text, " (trace {})", past.trace_id);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_replacement_is_a_line() {
        let past = |outcome: &str, reason: Option<&str>, blackout_ms| Past {
            from: "1.0.0".to_owned(),
            to: "1.1.0".to_owned(),
            outcome: outcome.to_owned(),
            reason: reason.map(str::to_owned),
            trace_id: "ab".to_owned(),
            span_id: "cd".to_owned(),
            blackout_ms,
        };
        let status = Status {
            floor: Some(3),
            history: vec![
                past("rolled-back", Some("panic: oh"), None),
                past("committed", None, Some(5.0)),
            ],
            ..Status::default()
        };
        let text = describe(&status);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "1.0.0 by 1.1.0: rolled-back, panic: oh (trace ab)");
        assert_eq!(lines[1], "1.0.0 by 1.1.0: committed, blackout 5.00 ms (trace ab)");
        assert_eq!(lines[3], "floor: 3");
        assert!(describe(&Status::default()).starts_with("no replacement"));
    }
}

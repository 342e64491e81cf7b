//! `commit` and `rollback`.

use crate::control;
use crate::exit::Exit;
use crate::keys::{self, Role};
use crate::order::Action;
use crate::upgrade;
use crate::workspace;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub(super) struct Options {
    /// The machine's control address: HOST or HOST:PORT
    #[arg(value_name = "ADDR")]
    address: String,
    /// The operator's secret key [default: the development key]
    #[arg(long, value_name = "FILE")]
    operator_key: Option<PathBuf>,
    /// How many seconds it may take
    #[arg(long, value_name = "SECONDS", default_value_t = upgrade::SUCCESSOR.as_secs())]
    deadline: u64,
    /// Print one JSON object: {"before", "accepted", "after"}
    #[arg(long)]
    json: bool,
}

/// Orders the end of a trial, and waits for it.
pub(super) fn run(options: Options, action: &Action) -> Result<Exit> {
    let address = control::parse_address(&options.address)?;
    let key = options
        .operator_key
        .unwrap_or_else(|| Role::Operator.secret_path(&workspace::dev_keys_dir()));
    let key = keys::read_secret(&key)?;
    let (before, accepted) = upgrade::order(address, action, &key)?;
    let limit = Duration::from_secs(options.deadline);
    let after = upgrade::await_end_of_trial(address, &before, action, limit)?;
    if options.json {
        println!(
            "{}",
            json!({"before": before, "accepted": accepted, "after": after})
        );
        return Ok(Exit::Ok);
    }
    let verb = match action {
        Action::Rollback => "gave the machine back: now it is",
        Action::Commit | Action::Replace { .. } => "stays: it is",
    };
    println!(
        "{} {} (generation {}) {verb} {} {} (generation {})",
        before.image.name,
        before.image.version,
        before.generation,
        after.image.name,
        after.image.version,
        after.generation
    );
    Ok(Exit::Ok)
}

//! `upgrade`.

use crate::control;
use crate::exit::Exit;
use crate::image::Image;
use crate::keys::{self, Role};
use crate::order::{CommitBy, Trial};
use crate::timeline;
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
    /// The image: a .tar that `build-app` made
    image: PathBuf,
    /// The operator's secret key [default: the development key]
    #[arg(long, value_name = "FILE")]
    operator_key: Option<PathBuf>,
    /// How many seconds the successor may take to answer, besides its trial
    #[arg(long, value_name = "SECONDS", default_value_t = upgrade::SUCCESSOR.as_secs())]
    deadline: u64,
    /// How many seconds the successor is on trial before it goes back [default: the machine's own, 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    probation: Option<u64>,
    /// Who says that the successor stays [default: auto]
    #[arg(long, value_enum)]
    commit: Option<CommitBy>,
    /// Print one JSON object: {"before", "accepted", "after"}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    // Whatever is wrong with the command line is said before anything is sent.
    let address = control::parse_address(&options.address)?;
    let image = Image::read(&options.image)?;
    let key = options
        .operator_key
        .unwrap_or_else(|| Role::Operator.secret_path(&workspace::dev_keys_dir()));
    let key = keys::read_secret(&key)?;

    let staged = upgrade::push(address, &image)?;
    let trial = Trial {
        probation_ms: options.probation.map(|seconds| seconds * 1000),
        commit: options.commit,
    };
    let (before, accepted) = upgrade::order(address, &upgrade::replace_by(&staged, trial), &key)?;
    let probation = options.probation.unwrap_or(upgrade::PROBATION.as_secs());
    let limit = Duration::from_secs(options.deadline + probation);
    let after = upgrade::decided(address, upgrade::await_successor(address, &before, limit)?, limit)?;
    if options.json {
        println!(
            "{}",
            json!({"before": before, "accepted": accepted, "after": after})
        );
        return Ok(Exit::Ok);
    }
    println!(
        "{} {} (generation {}) was replaced by {} {} (generation {})",
        before.image.name,
        before.image.version,
        before.generation,
        after.image.name,
        after.image.version,
        after.generation
    );
    match &after.last_replacement {
        Some(replacement) => {
            let blackout = replacement
                .blackout_ms
                .map_or("not known yet".to_owned(), timeline::duration);
            println!(
                "outcome: {}; blackout, seen from inside: {blackout}",
                replacement.outcome
            );
            print!("{}", timeline::draw(replacement));
        }
        None => println!("the successor tells no timeline"),
    }
    Ok(Exit::Ok)
}

//! `keygen`.

use crate::exit::Exit;
use crate::keys::{self, Role};
use crate::workspace;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Options {
    /// Where the keys go [default: target/instar/keys, the development keys]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    let dir = options.dir.unwrap_or_else(workspace::dev_keys_dir);
    keys::generate(&dir)?;
    for (role, what) in [
        (Role::Release, "says what may run"),
        (Role::Operator, "says who may ask"),
    ] {
        println!(
            "{:8} {} (secret), {} (public): {what}",
            role.name(),
            role.secret_path(&dir).display(),
            role.public_path(&dir).display()
        );
    }
    Ok(Exit::Ok)
}

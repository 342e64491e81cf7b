//! `test`.

use crate::exit::{Exit, Failure};
use crate::install;
use crate::unpack;
use crate::workspace;
use anyhow::Result;
use clap::Args;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[derive(Args)]
pub(super) struct Options {
    /// Install nothing, even if something is missing
    #[arg(long)]
    no_install: bool,
    /// Only the tests whose name contains one of these; what follows `--` goes to the test runner as it is
    #[arg(value_name = "FILTER", trailing_var_arg = true, allow_hyphen_values = true)]
    filters: Vec<String>,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    install::ensure(install::FOR_TESTS, !options.no_install)?;
    unpack::ensure(unpack::FOR_TESTS, !options.no_install)?;
    install::python::ensure(!options.no_install)?;
    let mut cargo = workspace::cargo();
    if has_nextest() {
        // nextest does not run documentation's tests, some of which show what must not compile. A filter may be for nextest
        // only: then they stay out.
        if options.filters.is_empty() && !doc_tests()? {
            return Err(Failure::new(Exit::Failed, "documentation's tests failed").into());
        }
        cargo.args(["nextest", "run", "--workspace"]);
    } else {
        cargo.args(["test", "--workspace"]);
    }
    cargo.args(&options.filters);
    // The runner takes our place: its summary is the last thing written, and its exit code is ours.
    let error = cargo.exec();
    Err(Failure::new(Exit::Failed, format!("could not start cargo: {error}")).into())
}

/// Whether documentation's tests pass.
fn doc_tests() -> Result<bool> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--workspace", "--doc"]);
    let status = cargo
        .status()
        .map_err(|error| Failure::new(Exit::Failed, format!("could not start cargo: {error}")))?;
    Ok(status.success())
}

/// Whether `cargo nextest` is there; `cargo test` does the same, more slowly.
fn has_nextest() -> bool {
    let mut cargo: Command = workspace::cargo();
    cargo
        .args(["nextest", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    cargo.status().is_ok_and(|status| status.success())
}

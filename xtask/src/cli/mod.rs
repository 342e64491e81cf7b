//! The command line: one module a verb.

mod bench;
mod build_app;
mod demo;
mod history;
mod keygen;
mod machine;
mod measure;
mod run;
mod soak;
mod status;
mod test;
mod trial;
mod upgrade;

use crate::exit::{self, Exit};
use crate::order::Action;
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What all verbs share.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about = "Instar's verbs", long_about = None)]
#[command(max_term_width = 110, after_help = Exit::help())]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build an application for the bare machine and pack it into a signed image
    BuildApp(build_app::Options),
    /// Receive and print what machines report (OTLP/HTTP)
    Collect(crate::collect::Options),
    /// The main job, start to end: build, boot, serve, replace live, report
    Demo(demo::Options),
    /// Measure blackout, cold boot, sizes and least memory; or flushes; or the reset of private memory
    Bench(bench::Options),
    /// Start a virtual machine with an application or an image in it
    Run(run::Options),
    /// Push an image to a running machine and replace its image with it
    Upgrade(upgrade::Options),
    /// Say that the image on trial stays
    Commit(trial::Options),
    /// Have the image on trial give the machine back to the one before
    Rollback(trial::Options),
    /// Show how a machine's last replacements ended
    History(history::Options),
    /// Compute the chain of images that ran, or say which of them a machine has run
    Measure(measure::Options),
    /// Ask a running machine how it is
    Status(status::Options),
    /// Replace a machine's image again and again, by good, bad and failing ones, and look after each whether all is well
    Soak(soak::Options),
    /// Run all tests, and install what they need
    Test(test::Options),
    /// Make a release and an operator key pair (minisign's format)
    Keygen(keygen::Options),
}

/// Runs the verb that the command line names.
pub fn main() -> ExitCode {
    // A reader that has seen enough (`| head -1`) ends us quietly, as it does with other programs.
    // SAFETY: nothing else runs yet, and the default action is a valid one.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let arguments = Arguments::parse();
    match run(arguments.verb) {
        Ok(exit) => exit.into(),
        Err(error) => {
            exit::report(&error);
            exit::exit_of(&error).into()
        }
    }
}

fn run(verb: Verb) -> Result<Exit> {
    match verb {
        Verb::BuildApp(options) => build_app::run(options),
        Verb::Collect(options) => crate::collect::main(&options).map(|()| Exit::Ok),
        Verb::Run(options) => run::run(options),
        Verb::Upgrade(options) => upgrade::run(options),
        Verb::Commit(options) => trial::run(options, &Action::Commit),
        Verb::Rollback(options) => trial::run(options, &Action::Rollback),
        Verb::History(options) => history::run(options),
        Verb::Measure(options) => measure::run(options),
        Verb::Status(options) => status::run(options),
        Verb::Soak(options) => soak::run(options),
        Verb::Test(options) => test::run(options),
        Verb::Demo(options) => demo::run(options),
        Verb::Bench(options) => bench::run(options),
        Verb::Keygen(options) => keygen::run(options),
    }
}

//! `run`.

use super::machine::MachineOptions;
use crate::build::{self, BuildOptions};
use crate::exit::{Exit, Failure};
use crate::image::Image;
use crate::keys::{self, Role};
use crate::machine::{Config, Machine, Ports, Show};
use crate::workspace;
use anyhow::{Context, Result};
use clap::Args;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a machine may take to boot. Emulated, on a host that does other things besides.
const BOOT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(super) struct Options {
    /// An application under apps/ (built first), or the path of an image (a .tar that `build-app` made)
    #[arg(value_name = "APP|IMAGE")]
    what: String,
    #[command(flatten)]
    machine: MachineOptions,
    /// The first stage [default: target/instar/first-stage, which trusts the keys of the last build]
    #[arg(long, value_name = "FILE")]
    first_stage: Option<PathBuf>,
    /// Print the emulator's exact command line (Bochs: and its files), and start nothing
    #[arg(long)]
    dry_run: bool,
    /// Print {"http","echo","control"} as the first line, once the machine answers; its serial line goes to stderr
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    let config = prepare(&options)?;
    if options.dry_run {
        let ports = Ports::free().context("found no free ports")?;
        println!("{}", config.describe(ports));
        return Ok(Exit::Ok);
    }
    options.machine.ensure_programs()?;
    let show = if options.json { Show::Stderr } else { Show::Stdout };
    let mut machine = Machine::with_config(config).show(show).start()?;
    let at = machine.addresses();
    if !options.json {
        eprintln!(
            "http http://{}/  echo udp {}  control {}  (Ctrl-C ends the machine)",
            at.http, at.echo, at.control
        );
    }
    if let Some(log) = machine.rig_log() {
        eprintln!("{} logs every flush: {}", machine.rig().name(), log.display());
    }
    if options.json {
        machine.wait_ready(BOOT)?;
        println!("{}", serde_json::to_string(&at)?);
        std::io::stdout().flush()?;
    }
    let status = machine.wait()?;
    if status.success() {
        return Ok(Exit::Ok);
    }
    let (emulator, said) = (machine.rig().name(), machine.emulator_messages());
    Err(Failure::new(
        Exit::Failed,
        format!("{emulator} ended with {status}: {}", said.trim()),
    )
    .into())
}

/// Builds what is missing, unless nothing shall be started.
fn prepare(options: &Options) -> Result<Config> {
    let given = Path::new(&options.what);
    let is_image = given.is_file() || options.what.contains('/') || options.what.ends_with(".tar");
    let mut first_stage = options.first_stage.clone().unwrap_or_else(workspace::first_stage);
    let image = if is_image {
        Image::read(given)?;
        if !options.dry_run && options.first_stage.is_none() && !first_stage.is_file() {
            first_stage = build_trusting_development_keys()?;
        }
        fs::canonicalize(given).with_context(|| format!("could not find {}", given.display()))?
    } else if options.dry_run {
        let app = workspace::app(&options.what)?;
        build::image_path(&app.name, &app.version)
    } else {
        let built = build::build_app(&BuildOptions::new(&options.what))?;
        if options.first_stage.is_none() {
            first_stage = built.first_stage;
        }
        built.path
    };
    options.machine.config(first_stage, image)
}

fn build_trusting_development_keys() -> Result<PathBuf> {
    let dir = keys::development()?;
    let release = keys::read_public(&Role::Release.public_path(&dir))?;
    let operator = keys::read_public(&Role::Operator.public_path(&dir))?;
    build::build_first_stage(&release, &operator)
}

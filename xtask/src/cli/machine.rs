//! What the verbs that start a machine share.

use crate::install;
use crate::machine::{Config, Flush, Kind, parse_memory};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Clone)]
pub(super) struct MachineOptions {
    /// How many cores
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub smp: u32,
    /// How much memory: 256, 24M, 1G
    #[arg(long, value_name = "M", default_value = "256M", value_parser = parse_memory)]
    pub memory: u32,
    /// When caches are flushed
    #[arg(long, value_enum, default_value_t)]
    pub flush: Flush,
    /// More words for the image's command line (`key=value …`, docs/interfaces.md)
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "",
        allow_hyphen_values = true,
        hide_default_value = true
    )]
    pub append: String,
    /// The kind of virtual machine
    #[arg(long, value_enum, default_value_t)]
    pub machine: Kind,
    /// QEMU's accelerator
    #[arg(long, value_name = "NAME", default_value = "tcg")]
    pub accel: String,
    /// Install nothing, even if something is missing
    #[arg(long)]
    pub no_install: bool,
}

impl MachineOptions {
    /// The machine that they describe.
    pub fn config(&self, first_stage: PathBuf, image: PathBuf) -> Config {
        Config {
            kind: self.machine,
            accel: self.accel.clone(),
            cores: self.smp,
            memory_mib: self.memory,
            flush: self.flush,
            append: self.append.clone(),
            ..Config::new(first_stage, image)
        }
    }

    /// Sees to it that the machine's programs are there.
    pub fn ensure_programs(&self) -> Result<()> {
        install::ensure(install::FOR_MACHINES, !self.no_install)
    }
}

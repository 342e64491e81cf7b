//! What the verbs that start a machine share.

use crate::exit::{Exit, Failure};
use crate::install;
use crate::machine::{Bochs, Config, Flush, Kind, Qemu, Rig, parse_memory};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `--rig`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum RigName {
    /// QEMU: fast, and nothing is encrypted
    #[default]
    Qemu,
    /// Bochs: slow; a machine whose BIOS has enabled TDX
    Bochs,
}

/// Who plays the machine.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct RigOptions {
    /// The emulator
    #[arg(long, value_enum, default_value_t)]
    pub rig: RigName,
    /// With `--rig bochs`: how many TDX KeyIDs the BIOS has set aside; TDX is enabled where there are two or more [default: 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=0x7fff))]
    pub tdx_keyids: Option<u32>,
}

impl RigOptions {
    /// What they describe.
    pub fn rig(&self) -> Result<Rig> {
        self.with(None, None)
    }

    /// The same with what only QEMU has.
    fn with(&self, machine: Option<Kind>, accel: Option<&str>) -> Result<Rig> {
        let refuse = |option: &str, other: &str| {
            Err(Failure::new(
                Exit::Usage,
                format!("{option} makes no sense with --rig {other}"),
            ))
        };
        Ok(match self.rig {
            RigName::Qemu if self.tdx_keyids.is_some() => refuse("--tdx-keyids", "qemu")
                .map_err(|failure| failure.hint("QEMU has no TDX KeyIDs; add --rig bochs"))?,
            RigName::Qemu => {
                let default = Qemu::default();
                Rig::Qemu(Qemu {
                    kind: machine.unwrap_or(default.kind),
                    accel: accel.map_or(default.accel, str::to_owned),
                    extra: default.extra,
                })
            }
            RigName::Bochs if machine.is_some() || accel.is_some() => {
                let option = if machine.is_some() { "--machine" } else { "--accel" };
                refuse(option, "bochs").map_err(|failure| {
                    failure.hint("it is an option of QEMU's; Bochs is one kind of machine, and interprets")
                })?
            }
            RigName::Bochs => {
                let default = Bochs::default();
                Rig::Bochs(Bochs {
                    tdx_keyids: self.tdx_keyids.unwrap_or(default.tdx_keyids),
                    ..default
                })
            }
        })
    }

    /// Sees to it that the machine's programs are there.
    pub fn ensure_programs(&self, may_install: bool) -> Result<()> {
        let tools = match self.rig {
            RigName::Qemu => install::FOR_QEMU,
            RigName::Bochs => install::FOR_BOCHS,
        };
        install::ensure(tools, may_install)
    }
}

#[derive(Args, Clone)]
pub(super) struct MachineOptions {
    #[command(flatten)]
    pub rig: RigOptions,
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
    /// QEMU's kind of virtual machine [default: q35]
    #[arg(long, value_enum)]
    pub machine: Option<Kind>,
    /// QEMU's accelerator [default: tcg]
    #[arg(long, value_name = "NAME")]
    pub accel: Option<String>,
    /// Install nothing, even if something is missing
    #[arg(long)]
    pub no_install: bool,
}

impl MachineOptions {
    /// The machine that they describe.
    pub fn config(&self, first_stage: PathBuf, image: PathBuf) -> Result<Config> {
        Ok(Config {
            rig: self.rig.with(self.machine, self.accel.as_deref())?,
            cores: self.smp,
            memory_mib: self.memory,
            flush: self.flush,
            append: self.append.clone(),
            ..Config::new(first_stage, image)
        })
    }

    /// Sees to it that the machine's programs are there.
    pub fn ensure_programs(&self) -> Result<()> {
        self.rig.ensure_programs(!self.no_install)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::exit_of;

    #[test]
    fn what_a_rig_does_not_have_is_refused() {
        let (qemu, bochs) = (
            RigOptions::default(),
            RigOptions {
                rig: RigName::Bochs,
                tdx_keyids: None,
            },
        );
        assert_eq!(qemu.rig().expect("QEMU"), Rig::default());
        assert_eq!(bochs.rig().expect("Bochs"), Rig::Bochs(Bochs::default()));
        let keyids = RigOptions {
            tdx_keyids: Some(2),
            ..qemu
        };
        for (refused, option) in [
            (keyids.rig(), "--tdx-keyids"),
            (bochs.with(Some(Kind::Q35), None), "--machine"),
            (bochs.with(None, Some("kvm")), "--accel"),
        ] {
            let error = refused.expect_err(option);
            assert_eq!(exit_of(&error), Exit::Usage);
            assert!(error.to_string().starts_with(option), "{error}");
        }
    }
}

//! QEMU: its command line, pure, and how it is started.

use super::Started;
use super::command::{Config, shell_line};
use super::ports::Ports;
use super::process::{KillOnDrop, spawn};
use super::serial::{Log, Show};
use crate::exit::{Exit, Failure};
use anyhow::{Result, bail};
use clap::ValueEnum;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The program.
pub const QEMU: &str = "qemu-system-x86_64";

/// Kinds of virtual machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A PC with PCI Express.
    #[default]
    Q35,
}

/// What only QEMU has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The kind of machine.
    pub kind: Kind,
    /// QEMU's accelerator.
    pub accel: String,
    /// More arguments.
    pub extra: Vec<String>,
}

impl Default for Qemu {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            accel: "tcg".to_owned(),
            extra: Vec::new(),
        }
    }
}

impl Qemu {
    /// QEMU's arguments. `monitor` is the path of its QMP socket, if one is wanted.
    pub fn arguments(&self, config: &Config, ports: Ports, monitor: Option<&str>) -> Vec<String> {
        let machine = match self.kind {
            Kind::Q35 => "q35",
        };
        let Ports { http, echo, control } = ports;
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        add("-machine", format!("{machine},accel={}", self.accel));
        add("-cpu", "max".to_owned());
        add("-smp", config.cores.to_string());
        add("-m", format!("{}M", config.memory_mib));
        add("-display", "none".to_owned());
        add("-serial", "stdio".to_owned());
        add("-kernel", config.first_stage.display().to_string());
        add("-initrd", config.image.display().to_string());
        add("-append", config.image_command_line());
        add(
            "-netdev",
            format!(
                "user,id=n0,hostfwd=tcp:127.0.0.1:{http}-:80,hostfwd=udp:127.0.0.1:{echo}-:7,\
                 hostfwd=tcp:127.0.0.1:{control}-:7700"
            ),
        );
        add(
            "-device",
            "virtio-net-pci,netdev=n0,disable-legacy=on,romfile=".to_owned(),
        );
        if let Some(path) = monitor {
            add("-qmp", format!("unix:{path},server=on,wait=off"));
        }
        arguments.extend(["-nodefaults", "-no-reboot"].map(str::to_owned));
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    pub(super) fn start(
        &self,
        config: &Config,
        ports: Ports,
        monitor: Option<&str>,
        show: Show,
    ) -> Result<Started> {
        let arguments = self.arguments(config, ports, monitor);
        let mut command = Command::new(QEMU);
        command
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = spawn(command).map_err(|e| {
            Failure::new(Exit::MissingProgram, format!("could not start {QEMU}: {e}"))
                .hint("install it with: apt-get install qemu-system-x86")
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = KillOnDrop::new(child);
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            bail!("QEMU has no output")
        };
        Ok(Started {
            process,
            started,
            command_line: shell_line(QEMU, &arguments),
            serial: Log::collect(stdout, show)?,
            complaints: Log::collect(stderr, Show::Nowhere)?,
            log: None,
        })
    }
}

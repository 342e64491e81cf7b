//! What a machine is: pure, so that `--dry-run` prints exactly what would run.

use super::bochs::{Bochs, Files};
use super::ports::Ports;
use super::qemu::{QEMU, Qemu};
use clap::ValueEnum;
use std::fmt;
use std::path::PathBuf;

/// `instar.flush` on the image's command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Flush {
    /// Flush caches if memory encryption demands it.
    #[default]
    Auto,
    /// Flush caches in every replacement.
    Always,
    /// Never flush them.
    Never,
}

impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// Who plays the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rig {
    /// QEMU.
    Qemu(Qemu),
    /// Bochs.
    Bochs(Bochs),
}

impl Default for Rig {
    fn default() -> Self {
        Self::Qemu(Qemu::default())
    }
}

impl Rig {
    /// What people call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Qemu(_) => "QEMU",
            Self::Bochs(_) => "Bochs",
        }
    }
}

/// Everything that decides the command line but the ports.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first stage.
    pub first_stage: PathBuf,
    /// The image.
    pub image: PathBuf,
    /// Who plays the machine.
    pub rig: Rig,
    /// How many cores.
    pub cores: u32,
    /// How much memory, in MiB.
    pub memory_mib: u32,
    /// Whether caches are flushed.
    pub flush: Flush,
    /// More words for the image's command line.
    pub append: String,
}

impl Config {
    /// Four cores, 256 MiB: what the demo uses.
    pub fn new(first_stage: PathBuf, image: PathBuf) -> Self {
        Self {
            first_stage,
            image,
            rig: Rig::default(),
            cores: 4,
            memory_mib: 256,
            flush: Flush::default(),
            append: String::new(),
        }
    }

    /// The command line that the image will see.
    pub fn image_command_line(&self) -> String {
        let mut line = format!("instar.flush={}", self.flush);
        if !self.append.trim().is_empty() {
            line.push(' ');
            line.push_str(self.append.trim());
        }
        line
    }
}

impl Config {
    /// What would run, with these ports, as a person would type it into a shell; for Bochs with the files that it reads.
    pub fn describe(&self, ports: Ports) -> String {
        match &self.rig {
            Rig::Qemu(qemu) => shell_line(QEMU, &qemu.arguments(self, ports, None)),
            Rig::Bochs(bochs) => bochs.describe(self, ports, &Files::new()),
        }
    }
}

/// A command as a person would type it into a shell.
pub fn shell_line(program: &str, arguments: &[String]) -> String {
    let mut line = program.to_owned();
    for argument in arguments {
        line.push(' ');
        line.push_str(&quote(argument));
    }
    line
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Reads an amount of memory: `256`, `256M`, `256MiB`, `1G`, `1GiB`. The result is in MiB.
///
/// # Errors
/// If it is none, or less than 1 MiB, or more than 1 TiB.
pub fn parse_memory(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text.get(digits.len()..).unwrap_or_default() {
        "" | "M" | "MiB" | "m" => 1,
        "G" | "GiB" | "g" => 1024,
        unit => return Err(format!("`{unit}` is no unit of memory; use M or G")),
    };
    let amount: u32 = digits.parse().map_err(|_| "it is no number of MiB".to_owned())?;
    match amount.checked_mul(factor) {
        Some(mib) if (1..=1024 * 1024).contains(&mib) => Ok(mib),
        _ => Err("it is not between 1M and 1024G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(
            PathBuf::from("/out/first-stage"),
            PathBuf::from("/out/hello-1.0.0.tar"),
        )
    }

    #[test]
    fn the_command_line_is_the_documented_one() {
        let mut config = config();
        config.flush = Flush::Always;
        config.append = " instar.log=debug ".to_owned();
        config.rig = Rig::Qemu(Qemu {
            extra: vec!["-plugin".to_owned(), "witness.so".to_owned()],
            ..Qemu::default()
        });
        let ports = Ports {
            http: 1001,
            echo: 1002,
            control: 1003,
        };
        assert_eq!(
            config.describe(ports),
            "qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp 4 -m 256M -display none -serial stdio \
             -kernel /out/first-stage -initrd /out/hello-1.0.0.tar -append 'instar.flush=always instar.log=debug' \
             -netdev user,id=n0,hostfwd=tcp:127.0.0.1:1001-:80,hostfwd=udp:127.0.0.1:1002-:7,\
             hostfwd=tcp:127.0.0.1:1003-:7700 -device virtio-net-pci,netdev=n0,disable-legacy=on,romfile= \
             -nodefaults -no-reboot -plugin witness.so"
        );
    }

    #[test]
    fn the_monitor_is_there_when_asked_for() {
        let ports = Ports {
            http: 1,
            echo: 2,
            control: 3,
        };
        let arguments = Qemu::default().arguments(&config(), ports, Some("/tmp/m"));
        assert!(arguments.contains(&"unix:/tmp/m,server=on,wait=off".to_owned()));
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("plain-1.0"), "plain-1.0");
        assert_eq!(quote("two words"), "'two words'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn memory_is_read_with_and_without_units() {
        assert_eq!(parse_memory("256"), Ok(256));
        assert_eq!(parse_memory("24M"), Ok(24));
        assert_eq!(parse_memory("2G"), Ok(2048));
        for bad in ["", "0", "x", "1T", "-1", "99999999999", "4294967295G"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
    }
}

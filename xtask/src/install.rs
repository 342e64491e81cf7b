//! Programs that must be there: found, installed where that is allowed and possible, or named with the exact command.

use crate::exit::{Exit, Failure};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub mod python;

/// A program and the Debian package that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// What is looked for in `PATH`; or a file, by its whole path, for packages that bring no program.
    pub program: &'static str,
    /// What is installed.
    pub package: &'static str,
}

/// The virtual machine.
pub const QEMU: Tool = Tool {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
};

const GRUB: Tool = Tool {
    program: "grub-mkrescue",
    package: "grub-common",
};
const GRUB_BIOS: Tool = Tool {
    program: "/usr/lib/grub/i386-pc/multiboot2.mod",
    package: "grub-pc-bin",
};
const XORRISO: Tool = Tool {
    program: "xorriso",
    package: "xorriso",
};
const MTOOLS: Tool = Tool {
    program: "mformat",
    package: "mtools",
};
const BOCHS: Tool = Tool {
    program: "bochs",
    package: "bochs",
};
const BOCHS_DISPLAY: Tool = Tool {
    program: "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so",
    package: "bochs-term",
};
const BOCHS_BIOS: Tool = Tool {
    program: "/usr/share/bochs/BIOS-bochs-latest",
    package: "bochsbios",
};
const BOCHS_VGABIOS: Tool = Tool {
    program: "/usr/share/bochs/VGABIOS-lgpl-latest",
    package: "vgabios",
};

/// What starting a machine needs.
pub const FOR_QEMU: &[Tool] = &[QEMU];

/// What starting a machine under Bochs needs: the emulator, and a boot medium with GRUB.
pub const FOR_BOCHS: &[Tool] = &[
    BOCHS,
    BOCHS_DISPLAY,
    BOCHS_BIOS,
    BOCHS_VGABIOS,
    GRUB,
    GRUB_BIOS,
    XORRISO,
    MTOOLS,
];

/// What the tests need: both emulators, a boot medium with GRUB, for BIOS and for UEFI, a UEFI to boot it, clients for RESP, a
/// browser, and a syslog server. (Installed on a whole Debian, that one also begins to collect its computer's log; tests start
/// their own.)
pub const FOR_TESTS: &[Tool] = &[
    QEMU,
    BOCHS,
    BOCHS_DISPLAY,
    BOCHS_BIOS,
    BOCHS_VGABIOS,
    GRUB,
    GRUB_BIOS,
    Tool {
        program: "/usr/lib/grub/x86_64-efi/multiboot2.mod",
        package: "grub-efi-amd64-bin",
    },
    XORRISO,
    MTOOLS,
    Tool {
        program: "/usr/share/ovmf/OVMF.fd",
        package: "ovmf",
    },
    Tool {
        program: "redis-cli",
        package: "redis-tools",
    },
    Tool {
        program: "/usr/sbin/rsyslogd",
        package: "rsyslog",
    },
    Tool {
        program: "chromium",
        package: "chromium",
    },
    Tool {
        program: "chromedriver",
        package: "chromium-driver",
    },
];

/// Sees to it that all `tools` are there.
///
/// # Errors
/// With [`Exit::MissingProgram`] and the exact command, where something is missing and `may_install` is false, there is no
/// way to install it, or installing failed.
pub fn ensure(tools: &[Tool], may_install: bool) -> Result<()> {
    let is_missing = |tool: &Tool| find(tool.program).is_none();
    ensure_by(tools, may_install, is_missing)
}

/// As [`ensure`], for what is missing where `is_missing` says so.
fn ensure_by(tools: &[Tool], may_install: bool, is_missing: impl Fn(&Tool) -> bool) -> Result<()> {
    let missing: Vec<Tool> = tools.iter().copied().filter(&is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs = list(missing.iter().map(|tool| tool.program));
    let packages = packages(&missing);
    let by_hand = format!("apt-get update && apt-get install -y {}", packages.join(" "));
    let needed = |why: String, command: String| {
        let failure = Failure::new(Exit::MissingProgram, format!("{programs} is missing{why}"));
        Err(failure.hint(format!("install it with: {command}")).into())
    };
    let Some(prefix) = privileges() else {
        return needed(String::new(), format!("sudo sh -c '{by_hand}'"));
    };
    let as_root = if prefix.is_empty() {
        by_hand.clone()
    } else {
        format!("sudo sh -c '{by_hand}'")
    };
    if find("apt-get").is_none() {
        return needed(
            ", and this is no Debian".to_owned(),
            format!("{as_root} (Debian's package names)"),
        );
    }
    if !may_install {
        return needed(", and --no-install forbids to install it".to_owned(), as_root);
    }
    let mut install = vec!["apt-get", "install", "-y"];
    install.extend(&packages);
    eprintln!(
        "{programs} is missing; installing it: {}",
        [prefix, &install].concat().join(" ")
    );
    // A machine that was never updated knows no packages, and one whose lists are old asks for files that are gone.
    let installed =
        apt(prefix, &install)? || (apt(prefix, &["apt-get", "update"])? && apt(prefix, &install)?);
    if !installed || missing.iter().any(is_missing) {
        return needed(", and installing it failed (see above)".to_owned(), as_root);
    }
    Ok(())
}

/// Reads the lists of packages anew, where that is possible without asking for a password; whether that worked.
pub(crate) fn update() -> Result<bool> {
    privileges().map_or(Ok(false), |prefix| apt(prefix, &["apt-get", "update"]))
}

fn packages(missing: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

/// What to put before a command so that root runs it; `None` if there is no way without asking for a password.
fn privileges() -> Option<&'static [&'static str]> {
    // SAFETY: geteuid always succeeds and touches nothing.
    if unsafe { libc::geteuid() } == 0 {
        return Some(&[]);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sudo.status()
        .is_ok_and(|status| status.success())
        .then_some(&["sudo", "-n"])
}

/// Runs apt-get with its output on standard error: standard output is for results.
fn apt(prefix: &[&str], command: &[&str]) -> Result<bool> {
    let words = [prefix, &["env", "DEBIAN_FRONTEND=noninteractive"], command].concat();
    let Some((program, arguments)) = words.split_first() else {
        return Ok(false);
    };
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("could not start {program}"))?;
    Ok(status.success())
}

/// Where `program` is, in `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|file| file.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| {
            candidate
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::exit_of;

    #[test]
    fn programs_are_found_in_the_path() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
        assert!(
            ensure(
                &[Tool {
                    program: "sh",
                    package: "dash"
                }],
                false
            )
            .is_ok()
        );
    }

    #[test]
    fn a_forbidden_installation_names_its_command() {
        let tools = [
            Tool {
                program: "no-such-program",
                package: "b-package",
            },
            Tool {
                program: "no-such-program-either",
                package: "a-package",
            },
            Tool {
                program: "no-such-program-too",
                package: "b-package",
            },
        ];
        let error = ensure(&tools, false).expect_err("missing");
        assert_eq!(exit_of(&error), Exit::MissingProgram);
        let failure = error.downcast_ref::<Failure>().expect("a failure");
        assert!(
            failure.hint.contains("apt-get install -y a-package b-package"),
            "{}",
            failure.hint
        );
        assert!(
            failure
                .what
                .starts_with("no-such-program, no-such-program-either"),
            "{}",
            failure.what
        );
    }
}

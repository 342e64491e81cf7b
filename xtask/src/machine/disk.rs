//! A disk from which GRUB boots an image, on BIOS and on UEFI.

use crate::exit::{Exit, Failure};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const GRUB: &str = "grub-mkrescue";

/// Makes `disk`: GRUB, told to load `first_stage` by Multiboot 2 with `command_line`, and `image` as its module. No menu, no
/// waiting; what GRUB has to say goes to the serial line.
///
/// # Errors
/// If `grub-mkrescue` or something that it needs is missing (with the exit code for that), or a file cannot be read or written.
pub fn make(disk: &Path, first_stage: &Path, image: &Path, command_line: &str) -> Result<()> {
    let root = disk.with_extension("root");
    let boot = root.join("boot/grub");
    fs::create_dir_all(&boot).with_context(|| format!("could not make {}", boot.display()))?;
    fs::write(boot.join("grub.cfg"), configuration(command_line)).context("could not write grub.cfg")?;
    for (from, to) in [(first_stage, "boot/first-stage"), (image, "boot/image.tar")] {
        fs::copy(from, root.join(to)).with_context(|| format!("could not copy {}", from.display()))?;
    }
    let made = Command::new(GRUB)
        .arg("-o")
        .args([disk, &root])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| missing(format!("could not start {GRUB}: {e}")))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        return Err(missing(format!("{GRUB} failed ({}): {}", made.status, said.trim())).into());
    }
    fs::remove_dir_all(&root).with_context(|| format!("could not remove {}", root.display()))
}

fn configuration(command_line: &str) -> String {
    format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\nset timeout=0\nmenuentry instar {{\n  \
         multiboot2 /boot/first-stage {command_line}\n  module2 /boot/image.tar\n}}\n"
    )
}

fn missing(what: String) -> Failure {
    Failure::new(Exit::MissingProgram, what).hint(
        "install what it needs with: apt-get install grub-common grub-pc-bin grub-efi-amd64-bin xorriso mtools",
    )
}

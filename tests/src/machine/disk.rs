//! A disk from which GRUB boots, on BIOS and on UEFI.

use crate::prepared::Prepared;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Makes the disk.
///
/// # Panics
/// Without `grub-mkrescue` and what it needs.
pub(super) fn make(prepared: &Prepared, append: &str) -> PathBuf {
    let root = super::scratch("grub");
    let disk = super::scratch("grub.iso");
    let boot = root.join("boot/grub");
    fs::create_dir_all(&boot).expect("a directory");
    let configuration = format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\nset timeout=0\nmenuentry instar {{\n  \
         multiboot2 /boot/first-stage {append}\n  module2 /boot/image.tar\n}}\n"
    );
    fs::write(boot.join("grub.cfg"), configuration).expect("written");
    fs::copy(&prepared.first_stage, root.join("boot/first-stage")).expect("copied");
    fs::copy(&prepared.old_path, root.join("boot/image.tar")).expect("copied");
    let made = Command::new("grub-mkrescue")
        .arg("-o")
        .arg(&disk)
        .arg(&root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("grub-mkrescue (Debian: grub-common grub-pc-bin grub-efi-amd64-bin xorriso mtools)");
    assert!(made.success(), "grub-mkrescue failed");
    let _ = fs::remove_dir_all(&root);
    disk
}

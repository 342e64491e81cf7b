//! The first stage: what a boot loader or a hypervisor starts. It verifies the image that it was given as a module,
//! loads it, and jumps; from then on images replace each other.
//!
//! It is entered by PVH (QEMU, Cloud Hypervisor, Firecracker) or by Multiboot2 (GRUB on BIOS and UEFI). Nothing
//! here allocates outside its own arena, and nothing returns: a failure is one line on COM1, and a halt.
#![cfg_attr(metal, no_std, no_main)]

#[cfg(any(metal, test))]
extern crate alloc;

#[cfg(any(metal, test))]
mod machine;
#[cfg(any(metal, test))]
mod multiboot;
#[cfg(any(metal, test))]
mod places;
#[cfg(any(metal, test))]
mod pvh;

#[cfg(metal)]
mod boot;
#[cfg(metal)]
mod entry;
#[cfg(metal)]
mod heap;
#[cfg(metal)]
mod random;
#[cfg(metal)]
mod serial;

#[cfg(not(metal))]
fn main() {
    eprintln!("The first stage runs on the bare machine: build it with `cargo xtask build-app`.");
    std::process::exit(1);
}

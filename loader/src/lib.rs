//! Image format, signatures, ELF checks, boot information, the jump: the one way to load an image.
//!
//! An image takes this way, at cold boot (`first-stage`) as in a replacement (`libos`):
//! [`image`] (archive, [`signature`], [`manifest`], digest) → [`elf`] (what may be loaded) → [`load`] (where it
//! goes, and the copy) → [`boot`] (what the image is told) → [`jump`].
//!
//! All but the last step is pure: bytes in, a result or an error out. Whatever the bytes are, nothing here panics,
//! and nothing of an image is looked at before its signature has been verified.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

pub mod archive;
pub mod boot;
pub mod elf;
pub mod floor;
pub mod hex;
pub mod image;
pub mod jump;
pub mod load;
pub mod manifest;
pub mod measure;
pub mod mem;
pub mod signature;
pub mod signed;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
pub mod toml;
#[cfg(metal)]
mod unwind;

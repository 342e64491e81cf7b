//! Image format, signatures, ELF checks, boot information, the jump: the one way to load an image.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

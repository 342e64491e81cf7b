//! The library OS: an application links it and becomes the machine's whole image.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod clock;
pub mod command_line;
pub mod confidential;
pub mod cpu;
pub mod device;
pub mod http;
pub mod memory;
pub mod net;
pub mod replace;
mod serve;
pub mod start;
pub mod state;
pub mod task;
pub mod telemetry;
#[cfg(feature = "trial")]
pub mod trial;

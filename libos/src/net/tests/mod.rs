//! Two stacks joined by memory.

pub mod frames;
mod sockets;
pub mod world;

//! Two stacks joined by memory.

mod across;
mod address;
mod frames;
mod hostile;
mod sockets;
mod stopping;
mod web;
pub mod world;

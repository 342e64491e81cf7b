//! Two stacks joined by memory.

mod frames;
mod sockets;
mod world;

//! Chunks, address space, heap.

pub mod chunks;

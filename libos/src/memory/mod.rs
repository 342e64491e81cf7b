//! Chunks, address space, heap.

//! The atomics of the stop protocol. The model in `tests/stop-model` puts its own in their place.

pub use core::sync::atomic::{AtomicU64, Ordering};

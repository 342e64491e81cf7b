//! Whole-machine tests: what they share. Each promise has its file in `tests/tests`.
//!
//! - [`witness`]: what the WBINVD witness wrote, and the judgement over it.

pub mod witness;

//! Whole-machine tests: what they share. Each promise has its file in `tests/tests`.
//!
//! - [`witness`]: what the WBINVD witness wrote, and the judgement over it
//! - [`image`]: images and orders, written by hand
//! - [`broken`]: every bad input, and the answer it deserves
//! - [`clients`]: clients with raw sockets, polite and rude
//! - [`echoes`]: a client that asks all the time
//! - [`collector`]: an OpenTelemetry collector
//! - [`rsyslog`]: a syslog server
//! - [`prepared`]: the images under test
//! - [`browser`]: a browser without a window
//! - [`machine`]: the emulator that runs them
//! - [`monitored`]: the same with QEMU's monitor
//! - [`otlp`]: what a machine sends to a collector, judged
//! - [`matrix`]: every failure of a successor, and the table of how each ended

pub mod broken;
pub mod browser;
pub mod clients;
pub mod collector;
pub mod echoes;
pub mod image;
pub mod machine;
pub mod matrix;
pub mod monitored;
pub mod otlp;
pub mod prepared;
pub mod rsyslog;
pub mod witness;

//! Whole-machine tests: what they share. Each promise has its file in `tests/tests`.
//!
//! - [`witness`]: what the WBINVD witness wrote, and the judgement over it
//! - [`image`]: images and orders, written by hand
//! - [`broken`]: every bad input, and the answer it deserves
//! - [`clients`]: clients with raw sockets, polite and rude
//! - [`echoes`]: a client that asks all the time
//! - [`collector`]: an OpenTelemetry collector
//! - [`prometheus`]: a Prometheus that scrapes, and promtool
//! - [`rsyslog`]: a syslog server
//! - [`trace`]: whether the trace of a replacement is whole
//! - [`prepared`]: the images under test
//! - [`browser`]: a browser without a window
//! - [`machine`]: the emulator that runs them
//! - [`monitored`]: the same with QEMU's monitor
//! - [`name_server`]: a name server on a machine's network
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
pub mod name_server;
pub mod otlp;
pub mod prepared;
pub mod prometheus;
pub mod rsyslog;
pub mod trace;
pub mod witness;

//! The witness: a QEMU TCG plugin (plugin API version 1) that writes down which virtual CPU executed which of the
//! instructions that matter for a replacement, and in which order. The code under test cannot fake it.
//!
//! `-plugin libwitness.so,out=FILE[,slow=VCPU:MICROSECONDS]…`
//!
//! Each event is one line, written at once: `SEQUENCE KIND vcpu=N addr=0xADDRESS`, where `KIND` is `wbinvd`,
//! `wbnoinvd`, `order` or `enter` (the marks of `docs/interfaces.md`). Sequence numbers count from 0 without gaps,
//! over all virtual CPUs. The first line is `# witness vcpus=N`.
//!
//! `slow` makes the flushes of one virtual CPU take as long as they do on hardware: an emulator's WBINVD does
//! nothing, so that a core which reports *before* its flush would look right by luck. The line is written when the
//! flush is over.
//!
//! Only matching instructions get a callback: the rest of the machine runs at the emulator's own speed.

mod arguments;
mod event;
// The functions that QEMU exports exist only inside QEMU: a test program could not be linked with them.
#[cfg(not(test))]
mod plugin;

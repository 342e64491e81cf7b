//! Interrupt vectors. Exceptions have 0 to 31 by definition.

/// The APIC timer.
pub const TIMER: u8 = 0x20;
/// Work has arrived for a halted core; also wakes cores in the pen.
pub const WAKE: u8 = 0x21;
/// The network card.
pub const NETWORK: u8 = 0x22;
/// Whatever else comes.
pub const STRAY: u8 = 0x2d;
/// Flush, report, go to the pen.
pub const STOP: u8 = 0x2e;
/// The APIC's "never mind"; its low four bits must be set on old parts.
pub const SPURIOUS: u8 = 0x2f;
/// Vectors from 0 that have a handler.
pub const COUNT: usize = 0x30;

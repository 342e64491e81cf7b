//! Private pages become ordinary memory again: the decision how, and the writing.
//!
//! On parts with the partial-write erratum a write smaller than a cache line to a private page poisons that line, and a
//! later read raises #MC. MOVDIR64B writes a whole line at once, which clears it. Elsewhere ordinary stores do, since the
//! caches make whole lines of them before they reach memory.

pub mod job;

use core::ops::Range;

use thiserror::Error;

use super::ledger::PAGE_BYTES;
use super::platform::Platform;

/// Size of a cache line, which is what MOVDIR64B writes.
const LINE_BYTES: u64 = 64;

/// How private pages are reset on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// MOVDIR64B of zeros.
    Movdir64b,
    /// Ordinary stores, and the flush.
    PlainStores,
}

/// Why private pages cannot be reset on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CannotReset {
    /// An erratum without its cure.
    #[error(
        "this processor poisons private pages at a partial write and has no MOVDIR64B to clear them with: reading them \
         later would stop the machine with a machine check"
    )]
    Erratum,
    /// The flush policy forbids what makes the reset last.
    #[error(
        "caches are not flushed on this machine ({POLICY}): a line of a private key that is written back late would \
         overwrite the page again"
    )]
    NoFlush,
}

const POLICY: &str = "instar.flush=never, or a confidential guest";

/// Decides how private pages are reset. `flushes`: will caches be flushed on this machine? Without that, a dirty line
/// under the private key could come after the zeros. `poison`: may lines still be poisoned by partial writes? A module that
/// was disabled has cleared its pages itself (SYS.DISABLE).
///
/// # Errors
/// [`CannotReset`]: a machine that has private pages must then not be given to the next image.
pub const fn can_reset(platform: &Platform, flushes: bool, poison: bool) -> Result<Method, CannotReset> {
    if !flushes {
        Err(CannotReset::NoFlush)
    } else if platform.movdir64b {
        Ok(Method::Movdir64b)
    } else if platform.partial_write_erratum && poison {
        Err(CannotReset::Erratum)
    } else {
        Ok(Method::PlainStores)
    }
}

/// Writes zeros, one cache line at a time.
pub trait Writer {
    /// Zeroes one line.
    ///
    /// # Safety
    /// `line` is the address of 64 bytes, a multiple of 64, that may be written and that nobody else uses.
    unsafe fn zero_line(&self, line: *mut u8);

    /// Returns when all lines that were written so far are globally visible.
    fn fence(&self);
}

impl Writer for Method {
    unsafe fn zero_line(&self, line: *mut u8) {
        match self {
            // SAFETY: as the caller says; `can_reset` names this method only where the processor has the instruction.
            Self::Movdir64b => unsafe { movdir64b_zeros(line) },
            Self::PlainStores => {
                for word in 0..LINE_BYTES as usize / 8 {
                    // SAFETY: within the line that the caller vouches for; aligned as the line is. Volatile: nobody
                    // reads this memory as far as the compiler sees.
                    unsafe { line.cast::<u64>().add(word).write_volatile(0) };
                }
            }
        }
    }

    fn fence(&self) {
        // SAFETY: orders memory accesses and does nothing else.
        unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
    }
}

/// A line of zeros, for MOVDIR64B to read.
#[repr(align(64))]
struct Line([u8; LINE_BYTES as usize]);

static ZEROS: Line = Line([0; LINE_BYTES as usize]);

/// MOVDIR64B: 64 bytes in one write, past the caches and weakly ordered (Intel SDM vol. 2, MOVDIR64B).
///
/// # Safety
/// As [`Writer::zero_line`], and the processor has the instruction (CPUID.7.0:ECX bit 28).
#[inline(never)]
unsafe fn movdir64b_zeros(line: *mut u8) {
    // SAFETY: as the caller says. The source is a static of 64 bytes.
    unsafe {
        core::arch::asm!(
            "movdir64b {line}, [{zeros}]",
            line = in(reg) line,
            zeros = in(reg) &raw const ZEROS.0,
            options(nostack, preserves_flags)
        );
    };
}

/// Zeroes the pages of `range` from its start, until none is left or `go_on` says no after one; then fences. `range` is
/// left with what remains.
///
/// # Safety
/// `range` is whole pages that may be written and that nobody else uses.
pub unsafe fn zero_pages(writer: &impl Writer, range: &mut Range<u64>, mut go_on: impl FnMut() -> bool) {
    while !range.is_empty() {
        for line in (range.start..range.start + PAGE_BYTES).step_by(LINE_BYTES as usize) {
            // SAFETY: in a page of the caller's range.
            unsafe { writer.zero_line(line as *mut u8) };
        }
        range.start += PAGE_BYTES;
        if !go_on() {
            break;
        }
    }
    writer.fence();
}

#[cfg(test)]
mod tests {
    use super::super::platform::{Host, Role, Sme, TdxHost, Vendor};
    use super::*;
    use core::cell::RefCell;

    fn platform(movdir64b: bool, partial_write_erratum: bool) -> Platform {
        Platform {
            vendor: Vendor::Intel,
            hypervisor: false,
            role: Role::Host(Host {
                tdx: Some(TdxHost {
                    mktme_keyids: 31,
                    tdx_keyids: 32,
                }),
                sme: Sme::Absent,
            }),
            movdir64b,
            wbnoinvd: false,
            partial_write_erratum,
        }
    }

    #[test]
    fn an_erratum_without_its_cure_is_refused() {
        assert_eq!(
            can_reset(&platform(true, true), true, true),
            Ok(Method::Movdir64b)
        );
        assert_eq!(
            can_reset(&platform(true, false), true, true),
            Ok(Method::Movdir64b)
        );
        assert_eq!(
            can_reset(&platform(false, false), true, true),
            Ok(Method::PlainStores)
        );
        let refused = can_reset(&platform(false, true), true, true).expect_err("poison would stay");
        assert_eq!(refused, CannotReset::Erratum);
        assert!(refused.to_string().contains("no MOVDIR64B"), "{refused}");
        // The module has cleared the poison when it was disabled.
        assert_eq!(
            can_reset(&platform(false, true), true, false),
            Ok(Method::PlainStores)
        );
    }

    #[test]
    fn without_a_flush_no_reset_lasts() {
        for (movdir64b, erratum) in [(true, true), (true, false), (false, false)] {
            let platform = platform(movdir64b, erratum);
            assert_eq!(can_reset(&platform, false, true), Err(CannotReset::NoFlush));
        }
    }

    #[repr(align(4096))]
    struct Pages([u8; 4 * PAGE_BYTES as usize]);

    #[test]
    fn plain_stores_zero_the_pages_and_nothing_else() {
        let mut pages = Box::new(Pages([0xa5; 4 * PAGE_BYTES as usize]));
        let start = pages.0.as_mut_ptr() as u64;
        let mut range = start + PAGE_BYTES..start + 3 * PAGE_BYTES;
        // SAFETY: two of four pages that are this test's.
        unsafe { zero_pages(&Method::PlainStores, &mut range, || true) };
        assert!(range.is_empty());
        let (first, rest) = pages.0.split_at(PAGE_BYTES as usize);
        let (middle, last) = rest.split_at(2 * PAGE_BYTES as usize);
        assert!(middle.iter().all(|byte| *byte == 0));
        assert!(first.iter().chain(last).all(|byte| *byte == 0xa5));
    }

    /// Notes what it should write.
    struct Notes(RefCell<Vec<Option<u64>>>);

    impl Writer for Notes {
        unsafe fn zero_line(&self, line: *mut u8) {
            self.0.borrow_mut().push(Some(line as u64));
        }

        fn fence(&self) {
            self.0.borrow_mut().push(None);
        }
    }

    #[test]
    fn a_piece_ends_with_a_fence_and_the_next_goes_on_behind_it() {
        let notes = Notes(RefCell::default());
        let mut range = 4096..5 * 4096;
        let mut left = 2;
        // SAFETY: this writer writes nothing.
        unsafe {
            zero_pages(&notes, &mut range, || {
                left -= 1;
                left > 0
            });
        }
        assert_eq!(range, 3 * 4096..5 * 4096);
        // SAFETY: as above.
        unsafe { zero_pages(&notes, &mut range, || true) };
        let written = notes.0.into_inner();
        let lines = |pages: Range<u64>| (pages.start * 64..pages.end * 64).map(|line| Some(line * 64));
        let expected: Vec<_> = lines(1..3)
            .chain([None])
            .chain(lines(3..5))
            .chain([None])
            .collect();
        assert_eq!(written, expected);
    }

    /// 66 0F 38 F8 /r with a memory source (Intel SDM vol. 2, MOVDIR64B): what was assembled, since no machine of the tests
    /// can execute it.
    #[test]
    fn the_instruction_is_movdir64b() {
        let code = movdir64b_zeros as *const u8;
        // SAFETY: a function is at least as long as the instruction in it; 64 bytes of text follow in any program.
        let bytes = unsafe { core::slice::from_raw_parts(code, 64) };
        let at = bytes
            .windows(4)
            .position(|four| four == [0x66, 0x0f, 0x38, 0xf8])
            .expect("the instruction");
        assert!(
            bytes[at + 4] >> 6 != 3,
            "its source is in memory: {:#x}",
            bytes[at + 4]
        );
    }
}

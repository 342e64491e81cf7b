//! What a successor that gives the machine back says last: a page of the pen, which nobody overwrites.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::moments::Marks;
use super::{EPITAPH_PAGE, PAGE, Pen};
use crate::cpu::CoreId;
use crate::telemetry::allowed;

/// Why a successor gave the machine back. The numbers are part of the pen's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Cause {
    /// A panic.
    Panic = 1,
    /// An exception without a way on.
    Fault = 2,
    /// A machine check without a way on.
    MachineCheck = 3,
    /// A core did not come back to its tasks.
    Hang = 4,
    /// The application, or the library OS itself, found that it cannot do its work.
    Unhealthy = 5,
    /// It was not committed in time.
    Deadline = 6,
    /// An order.
    Order = 7,
    /// An exception before it had handlers of its own.
    FaultBeforeHandlers = 8,
    /// It took too long to get handlers of its own.
    HangBeforeHandlers = 9,
}

impl Cause {
    const ALL: [Self; 9] = [
        Self::Panic,
        Self::Fault,
        Self::MachineCheck,
        Self::Hang,
        Self::Unhealthy,
        Self::Deadline,
        Self::Order,
        Self::FaultBeforeHandlers,
        Self::HangBeforeHandlers,
    ];

    /// The name in `/v1/status` and in telemetry. Where there were no handlers nobody knew more than the processor did.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fault | Self::FaultBeforeHandlers => "fault",
            Self::MachineCheck => "machine-check",
            Self::Hang | Self::HangBeforeHandlers => "hang",
            Self::Unhealthy => "unhealthy",
            Self::Deadline => "deadline",
            Self::Order => "order",
        }
    }

    fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u32 == number)
    }
}

/// Longest text, in bytes.
const TEXT: usize = 2048;

/// How many of its last log lines are kept, and how much of each.
const LINES: usize = 8;
const LINE: usize = 160;

/// The page. Written by the core that gives the machine back, and by the log until then; read by the predecessor.
#[repr(C)]
pub(super) struct Page {
    tsc: AtomicU64,
    cause: AtomicU32,
    core: AtomicU32,
    length: AtomicU32,
    /// How many lines have been written to `lines`, in turn.
    written: AtomicU32,
    text: [u8; TEXT],
    lines: [[u8; LINE]; LINES],
    pub(super) marks: Marks,
}

/// What was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epitaph {
    /// TSC when it became clear that there was no going on.
    pub tsc: u64,
    /// Why; `None`: a newer version's reason.
    pub cause: Option<Cause>,
    /// The core that found out.
    pub core: u32,
    text: [u8; TEXT],
    length: usize,
}

impl Epitaph {
    pub(super) const TSC: usize = core::mem::offset_of!(Page, tsc);
    pub(super) const CAUSE: usize = core::mem::offset_of!(Page, cause);
    pub(super) const CORE: usize = core::mem::offset_of!(Page, core);
    pub(super) const LENGTH: usize = core::mem::offset_of!(Page, length);

    /// The last words, for a person; empty if there was nobody to say any.
    #[must_use]
    pub fn text(&self) -> &str {
        let bytes = self.text.get(..self.length).unwrap_or_default();
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            // The end may have been cut off within a letter.
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        }
    }
}

impl Pen {
    pub(super) fn epitaph_page(self) -> *mut Page {
        (self.address() + EPITAPH_PAGE * PAGE) as *mut Page
    }

    /// Writes the last words, as far as they may leave the machine: the predecessor may be of a version that exports whatever is
    /// here. All text comes into one page, and what does not fit is left out. Allocates nothing.
    pub(crate) fn write_epitaph(self, tsc: u64, cause: Cause, core: CoreId, text: fmt::Arguments<'_>) {
        let page = self.epitaph_page();
        // SAFETY: only the one core that gives the machine back writes here, and the predecessor reads when it has it.
        unsafe {
            let mut writer = Writer {
                text: &mut (&mut (*page).text)[..],
                length: 0,
            };
            // A text that does not fit is cut off.
            let _ = allowed::write(&mut writer, text);
            let length = writer.length as u32;
            (*page).tsc.store(tsc, Ordering::Relaxed);
            (*page).cause.store(cause as u32, Ordering::Relaxed);
            (*page).core.store(core.index() as u32, Ordering::Relaxed);
            (*page).length.store(length, Ordering::SeqCst);
        }
    }

    /// Reads the last words.
    pub(crate) fn epitaph(self) -> Epitaph {
        let page = self.epitaph_page();
        // SAFETY: the page is there (`has_way_back`), and whoever wrote to it is gone.
        unsafe {
            Epitaph {
                tsc: (*page).tsc.load(Ordering::SeqCst),
                cause: Cause::of((*page).cause.load(Ordering::Relaxed)),
                core: (*page).core.load(Ordering::Relaxed),
                text: (*page).text,
                length: ((*page).length.load(Ordering::Relaxed) as usize).min(TEXT),
            }
        }
    }
}

impl Pen {
    /// Keeps a line of the log for the predecessor, as far as it may leave the machine. Takes no lock: two lines that are written at once, with six others in
    /// between, spoil each other.
    pub(crate) fn keep_line(self, text: fmt::Arguments<'_>) {
        let page = self.epitaph_page();
        // SAFETY: the page is there (`has_way_back`). A line is bytes, which the reader takes for text only if they are.
        unsafe {
            let number = (*page).written.fetch_add(1, Ordering::Relaxed) as usize;
            let line = &raw mut (*page).lines[number % LINES];
            let mut writer = Writer {
                text: &mut [0; LINE][..],
                length: 0,
            };
            let _ = allowed::write(&mut writer, text);
            line.cast::<u8>()
                .copy_from_nonoverlapping(writer.text.as_ptr(), LINE);
        }
    }

    /// Forgets the lines of whoever was on trial before.
    pub(super) fn forget_lines(self) {
        // SAFETY: as above.
        unsafe { (*self.epitaph_page()).written.store(0, Ordering::Relaxed) };
    }

    /// The lines that were kept, the newest last.
    pub(crate) fn last_lines(self) -> Vec<String> {
        let page = self.epitaph_page();
        // SAFETY: whoever wrote there is gone.
        let (written, lines) = unsafe { ((*page).written.load(Ordering::Relaxed) as usize, (*page).lines) };
        let kept = written.saturating_sub(LINES)..written;
        kept.map(|number| {
            String::from_utf8_lossy(&lines[number % LINES])
                .trim_end_matches('\0')
                .into()
        })
        .collect()
    }
}

/// Writes into a fixed piece of memory.
struct Writer<'a> {
    text: &'a mut [u8],
    length: usize,
}

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.text.get_mut(self.length..).unwrap_or_default();
        let fits = text.len().min(free.len());
        free[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.length += fits;
        if fits < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_hold() {
        for cause in Cause::ALL {
            assert_eq!(Cause::of(cause as u32), Some(cause));
        }
        assert_eq!((Cause::of(0), Cause::of(10)), (None, None));
        assert!(size_of::<Page>() <= PAGE as usize);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_off() {
        let mut text = [0; TEXT];
        let mut writer = Writer {
            text: &mut text[..],
            length: 0,
        };
        assert!(write!(writer, "{}", "ä".repeat(TEXT)).is_err());
        let length = writer.length;
        let epitaph = Epitaph {
            tsc: 0,
            cause: None,
            core: 0,
            text,
            length,
        };
        assert_eq!(epitaph.text(), "ä".repeat(TEXT / 2));
    }
}

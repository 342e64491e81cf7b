//! The log records that wait to be sent. Each exporter reads them at its own pace; whoever is too slow loses the oldest,
//! which is counted.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use log::Level;
use spin::Mutex;

use super::allowed;
use super::span::Context;
use super::upgrade;
use crate::cpu::time;

/// The longest message that is kept, in bytes; the rest is cut off, at a character's border, and `…` put there.
pub(super) const MAX_MESSAGE: usize = 1024;

/// Records kept.
const MAX_RECORDS: usize = 128;

/// Longest target that is kept, in bytes.
const MAX_TARGET: usize = 64;

/// A log record, as it was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// When, in nanoseconds since the cold boot.
    pub machine_ns: u64,
    pub level: Level,
    /// Who says it.
    pub target: String,
    /// At most [`MAX_MESSAGE`] bytes.
    pub message: String,
    /// The replacement that it belongs to: its root span.
    pub trace: Option<Context>,
}

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reader {
    #[cfg(feature = "otlp")]
    Otlp = 0,
    #[cfg(feature = "syslog")]
    Syslog = 1,
}

const READERS: usize = 2;

/// What comes next for a reader that there is not.
const NOBODY: u64 = u64::MAX;

#[derive(Debug)]
struct Ring {
    records: VecDeque<Arc<Record>>,
    /// The number of the first one; they are counted from 0.
    first: u64,
    /// The number of the record that each reader reads next.
    next: [u64; READERS],
    missed: [u64; READERS],
}

impl Ring {
    const fn new() -> Self {
        Ring {
            records: VecDeque::new(),
            first: 0,
            next: [
                if cfg!(feature = "otlp") { 0 } else { NOBODY },
                if cfg!(feature = "syslog") { 0 } else { NOBODY },
            ],
            missed: [0; READERS],
        }
    }

    fn push(&mut self, record: Record) {
        if self.next == [NOBODY; READERS] {
            return;
        }
        if self.records.len() == MAX_RECORDS {
            self.forget_first();
        }
        self.records.push_back(Arc::new(record));
    }

    fn forget_first(&mut self) {
        self.records.pop_front();
        self.first += 1;
        for (next, missed) in self.next.iter_mut().zip(&mut self.missed) {
            if *next < self.first {
                *next = self.first;
                *missed += 1;
            }
        }
    }

    fn take(&mut self, reader: Reader) -> Vec<Arc<Record>> {
        let next = &mut self.next[reader as usize];
        if *next == NOBODY {
            return Vec::new();
        }
        let new = self.records.iter().skip((*next - self.first) as usize);
        let new: Vec<_> = new.cloned().collect();
        *next += new.len() as u64;
        self.forget_what_all_have_read();
        new
    }

    fn close(&mut self, reader: Reader) {
        self.next[reader as usize] = NOBODY;
        self.forget_what_all_have_read();
    }

    fn forget_what_all_have_read(&mut self) {
        let unread = self.next.into_iter().min().unwrap_or(NOBODY);
        while self.first < unread && !self.records.is_empty() {
            self.forget_first();
        }
    }
}

static RING: Mutex<Ring> = Mutex::new(Ring::new());

/// Keeps a log record until it is sent; the oldest goes when there are too many.
pub(super) fn keep(now: time::Instant, record: &log::Record<'_>) {
    let record = Record {
        machine_ns: now.0,
        level: record.level(),
        target: shortened(record.target().into(), MAX_TARGET),
        message: shortened(allowed::format(*record.args()), MAX_MESSAGE),
        trace: upgrade::under_way(),
    };
    RING.lock().push(record);
}

/// What this reader has not read yet, the oldest first; and how many records it has been too slow for so far, all of them older.
pub(super) fn take(reader: Reader) -> (Vec<Arc<Record>>, u64) {
    let mut ring = RING.lock();
    (ring.take(reader), ring.missed[reader as usize])
}

/// This reader reads nothing, so that nothing is kept for it.
pub(super) fn close(reader: Reader) {
    RING.lock().close(reader);
}

/// How many records this reader was too slow for.
#[cfg(feature = "otlp")]
pub(super) fn missed(reader: Reader) -> u64 {
    RING.lock().missed[reader as usize]
}

/// At most so many bytes of a text, cut at a character's border, with `…` at its end if something was cut off.
pub(super) fn shortened(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - "…".len()));
        text.push('…');
    }
    text
}

#[cfg(all(test, feature = "otlp", feature = "syslog"))]
mod tests {
    use super::*;

    fn said(number: usize) -> Record {
        Record {
            machine_ns: number as u64,
            level: Level::Info,
            target: String::new(),
            message: String::new(),
            trace: None,
        }
    }

    fn read(ring: &mut Ring, reader: Reader) -> Vec<u64> {
        ring.take(reader).iter().map(|record| record.machine_ns).collect()
    }

    #[test]
    fn each_reader_gets_every_record_once() {
        let mut ring = Ring::new();
        ring.push(said(0));
        ring.push(said(1));
        assert_eq!(read(&mut ring, Reader::Otlp), [0, 1]);
        assert_eq!(read(&mut ring, Reader::Otlp), [0_u64; 0]);
        ring.push(said(2));
        assert_eq!(read(&mut ring, Reader::Syslog), [0, 1, 2]);
        assert_eq!(ring.records.len(), 1, "what both have read is forgotten");
        assert_eq!(read(&mut ring, Reader::Otlp), [2]);
        assert_eq!(read(&mut ring, Reader::Syslog), [0_u64; 0]);
        assert_eq!((ring.records.len(), ring.missed), (0, [0, 0]));
    }

    #[test]
    fn who_is_too_slow_misses_the_oldest() {
        let mut ring = Ring::new();
        for number in 0..MAX_RECORDS {
            ring.push(said(number));
        }
        assert_eq!(read(&mut ring, Reader::Otlp).len(), MAX_RECORDS);
        for number in 0..3 {
            ring.push(said(MAX_RECORDS + number));
        }
        assert_eq!(ring.missed, [0, 3]);
        assert_eq!(read(&mut ring, Reader::Syslog).first(), Some(&3));
        assert_eq!(read(&mut ring, Reader::Otlp).first(), Some(&(MAX_RECORDS as u64)));
        assert_eq!(ring.records.len(), 0);
    }

    #[test]
    fn nothing_is_kept_for_a_reader_that_there_is_not() {
        let mut ring = Ring::new();
        ring.push(said(0));
        ring.close(Reader::Otlp);
        assert_eq!(read(&mut ring, Reader::Syslog), [0]);
        assert_eq!(ring.records.len(), 0);
        ring.push(said(1));
        assert_eq!(read(&mut ring, Reader::Otlp), [0_u64; 0]);
        ring.close(Reader::Syslog);
        ring.push(said(2));
        assert_eq!((ring.records.len(), ring.missed), (0, [0, 0]));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(shortened("äöü".into(), 6), "äöü");
        assert_eq!(shortened("äöüä".into(), 6), "ä…");
    }
}

//! A reset that many cores share.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{Method, zero_pages};
use crate::confidential::ledger::PAGE_BYTES;

/// Pages to be reset, in shares that are claimed one by one: a core that does not come does not hold the others up.
#[derive(Debug)]
pub struct Job {
    method: Method,
    shares: Vec<Vec<Range<u64>>>,
    next: AtomicUsize,
    left: AtomicU64,
}

/// What one core has claimed and not yet reset.
#[derive(Debug, Default)]
pub struct Share(Vec<Range<u64>>);

impl Job {
    /// The job of resetting the pages of `shares`, a [plan](crate::confidential::ledger::Ledger::plan).
    #[must_use]
    pub fn new(method: Method, shares: Vec<Vec<Range<u64>>>) -> Self {
        let bytes: u64 = shares.iter().flatten().map(|range| range.end - range.start).sum();
        Self {
            method,
            shares,
            next: AtomicUsize::new(0),
            left: AtomicU64::new(bytes / PAGE_BYTES),
        }
    }

    /// How many pages have not been reset. At 0 the zeros of all cores are visible to whoever asks.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Acquire)
    }

    /// Resets pages of `share`, or of a new one when it is empty, until `go_on` says no. False: there is none left to claim.
    ///
    /// # Safety
    /// The job's pages may be written, and nobody else uses them.
    pub unsafe fn step(&self, share: &mut Share, mut go_on: impl FnMut() -> bool) -> bool {
        if share.0.is_empty() {
            // One more than the number of shares for each core that comes: far from overflowing.
            let claimed = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(ranges) = self.shares.get(claimed) else {
                return false;
            };
            share.0.clone_from(ranges);
        }
        while let Some(range) = share.0.last_mut() {
            let start = range.start;
            // SAFETY: pages of the job, of a share that only this core has claimed.
            unsafe { zero_pages(&self.method, range, &mut go_on) };
            let pages = (range.start - start) / PAGE_BYTES;
            if range.is_empty() {
                share.0.pop();
            }
            // After the fence at the end of `zero_pages`.
            self.left.fetch_sub(pages, Ordering::Release);
            if !go_on() {
                break;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confidential::ledger::{Fate, KeyId, Ledger, Purpose, Record};

    const PAGES: usize = 200;

    #[repr(align(4096))]
    struct Memory([u8; PAGES * PAGE_BYTES as usize]);

    fn memory() -> Box<Memory> {
        // Not on the stack first.
        let mut memory: Box<Memory> = {
            let layout = std::alloc::Layout::new::<Memory>();
            // SAFETY: zeros are a valid value of this type, which is not of size zero.
            unsafe { Box::from_raw(std::alloc::alloc_zeroed(layout).cast()) }
        };
        memory.0.fill(0x5a);
        memory
    }

    /// Every third group of ten pages is handed over; the rest is to be reset.
    fn ledger(memory: &Memory) -> Ledger {
        let start = memory.0.as_ptr() as u64;
        let mut ledger = Ledger::new();
        for group in 0..PAGES as u64 / 10 {
            let first = start + group * 10 * PAGE_BYTES;
            ledger
                .add(Record {
                    range: first..first + 10 * PAGE_BYTES,
                    key: KeyId::inherited(40),
                    purpose: Purpose::Td,
                    fate: if group % 3 == 0 {
                        Fate::HandOver
                    } else {
                        Fate::Reset
                    },
                    held: true,
                })
                .expect("free");
        }
        ledger
    }

    #[test]
    fn all_cores_together_reset_all_pages_and_no_other() {
        let memory = memory();
        let ledger = ledger(&memory);
        let job = Job::new(Method::PlainStores, ledger.plan(7));
        assert_eq!(job.left(), ledger.pages(Fate::Reset));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut share = Share::default();
                    // SAFETY: the memory lives longer than the threads, and only they use it. One page at a time.
                    while unsafe { job.step(&mut share, || false) } {}
                });
            }
        });
        assert_eq!(job.left(), 0);
        for (page, bytes) in memory.0.chunks_exact(PAGE_BYTES as usize).enumerate() {
            let expected = if page / 10 % 3 == 0 { 0x5a } else { 0 };
            assert!(bytes.iter().all(|byte| *byte == expected), "page {page}");
        }
    }

    #[test]
    fn a_core_that_never_comes_holds_nobody_up() {
        let memory = memory();
        let job = Job::new(Method::PlainStores, ledger(&memory).plan(8));
        let mut share = Share::default();
        // SAFETY: only this test uses the memory.
        while unsafe { job.step(&mut share, || true) } {}
        assert_eq!(job.left(), 0);
    }

    #[test]
    fn what_a_core_has_claimed_and_not_reset_is_left() {
        let memory = memory();
        let job = Job::new(Method::PlainStores, ledger(&memory).plan(2));
        let all = job.left();
        let (mut idle, mut busy) = (Share::default(), Share::default());
        // SAFETY: only this test uses the memory.
        unsafe {
            assert!(job.step(&mut idle, || false));
            while job.step(&mut busy, || true) {}
        }
        assert_eq!(job.left(), all / 2 - 1);
    }
}

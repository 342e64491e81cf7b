//! Many cores reset pages together, while each goes on with its other tasks.

use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::time::Duration;

use thiserror::Error;

use super::super::ledger::{Fate, KeyId, Ledger, PAGE_BYTES, Purpose, Record};
use super::super::reset::job::{Job, Share};
use super::super::reset::{self, CannotReset, Method};
use super::{PATIENCE, TakeError};
use crate::cpu::{current, random, time};
use crate::memory::{self, CHUNK, chunks::Owner};
use crate::task::{sleep, spawn_on, yield_now};

/// How long a core may be kept from its other tasks by one step of a reset.
pub(super) const STEP: Duration = Duration::from_micros(500);

/// Into how many shares a reset is split: several for each core, since one that is busy takes fewer.
pub(super) fn shares() -> usize {
    current::online().len() * 4
}

/// A reset under way, and what keeps its pages from everybody else.
///
/// Helpers hold it only while they write. So `Guard` is dropped when nobody writes any more: not before, and not only when
/// a core that has got stuck elsewhere comes back.
#[derive(Debug)]
pub(super) struct Work<Guard> {
    job: Job,
    _guard: Guard,
}

impl<Guard> Work<Guard> {
    pub(super) const fn new(job: Job, guard: Guard) -> Self {
        Self { job, _guard: guard }
    }
}

/// Does the work on all online cores. Returns how many pages are left: more than 0 if none was reset for [`PATIENCE`].
///
/// # Safety
/// The job's pages may be written, and nobody else uses them while the guard lives.
pub(super) async unsafe fn share_out<Guard: Send + Sync + 'static>(work: &Arc<Work<Guard>>) -> u64 {
    let (mut seen, mut since) = (work.job.left(), time::now());
    if seen == 0 {
        return 0;
    }
    for core in current::online().iter() {
        // SAFETY: as the caller says.
        spawn_on(core, unsafe { help(Arc::downgrade(work)) }).detach();
    }
    loop {
        match work.job.left() {
            0 => return 0,
            left if left < seen => (seen, since) = (left, time::now()),
            left if time::now() >= since + PATIENCE => return left,
            _ => {}
        }
        sleep(Duration::from_micros(100)).await;
    }
}

/// One core's part.
///
/// # Safety
/// As [`share_out`].
async unsafe fn help<Guard>(work: Weak<Work<Guard>>) {
    let mut share = Share::default();
    while let Some(work) = work.upgrade() {
        let until = time::now() + STEP;
        // SAFETY: as the caller says; the guard lives as long as `work`.
        let more = unsafe { work.job.step(&mut share, || time::now() < until) };
        drop(work);
        if !more {
            return;
        }
        yield_now().await;
    }
}

/// What [`measure`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Pages of 4 KiB that were reset.
    pub pages: u64,
    /// How long that took.
    pub took: Duration,
    /// How.
    pub method: Method,
}

/// Why nothing was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MeasureError {
    /// This machine cannot reset private pages.
    #[error("{0}")]
    Cannot(#[from] CannotReset),
    /// Not enough free memory.
    #[error("{0}")]
    NoMemory(TakeError),
    /// The cores did not get on with it.
    #[error("{0} pages were not reset in time")]
    Stuck(u64),
}

/// Free chunks, borrowed.
#[derive(Debug)]
struct Scratch(Range<u64>);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Taken from the map, so it is known there.
        let _ = memory::with_chunks(|map| map.release(&self.0));
    }
}

/// How fast this machine resets pages: `bytes` of free chunks are taken, reset by all cores as a replacement does it, and
/// freed. No cache is flushed for it.
///
/// # Errors
/// See [`MeasureError`].
pub async fn measure(bytes: u64) -> Result<Measured, MeasureError> {
    let method = reset::can_reset(crate::confidential::platform(), true, true)?;
    let (chunks, random) = (bytes.div_ceil(CHUNK), random::number());
    let range = memory::with_chunks(|map| map.take_run(chunks, Owner::Private, u64::MAX, random)).flatten();
    let range = range.ok_or(MeasureError::NoMemory(TakeError::NoMemory { chunks }))?;
    let mut ledger = Ledger::new();
    // One record in an empty ledger.
    let _ = ledger.add(Record {
        range: range.clone(),
        key: KeyId::inherited(0),
        purpose: Purpose::Td,
        fate: Fate::Reset,
        held: true,
    });
    let pages = (range.end - range.start) / PAGE_BYTES;
    let work = Arc::new(Work::new(Job::new(method, ledger.plan(shares())), Scratch(range)));
    let start = time::now();
    // SAFETY: just taken from the map, and not given back before `Scratch` is dropped.
    match unsafe { share_out(&work) }.await {
        0 => {
            let took = time::now() - start;
            Ok(Measured { pages, took, method })
        }
        left => Err(MeasureError::Stuck(left)),
    }
}

//! Large state that stays where it is: whole chunks that the successor takes over without a copy.
//!
//! Physical addresses are the virtual ones, in every instar, and a region is never moved; still its contents should be
//! offsets, not pointers: what a pointer points to may be the heap of an image that is gone.
//!
//! Predecessor and successor share a region until the commit: what the successor has written is there when the
//! predecessor continues after a failure. The successor may have been stopped between any two of its instructions. So
//! what is in a region must be consistent at every moment (an append-only log, records with a sum, a redo log), and
//! nobody keeps a reference into it across an `await`: behind it the memory may be another.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use log::info;
use spin::Mutex;
use thiserror::Error;

use super::header::{self, HEADER_BYTES, Header, NEXT, SEALED};
use super::records::MAX_NAME;
use crate::memory::chunks::{ChunkMap, Owner};
use crate::memory::{self, CHUNK};
use crate::replace::handover::PreservedRange;
use crate::task::yield_now;

/// Most regions.
pub const MAX_PRESERVED: usize = 64;

// Lock order: regions, then heap and chunks.
static REGIONS: Mutex<Regions> = Mutex::new(Regions {
    entries: Vec::new(),
    frozen: false,
});

/// The list is one for all tests.
#[cfg(test)]
pub(super) static TURN: Mutex<()> = Mutex::new(());

/// Where the way from header to header begins; 0: there is no region.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// What [`reserve`] has found, 0 behind the last.
static FOUND: [AtomicU64; MAX_PRESERVED] = [const { AtomicU64::new(0) }; MAX_PRESERVED];

struct Regions {
    entries: Vec<Entry>,
    /// What the successor is told of is decided.
    frozen: bool,
}

struct Entry {
    header: Header,
    /// Somebody has a [`Preserved`] of it.
    held: bool,
    /// To be freed as soon as no predecessor can come back that knows it.
    released: bool,
}

/// Why there is no such region.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PreservedError {
    /// No name, or too long a one; its bytes.
    #[error("a name of {0} bytes: it must have 1 to {MAX_NAME}")]
    Name(usize),
    /// There is a region of this name: take it.
    #[error("there is a preserved region {0:?} already, perhaps a predecessor's: take that")]
    Exists(String),
    /// [`MAX_PRESERVED`] are there.
    #[error("{MAX_PRESERVED} preserved regions are there already: make fewer and larger ones")]
    TooMany,
    /// Not enough free memory in one piece.
    #[error("{chunks} chunks of 2 MiB in a row are not free")]
    NoMemory {
        /// What was asked for.
        chunks: u64,
    },
    /// The successor has been told what there is.
    #[error("this instar is being replaced")]
    Replacing,
}

/// A named region of memory that outlives the instar.
///
/// Dropped, it stays, and can be taken again; so does one that nobody takes: it is handed on to the next successor.
#[derive(Debug)]
pub struct Preserved {
    range: Range<u64>,
    version: u32,
}

impl Preserved {
    /// A new region of at least `bytes`, all zero: whole chunks of 2 MiB, less a page. Zeroing takes about a millisecond for
    /// a few chunks.
    ///
    /// # Errors
    /// See [`PreservedError`].
    pub fn new(name: &str, version: u32, bytes: u64) -> Result<Self, PreservedError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(PreservedError::Name(name.len()));
        }
        let chunks = bytes.saturating_add(HEADER_BYTES).div_ceil(CHUNK);
        let mut regions = REGIONS.lock();
        if regions.frozen {
            return Err(PreservedError::Replacing);
        }
        if regions.entries.iter().any(|entry| entry.header.name == name) {
            return Err(PreservedError::Exists(name.into()));
        }
        if regions.entries.len() == MAX_PRESERVED {
            return Err(PreservedError::TooMany);
        }
        // Room first: this may make the heap take a chunk.
        regions.entries.reserve(1);
        let range = memory::with_chunks(|map| map.take_top_run(chunks, Owner::Preserved))
            .flatten()
            .ok_or(PreservedError::NoMemory { chunks })?;
        let header = Header {
            range: range.clone(),
            name: name.into(),
            version,
        };
        // SAFETY: these chunks have just been taken from the map, which names RAM that is mapped and nobody's.
        unsafe {
            wipe(&range);
            write_header(&header);
        }
        // The header before the link to it: whoever follows the link finds a whole one.
        if let Some(last) = regions
            .entries
            .iter()
            .find(|entry| next(&entry.header.range).load(Ordering::Relaxed) == 0)
        {
            next(&last.header.range).store(range.start, Ordering::Release);
        } else {
            FIRST.store(range.start, Ordering::Release);
        }
        regions.insert(header, true);
        Ok(Self { range, version })
    }

    /// The region of this name, made here, by a predecessor, or by a successor that failed; `None`: there is none, or
    /// somebody holds it.
    #[must_use]
    pub fn take(name: &str) -> Option<Self> {
        let mut regions = REGIONS.lock();
        let free = |entry: &&mut Entry| entry.header.name == name && !entry.held && !entry.released;
        let entry = regions.entries.iter_mut().find(free)?;
        entry.held = true;
        Some(Self {
            range: entry.header.range.clone(),
            version: entry.header.version,
        })
    }

    /// What [`Preserved::new`] was told.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Its first byte; aligned to a page.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        // A chunk's address is never 0.
        NonNull::new((self.range.start + HEADER_BYTES) as *mut u8).unwrap_or(NonNull::dangling())
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "there is no empty one: a chunk is more than a page"
    )]
    pub const fn len(&self) -> usize {
        (self.range.end - self.range.start - HEADER_BYTES) as usize
    }

    /// Its contents. Not to be kept across an `await`, see above.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped, initialised since it was made, and nobody else holds this region.
        unsafe { core::slice::from_raw_parts(self.start().as_ptr(), self.len()) }
    }

    /// Its contents. Not to be kept across an `await`, see above.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.start().as_ptr(), self.len()) }
    }

    /// Gives the memory back, wiped. On trial that waits for the commit: the predecessor, if it comes back, finds it as it
    /// was.
    pub async fn release(self) {
        let start = self.range.start;
        drop(self);
        if let Some(entry) = REGIONS.lock().find(start) {
            entry.released = true;
        }
        settle().await;
    }
}

impl Drop for Preserved {
    fn drop(&mut self) {
        if let Some(entry) = REGIONS.lock().find(self.range.start) {
            entry.held = false;
        }
    }
}

impl Regions {
    fn find(&mut self, start: u64) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.header.range.start == start)
    }

    /// In ascending order, as the record has them.
    fn insert(&mut self, header: Header, held: bool) {
        let at = self
            .entries
            .partition_point(|entry| entry.header.range.start < header.range.start);
        let entry = Entry {
            header,
            held,
            released: false,
        };
        self.entries.insert(at, entry);
    }

    /// Takes in the regions that [`reserve`] has found.
    fn adopt(&mut self) -> usize {
        let mut adopted = 0;
        for found in &FOUND {
            let at = found.swap(0, Ordering::Relaxed);
            if at != 0
                && let Some(header) = header::read(at, &sealed_at(at))
            {
                self.insert(header, false);
                adopted += 1;
            }
        }
        self.link();
        adopted
    }

    /// Makes each region lead to the one above it.
    fn link(&self) {
        let mut above = 0;
        for entry in self.entries.iter().rev() {
            next(&entry.header.range).store(above, Ordering::Release);
            above = entry.header.range.start;
        }
        FIRST.store(above, Ordering::Release);
    }
}

/// Reserves the regions that a successor made before it failed, for [`adopt`] to take in. What the successor says is believed
/// as far as the chunks that it names are free here: then this instar had no other use for them.
///
/// Called while all other cores stand still, with whatever locks they hold: takes none, and allocates nothing.
pub(crate) fn reserve(map: &mut ChunkMap) {
    let mut found = FOUND.iter();
    let mut at = FIRST.load(Ordering::Acquire);
    for _ in 0..MAX_PRESERVED {
        let Some(chunk) = at.checked_add(CHUNK).map(|end| at..end) else {
            return;
        };
        if at == 0 || !at.is_multiple_of(CHUNK) {
            return;
        }
        match map.owner(at) {
            // Known already.
            Some(Owner::Preserved) => {}
            Some(_) => return,
            None => {
                if map.mark(&chunk, Owner::Preserved).is_err() {
                    return;
                }
                // It was in the map: so it is RAM, which is mapped.
                let _ = map.release(&chunk);
                let sealed = sealed_at(at);
                let Some((range, ..)) = header::parse(at, &sealed) else {
                    return;
                };
                let Some(place) = found.next() else { return };
                if map.mark(&range, Owner::Preserved).is_err() {
                    return;
                }
                place.store(at, Ordering::Relaxed);
            }
        }
        at = next_of(at).load(Ordering::Acquire);
    }
}

/// What stands where a header is; the address is that of a chunk of RAM.
fn sealed_at(at: u64) -> [u8; SEALED] {
    // SAFETY: only called for chunks that are in the map, and so RAM that is mapped.
    unsafe { (at as *const [u8; SEALED]).read_volatile() }
}

/// # Safety
/// The header's range is RAM, mapped and the caller's.
unsafe fn write_header(header: &Header) {
    // SAFETY: the caller's promise; a header is shorter than its page.
    unsafe { (header.range.start as *mut [u8; SEALED]).write_volatile(header::write(header)) };
}

/// # Safety
/// The range is whole chunks of RAM, mapped and the caller's.
unsafe fn wipe(range: &Range<u64>) {
    let bytes = (range.end - range.start) as usize;
    // SAFETY: the caller's promise.
    unsafe { core::ptr::write_bytes(range.start as *mut u8, 0, bytes) };
}

/// Where the region's header says which region was made next.
fn next(range: &Range<u64>) -> &'static AtomicU64 {
    next_of(range.start)
}

fn next_of(start: u64) -> &'static AtomicU64 {
    // SAFETY: only called for regions in the list or just adopted: RAM that stays mapped, aligned, used as this alone.
    unsafe { AtomicU64::from_ptr((start + NEXT) as *mut u64) }
}

/// Opens the list of this instar: what its predecessor has handed over.
pub(super) fn open(inherited: &[PreservedRange]) {
    let mut regions = REGIONS.lock();
    for region in inherited {
        let header = Header {
            range: region.start..region.end,
            name: region.name.clone(),
            version: region.version,
        };
        regions.insert(header, false);
    }
    regions.link();
}

/// What the successor is told of.
pub(crate) fn to_hand_over() -> Vec<PreservedRange> {
    let regions = REGIONS.lock();
    let range = |entry: &Entry| PreservedRange {
        start: entry.header.range.start,
        end: entry.header.range.end,
        name: entry.header.name.clone(),
        version: entry.header.version,
    };
    regions.entries.iter().map(range).collect()
}

/// From now on no region is made or freed, until [`thaw`].
pub(super) fn freeze() {
    REGIONS.lock().frozen = true;
}

/// This instar goes on.
pub(super) fn thaw() {
    REGIONS.lock().frozen = false;
}

/// Takes in what a successor made before it failed.
pub(super) fn adopt() {
    let adopted = REGIONS.lock().adopt();
    if adopted > 0 {
        info!("{adopted} preserved regions of the successor taken in");
    }
}

/// Frees what was released, as soon as no predecessor can come back.
pub(crate) async fn settle() {
    loop {
        let released = {
            let mut regions = REGIONS.lock();
            if regions.frozen || memory::counts().predecessor > 0 {
                return;
            }
            let at = regions.entries.iter().position(|entry| entry.released);
            let Some(at) = at else { return };
            let entry = regions.entries.remove(at);
            regions.link();
            entry.header.range
        };
        for start in released.clone().step_by(CHUNK as usize) {
            // SAFETY: still the region's chunks in the map, and nobody holds it any more.
            unsafe { wipe(&(start..start + CHUNK)) };
            yield_now().await;
        }
        // In the map since it was taken.
        let _ = memory::with_chunks(|map| map.release(&released));
    }
}

#[cfg(test)]
mod tests;

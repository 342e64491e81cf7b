//! The store's memory: preserved regions `kv.0`, `kv.1`, …, one a segment.

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use kv_store::arena::{Arena, Pos};
use libos::memory;
use libos::state::{Preserved, PreservedError};

/// Of what is in a region. The store's own layout and the records' formats are told inside.
const VERSION: u32 = 1;
const CHUNK: u64 = 2 << 20;
/// The first region, and the least that another one has.
const LEAST: u64 = CHUNK - 4096;
/// The most that is added at once: it is zeroed while clients wait.
const MOST: u64 = 32 << 20;
/// Chunks that stay free: what a successor and the heap need.
const RESERVE: u64 = 24;

/// The regions that this instar has.
#[derive(Debug)]
pub struct Regions(Vec<Preserved>);

impl Regions {
    /// The predecessor's regions, or a first one.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn open() -> Result<Self, PreservedError> {
        let mut regions = Self(Vec::new());
        regions.take_new();
        if regions.0.is_empty() {
            regions.0.push(Preserved::new(&name(0), VERSION, LEAST)?);
        }
        Ok(regions)
    }

    /// Takes what has come to be since: a successor that failed may have added some.
    pub fn take_new(&mut self) {
        while let Some(region) = Preserved::take(&name(self.0.len())) {
            self.0.push(region);
        }
    }

    /// The address of so many bytes, if they are there.
    fn address(&self, at: Pos, skip: usize, length: usize) -> Option<*mut u8> {
        let region = self.0.get(at.segment())?;
        let start = at.offset().checked_add(skip)?;
        let inside = start.checked_add(length)? <= region.len();
        // SAFETY: inside of the region.
        inside.then(|| unsafe { region.start().as_ptr().add(start) })
    }

    fn word(&self, at: Pos) -> Option<&AtomicU64> {
        let address = self.address(at, 0, 8)?;
        // SAFETY: eight bytes of the region, which begins at a page, at an offset that is a multiple of 8. Bytes are written
        // through `&mut self` alone.
        Some(unsafe { AtomicU64::from_ptr(address.cast()) })
    }
}

fn name(segment: usize) -> alloc::string::String {
    format!("kv.{segment}")
}

impl Arena for Regions {
    fn segments(&self) -> usize {
        self.0.len()
    }

    fn segment_bytes(&self, segment: usize) -> usize {
        self.0.get(segment).map_or(0, Preserved::len)
    }

    fn load(&self, at: Pos) -> u64 {
        self.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&mut self, at: Pos, value: u64) {
        // This core's other stores come before it, in memory too (Intel SDM 3A, 9.2.2: stores are not reordered).
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn bytes(&self, at: Pos, length: usize) -> &[u8] {
        match self.address(at, 0, length) {
            // SAFETY: inside of the region, initialised since it was made; changed through `&mut self` alone.
            Some(address) => unsafe { core::slice::from_raw_parts(address, length) },
            None => &[],
        }
    }

    fn write(&mut self, at: Pos, skip: usize, bytes: &[u8]) {
        if let Some(address) = self.address(at, skip, bytes.len()) {
            // SAFETY: inside of the region; `bytes` is not a part of it, since that would be borrowed from `self`.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), address, bytes.len()) };
        }
    }

    fn grow(&mut self, at_least: usize) -> bool {
        let all: u64 = self.0.iter().map(|region| region.len() as u64).sum();
        let spare = memory::counts().free.saturating_sub(RESERVE) * CHUNK;
        let least = (at_least as u64).max(LEAST);
        let mut wanted = (all / 4).clamp(least, MOST.max(least)).min(spare);
        while wanted >= least {
            if let Ok(region) = Preserved::new(&name(self.0.len()), VERSION, wanted) {
                self.0.push(region);
                return true;
            }
            wanted /= 2;
        }
        false
    }
}

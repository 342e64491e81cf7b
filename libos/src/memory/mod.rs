//! Chunks, address space, heap.

pub mod chunks;
pub mod heap;
pub mod paging;
pub mod regions;
pub mod stack;

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chunks::{ChunkMap, Owner};
use paging::{Access, AddressSpace};
use spin::{Mutex, MutexGuard};

/// Memory is given and taken in pieces of this many bytes.
pub const CHUNK: u64 = 2 << 20;

// Lock order: heap, then chunks. Nothing allocates while it holds `CHUNKS`, since the heap may be taking a chunk.
static CHUNKS: Mutex<Option<ChunkMap>> = Mutex::new(None);
static SPACE: Mutex<Option<AddressSpace>> = Mutex::new(None);
static ROOT: AtomicU64 = AtomicU64::new(0);
/// Are the own page tables in use, which map more than the loader's?
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Where the linker script put the parts of this image.
#[cfg(metal)]
mod parts {
    unsafe extern "C" {
        pub static image_start: u8;
        pub static text_start: u8;
        pub static text_end: u8;
        pub static data_start: u8;
        pub static relro_end: u8;
        pub static image_end: u8;
    }
}

/// A program on the host has no such parts.
#[cfg(not(metal))]
#[expect(non_upper_case_globals, reason = "named as the linker's symbols")]
mod parts {
    pub static image_start: u8 = 0;
    pub static text_start: u8 = 0;
    pub static text_end: u8 = 0;
    pub static data_start: u8 = 0;
    pub static relro_end: u8 = 0;
    pub static image_end: u8 = 0;
}

/// Where this image lies.
pub fn image() -> Range<u64> {
    &raw const parts::image_start as u64..&raw const parts::image_end as u64
}

/// Where this image's constants lie, which nobody can write to: what stands in its file, and is no secret.
pub fn constants() -> Range<u64> {
    &raw const parts::image_start as u64..&raw const parts::text_start as u64
}

/// Takes charge of the machine's memory: `map` says which chunks are whose, `ram` what there is.
///
/// # Safety
/// Called once, by core 0, running on page tables that map all of `ram`. The map is true.
pub unsafe fn init(map: ChunkMap, ram: &[Range<u64>]) {
    *CHUNKS.lock() = Some(map);
    let mut space = AddressSpace::new();
    for region in ram {
        space.map(region.clone(), Access::Data);
    }
    let part = |start: *const u8, end: *const u8| start as u64..end as u64;
    space.map(
        part(&raw const parts::image_start, &raw const parts::text_start),
        Access::ReadOnly,
    );
    space.map(
        part(&raw const parts::text_start, &raw const parts::text_end),
        Access::Code,
    );
    space.map(
        part(&raw const parts::data_start, &raw const parts::relro_end),
        Access::ReadOnly,
    );
    space.map(0..4096, Access::None);
    ROOT.store(space.root(), Ordering::Release);
    *SPACE.lock() = Some(space);
}

/// Makes this core use the instar's page tables.
pub(crate) fn activate() {
    // SAFETY: all of RAM is mapped, the image with the rights that its parts need. `.data.rel.ro` was relocated by the
    // loader and is only read from now on. Takes no lock: a core that comes back from the pen may be the holder of any.
    unsafe { paging::activate(ROOT.load(Ordering::Acquire)) };
    ACTIVE.store(true, Ordering::Relaxed);
}

/// Maps a device's registers, uncached.
pub fn map_device(range: Range<u64>) {
    if let Some(space) = SPACE.lock().as_mut() {
        space.map(range, Access::Device);
    }
}

/// Changes the rights of pages that no other core uses yet.
pub(crate) fn protect(range: Range<u64>, access: Access) {
    if let Some(space) = SPACE.lock().as_mut() {
        space.map(range.clone(), access);
    }
    // Before that nothing of these tables is in any core's TLB.
    if ACTIVE.load(Ordering::Relaxed) {
        paging::forget(range);
    }
}

fn take_for_heap(count: usize) -> Option<Range<u64>> {
    // Until the own page tables are in use the loader's are, which map the first 4 GiB.
    let active = ACTIVE.load(Ordering::Relaxed);
    with_chunks(|map| match count {
        1 if active => map.take_one(Owner::Own),
        _ => map.take_run(
            count as u64,
            Owner::Own,
            if active { u64::MAX } else { 4 << 30 },
            crate::cpu::registers::tsc(),
        ),
    })?
}

/// Does something with the chunk map. `action` must not allocate.
pub fn with_chunks<R>(action: impl FnOnce(&mut ChunkMap) -> R) -> Option<R> {
    CHUNKS.lock().as_mut().map(action)
}

/// Another map, for tests; the one before it.
#[cfg(test)]
pub(crate) fn replace_map(map: Option<ChunkMap>) -> Option<ChunkMap> {
    core::mem::replace(&mut *CHUNKS.lock(), map)
}

/// Until this is dropped no chunk changes hands, on whatever core.
pub(crate) struct Held(MutexGuard<'static, Option<ChunkMap>>);

impl Held {
    /// Waits for the map. Whoever holds it must not allocate.
    pub fn new() -> Self {
        Self(CHUNKS.lock())
    }

    /// Changes the map. `action` must not allocate.
    pub fn change(&mut self, action: impl FnOnce(&mut ChunkMap)) {
        if let Some(map) = self.0.as_mut() {
            action(map);
        }
    }

    /// The ranges that belong to `owner`.
    pub fn ranges_of(&self, owner: Owner) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().flat_map(move |map| map.ranges_of(owner))
    }
}

/// How many chunks there are, by owner.
pub fn counts() -> chunks::Counts {
    with_chunks(|map| map.counts()).unwrap_or_default()
}

/// The ranges that belong to `owner`.
pub fn ranges_of(owner: Owner) -> Vec<Range<u64>> {
    let count = with_chunks(|map| map.ranges_of(owner).count()).unwrap_or(0);
    // Room for a few more: the allocation itself may make the heap take a chunk.
    let mut ranges = Vec::with_capacity(count + 4);
    with_chunks(|map| {
        for range in map.ranges_of(owner).take(ranges.capacity()) {
            ranges.push(range);
        }
    });
    ranges
}

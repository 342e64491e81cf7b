//! The heap: talc, growing by whole chunks.

use core::alloc::Layout;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;
use talc::{DefaultBinning, TalcLock, min_first_heap_size};

use super::CHUNK;

/// Memory for the first allocations, before the machine's memory is known. Part of the image's own .bss.
const FIRST_BYTES: usize = 256 * 1024;
const _: () = assert!(FIRST_BYTES > min_first_heap_size::<DefaultBinning>());

/// Where the heap gets memory when it has run out: first the image's own .bss, then free chunks.
#[derive(Debug)]
pub struct Chunks {
    first_used: bool,
}

// SAFETY: `acquire` uses neither the heap nor anything that allocates.
unsafe impl Source for Chunks {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        static mut FIRST: [u8; FIRST_BYTES] = [0; FIRST_BYTES];
        if !talc.source.first_used {
            talc.source.first_used = true;
            // SAFETY: only here, once, under the heap's lock.
            return unsafe { talc.claim((&raw mut FIRST).cast(), FIRST_BYTES) }
                .map(|_| ())
                .ok_or(());
        }
        // Room for the allocation, its alignment, and talc's own tags at both ends.
        const OVERHEAD: usize = 4096;
        let bytes = layout
            .size()
            .checked_add(layout.align())
            .and_then(|n| n.checked_add(OVERHEAD))
            .ok_or(())?;
        let range = super::take_for_heap(bytes.div_ceil(CHUNK as usize)).ok_or(())?;
        // SAFETY: the chunk map has just given these chunks to the heap, and they are mapped writable.
        unsafe { talc.claim(range.start as *mut u8, (range.end - range.start) as usize) }
            .map(|_| ())
            .ok_or(())
    }
}

#[cfg_attr(metal, global_allocator)]
static HEAP: TalcLock<spin::Mutex<()>, Chunks> = TalcLock::new(Chunks { first_used: false });

/// Gives the heap a piece of the instar's own memory.
///
/// # Safety
/// The range is mapped writable and nothing else uses it, ever.
pub unsafe fn give(range: core::ops::Range<u64>) {
    const WORTH_IT: u64 = 4096;
    if range.end.saturating_sub(range.start) >= WORTH_IT {
        // SAFETY: as the caller says.
        unsafe {
            HEAP.lock()
                .claim(range.start as *mut u8, (range.end - range.start) as usize)
        };
    }
}

/// Bytes that the heap owns, and bytes of them in use.
pub fn usage() -> (u64, u64) {
    let heap = HEAP.lock();
    let counters = heap.counters();
    (
        counters.claimed_bytes as u64,
        counters.claimed_bytes.saturating_sub(counters.available_bytes) as u64,
    )
}

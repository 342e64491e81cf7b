//! What holds of the pen whatever is in it.

use super::*;
use crate::cpu::MAX_CORES;
use crate::memory::chunks::{CHUNK_BYTES, ChunkMap, Owner};

fn header() -> Header {
    // SAFETY: numbers and atomic numbers alone, for all of which zero is a value.
    unsafe { core::mem::zeroed() }
}

#[test]
fn the_floor_never_falls() {
    let header = header();
    assert_eq!(header.floor(), 0);
    for (version, floor) in [(3, 3), (2, 3), (0, 3), (u64::MAX, u64::MAX), (4, u64::MAX)] {
        header.raise_floor(version);
        assert_eq!(header.floor(), floor);
    }
}

/// A pen of an older version is taken over with its page as it is: a field that is new must lie in what was unused.
#[test]
fn all_fields_lie_before_the_code() {
    assert!(size_of::<Header>() <= CODE_OFFSET);
}

/// Images, heaps and page tables are made of chunks of this map, and the pen lies in none of them.
#[test]
fn no_image_is_ever_given_memory_of_the_pen() {
    assert!(Pen::ADDRESS + Pen::bytes(MAX_CORES) <= CHUNK_BYTES);
    // Whatever a memory map claims.
    for regions in [
        &[(0, 64 * CHUNK_BYTES)][..],
        &[(0, 0xa_0000), (0x10_0000, 64 * CHUNK_BYTES)],
        &[(Pen::ADDRESS, 64 * CHUNK_BYTES)],
    ] {
        for random in 0..200 {
            let mut map = ChunkMap::new(regions);
            let run = map
                .take_run(1 + random % 3, Owner::Staged, 4 << 30, random)
                .expect("there is room");
            assert!(run.start >= CHUNK_BYTES, "{run:#x?}");
        }
        let mut map = ChunkMap::new(regions);
        assert!(
            map.mark(&(Pen::ADDRESS..Pen::ADDRESS + 4096), Owner::Own)
                .is_err()
        );
    }
}

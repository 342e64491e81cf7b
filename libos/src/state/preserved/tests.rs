//! Regions in real memory, between two instars that each have a map of it.

use alloc::alloc::{Layout, alloc, dealloc};

use super::*;
use crate::memory::chunks::ChunkMap;
use crate::state::tests::now;

const CHUNKS: u64 = 16;

/// Memory of the machine, the only one.
struct Memory {
    start: u64,
    layout: Layout,
    _turn: spin::MutexGuard<'static, ()>,
}

impl Memory {
    fn new() -> Self {
        let turn = TURN.lock();
        let layout = Layout::from_size_align((CHUNKS * CHUNK) as usize, CHUNK as usize).expect("a layout");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) } as u64;
        assert!(start != 0);
        memory::replace_map(Some(ChunkMap::new(&[(start, CHUNKS * CHUNK)])));
        Self {
            start,
            layout,
            _turn: turn,
        }
    }

    fn chunk(&self, number: u64) -> Range<u64> {
        self.start + number * CHUNK..self.start + (number + 1) * CHUNK
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        memory::replace_map(None);
        FIRST.store(0, Ordering::Relaxed);
        *REGIONS.lock() = Regions {
            entries: Vec::new(),
            frozen: false,
        };
        // SAFETY: allocated with this layout; nobody has a region any more.
        unsafe { dealloc(self.start as *mut u8, self.layout) };
    }
}

/// What an instar knows, and nobody else.
struct Instar(Option<ChunkMap>, Regions, u64);

/// The running instar jumps: it is kept, and its successor knows what it was told.
fn jump() -> Instar {
    let told = to_hand_over();
    let first = FIRST.load(Ordering::Relaxed);
    let own = memory::with_chunks(|map| map.clone()).expect("there is a map");
    let mut theirs = own.clone();
    theirs.reassign(Owner::Own, Owner::Predecessor);
    let regions = core::mem::replace(
        &mut *REGIONS.lock(),
        Regions {
            entries: Vec::new(),
            frozen: false,
        },
    );
    memory::replace_map(Some(theirs));
    open(&told);
    Instar(Some(own), regions, first)
}

/// The successor has failed: its map and its list are forgotten.
fn come_back(instar: Instar) {
    memory::replace_map(instar.0);
    *REGIONS.lock() = instar.1;
    FIRST.store(instar.2, Ordering::Relaxed);
    find();
}

fn find() {
    memory::with_chunks(reserve);
    adopt();
}

fn names() -> Vec<String> {
    let mut names: Vec<_> = to_hand_over().into_iter().map(|region| region.name).collect();
    names.sort();
    names
}

fn make(name: &str, mark: u8) -> Preserved {
    let mut region = Preserved::new(name, 1, 100).expect("there is memory");
    assert!(region.as_slice().iter().all(|byte| *byte == 0));
    region.as_mut_slice().fill(mark);
    region
}

#[test]
fn a_predecessor_finds_what_its_failed_successor_wrote_and_made() {
    let _memory = Memory::new();
    let held = make("a", 1);
    let before = jump();
    assert_eq!(Preserved::take("b").map(drop), None);
    let mut theirs = Preserved::take("a").expect("it was told");
    theirs.as_mut_slice()[0] = 2;
    drop((make("b", 3), make("c", 4)));
    come_back(before);
    assert_eq!(names(), ["a", "b", "c"]);
    assert_eq!((held.as_slice()[0], held.as_slice()[1]), (2, 1));
    for (name, mark) in [("b", 3), ("c", 4)] {
        let region = Preserved::take(name).expect("it was taken in");
        assert!(region.as_slice().iter().all(|byte| *byte == mark));
    }
    assert_eq!(memory::counts().preserved, 3);
    // And once more, from a list that was taken in.
    let before = jump();
    drop(make("d", 5));
    come_back(before);
    assert_eq!(names(), ["a", "b", "c", "d"]);
}

#[test]
fn what_a_failed_successor_left_damaged_is_not_taken_in() {
    let memory = Memory::new();
    let known = make("a", 1);
    let before = jump();
    let damaged = make("b", 2).start().as_ptr() as u64 - HEADER_BYTES;
    // SAFETY: the region's own header.
    unsafe { *((damaged + 30) as *mut u8) ^= 1 };
    come_back(before);
    assert_eq!(names(), ["a"]);
    for wild in [
        1,
        0xffff_ffff_ffff_f000,
        u64::MAX,
        memory.start - CHUNK,
        memory.start + 8,
    ] {
        next(&known.range).store(wild, Ordering::Relaxed);
        find();
        assert_eq!(names(), ["a"], "{wild:#x}");
    }
    // A whole header in memory that is in use here.
    let own = memory.chunk(3);
    memory::with_chunks(|map| map.mark(&own, Owner::Own).expect("it is free"));
    let header = Header {
        range: own.clone(),
        name: "wrong".into(),
        version: 1,
    };
    // SAFETY: this test's memory.
    unsafe { write_header(&header) };
    next(&known.range).store(own.start, Ordering::Relaxed);
    find();
    assert_eq!(names(), ["a"]);
}

#[test]
fn what_is_released_on_trial_is_there_if_the_predecessor_comes_back() {
    let memory = Memory::new();
    let own = memory.chunk(2);
    memory::with_chunks(|map| map.mark(&own, Owner::Own).expect("it is free"));
    drop(make("a", 7));
    let before = jump();
    let region = Preserved::take("a").expect("it was told");
    now(region.release());
    assert_eq!(Preserved::take("a").map(drop), None, "it is gone");
    assert_eq!(memory::counts().preserved, 1, "but not yet free");
    come_back(before);
    let region = Preserved::take("a").expect("nothing has happened");
    assert!(region.as_slice().iter().all(|byte| *byte == 7));

    // The same, with a commit.
    drop(region);
    drop(jump());
    let region = Preserved::take("a").expect("it was told");
    let range = region.range.clone();
    now(region.release());
    memory::with_chunks(|map| map.release(&own).expect("the predecessor's"));
    now(settle());
    assert_eq!(memory::counts().preserved, 0);
    // SAFETY: this test's memory.
    let wiped = unsafe { core::slice::from_raw_parts(range.start as *const u8, CHUNK as usize) };
    assert!(wiped.iter().all(|byte| *byte == 0));
}

#[test]
fn every_refusal_says_why() {
    let _memory = Memory::new();
    let error = |name: &str, bytes| Preserved::new(name, 1, bytes).err();
    assert_eq!(error("", 1), Some(PreservedError::Name(0)));
    assert_eq!(error(&"n".repeat(33), 1), Some(PreservedError::Name(33)));
    assert_eq!(
        error("a", u64::MAX),
        Some(PreservedError::NoMemory { chunks: 1 << 43 })
    );
    assert_eq!(error("a", CHUNK), None);
    assert_eq!(memory::counts().preserved, 2, "a page is the header's");
    assert_eq!(error("a", 1), Some(PreservedError::Exists("a".into())));
    freeze();
    assert_eq!(error("b", 1), Some(PreservedError::Replacing));
    thaw();
    assert_eq!(error("b", 1), None);
}

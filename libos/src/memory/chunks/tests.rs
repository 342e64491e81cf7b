//! No chunk is given out twice, and none gets lost.

use alloc::collections::BTreeMap;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const OWNERS: [Owner; 3] = [Owner::Own, Owner::Staged, Owner::Predecessor];

/// A chunk range as bytes.
fn chunks(range: Range<u64>) -> Range<u64> {
    in_bytes(&range)
}

fn free(map: &ChunkMap) -> Vec<Range<u64>> {
    map.runs(None).collect()
}

#[test]
fn only_whole_chunks_of_usable_ram() {
    // A PC's memory map: low memory, then from 1 MiB on, then above 4 GiB.
    let map = ChunkMap::new(&[(MIB, 254 * MIB), (0, 0x9_fc00), (4096 * MIB, 5 * MIB)]);
    assert_eq!(free(&map), [1..127, 2048..2050]);
    assert_eq!(
        map.counts(),
        Counts {
            total: 128,
            free: 128,
            ..Counts::default()
        }
    );
}

#[test]
fn regions_that_touch_or_overlap_are_one() {
    let map = ChunkMap::new(&[
        (9 * MIB, 3 * MIB),
        (2 * MIB, 7 * MIB),
        (3 * MIB, MIB),
        (8 * MIB, 2 * MIB),
    ]);
    assert_eq!(free(&map).first(), Some(&(1..6)));
    assert_eq!(map.counts().total, 5);
}

#[test]
fn strange_regions_do_no_harm() {
    for regions in [
        &[][..],
        &[(0, 0)],
        &[(0, 2 * MIB)],
        &[(u64::MAX, u64::MAX)],
        &[(MIB, 2 * MIB)],
    ] {
        let mut map = ChunkMap::new(regions);
        assert_eq!(map.counts().total, 0, "{regions:?}");
        assert_eq!(map.take_one(Owner::Own), None);
        assert_eq!(map.take_run(1, Owner::Own, u64::MAX, 7), None);
    }
    let map = ChunkMap::new(&[(0, u64::MAX)]);
    assert_eq!(map.counts().total, MAX_CHUNKS);
}

#[test]
fn every_place_of_a_run_is_reached_and_no_other() {
    let map = ChunkMap::new(&[(2 * MIB, 8 * MIB), (32 * MIB, 6 * MIB)]);
    let mut seen = BTreeMap::new();
    for random in 0..50 {
        let range = map
            .clone()
            .take_run(3, Owner::Staged, u64::MAX, random)
            .expect("it fits");
        *seen.entry(range.start / CHUNK_BYTES).or_insert(0) += 1;
        assert_eq!(range.end - range.start, 3 * CHUNK_BYTES);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(1, 17), (2, 17), (16, 16)]);
}

#[test]
fn the_upper_bound_holds() {
    let mut map = ChunkMap::new(&[(2 * MIB, 8 * MIB), (32 * MIB, 64 * MIB)]);
    for random in 0..100 {
        let range = map
            .clone()
            .take_run(2, Owner::Staged, 9 * MIB, random)
            .expect("it fits");
        assert!(range.end <= 8 * MIB);
    }
    assert_eq!(map.take_run(5, Owner::Staged, 12 * MIB, 0), None);
    assert_eq!(map.take_run(0, Owner::Staged, u64::MAX, 0), None);
    assert_eq!(map.take_run(u64::MAX, Owner::Staged, u64::MAX, 0), None);
    assert_eq!(map.take_one(Owner::Own), Some(chunks(47..48)));
}

#[test]
fn marking_rounds_outwards_and_refuses_what_is_anothers() {
    let mut map = ChunkMap::new(&[(0, 20 * MIB)]);
    assert_eq!(map.mark(&(5 * MIB..6 * MIB + 1), Owner::Own), Ok(()));
    assert_eq!(map.mark(&(7 * MIB..8 * MIB), Owner::Own), Ok(()));
    assert_eq!(map.ranges_of(Owner::Own).collect::<Vec<_>>(), [chunks(2..4)]);
    let before = map.counts();
    assert_eq!(
        map.mark(&(2 * MIB..5 * MIB), Owner::Predecessor),
        Err(ChunkError::Taken(4 * MIB))
    );
    assert_eq!(
        map.mark(&(MIB..3 * MIB), Owner::Own),
        Err(ChunkError::NotRam(MIB))
    );
    assert_eq!(
        map.mark(&(18 * MIB..21 * MIB), Owner::Own),
        Err(ChunkError::NotRam(18 * MIB))
    );
    assert_eq!(
        map.mark(&(4 * MIB..4 * MIB), Owner::Own),
        Err(ChunkError::Empty(4 * MIB))
    );
    let (high, low) = (u64::MAX, 2 * MIB);
    assert_eq!(map.mark(&(high..low), Owner::Own), Err(ChunkError::Empty(high)));
    assert_eq!(map.mark(&(low..high), Owner::Own), Err(ChunkError::NotRam(low)));
    assert_eq!(map.counts(), before);
}

#[test]
fn only_what_is_taken_is_released() {
    let mut map = ChunkMap::new(&[(0, 20 * MIB)]);
    map.mark(&chunks(2..4), Owner::Predecessor).expect("free");
    assert_eq!(map.release(&chunks(2..5)), Err(ChunkError::Free(8 * MIB)));
    assert_eq!(
        map.release(&(4 * MIB..7 * MIB)),
        Err(ChunkError::NotWhole(4 * MIB))
    );
    assert_eq!(map.release(&chunks(0..4)), Err(ChunkError::NotRam(0)));
    assert_eq!(map.release(&chunks(2..3)), Ok(()));
    assert_eq!(map.release(&chunks(2..3)), Err(ChunkError::Free(4 * MIB)));
    assert_eq!(
        map.ranges_of(Owner::Predecessor).collect::<Vec<_>>(),
        [chunks(3..4)]
    );
}

#[test]
fn a_replacement_from_stage_to_commit() {
    let mut map = ChunkMap::new(&[(0, 64 * MIB)]);
    map.take_one(Owner::Own).expect("the first heap");
    map.take_run(2, Owner::Staged, u64::MAX, 12345)
        .expect("a staged image");
    assert_eq!(
        (
            map.reassign(Owner::Own, Owner::Predecessor),
            map.reassign(Owner::Staged, Owner::Own)
        ),
        (1, 2)
    );
    let old: Vec<_> = map.ranges_of(Owner::Predecessor).collect();
    old.iter()
        .for_each(|range| map.release(range).expect("it was the predecessor's"));
    assert_eq!(
        map.counts(),
        Counts {
            total: 31,
            free: 29,
            own: 2,
            ..Counts::default()
        }
    );
}

/// What may be done to a map.
#[derive(Clone, Debug)]
enum Step {
    Run(u64, Owner, u64, u64),
    One(Owner),
    Release(usize),
    Mark(Range<u64>, Owner),
    Reassign(Owner, Owner),
}

fn step() -> impl Strategy<Value = Step> {
    let owner = || (0_usize..3).prop_map(|index| OWNERS[index]);
    prop_oneof![
        (0_u64..9, owner(), any::<u64>(), 0_u64..300 * MIB).prop_map(|(n, o, r, b)| Step::Run(n, o, b, r)),
        owner().prop_map(Step::One),
        any::<usize>().prop_map(Step::Release),
        (0_u64..300 * MIB, 0_u64..9 * MIB, owner()).prop_map(|(at, n, o)| Step::Mark(at..at + n, o)),
        (owner(), owner()).prop_map(|(from, to)| Step::Reassign(from, to)),
    ]
}

proptest! {
    /// Beside the map runs a plain list of who has what.
    #[test]
    fn no_chunk_twice_and_counts_add_up(
        regions in proptest::collection::vec((0_u64..300 * MIB, 0_u64..100 * MIB), 0..5),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut map = ChunkMap::new(&regions);
        let total = map.counts().total;
        let mut taken: BTreeMap<u64, Owner> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Run(count, owner, below, random) => {
                    if let Some(range) = map.take_run(count, owner, below, random) {
                        prop_assert!(range.end <= below && (range.end - range.start) == count * CHUNK_BYTES);
                        for chunk in range.start / CHUNK_BYTES..range.end / CHUNK_BYTES {
                            prop_assert!(taken.insert(chunk, owner).is_none(), "given out twice");
                        }
                    }
                }
                Step::One(owner) => match map.take_one(owner) {
                    Some(range) => prop_assert!(taken.insert(range.start / CHUNK_BYTES, owner).is_none()),
                    None => prop_assert_eq!(map.counts().free, 0),
                },
                Step::Release(index) => {
                    let ranges: Vec<_> = OWNERS.iter().flat_map(|owner| map.ranges_of(*owner)).collect();
                    if let Some(range) = ranges.get(index % ranges.len().max(1)) {
                        prop_assert_eq!(map.release(range), Ok(()));
                        taken.retain(|chunk, _| !range.contains(&(chunk * CHUNK_BYTES)));
                    }
                }
                Step::Mark(range, owner) => {
                    if map.mark(&range, owner).is_ok() {
                        for chunk in range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES) {
                            let before = taken.insert(chunk, owner);
                            prop_assert!(before.is_none_or(|before| before == owner));
                        }
                    }
                }
                Step::Reassign(from, to) => {
                    map.reassign(from, to);
                    taken.values_mut().filter(|owner| **owner == from).for_each(|owner| *owner = to);
                }
            }
            let counts = map.counts();
            prop_assert_eq!(counts.total, total);
            prop_assert_eq!(counts.free + counts.own + counts.staged + counts.predecessor + counts.private, total);
            prop_assert_eq!(taken.len() as u64, total - counts.free);
            for owner in OWNERS {
                let of = |range: Range<u64>| range.start / CHUNK_BYTES..range.end / CHUNK_BYTES;
                let theirs: Vec<u64> = map.ranges_of(owner).flat_map(of).collect();
                let listed: Vec<u64> = taken.iter().filter(|it| *it.1 == owner).map(|it| *it.0).collect();
                prop_assert_eq!(theirs, listed);
            }
        }
        // What is in the map lies wholly inside the regions, and never in chunk 0.
        for run in map.runs(None).chain(OWNERS.iter().flat_map(|owner| map.runs(Some(*owner)))) {
            prop_assert!(run.start > 0);
            for page in (run.start * 512..run.end * 512).step_by(64) {
                let inside = |&(base, bytes): &(u64, u64)| (base..base + bytes).contains(&(page * 4096));
                prop_assert!(regions.iter().any(inside));
            }
        }
    }
}

#[test]
fn the_top_run_is_the_highest_that_is_long_enough() {
    let mut map = ChunkMap::new(&[(0, 40 * MIB)]);
    assert_eq!(map.mark(&chunks(15..16), Owner::Own), Ok(()));
    assert_eq!(map.take_top_run(2, Owner::Preserved), Some(chunks(18..20)));
    assert_eq!(map.take_top_run(3, Owner::Preserved), Some(chunks(12..15)));
    assert_eq!(map.take_top_run(0, Owner::Preserved), None);
    assert_eq!(map.take_top_run(12, Owner::Preserved), None);
    assert_eq!(map.take_top_run(11, Owner::Preserved), Some(chunks(1..12)));
    assert_eq!(map.counts().preserved, 16);
}

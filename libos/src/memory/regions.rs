//! The list of usable RAM that instars hand on, with pieces taken out and put back.
//!
//! What is in the list, an image may use as it likes. So memory that must outlive its next user without being touched is
//! not in the list that this user gets, whatever version it is.

use alloc::vec::Vec;
use core::ops::Range;

use loader::boot::Region;

/// `memory` without `holes`, in ascending order.
#[must_use]
pub fn carve<'a>(memory: &[Region], holes: impl IntoIterator<Item = &'a Range<u64>>) -> Vec<Region> {
    let mut left = joined(memory.iter().copied());
    for hole in holes {
        let pieces = left.into_iter().flat_map(|region| {
            let below = Region {
                end: region.end.min(hole.start),
                ..region
            };
            let above = Region {
                start: region.start.max(hole.end),
                ..region
            };
            [below, above]
        });
        // Where the hole was beside a region or had no size, the pieces touch again; where it covered it, they are empty.
        left = joined(pieces);
    }
    left
}

/// `memory` with `more`, in ascending order, what touches joined.
#[must_use]
pub fn add(memory: &[Region], more: impl IntoIterator<Item = Range<u64>>) -> Vec<Region> {
    let more = more.into_iter().map(|range| Region {
        start: range.start,
        end: range.end,
    });
    joined(memory.iter().copied().chain(more))
}

/// In ascending order, what touches or overlaps joined, without empty ones.
fn joined(regions: impl Iterator<Item = Region>) -> Vec<Region> {
    // A handful, so insertion will do: each sort of the library is 3 KiB of code.
    let mut sorted: Vec<Region> = Vec::new();
    for region in regions.filter(|region| region.start < region.end) {
        let at = sorted.partition_point(|earlier| earlier.start < region.start);
        sorted.insert(at, region);
    }
    let mut joined: Vec<Region> = Vec::new();
    for region in sorted {
        match joined.last_mut() {
            Some(last) if region.start <= last.end => last.end = last.end.max(region.end),
            _ => joined.push(region),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn region(start: u64, end: u64) -> Region {
        Region { start, end }
    }

    #[test]
    fn a_hole_splits_what_it_lies_in() {
        let memory = [region(0, 10), region(20, 30)];
        let carved = |hole: Range<u64>| carve(&memory, [&hole]);
        assert_eq!(carved(3..5), [region(0, 3), region(5, 10), region(20, 30)]);
        assert_eq!(carved(0..10), [region(20, 30)]);
        assert_eq!(carved(5..25), [region(0, 5), region(25, 30)]);
        assert_eq!(carved(10..20), memory);
        assert_eq!(carved(0..40), []);
        assert_eq!(carved(5..5), memory);
    }

    fn covered(regions: &[Region]) -> Vec<bool> {
        (0..100)
            .map(|at| regions.iter().any(|region| region.start <= at && at < region.end))
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_carved_out_and_put_back_was_never_gone(
            memory in vec((0_u64..80, 0_u64..20), 0..6), holes in vec((0_u64..80, 0_u64..20), 0..6),
        ) {
            let memory: Vec<Region> = memory.into_iter().map(|(start, size)| region(start, start + size)).collect();
            let holes: Vec<Range<u64>> = holes.into_iter().map(|(start, size)| start..start + size).collect();
            let left = carve(&memory, &holes);
            let whole = covered(&memory);
            let expected: Vec<bool> = (0..100).map(|at| whole[at as usize] && !holes.iter().any(|it| it.contains(&at))).collect();
            prop_assert_eq!(covered(&left), expected);
            prop_assert!(left.windows(2).all(|two| two[0].end < two[1].start));
            // Only what was memory comes back: private memory is a part of it.
            let inside = holes.into_iter().flat_map(|hole| {
                let memory = joined(memory.iter().copied());
                memory.into_iter().map(move |it| it.start.max(hole.start)..it.end.min(hole.end).max(it.start.max(hole.start)))
            });
            prop_assert_eq!(add(&left, inside), joined(memory.iter().copied()));
        }
    }
}

//! Where the image goes: a random run of free chunks.

use loader::boot::Region;
use loader::load::CHUNK;

/// The number of chunks below 4 GiB, which is what the first stage maps.
const CHUNKS: usize = 2048;

/// Chooses, by `random`, one of all runs of `chunks` free chunks below 4 GiB, and returns its address. Free is a
/// chunk that lies in one region of RAM and touches nothing that is taken. Chunk 0 never is: firmware and first
/// stage live there.
pub fn choose(memory: &[Region], taken: &[Region], chunks: u64, random: u64) -> Option<u64> {
    let chunks = usize::try_from(chunks)
        .ok()
        .filter(|chunks| (1..CHUNKS).contains(chunks))?;
    let free: [bool; CHUNKS] = core::array::from_fn(|index| {
        let (start, end) = (index as u64 * CHUNK, (index as u64 + 1) * CHUNK);
        index != 0
            && memory
                .iter()
                .any(|region| region.start <= start && end <= region.end)
            && !taken
                .iter()
                .any(|region| region.start < end && start < region.end)
    });
    let fits = |index: &usize| {
        free.get(*index..index + chunks)
            .is_some_and(|run| run.iter().all(|free| *free))
    };
    let runs = (1..CHUNKS).filter(fits).count() as u64;
    let chosen = usize::try_from(random.checked_rem(runs)?).ok()?;
    (1..CHUNKS)
        .filter(fits)
        .nth(chosen)
        .map(|index| index as u64 * CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEMORY: &[Region] = &[
        Region {
            start: 0,
            end: 0xa_0000,
        },
        Region {
            start: 0x10_0000,
            end: 0x3ff_0000,
        },
    ];

    #[test]
    fn takes_what_is_free() {
        let module = Region {
            start: 0x3a0_0000,
            end: 0x3a0_0001,
        };
        let all: Vec<u64> = (0..100).filter_map(|n| choose(MEMORY, &[module], 2, n)).collect();
        assert_eq!(all.len(), 100);
        // Below 62 MiB in whole chunks: 1..=28 in front of the module's chunk 29, 30 behind it.
        assert_eq!(
            (all.iter().min(), all.iter().max()),
            (Some(&CHUNK), Some(&(27 * CHUNK)))
        );
        assert_eq!(choose(MEMORY, &[], 30, 0), Some(CHUNK));
        assert_eq!(choose(MEMORY, &[], 31, 0), None);
        assert_eq!(choose(MEMORY, &[], 0, 0), None);
        assert_eq!(choose(MEMORY, &[], u64::MAX, 0), None);
        assert_eq!(
            choose(
                &[Region {
                    start: 1 << 32,
                    end: 2 << 32
                }],
                &[],
                1,
                0
            ),
            None
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_touches_what_is_taken(
            taken in proptest::collection::vec((0..0x400_0000_u64, 0..0x40_0000_u64), 0..6),
            chunks in 1..8_u64, random: u64,
        ) {
            let taken: Vec<Region> =
                taken.iter().map(|(start, size)| Region { start: *start, end: start + size }).collect();
            if let Some(start) = choose(MEMORY, &taken, chunks, random) {
                let end = start + chunks * CHUNK;
                prop_assert!(start >= CHUNK && end <= MEMORY[1].end);
                prop_assert!(taken.iter().all(|region| region.end <= start || end <= region.start || region.start == region.end));
            }
        }
    }
}

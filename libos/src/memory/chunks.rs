//! Who owns which part of RAM, in chunks of 2 MiB.
//!
//! An instar owns chunks. A successor is loaded into free ones; its predecessor's stay reserved until commit, so that the
//! way back needs no copy. Chunk 0 is never given out: it holds what firmware, the cold start of cores and the pen need.
//!
//! Only [`ChunkMap::new`] allocates. Everything else may be called while the heap asks for more memory.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use thiserror::Error;

/// Size of a chunk in bytes: what one entry of a page directory maps.
pub const CHUNK_BYTES: u64 = 2 << 20;

/// Most chunks in a map (4 TiB of RAM): one byte is kept for each. RAM above is left unused.
pub const MAX_CHUNKS: u64 = 1 << 21;

/// Whose a chunk is, if it is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The running instar's.
    Own,
    /// The staged image's.
    Staged,
    /// The predecessor's, until commit.
    Predecessor,
    /// The TDX module's or a TD's, under a private KeyID: neither the heap nor an image touches it.
    Private,
    /// The application's, for its successor too: no image touches it but through its name.
    Preserved,
}

/// Why a range of memory could not be marked or released. Addresses are physical, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// The range is empty, or ends below its start.
    #[error("an empty range at {0:#x}")]
    Empty(u64),
    /// Not all of the range lies in whole chunks of one region of usable RAM.
    #[error("not all of the range at {0:#x} is usable RAM")]
    NotRam(u64),
    /// The range to be released does not begin and end with a chunk.
    #[error("the range at {0:#x} is not whole chunks")]
    NotWhole(u64),
    /// A chunk belongs to another owner already.
    #[error("the chunk at {0:#x} is taken")]
    Taken(u64),
    /// A chunk that should be released is free.
    #[error("the chunk at {0:#x} is free")]
    Free(u64),
}

/// Number of chunks by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All chunks of the map.
    pub total: u64,
    /// Nobody's.
    pub free: u64,
    /// [`Owner::Own`].
    pub own: u64,
    /// [`Owner::Staged`].
    pub staged: u64,
    /// [`Owner::Predecessor`].
    pub predecessor: u64,
    /// [`Owner::Private`].
    pub private: u64,
    /// [`Owner::Preserved`].
    pub preserved: u64,
}

/// Neighbouring chunks, with RAM that is not in the map below and above.
#[derive(Clone, Debug)]
struct Region {
    /// Number of the first chunk: its address divided by [`CHUNK_BYTES`].
    first: u64,
    owners: Box<[Option<Owner>]>,
}

/// The chunks of a machine. Ranges are physical addresses in bytes.
#[derive(Clone, Debug)]
pub struct ChunkMap {
    /// In ascending order; between two of them is at least one chunk that is not in the map.
    regions: Vec<Region>,
}

impl ChunkMap {
    /// All chunks that lie wholly inside usable RAM, each of them free.
    ///
    /// `regions` are (address, length) in bytes, in any order; they may touch or overlap.
    #[must_use]
    pub fn new(regions: &[(u64, u64)]) -> Self {
        // A handful, so insertion will do: each sort of the library is 3 KiB of code.
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for &(base, bytes) in regions {
            let span = (base, base.saturating_add(bytes));
            spans.insert(spans.partition_point(|earlier| *earlier < span), span);
        }
        // Regions that touch may share a chunk, so they are joined before chunks are cut out.
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (start, end) in spans {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        let mut left = MAX_CHUNKS;
        let mut map = Self { regions: Vec::new() };
        for (start, end) in joined {
            let first = start.div_ceil(CHUNK_BYTES).max(1);
            let count = (end / CHUNK_BYTES).saturating_sub(first).min(left);
            if count > 0 {
                left -= count;
                let owners = alloc::vec![None; usize::try_from(count).unwrap_or(0)].into_boxed_slice();
                map.regions.push(Region { first, owners });
            }
        }
        map
    }

    /// Takes `count` neighbouring free chunks that end at or below the address `below`, for `owner`.
    ///
    /// Every place where they fit is equally likely: `random` decides (where an image is loaded should not be
    /// foreseeable). `None`: there is no such place, or `count` is 0.
    pub fn take_run(&mut self, count: u64, owner: Owner, below: u64, random: u64) -> Option<Range<u64>> {
        if count == 0 {
            return None;
        }
        let fits = |run: &Range<u64>| {
            let end = run.end.min(below / CHUNK_BYTES);
            (end.saturating_sub(run.start) + 1).saturating_sub(count)
        };
        let places: u64 = self.runs(None).map(|run| fits(&run)).sum();
        let mut place = random.checked_rem(places)?;
        let start = self.runs(None).find_map(|run| {
            let here = fits(&run);
            if place < here {
                return Some(run.start + place);
            }
            place -= here;
            None
        })?;
        let chunks = start..start + count;
        self.owners_mut(&chunks)?.fill(Some(owner));
        Some(in_bytes(&chunks))
    }

    /// Takes the highest `count` neighbouring free chunks, for `owner`: low memory stays free for images, and what is taken so
    /// one after the other lies together. `None`: there are not that many in a row, or `count` is 0.
    pub fn take_top_run(&mut self, count: u64, owner: Owner) -> Option<Range<u64>> {
        let runs = self.runs(None).filter(|run| run.end - run.start >= count);
        let end = runs.last().filter(|_| count > 0)?.end;
        let chunks = end - count..end;
        self.owners_mut(&chunks)?.fill(Some(owner));
        Some(in_bytes(&chunks))
    }

    /// Takes the highest free chunk, so that low memory stays free for images. `None`: nothing is free.
    pub fn take_one(&mut self, owner: Owner) -> Option<Range<u64>> {
        for region in self.regions.iter_mut().rev() {
            if let Some(index) = region.owners.iter().rposition(Option::is_none) {
                region.owners[index] = Some(owner);
                let chunk = region.first + index as u64;
                return Some(in_bytes(&(chunk..chunk + 1)));
            }
        }
        None
    }

    /// Gives every chunk that `range` touches to `owner`, from outside knowledge: what a loader or a predecessor says
    /// is in use. A chunk that is `owner`'s already stays so.
    ///
    /// # Errors
    /// [`ChunkError::Empty`], [`ChunkError::NotRam`], [`ChunkError::Taken`]; nothing is changed then.
    pub fn mark(&mut self, range: &Range<u64>, owner: Owner) -> Result<(), ChunkError> {
        if range.is_empty() {
            return Err(ChunkError::Empty(range.start));
        }
        let chunks = range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES);
        let owners = self.owners_mut(&chunks).ok_or(ChunkError::NotRam(range.start))?;
        if let Some(index) = owners.iter().position(|it| it.is_some_and(|it| it != owner)) {
            return Err(ChunkError::Taken((chunks.start + index as u64) * CHUNK_BYTES));
        }
        owners.fill(Some(owner));
        Ok(())
    }

    /// Makes the chunks of `range` free, whosever they are. Whoever releases a chunk has wiped it.
    ///
    /// # Errors
    /// [`ChunkError::Empty`], [`ChunkError::NotWhole`], [`ChunkError::NotRam`], [`ChunkError::Free`]; nothing is changed
    /// then.
    pub fn release(&mut self, range: &Range<u64>) -> Result<(), ChunkError> {
        if range.is_empty() {
            return Err(ChunkError::Empty(range.start));
        }
        if !range.start.is_multiple_of(CHUNK_BYTES) || !range.end.is_multiple_of(CHUNK_BYTES) {
            return Err(ChunkError::NotWhole(range.start));
        }
        let chunks = range.start / CHUNK_BYTES..range.end / CHUNK_BYTES;
        let owners = self.owners_mut(&chunks).ok_or(ChunkError::NotRam(range.start))?;
        if let Some(index) = owners.iter().position(Option::is_none) {
            return Err(ChunkError::Free((chunks.start + index as u64) * CHUNK_BYTES));
        }
        owners.fill(None);
        Ok(())
    }

    /// Whose the chunk at an address is; `None`: nobody's, or it is not in the map.
    #[must_use]
    pub fn owner(&self, address: u64) -> Option<Owner> {
        let chunk = address / CHUNK_BYTES;
        let region = self.regions.iter().rev().find(|region| region.first <= chunk)?;
        let index = usize::try_from(chunk - region.first).ok()?;
        region.owners.get(index).copied().flatten()
    }

    /// Gives all chunks of one owner to another; the number of chunks.
    pub fn reassign(&mut self, from: Owner, to: Owner) -> u64 {
        let mut count = 0;
        for owner in self
            .regions
            .iter_mut()
            .flat_map(|region| region.owners.iter_mut())
        {
            if *owner == Some(from) {
                *owner = Some(to);
                count += 1;
            }
        }
        count
    }

    /// How many chunks there are, by owner.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for owner in self.regions.iter().flat_map(|region| region.owners.iter()) {
            counts.total += 1;
            match owner {
                None => counts.free += 1,
                Some(Owner::Own) => counts.own += 1,
                Some(Owner::Staged) => counts.staged += 1,
                Some(Owner::Predecessor) => counts.predecessor += 1,
                Some(Owner::Private) => counts.private += 1,
                Some(Owner::Preserved) => counts.preserved += 1,
            }
        }
        counts
    }

    /// The memory of one owner, in ascending order, each range as long as it can be.
    pub fn ranges_of(&self, owner: Owner) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs(Some(owner)).map(|run| in_bytes(&run))
    }

    /// Runs of neighbouring chunks that are `wanted`'s, as chunk numbers.
    fn runs(&self, wanted: Option<Owner>) -> impl Iterator<Item = Range<u64>> + '_ {
        self.regions.iter().flat_map(move |region| {
            let mut start = region.first;
            region
                .owners
                .chunk_by(|one, next| one == next)
                .filter_map(move |run| {
                    let chunks = start..start + run.len() as u64;
                    start = chunks.end;
                    (run.first() == Some(&wanted)).then_some(chunks)
                })
        })
    }

    /// The owners of these chunks; `None` if one of them is not in the map.
    fn owners_mut(&mut self, chunks: &Range<u64>) -> Option<&mut [Option<Owner>]> {
        let region = self
            .regions
            .iter_mut()
            .rev()
            .find(|region| region.first <= chunks.start)?;
        let start = usize::try_from(chunks.start - region.first).ok()?;
        let end = usize::try_from(chunks.end.checked_sub(region.first)?).ok()?;
        region.owners.get_mut(start..end)
    }
}

const fn in_bytes(chunks: &Range<u64>) -> Range<u64> {
    chunks.start * CHUNK_BYTES..chunks.end * CHUNK_BYTES
}

#[cfg(test)]
mod tests;

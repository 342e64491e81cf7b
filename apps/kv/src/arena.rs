//! Memory that outlives the image: segments, addressed by offsets, read and written by words.
//!
//! Whoever writes here may be stopped between any two words, for ever; what was written by then is what the next one finds,
//! in the order in which it was written.

/// A place in the memory: segment and offset, a multiple of 8; 0 is none. Lower bits are free for whoever keeps one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pos(pub u64);

impl Pos {
    /// None.
    pub const NONE: Self = Self(0);

    /// A place.
    #[must_use]
    pub const fn new(segment: usize, offset: usize) -> Self {
        Self((segment as u64 + 1) << 32 | offset as u64)
    }

    /// The segment; an impossible one for none.
    #[must_use]
    pub const fn segment(self) -> usize {
        (self.0 >> 32).wrapping_sub(1) as usize
    }

    /// The offset in the segment, in bytes.
    #[must_use]
    pub const fn offset(self) -> usize {
        (self.0 & 0xffff_fff8) as usize
    }

    /// `bytes` further in the same segment.
    #[must_use]
    pub const fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// The memory. A place that does not exist reads as 0 or as nothing, and what is written there is lost: what a damaged store
/// says must not reach beyond it.
pub trait Arena {
    /// How many segments there are; at least one.
    fn segments(&self) -> usize;
    /// The size of a segment in bytes, a multiple of 8; 0: there is none.
    fn segment_bytes(&self, segment: usize) -> usize;
    /// Reads a word.
    fn load(&self, at: Pos) -> u64;
    /// Writes a word, after everything that was written before.
    fn store(&mut self, at: Pos, value: u64);
    /// Bytes.
    fn bytes(&self, at: Pos, length: usize) -> &[u8];
    /// Writes bytes, in any order, `skip` bytes behind the place.
    fn write(&mut self, at: Pos, skip: usize, bytes: &[u8]);
    /// Adds a segment of at least this many bytes, all zero. `false`: there is no more memory.
    fn grow(&mut self, at_least: usize) -> bool;
}

/// Ordinary memory, which can stop: for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Segments of the heap.
    #[derive(Clone, Debug)]
    pub struct Heap {
        pub segments: Vec<Vec<u8>>,
        /// Most segments.
        pub most: usize,
        /// Size of the ones that are added.
        pub each: usize,
        /// What may still be written: at 0 the machine stands still.
        pub writes_left: usize,
    }

    impl Heap {
        pub fn new(most: usize, each: usize) -> Self {
            Self {
                segments: vec![vec![0; each]],
                most,
                each,
                writes_left: usize::MAX,
            }
        }

        /// Unwinds where the machine stands still.
        fn count(&mut self) {
            if self.writes_left == 0 {
                std::panic::resume_unwind(Box::new("stopped"));
            }
            self.writes_left -= 1;
        }
    }

    impl Arena for Heap {
        fn segments(&self) -> usize {
            self.segments.len()
        }

        fn segment_bytes(&self, segment: usize) -> usize {
            self.segments.get(segment).map_or(0, Vec::len)
        }

        fn load(&self, at: Pos) -> u64 {
            self.bytes(at, 8).try_into().map_or(0, u64::from_le_bytes)
        }

        fn store(&mut self, at: Pos, value: u64) {
            self.write(at, 0, &value.to_le_bytes());
        }

        fn bytes(&self, at: Pos, length: usize) -> &[u8] {
            let segment = self.segments.get(at.segment());
            segment
                .and_then(|bytes| bytes.get(at.offset()..at.offset() + length))
                .unwrap_or_default()
        }

        fn write(&mut self, at: Pos, skip: usize, bytes: &[u8]) {
            let start = at.offset() + skip;
            let range = start..start + bytes.len();
            self.count();
            if let Some(place) = self
                .segments
                .get_mut(at.segment())
                .and_then(|it| it.get_mut(range))
            {
                place.copy_from_slice(bytes);
            }
        }

        fn grow(&mut self, at_least: usize) -> bool {
            let can = self.segments.len() < self.most;
            if can {
                self.segments.push(vec![0; self.each.max(at_least)]);
            }
            can
        }
    }
}

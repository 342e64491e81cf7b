//! Which part of the memory is in use: blocks of 32 sizes, each with a list of free ones; what was never used is at the end.
//!
//! A block's first word is the link of its list. Whoever has the block leaves that word alone: so a block can be written
//! before the change that takes it from its list.

use crate::arena::{Arena, Pos};
use crate::log::Change;

/// How many sizes: 32, 48, 64, 96, …, 1.5 MiB.
pub const CLASSES: usize = 32;
/// The largest block, in bytes.
pub const LARGEST: usize = size(CLASSES - 1);
/// Of a block these bytes are not the owner's.
pub const LINK: usize = 8;

/// The size of a class in bytes.
#[must_use]
pub const fn size(class: usize) -> usize {
    if class.is_multiple_of(2) {
        32 << (class / 2)
    } else {
        48 << (class / 2)
    }
}

/// The smallest class for so many bytes with the link; `None`: none is large enough.
#[must_use]
pub fn class_for(bytes: usize) -> Option<usize> {
    (0..CLASSES).find(|class| size(*class) >= bytes)
}

/// Where the books are: three words, and one for each class.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    /// The segment whose end is unused, then the offset where that begins, then the bytes of all blocks in use.
    pub at: Pos,
}

/// What the books take, in bytes.
pub const BOOKS_BYTES: usize = 8 * (3 + CLASSES);

impl Books {
    const fn segment(self) -> Pos {
        self.at
    }

    const fn offset(self) -> Pos {
        self.at.plus(8)
    }

    /// The bytes of all blocks in use.
    #[must_use]
    pub const fn used(self) -> Pos {
        self.at.plus(16)
    }

    const fn head(self, class: usize) -> Pos {
        self.at.plus(24 + 8 * class)
    }

    /// All memory from `first` of the first segment on is unused.
    pub fn clear(self, change: &mut Change, first: usize) {
        change.set(self.segment(), 0);
        change.set(self.offset(), first as u64);
        change.set(self.used(), 0);
        for class in 0..CLASSES {
            change.set(self.head(class), 0);
        }
    }

    /// A block of this class; `None`: the memory is full.
    pub fn take(self, arena: &mut impl Arena, change: &mut Change, class: usize) -> Option<Pos> {
        let block = self
            .pop(arena, change, class)
            .or_else(|| self.take_unused(arena, change, size(class)))
            .or_else(|| {
                // Nothing else is left: a larger one, cut.
                let (larger, block) = (class + 1..CLASSES)
                    .find_map(|larger| Some((larger, self.pop(arena, change, larger)?)))?;
                let rest = block.plus(size(class));
                self.give_rest(arena, change, rest, size(larger) - size(class));
                Some(block)
            })?;
        self.count(arena, change, size(class) as i64);
        Some(block)
    }

    /// A free block of exactly this class.
    fn pop(self, arena: &impl Arena, change: &mut Change, class: usize) -> Option<Pos> {
        let head = Pos(change.get(arena, self.head(class)));
        if head == Pos::NONE {
            return None;
        }
        let next = change.get(arena, head);
        change.set(self.head(class), next);
        Some(head)
    }

    /// Memory that is in no list; it never will be. What is in it is undefined. `None`: there is no more.
    pub fn take_unused(self, arena: &mut impl Arena, change: &mut Change, bytes: usize) -> Option<Pos> {
        let segment = change.get(arena, self.segment()) as usize;
        let offset = change.get(arena, self.offset()) as usize;
        let end = arena.segment_bytes(segment);
        if offset + bytes <= end {
            change.set(self.offset(), (offset + bytes) as u64);
            return Some(Pos::new(segment, offset));
        }
        if segment + 1 == arena.segments() && !arena.grow(bytes) {
            return None;
        }
        if arena.segment_bytes(segment + 1) < bytes {
            return None;
        }
        self.give_rest(
            arena,
            change,
            Pos::new(segment, offset),
            end.saturating_sub(offset),
        );
        change.set(self.segment(), segment as u64 + 1);
        change.set(self.offset(), bytes as u64);
        Some(Pos::new(segment + 1, 0))
    }

    /// Memory that is given to the lists, in the largest blocks that fit.
    fn give_rest(self, arena: &impl Arena, change: &mut Change, mut at: Pos, mut bytes: usize) {
        // Three blocks are nearly all of it, and a change has its limit.
        for _ in 0..3 {
            let Some(class) = (0..CLASSES).rev().find(|class| size(*class) <= bytes) else {
                return;
            };
            self.push(arena, change, at, class);
            at = at.plus(size(class));
            bytes -= size(class);
        }
    }

    /// Gives a block back.
    pub fn give(self, arena: &impl Arena, change: &mut Change, block: Pos, class: usize) {
        self.push(arena, change, block, class);
        self.count(arena, change, -(size(class) as i64));
    }

    fn push(self, arena: &impl Arena, change: &mut Change, block: Pos, class: usize) {
        let head = change.get(arena, self.head(class));
        change.set(block, head);
        change.set(self.head(class), block.0);
    }

    fn count(self, arena: &impl Arena, change: &mut Change, bytes: i64) {
        let used = change.get(arena, self.used());
        change.set(self.used(), used.saturating_add_signed(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_and_the_smallest_is_found() {
        for class in 1..CLASSES {
            assert!(size(class - 1) < size(class) && size(class).is_multiple_of(16));
            assert_eq!(class_for(size(class)), Some(class));
            assert_eq!(class_for(size(class - 1) + 1), Some(class));
        }
        assert_eq!(LARGEST, 3 << 19);
        assert_eq!(class_for(LARGEST + 1), None);
    }
}

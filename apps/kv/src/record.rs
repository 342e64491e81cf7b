//! A key and its value in memory, in every format there is.
//!
//! ```text
//! word  what
//! 0     link of the block (`blocks`)
//! 1     format 8 bits, kind 8, bytes of the header 16, bytes of the key 32
//! 2     bytes of the value 32, 0 32
//! 3     when it expires, milliseconds since 1970; 0: never
//! 4     from format 2 on: when the value was written, likewise
//! 5     from format 2 on: how often it has been
//! …     whatever a later format adds
//!       key, value
//! ```
//!
//! The header says how long it is: a reader skips what it does not know, and reads a default where a field is missing. So
//! a store holds records of several formats beside each other, nothing has to be converted when the version changes, and a
//! predecessor that comes back reads what its successor wrote. Each version writes its own format; an expiry is changed
//! in place, so that what a later version has added stays.

use crate::arena::{Arena, Pos};
use crate::blocks::LINK;

/// What this version writes.
pub const FORMAT: Format = if cfg!(feature = "format-2") {
    Format::Two
} else {
    Format::One
};

/// What there is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Key, value, expiry.
    One = 1,
    /// And when it was written, and how often.
    Two = 2,
}

/// Strings: the only kind that these versions know.
pub const STRING: u8 = 0;

const LEAST_HEADER: usize = 24;

impl Format {
    const fn header(self) -> usize {
        match self {
            Self::One => LEAST_HEADER,
            Self::Two => LEAST_HEADER + 16,
        }
    }

    /// What a record takes, with its link.
    #[must_use]
    pub const fn bytes(self, key: usize, value: usize) -> usize {
        LINK + self.header() + key + value
    }
}

/// A record in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its block.
    pub at: Pos,
    /// The number of its format, which may be one that this version does not know.
    pub format: u8,
    /// What the value is.
    pub kind: u8,
    header: usize,
    key: usize,
    value: usize,
}

impl Record {
    /// The record in the block at `at`.
    pub fn read(arena: &impl Arena, at: Pos) -> Self {
        let (one, two) = (arena.load(at.plus(8)), arena.load(at.plus(16)));
        Self {
            at,
            format: one as u8,
            kind: (one >> 8) as u8,
            header: usize::from((one >> 16) as u16).max(LEAST_HEADER),
            key: (one >> 32) as usize,
            value: two as u32 as usize,
        }
    }

    /// What it takes, with its link.
    #[must_use]
    pub const fn size(&self) -> usize {
        LINK + self.header + self.key + self.value
    }

    /// Its key.
    pub fn key<'a>(&self, arena: &'a impl Arena) -> &'a [u8] {
        arena.bytes(self.at.plus(LINK + self.header), self.key)
    }

    /// Its value.
    pub fn value<'a>(&self, arena: &'a impl Arena) -> &'a [u8] {
        // As one piece: a key's end is no place of its own.
        let both = arena.bytes(self.at.plus(LINK + self.header), self.key + self.value);
        both.get(self.key..).unwrap_or_default()
    }

    /// Where it says when it expires.
    #[must_use]
    pub const fn expiry_at(&self) -> Pos {
        self.at.plus(24)
    }

    /// When it expires, milliseconds since 1970.
    pub fn expires(&self, arena: &impl Arena) -> Option<u64> {
        Some(arena.load(self.expiry_at())).filter(|ms| *ms > 0)
    }

    /// When the value was written and how often, if the record says so.
    pub fn written(&self, arena: &impl Arena) -> Option<(u64, u64)> {
        (self.header >= Format::Two.header())
            .then(|| (arena.load(self.at.plus(32)), arena.load(self.at.plus(40))))
    }
}

/// What a record is written from.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value, in two pieces.
    pub value: [&'a [u8]; 2],
    /// When it expires, milliseconds since 1970.
    pub expires: Option<u64>,
    /// The time, milliseconds since 1970.
    pub now: u64,
    /// How often the key has been written before, as far as is known.
    pub revision: u64,
}

impl Draft<'_> {
    /// What the record will take, with its link.
    #[must_use]
    pub const fn bytes(&self, format: Format) -> usize {
        format.bytes(self.key.len(), self.value[0].len() + self.value[1].len())
    }

    /// Writes it into the block at `at`, whose link it leaves alone.
    pub fn write(&self, arena: &mut impl Arena, at: Pos, format: Format) {
        let header = format.header();
        let value = self.value[0].len() + self.value[1].len();
        let one =
            format as u64 | u64::from(STRING) << 8 | (header as u64) << 16 | (self.key.len() as u64) << 32;
        let words = [
            one,
            value as u64,
            self.expires.unwrap_or(0),
            self.now,
            self.revision + 1,
        ];
        let mut buffer = [0; LEAST_HEADER + 16];
        for (place, word) in buffer.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let mut skip = LINK;
        for piece in [&buffer[..header], self.key, self.value[0], self.value[1]] {
            arena.write(at, skip, piece);
            skip += piece.len();
        }
    }
}

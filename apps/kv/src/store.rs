//! The map: a trie over the keys' hashes, four bits a level.
//!
//! A slot is a word: 0, a record, or a node of 16 slots. So every change is one of a few words, made at one moment
//! ([`log`](crate::log)); the trie grows by a node at a time, never by a pause for all keys; and the order of the hashes is
//! the order of SCAN, in which nothing moves.
//!
//! Nothing about the store is kept outside of the memory: whoever opens it, a successor, or the predecessor that comes back,
//! goes on at once, however many keys there are.

use core::hash::Hasher;
use core::ops::ControlFlow;

use siphasher::sip::SipHasher13;
use thiserror::Error;

use crate::arena::{Arena, Pos};
use crate::blocks::{Books, class_for, size};
use crate::log::{self, Change};
use crate::record::{Draft, FORMAT, Format, Record};

const MAGIC: u64 = u64::from_le_bytes(*b"INSTARKV");
/// Of all but the records, which have formats of their own.
const LAYOUT: u64 = 1;
/// Marks a slot that leads to a node.
const NODE: u64 = 1;
const NODE_BYTES: usize = 128;
/// Levels that one hash is good for; below, another is taken.
const LEVELS: u32 = 16;
/// Two keys that agree in so many hashes are damage.
const MAX_LEVELS: u32 = 4 * LEVELS;

const fn root(offset: usize) -> Pos {
    Pos::new(0, offset)
}
const MAGIC_AT: Pos = root(0);
const LAYOUT_AT: Pos = root(8);
const SEED_AT: [Pos; 2] = [root(16), root(24)];
const KEYS_AT: Pos = root(32);
const TRIE_AT: Pos = root(40);
const BOOKS: Books = Books { at: root(128) };
const LOG_AT: Pos = root(512);
/// Where blocks begin in the first segment.
const FIRST: usize = 4096;

/// Why a store cannot be opened. Its memory is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// A later version's.
    #[error(
        "the data has layout {0}, and this version knows {LAYOUT}: it is kept for a version that knows it"
    )]
    Layout(u64),
    /// Not a store.
    #[error("the memory holds something else than a store")]
    Foreign,
}

/// There is no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no memory left")]
pub struct Full;

/// The map in an arena.
#[derive(Clone, Debug)]
pub struct Store<A> {
    arena: A,
    format: Format,
}

impl<A: Arena> Store<A> {
    /// The store in this memory; a new one if the memory is all zero. `seed` is random: who does not know it cannot choose
    /// keys whose hashes agree.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(arena: A, seed: [u64; 2]) -> Result<Self, OpenError> {
        Self::open_writing(arena, seed, FORMAT)
    }

    /// The same, with the format to write.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_writing(mut arena: A, seed: [u64; 2], format: Format) -> Result<Self, OpenError> {
        match (arena.load(MAGIC_AT), arena.load(LAYOUT_AT)) {
            (MAGIC, LAYOUT) => log::finish(&mut arena, LOG_AT),
            (MAGIC, other) => return Err(OpenError::Layout(other)),
            (0, _) => {
                arena.store(LAYOUT_AT, LAYOUT);
                arena.store(SEED_AT[0], seed[0]);
                arena.store(SEED_AT[1], seed[1]);
                let mut change = Change::new();
                BOOKS.clear(&mut change, FIRST);
                change.commit(&mut arena, LOG_AT);
                // Last: before it there is no store.
                arena.store(MAGIC_AT, MAGIC);
            }
            _ => return Err(OpenError::Foreign),
        }
        Ok(Self { arena, format })
    }

    /// The memory, to change what is known about its segments.
    pub const fn arena(&mut self) -> &mut A {
        &mut self.arena
    }

    /// Finishes what somebody else began who was stopped.
    pub fn recover(&mut self) {
        log::finish(&mut self.arena, LOG_AT);
    }

    /// How many keys there are, expired ones that nobody has found yet among them.
    pub fn keys(&self) -> u64 {
        self.arena.load(KEYS_AT)
    }

    /// The bytes of all blocks in use, and of all memory.
    pub fn used(&self) -> (u64, u64) {
        let all = (0..self.arena.segments()).map(|it| self.arena.segment_bytes(it) as u64);
        (self.arena.load(BOOKS.used()), all.sum())
    }

    /// What is under a key, expired or not.
    pub fn find(&self, key: &[u8]) -> Option<Entry<'_, A>> {
        let found = self.descend(key).found?;
        Some(Entry {
            arena: &self.arena,
            record: found,
        })
    }

    /// Puts a value under a key, in place of what was there.
    ///
    /// # Errors
    /// [`Full`]; what was there still is.
    pub fn put(&mut self, draft: &Draft) -> Result<(), Full> {
        let class = class_for(draft.bytes(self.format)).ok_or(Full)?;
        let place = self.make_place(draft.key)?;
        let mut change = Change::new();
        let block = BOOKS.take(&mut self.arena, &mut change, class).ok_or(Full)?;
        let mut draft = *draft;
        if let Some(old) = place.found {
            draft.revision = old.written(&self.arena).map_or(0, |(_, revision)| revision);
            self.give(&mut change, &old);
        } else {
            change.set(KEYS_AT, self.keys() + 1);
        }
        draft.write(&mut self.arena, block, self.format);
        change.set(place.slot, block.0);
        change.commit(&mut self.arena, LOG_AT);
        Ok(())
    }

    /// Removes what is under a key; whether there was something.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let place = self.descend(key);
        let Some(old) = place.found else { return false };
        let mut change = Change::new();
        self.give(&mut change, &old);
        change.set(KEYS_AT, self.keys().saturating_sub(1));
        change.set(place.slot, 0);
        change.commit(&mut self.arena, LOG_AT);
        true
    }

    /// Changes when a key expires; whether there is one.
    pub fn set_expiry(&mut self, key: &[u8], expires: Option<u64>) -> bool {
        let Some(record) = self.descend(key).found else {
            return false;
        };
        // One word, so at one moment.
        self.arena.store(record.expiry_at(), expires.unwrap_or(0));
        true
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        let mut change = Change::new();
        BOOKS.clear(&mut change, FIRST);
        change.set(TRIE_AT, 0);
        change.set(KEYS_AT, 0);
        change.commit(&mut self.arena, LOG_AT);
    }

    /// Visits about `count` keys from `cursor` on, 0 for all from the beginning. Returns where to go on, 0 at the end. Keys
    /// that are there all the time are visited once, whatever happens to others.
    pub fn scan<'a>(&'a self, cursor: u64, count: usize, mut visit: impl FnMut(Entry<'a, A>)) -> u64 {
        let mut left = count.max(1);
        let mut last = None;
        let walked = self.walk(TRIE_AT, 0, 0, cursor, &mut |prefix, record| {
            // Keys that no cursor can tell apart are visited together.
            if left == 0 && last != Some(prefix) {
                return ControlFlow::Break(prefix);
            }
            left = left.saturating_sub(1);
            last = Some(prefix);
            visit(Entry {
                arena: &self.arena,
                record,
            });
            ControlFlow::Continue(())
        });
        match walked {
            ControlFlow::Break(next) => next,
            ControlFlow::Continue(()) => 0,
        }
    }

    fn walk(
        &self,
        slot: Pos,
        level: u32,
        prefix: u64,
        cursor: u64,
        visit: &mut impl FnMut(u64, Record) -> ControlFlow<u64>,
    ) -> ControlFlow<u64> {
        let word = self.arena.load(slot);
        if word & NODE == 0 {
            return match word {
                0 => ControlFlow::Continue(()),
                _ => visit(prefix, Record::read(&self.arena, Pos(word))),
            };
        }
        if level >= MAX_LEVELS {
            return ControlFlow::Continue(());
        }
        for digit in 0..16 {
            let mut below = prefix;
            if level < LEVELS {
                let shift = 60 - 4 * level;
                below |= digit << shift;
                let end = below | ((1 << shift) - 1);
                if end < cursor {
                    continue;
                }
            }
            self.walk(child(word, digit), level + 1, below, cursor, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// The hash that the levels from a multiple of [`LEVELS`] on go by.
    fn hash(&self, key: &[u8], level: u32) -> u64 {
        let seed = SEED_AT.map(|at| self.arena.load(at));
        let mut hasher = SipHasher13::new_with_keys(seed[0] ^ u64::from(level / LEVELS), seed[1]);
        hasher.write(key);
        hasher.finish()
    }

    fn digit(&self, key: &[u8], level: u32, hash: &mut u64) -> u64 {
        if level.is_multiple_of(LEVELS) {
            *hash = self.hash(key, level);
        }
        (*hash >> (60 - 4 * (level % LEVELS))) & 15
    }

    /// The slot where the key is, or where the way to it ends.
    fn descend(&self, key: &[u8]) -> Place {
        let (mut slot, mut level, mut hash) = (TRIE_AT, 0, 0);
        loop {
            let word = self.arena.load(slot);
            if word & NODE == 0 || level >= MAX_LEVELS {
                let there = (word & NODE == 0 && word != 0).then(|| Record::read(&self.arena, Pos(word)));
                let found = there.filter(|record| record.key(&self.arena) == key);
                let other = there.filter(|_| found.is_none());
                return Place {
                    slot,
                    level,
                    found,
                    other,
                };
            }
            slot = child(word, self.digit(key, level, &mut hash));
            level += 1;
        }
    }

    /// The slot for a key, where no other key is.
    fn make_place(&mut self, key: &[u8]) -> Result<Place, Full> {
        loop {
            let place = self.descend(key);
            let Some(other) = place.other else {
                return Ok(place);
            };
            if place.level >= MAX_LEVELS {
                return Err(Full);
            }
            // The other one moves down a level. That changes nothing in the map, so it may happen by itself.
            let mut change = Change::new();
            let node = BOOKS
                .take_unused(&mut self.arena, &mut change, NODE_BYTES)
                .ok_or(Full)?;
            let mut hash = self.hash(other.key(&self.arena), place.level);
            let digit = self.digit(other.key(&self.arena), place.level, &mut hash);
            for slot in 0..16 {
                let word = if slot == digit { other.at.0 } else { 0 };
                self.arena.store(child(node.0, slot), word);
            }
            change.set(place.slot, node.0 | NODE);
            change.commit(&mut self.arena, LOG_AT);
        }
    }

    fn give(&self, change: &mut Change, record: &Record) {
        // As it was taken: by its size. Damage would give no class, and is left alone.
        if let Some(class) = class_for(record.size()) {
            BOOKS.give(&self.arena, change, record.at, class);
        }
    }
}

/// Where the way to a key ends.
struct Place {
    slot: Pos,
    level: u32,
    /// The key's record.
    found: Option<Record>,
    /// Another key's, in the way.
    other: Option<Record>,
}

const fn child(node: u64, digit: u64) -> Pos {
    Pos((node & !7) + 8 * digit)
}

/// What is under a key.
#[derive(Debug)]
pub struct Entry<'a, A> {
    arena: &'a A,
    record: Record,
}

impl<'a, A: Arena> Entry<'a, A> {
    /// The key.
    pub fn key(&self) -> &'a [u8] {
        self.record.key(self.arena)
    }

    /// The value.
    pub fn value(&self) -> &'a [u8] {
        self.record.value(self.arena)
    }

    /// What the value is.
    pub const fn kind(&self) -> u8 {
        self.record.kind
    }

    /// The number of the record's format.
    pub const fn format(&self) -> u8 {
        self.record.format
    }

    /// When it expires, milliseconds since 1970.
    pub fn expires(&self) -> Option<u64> {
        self.record.expires(self.arena)
    }

    /// Whether it has expired.
    pub fn is_over(&self, now: u64) -> bool {
        self.expires().is_some_and(|expires| expires <= now)
    }

    /// When the value was written and how often, if the record's format says so.
    pub fn written(&self) -> Option<(u64, u64)> {
        self.record.written(self.arena)
    }

    /// What it takes of the memory.
    pub fn bytes(&self) -> usize {
        class_for(self.record.size()).map_or(0, size)
    }
}

#[cfg(test)]
mod tests;

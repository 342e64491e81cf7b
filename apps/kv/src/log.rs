//! Changes of several words, all or none of them: a redo log.
//!
//! The new words are written into the log first. The store of their number is the moment of the change: from then on
//! whoever comes finishes it, since writing a word twice does no harm.

use crate::arena::{Arena, Pos};

/// Most words of a change.
pub const MAX_WORDS: usize = 64;
/// What the log takes, in bytes.
pub const LOG_BYTES: usize = 8 + 16 * MAX_WORDS;

/// Words to be changed at one moment.
#[derive(Clone, Debug)]
pub struct Change {
    words: [(Pos, u64); MAX_WORDS],
    count: usize,
}

impl Default for Change {
    fn default() -> Self {
        Self::new()
    }
}

impl Change {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            words: [(Pos::NONE, 0); MAX_WORDS],
            count: 0,
        }
    }

    /// What a word will be.
    pub fn get(&self, arena: &impl Arena, at: Pos) -> u64 {
        let planned = self.words[..self.count].iter().find(|(place, _)| *place == at);
        planned.map_or_else(|| arena.load(at), |(_, value)| *value)
    }

    /// Plans a word.
    ///
    /// # Panics
    /// If there are more than [`MAX_WORDS`]: each operation's number is known.
    pub fn set(&mut self, at: Pos, value: u64) {
        let planned = self.words[..self.count]
            .iter_mut()
            .find(|(place, _)| *place == at);
        match planned {
            Some(word) => word.1 = value,
            None => {
                self.words[self.count] = (at, value);
                self.count += 1;
            }
        }
    }

    /// Makes the change; `log` is where the log lies.
    pub fn commit(self, arena: &mut impl Arena, log: Pos) {
        for (index, (at, value)) in self.words[..self.count].iter().enumerate() {
            arena.store(entry(log, index), at.0);
            arena.store(entry(log, index).plus(8), *value);
        }
        arena.store(log, self.count as u64);
        finish(arena, log);
    }
}

/// Finishes a change that was begun, if there is one.
pub fn finish(arena: &mut impl Arena, log: Pos) {
    let count = arena.load(log).min(MAX_WORDS as u64) as usize;
    for index in 0..count {
        let (at, value) = (
            arena.load(entry(log, index)),
            arena.load(entry(log, index).plus(8)),
        );
        arena.store(Pos(at), value);
    }
    if count > 0 {
        arena.store(log, 0);
    }
}

const fn entry(log: Pos, index: usize) -> Pos {
    log.plus(8 + 16 * index)
}

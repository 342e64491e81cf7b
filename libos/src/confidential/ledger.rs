//! Which pages are private: what was given to the TDX module or to a TD, under which key, and what becomes of it when
//! this instar is replaced.
//!
//! A page that the module has used under a private KeyID is not ordinary memory again before it has been reset (see
//! [`super::reset`]). So every such page stands in the ledger from before it is given away until after its reset, and
//! what is in the ledger belongs to nobody else.

use alloc::vec::Vec;
use core::ops::Range;

use thiserror::Error;

use super::platform::Platform;

/// Size of a page in bytes: the unit in which the TDX module takes memory.
pub const PAGE_BYTES: u64 = 4096;

/// Most records. The handover record has to carry them all.
pub const MAX_RECORDS: usize = 128;

/// A key of the memory encryption engine: one of the platform's TDX KeyIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u32);

/// Why a number is not a KeyID that memory can be private under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyIdError {
    /// In a confidential guest the keys are the host's.
    #[error("this is a confidential guest: private KeyIDs are its host's, and no memory is private here")]
    Guest,
    /// Too few TDX KeyIDs for the module and a guest; how many there are.
    #[error(
        "the BIOS has not enabled TDX: {tdx_keyids} TDX KeyIDs, and the module needs at least 2; enable TDX in the BIOS"
    )]
    NoTdx {
        /// How many there are.
        tdx_keyids: u32,
    },
    /// A KeyID of another kind, or none at all.
    #[error("KeyID {number} is not private: this machine's TDX KeyIDs are {first} to {last}")]
    NotPrivate {
        /// What was asked for.
        number: u32,
        /// The first TDX KeyID.
        first: u32,
        /// The last TDX KeyID.
        last: u32,
    },
}

impl KeyId {
    /// The TDX KeyID of this number on `platform`.
    ///
    /// # Errors
    /// See [`KeyIdError`].
    pub fn new(number: u32, platform: &Platform) -> Result<Self, KeyIdError> {
        let host = platform.host().ok_or(KeyIdError::Guest)?;
        let tdx_keyids = host.tdx.map_or(0, |tdx| tdx.tdx_keyids);
        let first = host
            .tdx
            .filter(|tdx| tdx.is_enabled())
            .and_then(|tdx| tdx.first_tdx_keyid());
        let first = first.ok_or(KeyIdError::NoTdx { tdx_keyids })?;
        let last = first.saturating_add(tdx_keyids - 1);
        if (first..=last).contains(&number) {
            Ok(Self(number))
        } else {
            Err(KeyIdError::NotPrivate { number, first, last })
        }
    }

    /// One that a predecessor on the same machine has checked.
    pub(crate) const fn inherited(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Whom private memory is for. A number in the handover record: 0 module, 1 TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The TDX module itself: its metadata (PAMT), under its global KeyID.
    Module,
    /// A guest: its pages and control structures.
    Td,
    /// What a newer version knows; handed on as it came.
    Other(u8),
}

impl Purpose {
    /// The name in telemetry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Module => "module",
            Self::Td => "td",
            Self::Other(_) => "other",
        }
    }

    /// The number in the handover record.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Module => 0,
            Self::Td => 1,
            Self::Other(number) => number,
        }
    }

    /// The purpose of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Module,
            1 => Self::Td,
            other => Self::Other(other),
        }
    }
}

/// What becomes of private memory when this instar is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It becomes ordinary memory: zeroed before the jump.
    Reset,
    /// It stays as it is, for the successor.
    HandOver,
}

/// One piece of private memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Physical addresses, whole pages.
    pub range: Range<u64>,
    /// The key it is private under.
    pub key: KeyId,
    /// Whom it is for.
    pub purpose: Purpose,
    /// What becomes of it.
    pub fate: Fate,
    /// Whether somebody in this instar holds it.
    pub held: bool,
}

impl Record {
    /// How many pages it has.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        (self.range.end - self.range.start) / PAGE_BYTES
    }
}

/// Why the ledger does not take or find a record. Addresses are physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// Not whole pages, or none.
    #[error("{start:#x} to {end:#x} is not a number of whole pages of 4096 bytes")]
    NotPages {
        /// The first byte.
        start: u64,
        /// The first byte behind it.
        end: u64,
    },
    /// Part of it is private already.
    #[error("memory at {start:#x} is private already, in the record that begins at {recorded:#x}")]
    Overlap {
        /// Where the new record would begin.
        start: u64,
        /// Where the old one begins.
        recorded: u64,
    },
    /// No room.
    #[error(
        "the ledger has room for {MAX_RECORDS} pieces of private memory: take fewer, larger ones, or release some"
    )]
    Full,
    /// No record begins there.
    #[error("no private memory begins at {0:#x}")]
    Unknown(u64),
}

/// All private memory of the machine: records in ascending order, none overlapping another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    records: Vec<Record>,
}

impl Ledger {
    /// One without records.
    #[must_use]
    pub const fn new() -> Self {
        Self { records: Vec::new() }
    }

    /// The records, in ascending order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Writes `record` down.
    ///
    /// # Errors
    /// [`LedgerError::NotPages`], [`LedgerError::Overlap`], [`LedgerError::Full`]; nothing is changed then.
    pub fn add(&mut self, record: Record) -> Result<(), LedgerError> {
        let Range { start, end } = record.range;
        if start >= end || !start.is_multiple_of(PAGE_BYTES) || !end.is_multiple_of(PAGE_BYTES) {
            return Err(LedgerError::NotPages { start, end });
        }
        let at = self.records.partition_point(|other| other.range.end <= start);
        if let Some(other) = self.records.get(at).filter(|other| other.range.start < end) {
            let recorded = other.range.start;
            return Err(LedgerError::Overlap { start, recorded });
        }
        if self.records.len() >= MAX_RECORDS {
            return Err(LedgerError::Full);
        }
        self.records.insert(at, record);
        Ok(())
    }

    /// Strikes the record that begins at `start` out: its pages have been reset.
    ///
    /// # Errors
    /// [`LedgerError::Unknown`].
    pub fn remove(&mut self, start: u64) -> Result<Record, LedgerError> {
        let at = self.index(start)?;
        Ok(self.records.remove(at))
    }

    /// The record that begins at `start`, to change its fate or holder.
    ///
    /// # Errors
    /// [`LedgerError::Unknown`].
    pub fn get_mut(&mut self, start: u64) -> Result<Entry<'_>, LedgerError> {
        let at = self.index(start)?;
        Ok(Entry(&mut self.records[at]))
    }

    fn index(&self, start: u64) -> Result<usize, LedgerError> {
        self.records
            .binary_search_by_key(&start, |record| record.range.start)
            .map_err(|_| LedgerError::Unknown(start))
    }

    /// How many pages have this fate.
    #[must_use]
    pub fn pages(&self, fate: Fate) -> u64 {
        self.count(|record| record.fate == fate)
    }

    /// How many pages are private under `key`.
    #[must_use]
    pub fn pages_under(&self, key: KeyId) -> u64 {
        self.count(|record| record.key == key)
    }

    /// How many pages are for `purpose`.
    #[must_use]
    pub fn pages_for(&self, purpose: Purpose) -> u64 {
        self.count(|record| record.purpose == purpose)
    }

    fn count(&self, wanted: impl Fn(&Record) -> bool) -> u64 {
        self.records
            .iter()
            .filter(|record| wanted(record))
            .map(Record::pages)
            .sum()
    }

    /// What the successor is told of: neighbours under the same key and for the same purpose as one.
    #[must_use]
    pub fn to_hand_over(&self) -> Vec<Record> {
        let mut merged: Vec<Record> = Vec::new();
        for record in self.records.iter().filter(|record| record.fate == Fate::HandOver) {
            match merged.last_mut() {
                Some(last)
                    if last.range.end == record.range.start
                        && last.key == record.key
                        && last.purpose == record.purpose =>
                {
                    last.range.end = record.range.end;
                }
                _ => merged.push(record.clone()),
            }
        }
        merged
    }

    /// The pages to be reset, split into at most `shares` shares, none more than one page larger than another. A share is
    /// one or more ranges of whole pages.
    #[must_use]
    pub fn plan(&self, shares: usize) -> Vec<Vec<Range<u64>>> {
        let total = self.pages(Fate::Reset);
        let shares = (shares.max(1) as u64).min(total);
        // The first `larger` shares have one page more.
        let (each, larger) = total
            .checked_div(shares)
            .map_or((0, 0), |each| (each, total % shares));
        let mut reset = self
            .records
            .iter()
            .filter(|record| record.fate == Fate::Reset)
            .map(|record| record.range.clone());
        let mut rest = 0..0;
        (0..shares)
            .map(|share| {
                let mut wanted = (each + u64::from(share < larger)) * PAGE_BYTES;
                let mut ranges = Vec::new();
                while wanted > 0 {
                    if rest.is_empty() {
                        let Some(next) = reset.next() else { break };
                        rest = next;
                    }
                    let bytes = wanted.min(rest.end - rest.start);
                    ranges.push(rest.start..rest.start + bytes);
                    rest.start += bytes;
                    wanted -= bytes;
                }
                ranges
            })
            .collect()
    }
}

/// A record that may change, except in what keeps the ledger sorted.
#[derive(Debug)]
pub struct Entry<'a>(&'a mut Record);

impl Entry<'_> {
    /// Decides what becomes of it.
    pub const fn set_fate(&mut self, fate: Fate) {
        self.0.fate = fate;
    }

    /// Notes whether somebody holds it.
    pub const fn set_held(&mut self, held: bool) {
        self.0.held = held;
    }

    /// The record.
    #[must_use]
    pub const fn record(&self) -> &Record {
        self.0
    }
}

#[cfg(test)]
mod tests;

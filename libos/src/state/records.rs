//! Named, versioned pieces of state, in bounds that every reader knows.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::replace::bounded;

/// Most records.
pub const MAX_RECORDS: usize = 64;
/// Longest name of a record or a region, in bytes.
pub const MAX_NAME: usize = 32;
/// Most bytes of all records together, with their names. It is a part of the format: a predecessor must not write what some
/// successor refuses to read.
pub const MAX_BYTES: usize = 32 * 1024;

/// What was stashed under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The application's own version of what is in it.
    pub version: u32,
    /// What the application wrote.
    pub bytes: Vec<u8>,
}

impl Record {
    /// What [`stash_encoded`](super::stash_encoded) wrote.
    ///
    /// # Errors
    /// minicbor's, if it is not a `T`.
    pub fn decode<'b, T: Decode<'b, ()>>(&'b self) -> Result<T, minicbor::decode::Error> {
        minicbor::decode(&self.bytes)
    }
}

/// Why something cannot be stashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StashError {
    /// No name, or too long a one; its bytes.
    #[error("a name of {0} bytes: it must have 1 to {MAX_NAME}")]
    Name(usize),
    /// [`MAX_RECORDS`] other names are in use, some perhaps by what a predecessor left and nobody takes.
    #[error("{MAX_RECORDS} records are there already: take what is not needed any more")]
    TooMany,
    /// More than [`MAX_BYTES`] with all the others.
    #[error(
        "{needed} bytes of state with this record, and {MAX_BYTES} fit: keep what is large in a Preserved region"
    )]
    TooLarge {
        /// What all records would have, in bytes.
        needed: usize,
    },
}

/// A record as it crosses a jump.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stashed {
    /// Its name.
    #[cbor(
        n(0),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_NAME>"
    )]
    pub name: String,
    /// The application's version of it.
    #[n(1)]
    pub version: u32,
    /// Its contents.
    #[cbor(
        n(2),
        encode_with = "write_bytes",
        decode_with = "bounded::bytes::<_, MAX_BYTES>"
    )]
    pub bytes: Vec<u8>,
}

fn write_bytes<C, W: minicbor::encode::Write>(
    bytes: &[u8],
    encoder: &mut minicbor::Encoder<W>,
    _: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    encoder.bytes(bytes)?.ok()
}

impl Stashed {
    const fn size(&self) -> usize {
        self.name.len() + self.bytes.len()
    }
}

/// The bytes of all of them, as [`MAX_BYTES`] counts them.
#[must_use]
pub fn size(records: &[Stashed]) -> usize {
    records
        .iter()
        .fold(0, |sum, record| sum.saturating_add(record.size()))
}

/// Whether records that somebody else wrote are within the bounds, each name there once.
#[must_use]
pub fn within_bounds(records: &[Stashed]) -> bool {
    let twice =
        |(index, record): (usize, &Stashed)| records[..index].iter().any(|other| other.name == record.name);
    records.len() <= MAX_RECORDS
        && size(records) <= MAX_BYTES
        && records.iter().all(|record| !record.name.is_empty())
        && !records.iter().enumerate().any(twice)
}

/// All that is stashed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(Vec<Stashed>);

impl Records {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Puts a record under a name, in place of what was there.
    ///
    /// # Errors
    /// See [`StashError`]; nothing has changed then.
    pub fn stash(&mut self, name: &str, version: u32, bytes: Vec<u8>) -> Result<(), StashError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(StashError::Name(name.len()));
        }
        let at = self.0.iter().position(|record| record.name == name);
        let replaced = at.map_or(0, |at| self.0[at].size());
        let needed = (size(&self.0) - replaced)
            .saturating_add(name.len())
            .saturating_add(bytes.len());
        if needed > MAX_BYTES {
            return Err(StashError::TooLarge { needed });
        }
        let record = Stashed {
            name: name.into(),
            version,
            bytes,
        };
        match at {
            Some(at) => self.0[at] = record,
            None if self.0.len() == MAX_RECORDS => return Err(StashError::TooMany),
            None => self.0.push(record),
        }
        Ok(())
    }

    /// Takes what is there under a name.
    pub fn take(&mut self, name: &str) -> Option<Record> {
        let at = self.0.iter().position(|record| record.name == name)?;
        let Stashed { version, bytes, .. } = self.0.swap_remove(at);
        Some(Record { version, bytes })
    }

    /// All of them, as they cross a jump.
    #[must_use]
    pub fn all(&self) -> &[Stashed] {
        &self.0
    }

    /// From what crossed one; its reader has checked it.
    #[must_use]
    pub const fn inherited(records: Vec<Stashed>) -> Self {
        Self(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn every_bound_is_an_error_and_changes_nothing() {
        let mut records = Records::new();
        assert_eq!(records.stash("", 1, vec![]), Err(StashError::Name(0)));
        assert_eq!(
            records.stash(&"n".repeat(33), 1, vec![]),
            Err(StashError::Name(33))
        );
        let most = MAX_BYTES - 1;
        assert_eq!(records.stash("a", 1, vec![0; most]), Ok(()));
        let before = records.clone();
        assert_eq!(
            records.stash("b", 1, vec![]),
            Err(StashError::TooLarge {
                needed: MAX_BYTES + 1
            })
        );
        assert_eq!(records, before);
        assert_eq!(records.stash("a", 2, vec![0; most]), Ok(()), "in its own place");
        assert_eq!(records.stash("a", 2, vec![]), Ok(()));
        for number in 1..MAX_RECORDS {
            assert_eq!(records.stash(&format!("{number}"), 1, vec![1]), Ok(()));
        }
        assert_eq!(records.stash("more", 1, vec![]), Err(StashError::TooMany));
        assert!(within_bounds(records.all()));
    }

    #[test]
    fn a_typed_record_comes_back() {
        let mut bytes = Vec::new();
        minicbor::encode((7_u32, "seven"), bounded::Memory(&mut bytes)).expect("memory");
        let record = Record { version: 1, bytes };
        assert_eq!(record.decode::<(u32, &str)>().expect("as it was"), (7, "seven"));
        assert!(record.decode::<u32>().is_err());
    }

    #[test]
    fn a_foreign_list_is_judged() {
        let record = |name: &str, bytes: usize| Stashed {
            name: name.into(),
            version: 0,
            bytes: vec![0; bytes],
        };
        assert!(within_bounds(&[record("a", 1), record("b", 1)]));
        assert!(!within_bounds(&[record("a", 1), record("a", 1)]));
        assert!(!within_bounds(&[record("", 1)]));
        assert!(!within_bounds(&[record("a", MAX_BYTES)]));
    }

    proptest! {
        #[test]
        fn records_are_a_map(steps in proptest::collection::vec((0_u8..8, any::<bool>(), any::<u32>(), 0_usize..9000), 0..60)) {
            let (mut records, mut model) = (Records::new(), BTreeMap::new());
            for (name, stash, version, length) in steps {
                let name = format!("name {name}");
                if stash {
                    let bytes = vec![version as u8; length];
                    if records.stash(&name, version, bytes.clone()).is_ok() {
                        model.insert(name, Record { version, bytes });
                    }
                } else {
                    prop_assert_eq!(records.take(&name), model.remove(&name));
                }
                prop_assert!(within_bounds(records.all()));
                prop_assert_eq!(records.all().len(), model.len());
            }
        }
    }
}

//! What takes long, in steps: between two of them others are served.

use alloc::format;
use alloc::vec::Vec;
use core::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::Refused;
use crate::arena::Arena;
use crate::record::Draft;
use crate::resp::Replies;
use crate::store::Store;

/// Keys a step.
const STEP: u64 = 500;

/// Work that is not done at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Long {
    /// `DEBUG DIGEST`: a sum over all keys with their values and expiries, whatever format they are written in.
    Digest {
        /// Where to go on.
        cursor: u64,
        /// The sum so far.
        sum: u128,
    },
    /// `DEBUG POPULATE`: keys `PREFIX:0` and on with values `value:0` and on, as redis fills them; what is there stays.
    Populate {
        /// The next number.
        next: u64,
        /// The number behind the last.
        end: u64,
        /// The prefix.
        prefix: Vec<u8>,
        /// Least bytes of a value, filled up with zeros.
        size: usize,
    },
}

impl Long {
    pub(super) const fn digest() -> Self {
        Self::Digest { cursor: 0, sum: 0 }
    }

    pub(super) fn populate(count: u64, prefix: &[u8], size: usize) -> Self {
        Self::Populate {
            next: 0,
            end: count,
            prefix: prefix.to_vec(),
            size,
        }
    }

    /// Goes on; `true` when it is done, with the reply written.
    pub fn step<A: Arena>(&mut self, store: &mut Store<A>, now: u64, out: &mut Vec<u8>) -> bool {
        let mut out = Replies(out);
        match self {
            Self::Digest { cursor, sum } => {
                *cursor = store.scan(*cursor, STEP as usize, |entry| {
                    if !entry.is_over(now) {
                        let expires = entry.expires().unwrap_or(0);
                        *sum = sum.wrapping_add(digest(entry.key(), entry.value(), expires));
                    }
                });
                if *cursor == 0 {
                    out.simple(&format!("{sum:032x}"));
                }
                *cursor == 0
            }
            Self::Populate {
                next,
                end,
                prefix,
                size,
            } => {
                for number in *next..(*next + STEP).min(*end) {
                    if let Err(full) = populate(store, now, prefix, number, *size) {
                        out.error(&Refused::from(full).0);
                        return true;
                    }
                }
                *next += STEP;
                if *next >= *end {
                    out.simple("OK");
                }
                *next >= *end
            }
        }
    }
}

fn populate<A: Arena>(
    store: &mut Store<A>,
    now: u64,
    prefix: &[u8],
    number: u64,
    size: usize,
) -> Result<(), crate::store::Full> {
    let key = [prefix, format!(":{number}").as_bytes()].concat();
    if store.find(&key).is_some() {
        return Ok(());
    }
    let mut value = format!("value:{number}").into_bytes();
    value.resize(size.max(value.len()), 0);
    store.put(&Draft {
        key: &key,
        value: [&value, b""],
        expires: None,
        now,
        revision: 0,
    })
}

/// SipHash of a key with all that belongs to it; their sum does not depend on the order.
fn digest(key: &[u8], value: &[u8], expires: u64) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(key.len() as u64);
    hasher.write(key);
    hasher.write(value);
    hasher.write_u64(expires);
    hasher.finish128().as_u128()
}

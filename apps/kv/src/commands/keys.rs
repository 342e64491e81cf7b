//! Keys: which there are, and how long.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Answer, Context, NOT_AN_INTEGER, SYNTAX, Then, deadline};
use crate::arena::Arena;
use crate::glob;
use crate::record::STRING;
use crate::resp::integer;

/// Most keys that KEYS tells of.
const MOST_KEYS: usize = 100_000;
/// Most keys that one SCAN visits.
const MOST_SCANNED: usize = 10_000;

impl<A: Arena> Context<'_, A> {
    pub(super) fn remove_all(&mut self, keys: &[&[u8]]) -> Answer {
        let mut count = 0;
        for key in keys {
            let there = self.find(key).is_some();
            count += usize::from(self.store.remove(key) && there);
        }
        self.number(count)
    }

    pub(super) fn count_all(&mut self, keys: &[&[u8]]) -> Answer {
        let count = keys.iter().filter(|key| self.find(key).is_some()).count();
        self.number(count)
    }

    pub(super) fn kind(&mut self, key: &[u8]) -> Answer {
        let kind = match self.find(key).map(|entry| entry.kind()) {
            None => "none",
            Some(STRING) => "string",
            Some(_) => "unknown",
        };
        self.out.simple(kind);
        Ok(Then::Nothing)
    }

    pub(super) fn expire(&mut self, key: &[u8], time: &[u8], unit: i64) -> Answer {
        let time = integer(time).ok_or(NOT_AN_INTEGER)?;
        let at = deadline(self.now, time, unit).ok_or("ERR invalid expire time in 'expire' command")?;
        if self.find(key).is_none() {
            return self.number(0);
        }
        if at <= self.now {
            self.store.remove(key);
        } else {
            self.store.set_expiry(key, Some(at));
        }
        self.number(1)
    }

    pub(super) fn persist(&mut self, key: &[u8]) -> Answer {
        let expires = self.find(key).is_some_and(|entry| entry.expires().is_some());
        if expires {
            self.store.set_expiry(key, None);
        }
        self.number(i64::from(expires))
    }

    pub(super) fn time_left(&mut self, key: &[u8], unit: u64) -> Answer {
        let left = match self.find(key).map(|entry| entry.expires()) {
            None => -2,
            Some(None) => -1,
            Some(Some(at)) => (at.saturating_sub(self.now).saturating_add(unit / 2) / unit) as i64,
        };
        self.number(left)
    }

    pub(super) fn keys(&mut self, pattern: &[u8]) -> Answer {
        let mut found = Vec::new();
        self.store.scan(0, usize::MAX, |entry| {
            if found.len() <= MOST_KEYS && !entry.is_over(self.now) && glob::matches(pattern, entry.key()) {
                found.push(entry.key());
            }
        });
        if found.len() > MOST_KEYS {
            return Err("ERR more than 100000 keys match: use SCAN".into());
        }
        self.out.array(found.len());
        for key in found {
            self.out.bulk(key);
        }
        Ok(Then::Nothing)
    }

    pub(super) fn scan(&mut self, cursor: &[u8], options: &[&[u8]]) -> Answer {
        let cursor = core::str::from_utf8(cursor)
            .ok()
            .and_then(|text| text.parse().ok());
        let cursor: u64 = cursor.ok_or("ERR invalid cursor")?;
        let (mut pattern, mut count, mut strings) = (None, 10, true);
        let (options, rest) = options.as_chunks::<2>();
        for [name, value] in options {
            match &name.to_ascii_uppercase()[..] {
                b"MATCH" => pattern = Some(*value),
                b"COUNT" => {
                    let wanted = integer(value).ok_or(NOT_AN_INTEGER)?;
                    count = usize::try_from(wanted)
                        .ok()
                        .filter(|count| *count > 0)
                        .ok_or(SYNTAX)?;
                }
                b"TYPE" => strings = value.eq_ignore_ascii_case(b"string"),
                _ => return Err(SYNTAX.into()),
            }
        }
        if !rest.is_empty() {
            return Err(SYNTAX.into());
        }
        let mut found = Vec::new();
        let next = self.store.scan(cursor, count.min(MOST_SCANNED), |entry| {
            let fits = pattern.is_none_or(|pattern| glob::matches(pattern, entry.key()));
            if fits && strings && !entry.is_over(self.now) {
                found.push(entry.key());
            }
        });
        self.out.array(2);
        self.out.bulk(next.to_string().as_bytes());
        self.out.array(found.len());
        for key in found {
            self.out.bulk(key);
        }
        Ok(Then::Nothing)
    }
}

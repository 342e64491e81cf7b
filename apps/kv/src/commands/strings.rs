//! Strings and counters.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Answer, Context, NOT_AN_INTEGER, SYNTAX, Then, deadline};
use crate::arena::Arena;
use crate::resp::integer;

#[derive(Default)]
struct SetOptions {
    only_new: bool,
    only_known: bool,
    get: bool,
    keep: bool,
    expires: Option<u64>,
}

impl<A: Arena> Context<'_, A> {
    pub(super) fn get(&mut self, key: &[u8]) -> Answer {
        let value = self.string(key)?.map(|entry| entry.value().to_vec());
        self.out.value(value.as_deref());
        Ok(Then::Nothing)
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8], options: &[&[u8]]) -> Answer {
        let options = self.set_options(options)?;
        let before = if options.get {
            self.string(key)?.map(|entry| entry.value().to_vec())
        } else {
            None
        };
        let known = self.find(key).map(|entry| entry.expires());
        let refused = (options.only_new && known.is_some()) || (options.only_known && known.is_none());
        if !refused {
            let kept = known.flatten().filter(|_| options.keep);
            self.put(key, [value, b""], options.expires.or(kept))?;
        }
        if options.get || refused {
            self.out.value(before.as_deref());
            return Ok(Then::Nothing);
        }
        self.ok()
    }

    fn set_options(&self, words: &[&[u8]]) -> Result<SetOptions, super::Refused> {
        let mut options = SetOptions::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match &word.to_ascii_uppercase()[..] {
                b"NX" => options.only_new = true,
                b"XX" => options.only_known = true,
                b"GET" => options.get = true,
                b"KEEPTTL" => options.keep = true,
                kind @ (b"EX" | b"PX" | b"EXAT" | b"PXAT") if options.expires.is_none() => {
                    let time = integer(words.next().ok_or(SYNTAX)?).ok_or(NOT_AN_INTEGER)?;
                    let unit = if kind.starts_with(b"EX") { 1000 } else { 1 };
                    let from = if kind.ends_with(b"AT") { 0 } else { self.now };
                    let at = deadline(from, time, unit).filter(|_| time > 0);
                    options.expires = Some(at.ok_or("ERR invalid expire time in 'set' command")?);
                }
                _ => return Err(SYNTAX.into()),
            }
        }
        let both = (options.only_new && options.only_known) || (options.keep && options.expires.is_some());
        if both { Err(SYNTAX.into()) } else { Ok(options) }
    }

    pub(super) fn set_if_new(&mut self, key: &[u8], value: &[u8]) -> Answer {
        let new = self.find(key).is_none();
        if new {
            self.put(key, [value, b""], None)?;
        }
        self.number(i64::from(new))
    }

    pub(super) fn get_and_remove(&mut self, key: &[u8]) -> Answer {
        self.get(key)?;
        self.store.remove(key);
        Ok(Then::Nothing)
    }

    pub(super) fn get_all(&mut self, keys: &[&[u8]]) -> Answer {
        self.out.array(keys.len());
        for key in keys {
            // A key of another kind is as none, as in redis.
            let entry = self.string(key).ok().flatten();
            let value = entry.map(|entry| entry.value().to_vec());
            self.out.value(value.as_deref());
        }
        Ok(Then::Nothing)
    }

    pub(super) fn set_all(&mut self, pairs: &[&[u8]]) -> Answer {
        let (pairs, rest) = pairs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("ERR wrong number of arguments for 'mset' command".into());
        }
        for [key, value] in pairs {
            self.put(key, [value, b""], None)?;
        }
        self.ok()
    }

    pub(super) fn append(&mut self, key: &[u8], more: &[u8]) -> Answer {
        let entry = self.string(key)?;
        let (before, expires) = entry.map_or((Vec::new(), None), |entry| {
            (entry.value().to_vec(), entry.expires())
        });
        self.put(key, [&before, more], expires)?;
        self.number(before.len() + more.len())
    }

    pub(super) fn length(&mut self, key: &[u8]) -> Answer {
        let length = self.string(key)?.map_or(0, |entry| entry.value().len());
        self.number(length)
    }

    pub(super) fn add(&mut self, key: &[u8], by: i64) -> Answer {
        let entry = self.string(key)?;
        let (value, expires) = match entry {
            Some(entry) => (integer(entry.value()).ok_or(NOT_AN_INTEGER)?, entry.expires()),
            None => (0, None),
        };
        let sum = value
            .checked_add(by)
            .ok_or("ERR increment or decrement would overflow")?;
        self.put(key, [sum.to_string().as_bytes(), b""], expires)?;
        self.number(sum)
    }
}

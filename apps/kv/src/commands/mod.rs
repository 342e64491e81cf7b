//! What clients can ask for. Each command runs to its end at once; what would take long is done in [`Long`] steps.

mod keys;
mod long;
mod server;
mod strings;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use long::Long;

use crate::arena::Arena;
use crate::record::{Draft, STRING};
use crate::resp::{Replies, integer};
use crate::store::{Entry, Store};

/// What a command may look at besides the store.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Milliseconds since 1970.
    pub now: u64,
    /// The image's version.
    pub version: &'a str,
    /// The instar's number.
    pub generation: u32,
    /// How long it has been running, in seconds.
    pub uptime: u64,
}

/// What is to be done besides replying.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// The connection is to be closed.
    Close,
    /// The reply comes from this, step by step.
    Work(Long),
}

/// Why a command was refused; as the client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl From<&str> for Refused {
    fn from(words: &str) -> Self {
        Self(words.into())
    }
}

impl From<crate::store::Full> for Refused {
    fn from(_: crate::store::Full) -> Self {
        "OOM command not allowed when used memory > 'maxmemory'.".into()
    }
}

type Answer = Result<Then, Refused>;

const SYNTAX: &str = "ERR syntax error";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
/// Most that APPEND may make of a value, and longest key with it.
const MAX_VALUE: usize = crate::resp::MAX_WORD;
const MAX_KEY: usize = 64 << 10;

/// A command at work.
struct Context<'a, A> {
    store: &'a mut Store<A>,
    now: u64,
    out: Replies<'a>,
}

/// How many words a command has, its name among them.
const fn arity(name: &[u8]) -> Option<(usize, usize)> {
    const MANY: usize = usize::MAX;
    Some(match name {
        b"GET" | b"STRLEN" | b"GETDEL" | b"INCR" | b"DECR" | b"TYPE" | b"TTL" | b"PTTL" | b"PERSIST"
        | b"KEYS" | b"ECHO" | b"SELECT" => (2, 2),
        b"SET" => (3, MANY),
        b"SETNX" | b"GETSET" | b"APPEND" | b"INCRBY" | b"DECRBY" | b"EXPIRE" | b"PEXPIRE" => (3, 3),
        b"SETEX" | b"PSETEX" => (4, 4),
        b"MGET" | b"DEL" | b"UNLINK" | b"EXISTS" | b"TOUCH" | b"SCAN" | b"CONFIG" | b"CLIENT" | b"DEBUG"
        | b"OBJECT" => (2, MANY),
        b"MSET" => (3, MANY),
        b"PING" => (1, 2),
        b"INFO" | b"COMMAND" | b"HELLO" | b"FLUSHALL" | b"FLUSHDB" => (1, MANY),
        b"DBSIZE" | b"QUIT" | b"MULTI" | b"EXEC" | b"DISCARD" | b"TIME" => (1, 1),
        _ => return None,
    })
}

/// A command's name as it is compared.
#[must_use]
pub fn name(words: &[&[u8]]) -> Vec<u8> {
    words
        .first()
        .map(|word| word.to_ascii_uppercase())
        .unwrap_or_default()
}

/// Whether there is such a command, with so many words.
///
/// # Errors
/// If not; for the client.
pub fn check(name: &[u8], words: &[&[u8]]) -> Result<(), Refused> {
    let shown = || String::from_utf8_lossy(&name[..name.len().min(64)]).to_lowercase();
    match arity(name) {
        None => Err(Refused(format!("ERR unknown command '{}'", shown()))),
        Some((least, most)) if (least..=most).contains(&words.len()) => Ok(()),
        Some(_) => Err(Refused(format!(
            "ERR wrong number of arguments for '{}' command",
            shown()
        ))),
    }
}

/// Carries a checked command out.
pub fn run<A: Arena>(
    store: &mut Store<A>,
    around: &Surroundings,
    name: &[u8],
    words: &[&[u8]],
    out: &mut Vec<u8>,
) -> Then {
    let mut context = Context {
        store,
        now: around.now,
        out: Replies(out),
    };
    let answer = context.carry_out(around, name, &words[1..]);
    answer.unwrap_or_else(|Refused(words)| {
        context.out.error(&words);
        Then::Nothing
    })
}

impl<A: Arena> Context<'_, A> {
    fn carry_out(&mut self, around: &Surroundings, name: &[u8], words: &[&[u8]]) -> Answer {
        match (name, words) {
            (b"GET", [key]) => self.get(key),
            (b"SET", [key, value, options @ ..]) => self.set(key, value, options),
            (b"SETNX", [key, value]) => self.set_if_new(key, value),
            (b"SETEX", [key, time, value]) => self.set(key, value, &[b"EX", time]),
            (b"PSETEX", [key, time, value]) => self.set(key, value, &[b"PX", time]),
            (b"GETSET", [key, value]) => self.set(key, value, &[b"GET"]),
            (b"GETDEL", [key]) => self.get_and_remove(key),
            (b"MGET", keys) => self.get_all(keys),
            (b"MSET", pairs) => self.set_all(pairs),
            (b"APPEND", [key, more]) => self.append(key, more),
            (b"STRLEN", [key]) => self.length(key),
            (b"INCR", [key]) => self.add(key, 1),
            (b"DECR", [key]) => self.add(key, -1),
            (b"INCRBY", [key, by]) => self.add(key, integer(by).ok_or(NOT_AN_INTEGER)?),
            (b"DECRBY", [key, by]) => {
                let by = integer(by).and_then(i64::checked_neg).ok_or(NOT_AN_INTEGER)?;
                self.add(key, by)
            }
            (b"DEL" | b"UNLINK", keys) => self.remove_all(keys),
            (b"EXISTS" | b"TOUCH", keys) => self.count_all(keys),
            (b"TYPE", [key]) => self.kind(key),
            (b"EXPIRE", [key, time]) => self.expire(key, time, 1000),
            (b"PEXPIRE", [key, time]) => self.expire(key, time, 1),
            (b"TTL", [key]) => self.time_left(key, 1000),
            (b"PTTL", [key]) => self.time_left(key, 1),
            (b"PERSIST", [key]) => self.persist(key),
            (b"KEYS", [pattern]) => self.keys(pattern),
            (b"SCAN", [cursor, options @ ..]) => self.scan(cursor, options),
            _ => self.serve(around, name, words),
        }
    }

    /// What is under a key and has not expired, whatever it is.
    fn find(&self, key: &[u8]) -> Option<Entry<'_, A>> {
        self.store.find(key).filter(|entry| !entry.is_over(self.now))
    }

    /// The string under a key.
    fn string(&self, key: &[u8]) -> Result<Option<Entry<'_, A>>, Refused> {
        let entry = self.find(key);
        if entry.as_ref().is_some_and(|entry| entry.kind() != STRING) {
            return Err(
                "WRONGTYPE a later version wrote this key as a kind that this version does not know".into(),
            );
        }
        Ok(entry)
    }

    fn put(&mut self, key: &[u8], value: [&[u8]; 2], expires: Option<u64>) -> Result<(), Refused> {
        if key.len() > MAX_KEY || value[0].len() + value[1].len() > MAX_VALUE {
            return Err("ERR string exceeds maximum allowed size (a key 64 KiB, a value 1 MiB)".into());
        }
        self.store.put(&Draft {
            key,
            value,
            expires,
            now: self.now,
            revision: 0,
        })?;
        Ok(())
    }

    fn ok(&mut self) -> Answer {
        self.out.simple("OK");
        Ok(Then::Nothing)
    }

    fn number(&mut self, number: impl TryInto<i64>) -> Answer {
        self.out.integer(number.try_into().unwrap_or(i64::MAX));
        Ok(Then::Nothing)
    }
}

/// When something expires that lives `time` units of so many milliseconds from now on; `None`: beyond every calendar.
fn deadline(now: u64, time: i64, unit: i64) -> Option<u64> {
    let span = time.checked_mul(unit)?;
    let at = i64::try_from(now).ok()?.checked_add(span)?;
    u64::try_from(at.max(0)).ok()
}

#[cfg(test)]
mod tests;

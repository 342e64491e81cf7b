//! About the server.

use alloc::format;

use super::{Answer, Context, Long, Refused, SYNTAX, Surroundings, Then};
use crate::arena::Arena;
use crate::record::FORMAT;
use crate::resp::integer;

impl<A: Arena> Context<'_, A> {
    pub(super) fn serve(&mut self, around: &Surroundings, name: &[u8], words: &[&[u8]]) -> Answer {
        match (name, words) {
            (b"PING", []) => {
                self.out.simple("PONG");
                Ok(Then::Nothing)
            }
            (b"PING" | b"ECHO", [text]) => {
                self.out.bulk(text);
                Ok(Then::Nothing)
            }
            (b"SELECT", [number]) => match integer(number) {
                Some(0) => self.ok(),
                _ => Err("ERR DB index is out of range".into()),
            },
            (b"DBSIZE", []) => self.number(self.store.keys()),
            (b"FLUSHALL" | b"FLUSHDB", _) => {
                self.store.clear();
                self.ok()
            }
            (b"INFO", _) => self.info(around),
            (b"TIME", []) => {
                self.out.array(2);
                self.out.bulk(format!("{}", self.now / 1000).as_bytes());
                self.out.bulk(format!("{}", self.now % 1000 * 1000).as_bytes());
                Ok(Then::Nothing)
            }
            (b"CONFIG", [sub, wanted @ ..]) if sub.eq_ignore_ascii_case(b"GET") => self.config(wanted),
            (b"CLIENT", [sub, ..]) if sub.eq_ignore_ascii_case(b"GETNAME") => {
                self.out.value(None);
                Ok(Then::Nothing)
            }
            (b"CLIENT", [sub, ..]) if sub.eq_ignore_ascii_case(b"ID") => self.number(1),
            (b"CLIENT", _) => self.ok(),
            (b"COMMAND", _) => {
                self.out.array(0);
                Ok(Then::Nothing)
            }
            (b"HELLO", [] | [b"2", ..]) => self.hello(around),
            (b"HELLO", _) => Err("NOPROTO this server speaks RESP 2 only".into()),
            (b"QUIT", []) => {
                self.out.simple("OK");
                Ok(Then::Close)
            }
            (b"OBJECT", [sub, key]) => self.object(sub, key),
            (b"DEBUG", words) => self.debug(words),
            _ => Err(SYNTAX.into()),
        }
    }

    fn hello(&mut self, around: &Surroundings) -> Answer {
        self.out.array(6);
        for text in ["server", "kv", "version", around.version, "proto"] {
            self.out.bulk(text.as_bytes());
        }
        self.number(2)
    }

    /// What redis-benchmark asks for.
    fn config(&mut self, wanted: &[&[u8]]) -> Answer {
        let known = [("save", ""), ("appendonly", "no"), ("databases", "1")];
        let asked = |name: &str| {
            wanted
                .iter()
                .any(|word| word.eq_ignore_ascii_case(name.as_bytes()))
        };
        self.out
            .array(2 * known.iter().filter(|(name, _)| asked(name)).count());
        for (name, value) in known.iter().filter(|(name, _)| asked(name)) {
            self.out.bulk(name.as_bytes());
            self.out.bulk(value.as_bytes());
        }
        Ok(Then::Nothing)
    }

    fn info(&mut self, around: &Surroundings) -> Answer {
        let (used, all) = self.store.used();
        let text = format!(
            "# Server\r\nredis_version:7.0.0\r\nserver_name:kv\r\nkv_version:{}\r\nrecord_format:{}\r\n\
             instar_generation:{}\r\nuptime_in_seconds:{}\r\n\r\n# Memory\r\nused_memory:{used}\r\n\
             preserved_memory:{all}\r\n\r\n# Keyspace\r\ndb0:keys={},expires=0,avg_ttl=0\r\n",
            around.version,
            FORMAT as u8,
            around.generation,
            around.uptime,
            self.store.keys(),
        );
        self.out.bulk(text.as_bytes());
        Ok(Then::Nothing)
    }

    /// What only records of format 2 tell of.
    fn object(&mut self, sub: &[u8], key: &[u8]) -> Answer {
        let written = self.find(key).ok_or("ERR no such key")?.written();
        let (at, revision) =
            written.ok_or("ERR this key was written in record format 1, which does not say")?;
        if sub.eq_ignore_ascii_case(b"IDLETIME") {
            return self.number(self.now.saturating_sub(at) / 1000);
        }
        if sub.eq_ignore_ascii_case(b"FREQ") {
            return self.number(revision);
        }
        Err(SYNTAX.into())
    }

    fn debug(&mut self, words: &[&[u8]]) -> Answer {
        let Some((sub, rest)) = words.split_first() else {
            return Err(SYNTAX.into());
        };
        match (&sub.to_ascii_uppercase()[..], rest) {
            (b"DIGEST", []) => Ok(Then::Work(Long::digest())),
            (b"POPULATE", [count, rest @ ..]) => {
                let count = integer(count).and_then(|count| u64::try_from(count).ok());
                let prefix = rest.first().copied().unwrap_or(b"key");
                let size = rest
                    .get(1)
                    .map_or(Some(0), |size| integer(size))
                    .and_then(|size| usize::try_from(size).ok());
                match (count, size) {
                    (Some(count), Some(size)) if size <= 1 << 16 && prefix.len() <= 1024 => {
                        Ok(Then::Work(Long::populate(count, prefix, size)))
                    }
                    _ => Err(super::NOT_AN_INTEGER.into()),
                }
            }
            (b"OBJECT", [key]) => {
                let entry = self.find(key).ok_or("ERR no such key")?;
                let text = format!(
                    "format:{} kind:{} bytes:{}",
                    entry.format(),
                    entry.kind(),
                    entry.bytes()
                );
                self.out.simple(&text);
                Ok(Then::Nothing)
            }
            _ => Err(Refused(
                "ERR DEBUG knows DIGEST, OBJECT key, POPULATE count [prefix] [size]".into(),
            )),
        }
    }
}

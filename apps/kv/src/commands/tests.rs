//! Commands as clients see them: what is sent, what comes back.

use super::*;
use crate::arena::testing::Heap;
use crate::resp::{self, Parsed};
use crate::session::Session;
use proptest::prelude::*;

struct Client {
    store: Store<Heap>,
    session: Session,
    now: u64,
}

impl Client {
    fn new() -> Self {
        Self {
            store: Store::open(Heap::new(40, 1 << 16), [1, 2]).expect("it is new"),
            session: Session::default(),
            now: 1_000_000,
        }
    }

    fn send(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let around = Surroundings {
            now: self.now,
            version: "1.0.0",
            generation: 1,
            uptime: 0,
        };
        let mut out = Vec::new();
        if let Then::Work(mut work) = self.session.request(&mut self.store, &around, words, &mut out) {
            while !work.step(&mut self.store, self.now, &mut out) {}
        }
        out
    }

    /// A line of words, and the reply as text.
    fn say(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        String::from_utf8(self.send(&words))
            .expect("text")
            .replace("\r\n", " ")
            .trim_end()
            .into()
    }

    fn talk(&mut self, talk: &[(&str, &str)]) {
        for (line, reply) in talk {
            assert_eq!(self.say(line), *reply, "{line}");
        }
    }
}

#[test]
fn strings_and_counters() {
    Client::new().talk(&[
        ("GET a", "$-1"),
        ("set a 1", "+OK"),
        ("GET a", "$1 1"),
        ("SET a 2 NX", "$-1"),
        ("SET b 2 XX", "$-1"),
        ("SET a 2 XX GET", "$1 1"),
        ("SET a 3 NX XX", "-ERR syntax error"),
        ("GETSET a 10", "$1 2"),
        ("SETNX a 5", ":0"),
        ("SETNX c x", ":1"),
        ("MGET a b c", "*3 $2 10 $-1 $1 x"),
        ("MSET a 1 b 2", "+OK"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("APPEND a 23", ":3"),
        ("STRLEN a", ":3"),
        ("INCR a", ":124"),
        ("DECR a", ":123"),
        ("INCRBY a -23", ":100"),
        ("DECRBY a 1", ":99"),
        (
            "DECRBY a -9223372036854775808",
            "-ERR value is not an integer or out of range",
        ),
        (
            "INCRBY a 9223372036854775807",
            "-ERR increment or decrement would overflow",
        ),
        ("INCR c", "-ERR value is not an integer or out of range"),
        ("INCR new", ":1"),
        ("GETDEL a", "$2 99"),
        ("EXISTS a b b", ":2"),
        ("TYPE b", "+string"),
        ("TYPE a", "+none"),
        ("DEL a b c", ":2"),
        ("DBSIZE", ":1"),
        ("KEYS *", "*1 $3 new"),
        ("FLUSHALL", "+OK"),
        ("DBSIZE", ":0"),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("NONSENSE a", "-ERR unknown command 'nonsense'"),
        ("HELLO 3", "-NOPROTO this server speaks RESP 2 only"),
        ("CONFIG GET save", "*2 $4 save $0"),
        ("SELECT 1", "-ERR DB index is out of range"),
    ]);
}

#[test]
fn keys_expire() {
    let mut client = Client::new();
    client.talk(&[
        ("SET a 1 EX 10", "+OK"),
        ("TTL a", ":10"),
        ("PTTL a", ":10000"),
        ("SET a 2 KEEPTTL", "+OK"),
        ("INCR a", ":3"),
        ("TTL a", ":10"),
        ("SET b 1 PX 5", "+OK"),
        ("SET b 1 EX 0", "-ERR invalid expire time in 'set' command"),
        (
            "SET b 1 EX 9223372036854775807",
            "-ERR invalid expire time in 'set' command",
        ),
        ("PEXPIRE none 5", ":0"),
        ("TTL none", ":-2"),
        ("SET c 1", "+OK"),
        ("TTL c", ":-1"),
        ("EXPIRE c 5", ":1"),
        ("PERSIST c", ":1"),
        ("PERSIST c", ":0"),
    ]);
    client.now += 5;
    client.talk(&[
        ("GET b", "$-1"),
        ("EXISTS a b c", ":2"),
        ("DEL b", ":0"),
        ("SET b 2 NX", "+OK"),
    ]);
    client.now += 10_000;
    client.talk(&[
        ("GET a", "$-1"),
        ("APPEND a x", ":1"),
        ("TTL a", ":-1"),
        ("EXPIRE a -1", ":1"),
        ("GET a", "$-1"),
    ]);
}

#[test]
fn transactions() {
    Client::new().talk(&[
        ("EXEC", "-ERR EXEC without MULTI"),
        ("MULTI", "+OK"),
        ("SET a 1", "+QUEUED"),
        ("INCR a", "+QUEUED"),
        ("MULTI", "-ERR MULTI calls can not be nested"),
        ("EXEC", "*2 +OK :2"),
        ("MULTI", "+OK"),
        ("SET a 7", "+QUEUED"),
        ("DISCARD", "+OK"),
        ("GET a", "$1 2"),
        ("MULTI", "+OK"),
        ("GET a b", "-ERR wrong number of arguments for 'get' command"),
        ("SET a 9", "+QUEUED"),
        (
            "EXEC",
            "-EXECABORT Transaction discarded because of previous errors.",
        ),
        ("GET a", "$1 2"),
    ]);
}

#[test]
fn scan_finds_all_and_digest_tells_them_apart() {
    let mut client = Client::new();
    client.talk(&[("DEBUG POPULATE 3000", "+OK"), ("GET key:2999", "$10 value:2999")]);
    let (mut cursor, mut found) = (String::from("0"), 0);
    loop {
        let reply = client.say(&format!("SCAN {cursor} COUNT 70 MATCH key:*9"));
        let mut words = reply.split(' ');
        cursor = words.nth(2).expect("a cursor").into();
        found += words.filter(|word| word.starts_with("key:")).count();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found, 300);
    let before = client.say("DEBUG DIGEST");
    client.talk(&[("SET key:7 other", "+OK")]);
    assert_ne!(client.say("DEBUG DIGEST"), before);
    client.talk(&[
        ("SET key:7 value:7", "+OK"),
        ("DEBUG DIGEST", &before),
        ("DEL key:1", ":1"),
    ]);
    assert_ne!(client.say("DEBUG DIGEST"), before);
}

#[test]
fn a_full_store_refuses_as_redis_does() {
    let mut client = Client::new();
    let refused = client.say("DEBUG POPULATE 1000000");
    assert!(refused.starts_with("-OOM "), "{refused}");
    assert!(client.say("SET key:0 x").starts_with("+OK") || client.say("GET key:0").ends_with("value:0"));
    client.talk(&[("FLUSHALL", "+OK"), ("SET a 1", "+OK")]);
}

proptest! {
    #[test]
    fn any_request_gets_one_answer(
        words in proptest::collection::vec("SET|GET|SCAN|MULTI|EXEC|EX|COUNT|DEBUG|OBJECT|INCRBY|[a-c]|-?[0-9]{1,3}|\\*", 1..6),
    ) {
        let mut client = Client::new();
        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let reply = client.send(&words);
        prop_assert!(reply.ends_with(b"\r\n") && b"+-:$*".contains(&reply[0]));
    }

    #[test]
    fn what_is_parsed_is_carried_out(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut client = Client::new();
        if let Parsed::Request { words, .. } = resp::parse(&bytes) {
            let words: Vec<&[u8]> = words.into_iter().map(|word| &bytes[word]).collect();
            if !words.is_empty() {
                client.send(&words);
            }
        }
    }
}

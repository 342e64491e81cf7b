//! RESP, version 2 (the Redis serialization protocol specification): requests in, replies out. What a client claims about
//! sizes is not believed.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;

/// Most words of a request.
pub const MAX_WORDS: usize = 4096;
/// Longest word, in bytes.
pub const MAX_WORD: usize = 1 << 20;
/// Longest request, in bytes: a longest value, and a mebibyte besides.
pub const MAX_REQUEST: usize = 2 << 20;
/// Longest line that is a request by itself (`PING`), in bytes.
pub const MAX_LINE: usize = 4096;

/// What stands at the beginning of what a client has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not all of it has come.
    Incomplete,
    /// A request: where its words are, none if it was an empty one, and how many bytes it takes.
    Request {
        /// The words, as ranges of the bytes that were parsed.
        words: Vec<Range<usize>>,
        /// What it takes.
        used: usize,
    },
    /// Nothing that can be understood, and so nothing behind it either: the reply, after which the connection is closed.
    Error(&'static str),
}

/// Parses the first request in `bytes`. The longest `Incomplete` is shorter than [`MAX_REQUEST`].
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    match parse_one(bytes) {
        Ok((words, used)) if used <= MAX_REQUEST => Parsed::Request { words, used },
        Err(None) if bytes.len() < MAX_REQUEST => Parsed::Incomplete,
        Err(Some(error)) => Parsed::Error(error),
        _ => Parsed::Error("ERR Protocol error: the request is larger than 2 MiB"),
    }
}

/// `Err(None)`: not all of it is there.
type Piece<T> = Result<T, Option<&'static str>>;

fn parse_one(bytes: &[u8]) -> Piece<(Vec<Range<usize>>, usize)> {
    if bytes.first().ok_or(None)? != &b'*' {
        return inline(bytes);
    }
    let mut at = 1;
    let count = number(bytes, &mut at, "ERR Protocol error: invalid multibulk length")?;
    // A count below 1 is an empty request.
    let count = usize::try_from(count).unwrap_or(0);
    if count > MAX_WORDS {
        return Err(Some("ERR Protocol error: invalid multibulk length"));
    }
    // Memory grows with the words that are there, not with the count.
    let mut words = Vec::new();
    for _ in 0..count {
        if bytes.get(at).ok_or(None)? != &b'$' {
            return Err(Some("ERR Protocol error: expected '$'"));
        }
        at += 1;
        let invalid = "ERR Protocol error: invalid bulk length";
        let length = number(bytes, &mut at, invalid)?;
        let length = usize::try_from(length).map_err(|_| Some(invalid))?;
        if length > MAX_WORD {
            return Err(Some(invalid));
        }
        let end = at + length;
        if bytes.get(end..end + 2).ok_or(None)? != b"\r\n" {
            return Err(Some("ERR Protocol error: a bulk string without its end"));
        }
        words.push(at..end);
        at = end + 2;
    }
    Ok((words, at))
}

/// A line of words, as from telnet. Quotes mean nothing.
fn inline(bytes: &[u8]) -> Piece<(Vec<Range<usize>>, usize)> {
    let Some(end) = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        let too_long = bytes.len() >= MAX_LINE;
        return Err(too_long.then_some("ERR Protocol error: too big inline request"));
    };
    let mut words = Vec::new();
    let mut start = None;
    for (at, byte) in bytes[..=end].iter().enumerate() {
        match (byte.is_ascii_whitespace(), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                words.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    Ok((words, end + 1))
}

/// A decimal number and the end of its line.
fn number(bytes: &[u8], at: &mut usize, invalid: &'static str) -> Piece<i64> {
    /// Digits of the longest number, its sign, and the end of the line.
    const MOST: usize = 22;
    let rest = &bytes[*at..];
    let Some(end) = rest.iter().take(MOST).position(|byte| *byte == b'\r') else {
        return Err((rest.len() >= MOST).then_some(invalid));
    };
    if *rest.get(end + 1).ok_or(None)? != b'\n' {
        return Err(Some(invalid));
    }
    *at += end + 2;
    integer(&rest[..end]).ok_or(Some(invalid))
}

/// A decimal number as redis reads it: no blanks, no plus sign, no leading zeros.
#[must_use]
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = match digits {
        [] => false,
        [b'0'] => text.len() == 1,
        [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if !plain {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// Replies are written behind each other.
#[derive(Debug)]
pub struct Replies<'a>(pub &'a mut Vec<u8>);

impl Replies<'_> {
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(text);
        self.0.extend_from_slice(b"\r\n");
    }

    /// `+OK` and its like.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error: a code, a blank, and words for a person.
    pub fn error(&mut self, text: &str) {
        // Part of it may be a client's words: it stays one line.
        let plain = |byte: u8| if byte.is_ascii_control() { b' ' } else { byte };
        let text: Vec<u8> = text.bytes().map(plain).collect();
        self.line(b'-', &text);
    }

    /// A number.
    pub fn integer(&mut self, number: i64) {
        self.line(b':', number.to_string().as_bytes());
    }

    /// A value.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.line(b'$', bytes.len().to_string().as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
    }

    /// A value, or that there is none.
    pub fn value(&mut self, value: Option<&[u8]>) {
        match value {
            Some(bytes) => self.bulk(bytes),
            None => self.line(b'$', b"-1"),
        }
    }

    /// The next `count` replies are one.
    pub fn array(&mut self, count: usize) {
        self.line(b'*', count.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    fn words(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
        match parse(bytes) {
            Parsed::Request { words, used } => {
                Some((words.into_iter().map(|word| &bytes[word]).collect(), used))
            }
            _ => None,
        }
    }

    #[test]
    fn requests_of_both_kinds() {
        let (found, used) = words(b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\nPING\r\n").expect("a request");
        assert_eq!(found, [&b"GET"[..], b"\r\n"]);
        assert_eq!(
            words(&b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\nPING\r\n"[used..]),
            Some(([&b"PING"[..]].to_vec(), 6))
        );
        assert_eq!(
            words(b"  SET a  b\n"),
            Some(([&b"SET"[..], b"a", b"b"].to_vec(), 11))
        );
        for empty in [&b"\r\n"[..], b"*0\r\n", b"*-1\r\n"] {
            assert_eq!(words(empty), Some((Vec::new(), empty.len())));
        }
    }

    #[test]
    fn hostile_sizes_cost_nothing() {
        for wrong in [
            &b"*4097\r\n"[..],
            b"*99999999999999999999999\r\n",
            b"*x\r\n",
            b"*+1\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$1048577\r\n",
            b"*1\r\n$1\r\nabc",
            b"*1\rx",
            &[b'a'; MAX_LINE],
        ] {
            assert!(
                matches!(parse(wrong), Parsed::Error(_)),
                "{}",
                wrong.escape_ascii()
            );
        }
        assert_eq!(parse(b"*4096\r\n"), Parsed::Incomplete);
        // Each word is allowed, all of them together are not.
        let word = [&b"$1048576\r\n"[..], &[0; MAX_WORD], b"\r\n"].concat();
        let all = [&b"*3\r\n"[..], &word, &word, &word].concat();
        assert!(matches!(parse(&all), Parsed::Error(_)));
        assert!(matches!(parse(&all[..MAX_REQUEST]), Parsed::Error(_)));
        assert_eq!(parse(&all[..MAX_REQUEST - 1]), Parsed::Incomplete);
    }

    #[test]
    fn numbers_are_strict() {
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer(b"0"), Some(0));
        for wrong in [
            &b""[..],
            b"-",
            b"-0",
            b"01",
            b"+1",
            b" 1",
            b"1 ",
            b"9223372036854775808",
            b"1.0",
            b"\xff",
        ] {
            assert_eq!(integer(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn an_error_is_one_line() {
        let mut out = Vec::new();
        Replies(&mut out).error("ERR unknown command 'a\r\n+OK'");
        assert_eq!(out, b"-ERR unknown command 'a  +OK'\r\n");
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer_within_them(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Parsed::Request { words, used } = parse(&bytes) {
                prop_assert!(0 < used && used <= bytes.len());
                prop_assert!(words.iter().all(|word| word.start <= word.end && word.end <= used));
            }
        }

        #[test]
        fn almost_resp_gets_an_answer(pieces in proptest::collection::vec("[*$0-9a\r\n-]{0,4}|\r\n", 0..60)) {
            let _ = parse(pieces.concat().as_bytes());
        }

        #[test]
        fn what_was_sent_is_read_however_it_is_cut(
            request in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
        ) {
            let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
            for word in &request {
                Replies(&mut bytes).bulk(word);
            }
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete);
            }
            let expected: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(words(&bytes), Some((expected, bytes.len())));
        }
    }
}

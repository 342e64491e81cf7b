//! What stands before a body.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use super::Response;

/// Request line and headers, with the empty line.
pub(super) const MAX_HEAD: usize = 4096;
const MAX_HEADERS: usize = 32;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadError {
    Syntax,
    Target,
    Host,
    Length,
    Lengths,
    Encoded,
    TooLong,
    TooMany,
    Late,
}

impl HeadError {
    pub fn response(self) -> Response {
        let (status, code, message, hint) = match self {
            HeadError::Syntax => (
                400,
                "bad-request",
                "the request is not HTTP/1.0 or HTTP/1.1",
                "use an HTTP client",
            ),
            HeadError::Target => (
                400,
                "bad-request",
                "the target is not a path",
                "ask for a path that begins with /",
            ),
            HeadError::Host => (
                400,
                "bad-request",
                "there is not exactly one Host header",
                "send one Host header",
            ),
            HeadError::Length => (
                400,
                "bad-request",
                "Content-Length is not a number",
                "send the body's length in bytes",
            ),
            HeadError::Lengths => (
                400,
                "bad-request",
                "there are two different Content-Length headers",
                "send one Content-Length header",
            ),
            HeadError::Encoded => (
                411,
                "length-required",
                "a body of unknown length (Transfer-Encoding) is not accepted",
                "send Content-Length; curl does so with -T FILE or --data-binary @FILE",
            ),
            HeadError::TooLong => (
                431,
                "bad-request",
                "the request's head is longer than 4 KiB",
                "send fewer headers",
            ),
            HeadError::TooMany => (
                431,
                "bad-request",
                "the request has more than 32 headers",
                "send fewer headers",
            ),
            HeadError::Late => (
                408,
                "timed-out",
                "the request's head took longer than 10 s",
                "send it at once",
            ),
        };
        Response::refusal(status, code, message, hint)
    }
}

/// A request's head, kept as it came.
pub(super) struct Head {
    bytes: Box<[u8]>,
    method: Range<usize>,
    target: Range<usize>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    pub length: Option<u64>,
    pub keep: bool,
    pub expects: bool,
}

impl Head {
    /// The head at the beginning of `bytes` and its length; `None` if it goes on.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let limited = bytes.get(..MAX_HEAD).unwrap_or(bytes);
        let length = match request.parse(limited) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => return Err(HeadError::TooLong),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooMany),
            Err(_) => return Err(HeadError::Syntax),
        };
        let meaning = Meaning::of(request.headers, request.version == Some(1))?;
        let target = path_of(request.path.unwrap_or_default()).ok_or(HeadError::Target)?;
        let range = |part: &[u8]| {
            // The parser's parts lie inside `bytes`: their place is the distance.
            let start = (part.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
            start..start + part.len()
        };
        let head = Head {
            method: range(request.method.unwrap_or_default().as_bytes()),
            target: range(target.as_bytes()),
            headers: request
                .headers
                .iter()
                .map(|header| (range(header.name.as_bytes()), range(header.value)))
                .collect(),
            bytes: bytes.get(..length).unwrap_or_default().into(),
            length: meaning.length,
            keep: meaning.keep,
            expects: meaning.expects,
        };
        Ok(Some((head, length)))
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    pub fn method(&self) -> &str {
        // The parser has checked that it is UTF-8; so for the two below.
        core::str::from_utf8(self.part(&self.method)).unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        core::str::from_utf8(self.part(&self.target)).unwrap_or_default()
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| {
            (
                core::str::from_utf8(self.part(name)).unwrap_or_default(),
                self.part(value),
            )
        })
    }
}

/// What the headers say about the message itself.
struct Meaning {
    length: Option<u64>,
    keep: bool,
    expects: bool,
}

impl Meaning {
    fn of(headers: &[httparse::Header<'_>], modern: bool) -> Result<Meaning, HeadError> {
        let mut meaning = Meaning {
            length: None,
            keep: modern,
            expects: false,
        };
        let mut hosts = 0;
        let mut close = false;
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("transfer-encoding") {
                return Err(HeadError::Encoded);
            } else if is("content-length") {
                // Two that differ: the front of a smuggled request (RFC 9112, 11.2).
                let length = number(header.value).ok_or(HeadError::Length)?;
                if meaning.length.is_some_and(|other| other != length) {
                    return Err(HeadError::Lengths);
                }
                meaning.length = Some(length);
            } else if is("host") {
                hosts += 1;
            } else if is("connection") {
                close |= has_token(header.value, b"close");
                meaning.keep |= has_token(header.value, b"keep-alive");
            } else if is("expect") {
                meaning.expects = modern && header.value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        // RFC 9112, 3.2.
        if hosts > 1 || (modern && hosts == 0) {
            return Err(HeadError::Host);
        }
        meaning.keep &= !close;
        Ok(meaning)
    }
}

/// Digits only: no sign, no list, no blanks within.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

/// A path, also out of the absolute form that a proxy is sent.
fn path_of(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let rest = target.strip_prefix("http://")?;
    rest.get(rest.find('/')?..)
}

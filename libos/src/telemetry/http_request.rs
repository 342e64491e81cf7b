//! HTTP/1.1 for one request at a time, without I/O: the head of a POST, and a parser for the answer.
//!
//! The answer comes from outside: its head is at most [`MAX_HEAD`] bytes, and of its body no more than [`MAX_BODY`] is
//! read. Whoever moves the bytes closes the connection when [`Response::reusable`] is false, after an error, and after
//! the exporter's timeout.

use alloc::string::String;
use alloc::vec::Vec;
use httparse::Status;
use thiserror::Error;

use super::Signal;
use super::config::Endpoint;
use super::exporter::Failure;
use super::http_date::unix_seconds;

/// The longest head of an answer, in bytes.
pub const MAX_HEAD: usize = 8 * 1024;

/// How much of an answer's body is read, in bytes. A partial success is a few dozen.
pub const MAX_BODY: usize = 64 * 1024;

const MAX_HEADERS: usize = 64;

/// The longest line of a chunk's size or trailer, in bytes.
const MAX_LINE: usize = 1024;

/// The head of an export request, up to and with the empty line; the body follows as it is. `headers` as
/// [`super::config::headers`] returned them, which keeps line breaks out.
pub fn request_head(
    endpoint: &Endpoint,
    signal: Signal,
    headers: &[(String, String)],
    content_length: usize,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    let mut put = |parts: &[&str]| {
        parts
            .iter()
            .for_each(|part| head.extend_from_slice(part.as_bytes()))
    };
    put(&[
        "POST ",
        &endpoint.base_path,
        signal.path(),
        " HTTP/1.1\r\nHost: ",
        &endpoint.authority,
    ]);
    put(&[
        "\r\nUser-Agent: Instar-OTLP-Exporter-Rust/",
        env!("CARGO_PKG_VERSION"),
    ]);
    put(&["\r\nContent-Type: application/x-protobuf\r\nConnection: keep-alive\r\nContent-Length: "]);
    put(&[decimal(content_length, &mut [0; 20]), "\r\n"]);
    for (name, value) in headers {
        put(&[name, ": ", value, "\r\n"]);
    }
    put(&["\r\n"]);
    head
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &str {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    str::from_utf8(&digits[start..]).unwrap_or_default()
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Response {
    /// The status code; never 1xx.
    pub status: u16,
    /// `Retry-After` in seconds. The form with a date counts from the answer's own `Date`, since the machine's clock may
    /// be another; without that it is taken as absent.
    pub retry_after: Option<u32>,
    /// The body, or its first [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
    /// Whether the body is all there. If not, more of it is under way.
    pub complete: bool,
    /// Whether another request may follow on this connection.
    pub reusable: bool,
}

/// Why an answer is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ResponseError {
    /// The bytes are not HTTP/1.x, or contradict each other about the body's length.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// The head is longer than [`MAX_HEAD`] or has more than 64 headers.
    #[error("the answer's head is too large")]
    HeadTooLarge,
    /// The connection ended before the answer did.
    #[error("the connection ended before the answer did")]
    Interrupted,
}

impl From<ResponseError> for Failure {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::NotHttp | ResponseError::HeadTooLarge => Failure::NotHttp,
            ResponseError::Interrupted => Failure::Interrupted,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Head,
    /// So many bytes of the body are still to come.
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
}

/// Takes an answer apart as it comes, in pieces of any size.
#[derive(Debug)]
pub struct ResponseParser {
    state: State,
    /// The head so far, or the line so far of a chunked body.
    line: Vec<u8>,
    response: Response,
    /// All bytes after the head, so that a chunked body cannot go on for ever in small chunks or trailers.
    body_bytes: usize,
}

impl Default for ResponseParser {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseParser {
    /// A parser for one answer.
    pub fn new() -> Self {
        ResponseParser {
            state: State::Head,
            line: Vec::new(),
            response: Response::default(),
            body_bytes: 0,
        }
    }

    /// Takes what was received. `Some` when the answer is complete, or as much of it as is wanted; then, and after an
    /// error, this parser has done its work.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Response>, ResponseError> {
        let mut rest = bytes;
        loop {
            if self.state == State::Head {
                let taken = rest.len().min(MAX_HEAD - self.line.len());
                self.line.extend_from_slice(&rest[..taken]);
                let Some(head_bytes) = self.parse_head()? else {
                    return if taken < rest.len() {
                        Err(ResponseError::HeadTooLarge)
                    } else {
                        Ok(None)
                    };
                };
                // What follows the head is given back: it lies at the end of what was just taken.
                let body_start = taken - (self.line.len() - head_bytes);
                rest = &rest[body_start..];
                self.line.clear();
                if self.state == State::Head {
                    continue;
                }
            }
            return self.body(rest);
        }
    }

    /// The connection ended. An answer whose end is the connection's is complete now; any other was cut off.
    pub fn end(&mut self) -> Result<Response, ResponseError> {
        if self.state == State::UntilClose {
            Ok(self.finish(false, true))
        } else {
            Err(ResponseError::Interrupted)
        }
    }

    /// The head's length once it is complete, with the state set for what follows.
    fn parse_head(&mut self) -> Result<Option<usize>, ResponseError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let length = match head.parse(&self.line) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if self.line.len() < MAX_HEAD => return Ok(None),
            Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(ResponseError::HeadTooLarge);
            }
            Err(_) => return Err(ResponseError::NotHttp),
        };
        let status = head.code.unwrap_or(0);
        if (100..200).contains(&status) {
            // 101 would hand the connection to another protocol, which nobody asked for (RFC 9110, section 15.2.2).
            return if status == 101 {
                Err(ResponseError::NotHttp)
            } else {
                Ok(Some(length))
            };
        }
        let mut framing = Framing {
            reusable: head.version == Some(1),
            ..Framing::default()
        };
        for header in head.headers.iter() {
            framing.take(header)?;
        }
        self.response.status = status;
        self.response.retry_after = framing.retry_after();
        self.response.reusable = framing.reusable;
        // RFC 9112, section 6.3.
        self.state = match (status, framing.chunked, framing.content_length) {
            (204 | 304, _, _) => State::Length(0),
            (_, Some(chunked), length) => {
                self.response.reusable &= length.is_none();
                if chunked {
                    State::ChunkSize
                } else {
                    State::UntilClose
                }
            }
            (_, None, Some(length)) => State::Length(length),
            (_, None, None) => State::UntilClose,
        };
        Ok(Some(length))
    }

    fn body(&mut self, bytes: &[u8]) -> Result<Option<Response>, ResponseError> {
        let mut rest = bytes;
        loop {
            match self.state {
                State::Length(0) => return Ok(Some(self.finish(rest.is_empty(), true))),
                State::Head | State::Length(_) | State::UntilClose | State::ChunkData(_) => {
                    let wanted = match self.state {
                        State::Length(left) | State::ChunkData(left) => left,
                        _ => u64::MAX,
                    };
                    let room = MAX_BODY - self.response.body.len();
                    let taken = rest
                        .len()
                        .min(room)
                        .min(usize::try_from(wanted).unwrap_or(usize::MAX));
                    self.response.body.extend_from_slice(&rest[..taken]);
                    self.body_bytes += taken;
                    rest = &rest[taken..];
                    match &mut self.state {
                        State::Length(left) => *left -= taken as u64,
                        State::ChunkData(left) if *left == taken as u64 => self.state = State::ChunkEnd,
                        State::ChunkData(left) => *left -= taken as u64,
                        _ => {}
                    }
                    let complete = matches!(self.state, State::Length(0) | State::ChunkEnd);
                    if self.response.body.len() == MAX_BODY && !complete {
                        return Ok(Some(self.finish(false, false)));
                    }
                    if rest.is_empty() && !complete {
                        return Ok(None);
                    }
                }
                State::ChunkSize | State::ChunkEnd | State::Trailer => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.take_line(rest)?;
                        return Ok(self.is_endless().then(|| self.finish(false, false)));
                    };
                    self.take_line(&rest[..=end])?;
                    rest = &rest[end + 1..];
                    if self.is_endless() {
                        return Ok(Some(self.finish(false, false)));
                    }
                    if self.line_done()? {
                        return Ok(Some(self.finish(rest.is_empty(), true)));
                    }
                    self.line.clear();
                }
            }
        }
    }

    /// A complete line of a chunked body (RFC 9112, section 7.1); true if it was the last.
    fn line_done(&mut self) -> Result<bool, ResponseError> {
        let blank = self.line == b"\r\n";
        self.state = match self.state {
            State::ChunkSize => match httparse::parse_chunk_size(&self.line) {
                Ok(Status::Complete((_, 0))) => State::Trailer,
                Ok(Status::Complete((_, size))) => State::ChunkData(size),
                _ => return Err(ResponseError::NotHttp),
            },
            State::ChunkEnd if blank => State::ChunkSize,
            State::ChunkEnd => return Err(ResponseError::NotHttp),
            other => return Ok(blank && other == State::Trailer),
        };
        Ok(false)
    }

    fn take_line(&mut self, bytes: &[u8]) -> Result<(), ResponseError> {
        if self.line.len() + bytes.len() > MAX_LINE {
            return Err(ResponseError::NotHttp);
        }
        self.body_bytes += bytes.len();
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn is_endless(&self) -> bool {
        self.body_bytes > 2 * MAX_BODY
    }

    fn finish(&mut self, in_step: bool, complete: bool) -> Response {
        self.response.complete = complete;
        self.response.reusable &= in_step;
        core::mem::take(&mut self.response)
    }
}

/// What the headers say about the body.
#[derive(Default)]
struct Framing {
    content_length: Option<u64>,
    /// Whether the last transfer coding is `chunked`, if there is one.
    chunked: Option<bool>,
    /// `Retry-After`, if it is a number of seconds.
    retry_in: Option<u64>,
    /// `Retry-After`, if it is a date, in Unix seconds.
    retry_at: Option<u64>,
    /// `Date`, in Unix seconds.
    date: Option<u64>,
    reusable: bool,
}

impl Framing {
    fn retry_after(&self) -> Option<u32> {
        let until = || Some(self.retry_at?.saturating_sub(self.date?));
        let seconds = self.retry_in.or_else(until)?;
        Some(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    fn take(&mut self, header: &httparse::Header) -> Result<(), ResponseError> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let value = header.value.trim_ascii();
        if is("content-length") {
            let length = number(value).ok_or(ResponseError::NotHttp)?;
            if self.content_length.is_some_and(|other| other != length) {
                return Err(ResponseError::NotHttp);
            }
            self.content_length = Some(length);
        } else if is("transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            self.chunked = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        } else if is("retry-after") {
            (self.retry_in, self.retry_at) = (number(value), unix_seconds(value));
        } else if is("date") {
            self.date = unix_seconds(value);
        } else if is("connection") {
            let mut options = value.split(|byte| *byte == b',');
            self.reusable &= !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
        Ok(())
    }
}

/// A number of digits only; saturates.
fn number(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let mut digits = text.iter().map(digit);
    let first = digits.next()??;
    digits.try_fold(first, |number, digit| {
        Some(number.saturating_mul(10).saturating_add(digit?))
    })
}

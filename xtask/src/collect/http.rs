//! As much of an HTTP/1.1 server as OTLP/HTTP needs, with a bound on everything.

use std::io::{self, ErrorKind, Read, Write};

/// The longest request head.
const MAX_HEAD: usize = 16 << 10;

/// The longest request body. Decoded, it can be a few dozen times as large for a moment.
const MAX_BODY: usize = 4 << 20;

/// A request, whole.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub method: String,
    pub path: String,
    pub content_type: String,
    pub content_encoding: String,
    pub host: Option<String>,
    pub origin: Option<String>,
    pub keep_alive: bool,
    pub head_bytes: usize,
    pub body: Vec<u8>,
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum Error {
    /// The connection ended, between requests or within one.
    Ended,
    /// To be answered with this status; then the connection ends, since nobody knows where the next request begins.
    Refused(u16),
}

impl From<io::Error> for Error {
    fn from(_: io::Error) -> Self {
        Error::Ended
    }
}

/// Reads requests from a connection.
pub(super) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Reader<S> {
    pub fn new(stream: S) -> Self {
        Reader {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The connection, to answer.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next request.
    pub fn request(&mut self) -> Result<Request, Error> {
        let (mut request, length, expects) = loop {
            if let Some((head_length, mut request, length, expects)) = head(&self.buffer)? {
                self.buffer.drain(..head_length);
                request.head_bytes = head_length;
                break (request, length, expects);
            }
            if self.buffer.len() >= MAX_HEAD {
                return Err(Error::Refused(431));
            }
            self.fill()?;
        };
        if length > MAX_BODY {
            return Err(Error::Refused(413));
        }
        if expects && self.buffer.is_empty() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        while self.buffer.len() < length {
            self.fill()?;
        }
        request.body = self.buffer.drain(..length).collect();
        Ok(request)
    }

    fn fill(&mut self) -> Result<(), Error> {
        let mut piece = [0; 8192];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(Error::Ended),
                Ok(length) => {
                    self.buffer.extend_from_slice(&piece[..length]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The head's length, the request without its body, the body's length, and whether the sender waits for a 100.
type Head = (usize, Request, usize, bool);

fn head(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let head_length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Error::Refused(431)),
        Err(_) => return Err(Error::Refused(400)),
    };
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        keep_alive: parsed.version == Some(1),
        ..Request::default()
    };
    let mut length = None;
    let mut expects = false;
    for header in parsed.headers.iter() {
        let value = str::from_utf8(header.value)
            .map_err(|_| Error::Refused(400))?
            .trim();
        match header.name.to_ascii_lowercase().as_str() {
            "content-type" => {
                request.content_type = value
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_ascii_lowercase();
            }
            "content-encoding" => request.content_encoding = value.to_ascii_lowercase(),
            "host" => request.host = Some(value.to_owned()),
            "origin" => request.origin = Some(value.to_owned()),
            "connection" if value.eq_ignore_ascii_case("close") => request.keep_alive = false,
            "expect" => expects = value.eq_ignore_ascii_case("100-continue"),
            "transfer-encoding" => return Err(Error::Refused(411)),
            "content-length" => {
                let number = value
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
                    .then(|| value.parse::<usize>().ok());
                let number = number.flatten().ok_or(Error::Refused(400))?;
                if length.is_some_and(|other| other != number) {
                    return Err(Error::Refused(400));
                }
                length = Some(number);
            }
            _ => {}
        }
    }
    if length.is_none() && request.method == "POST" {
        return Err(Error::Refused(411));
    }
    Ok(Some((head_length, request, length.unwrap_or(0), expects)))
}

/// The head of an answer, up to and with the empty line.
pub(super) fn response_head(
    status: u16,
    headers: &[(&str, &str)],
    content_length: u64,
    keep_alive: bool,
) -> String {
    let reason = match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Status",
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/x-protobuf\r\nContent-Length: {content_length}\r\n\
         Connection: {connection}\r\n"
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

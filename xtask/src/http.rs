//! A small HTTP/1.1 client: one request a connection, time limits everywhere, and an early refusal is heard while the
//! body is still being sent.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use thiserror::Error;

/// No answer of ours is longer than this.
const LONGEST_ANSWER: usize = 16 << 20;

/// How much of a body is sent at a time, between two looks at the clock and for an answer.
const PIECE: usize = 16 << 10;

/// How long one request may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the connection stands.
    pub connect: Duration,
    /// Between two signs of life: a piece that goes out, bytes that come in.
    pub idle: Duration,
}

impl Limits {
    /// For a machine that should be there.
    pub const fn patient() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(20),
        }
    }

    /// For asking again and again until somebody answers.
    pub const fn short() -> Self {
        Self {
            connect: Duration::from_millis(200),
            idle: Duration::from_millis(400),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Nobody listens, or the way there is blocked.
    #[error("could not connect: {0}")]
    Connect(#[source] io::Error),
    /// Nothing happened for too long.
    #[error("nothing happened for {0:?}")]
    TimedOut(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broke(#[source] io::Error),
    /// The connection was closed before an answer was complete.
    #[error("the connection was closed before the answer was complete")]
    Closed,
    /// What came was no HTTP/1.1 answer.
    #[error("the answer is not HTTP/1.1: {0}")]
    Garbled(&'static str),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks for `path`.
///
/// # Errors
/// If there is no answer; an answer that says no is an answer.
pub fn get(address: SocketAddr, path: &str, limits: Limits) -> Result<Response, HttpError> {
    let mut stream = connect(address, limits)?;
    let head = head(address, "GET", path, &[], None);
    stream.write_all(head.as_bytes()).map_err(|e| broke(e, limits))?;
    read_response(&mut stream, limits)
}

/// Sends `body` with these headers to `path`, and tells `progress` after each piece how many bytes of it went out.
///
/// # Errors
/// If there is no answer; an answer that says no is an answer, also when it comes before all was sent.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    limits: Limits,
    mut progress: impl FnMut(usize),
) -> Result<Response, HttpError> {
    let mut stream = connect(address, limits)?;
    let head = head(address, method, path, headers, Some(body.len()));
    let mut written = stream.write_all(head.as_bytes());
    let mut out = 0;
    for piece in body.chunks(PIECE) {
        // A machine that refuses says so at once; the rest of the body is none of its business then.
        if written.is_err() || has_answer(&stream) {
            break;
        }
        written = stream.write_all(piece);
        if written.is_ok() {
            out += piece.len();
            progress(out);
        }
    }
    // Even where sending failed there may be an answer: the reason why the machine hung up.
    match (read_response(&mut stream, limits), written) {
        (Ok(response), _) => Ok(response),
        (Err(_), Err(e)) => Err(broke(e, limits)),
        (Err(e), Ok(())) => Err(e),
    }
}

/// Whether something came back already, if only the end.
fn has_answer(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let waiting = matches!(stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_err() || !waiting
}

fn connect(address: SocketAddr, limits: Limits) -> Result<TcpStream, HttpError> {
    let stream = TcpStream::connect_timeout(&address, limits.connect).map_err(HttpError::Connect)?;
    let set = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limits.idle))?;
        stream.set_write_timeout(Some(limits.idle))
    };
    set().map_err(HttpError::Broke)?;
    Ok(stream)
}

fn head(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: Option<usize>,
) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = length {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head.push_str("\r\n");
    head
}

fn broke(error: io::Error, limits: Limits) -> HttpError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HttpError::TimedOut(limits.idle),
        _ => HttpError::Broke(error),
    }
}

fn read_response(stream: &mut TcpStream, limits: Limits) -> Result<Response, HttpError> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).map_err(|e| broke(e, limits))?;
        bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if let Some(response) = parse(&bytes, n == 0)? {
            return Ok(response);
        }
        if n == 0 {
            return Err(HttpError::Closed);
        }
        if bytes.len() > LONGEST_ANSWER {
            return Err(HttpError::Garbled("it is longer than 16 MiB"));
        }
    }
}

/// The answer in `bytes`, if it is whole. `ended`: nothing follows.
fn parse(bytes: &[u8], ended: bool) -> Result<Option<Response>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(HttpError::Garbled("its head cannot be read")),
    };
    let Some(status) = response.code else {
        return Err(HttpError::Garbled("it has no status"));
    };
    let body = bytes.get(start..).unwrap_or_default();
    let header = |name: &str| {
        response
            .headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name))
            .map(|h| h.value)
    };
    if header("transfer-encoding").is_some() {
        return Err(HttpError::Garbled(
            "it has a transfer encoding, and this client knows none",
        ));
    }
    // "Continue" and its like: the answer proper comes after it.
    if (100..200).contains(&status) {
        return parse(body, ended);
    }
    let length = match header("content-length") {
        None if status == 204 || status == 304 => 0,
        None if ended => body.len(),
        None => return Ok(None),
        Some(text) => std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok())
            .ok_or(HttpError::Garbled("its Content-Length is no number"))?,
    };
    Ok(body.get(..length).map(|body| Response {
        status,
        body: body.to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let text = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhellotrailing";
        for n in 0..text.len() {
            let parsed = parse(&text[..n], false).expect("no error");
            assert_eq!(parsed.is_some(), n >= text.len() - 8, "{n}");
        }
        let parsed = parse(text, false).expect("no error").expect("whole");
        assert_eq!(
            parsed,
            Response {
                status: 201,
                body: b"hello".to_vec()
            }
        );
        assert!(
            parse(b"HTTP/1.1 200 OK\r\n\r\nabc", false)
                .expect("no error")
                .is_none()
        );
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\n\r\nabc", true)
                .expect("ok")
                .expect("whole")
                .body,
            b"abc"
        );
        assert!(parse(b"garbage\r\n\r\n", true).is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", true).is_err());
        let twice = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(parse(twice, false).expect("ok").expect("whole").status, 204);
    }

    #[test]
    fn an_early_refusal_is_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut start = [0; 1024];
            let n = stream.read(&mut start).expect("read");
            assert!(start[..n].starts_with(b"PUT /v1/image HTTP/1.1\r\n"));
            stream
                .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
                .expect("written");
            // Unread bytes are left behind, so the kernel resets the connection.
        });
        let body = vec![7; 64 << 20];
        let mut last = 0;
        let response = send(
            address,
            "PUT",
            "/v1/image",
            &[("Content-Type", "application/x-tar")],
            &body,
            Limits::patient(),
            |n| last = n,
        );
        server.join().expect("the server is fine");
        assert_eq!(
            response.expect("an answer"),
            Response {
                status: 403,
                body: b"no".to_vec()
            }
        );
        assert!(last < body.len());
    }

    #[test]
    fn silence_is_told_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let limits = Limits {
            connect: Duration::from_secs(1),
            idle: Duration::from_millis(30),
        };
        let error = get(address, "/", limits).expect_err("no answer");
        assert!(matches!(error, HttpError::TimedOut(_)), "{error}");
        drop(listener);
        assert!(matches!(get(address, "/", limits), Err(HttpError::Connect(_))));
    }
}

//! Clients with raw sockets: polite ones that see every byte of an answer, and rude ones.
//!
//! - [`request`], [`send`]: one request, one answer
//! - [`rude`]: what no honest client sends
//! - [`Rest`]: how a client that has not sent everything goes on
//!
//! No client here waits without a deadline.

use crate::broken::Case;
use serde_json::Value;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

pub mod rude;

/// How long an answer may take: an emulator on a busy computer is slow, a machine that never answers is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields, as they came.
    pub head: String,
    /// The body, if it is text.
    pub body: String,
}

impl Answer {
    /// Takes the first answer in what a server sent, and how many bytes it is long.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        // Without a length the body ends with the connection.
        let length: usize = length.unwrap_or(bytes.len() - end);
        let body = bytes.get(end..end.checked_add(length)?)?;
        let body = String::from_utf8_lossy(body).into_owned();
        Some((
            Self {
                status,
                head: head.into(),
                body,
            },
            end + length,
        ))
    }

    /// The body as JSON; `null` if it is something else.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The error code of a refusal.
    ///
    /// # Errors
    /// What is missing of a refusal that a person could act on.
    pub fn refusal(&self) -> Result<(u16, String), String> {
        let json = self.json();
        let text = |field: &str| match json["error"][field].as_str() {
            Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
            _ => Err(format!(
                "status {} without error.{field}: {}",
                self.status, self.body
            )),
        };
        text("message")?;
        text("hint")?;
        Ok((self.status, text("code")?))
    }
}

/// The head of a request with a body of `length` bytes; the connection ends with the answer.
#[must_use]
pub fn head(method: &str, path: &str, length: u64) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: instar\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// A connection whose reads and writes end.
///
/// # Errors
/// Those of the socket.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    connect_within(to, PATIENCE)
}

fn connect_within(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads the first answer. What follows it is not waited for.
///
/// # Errors
/// `UnexpectedEof` when the connection ends before the answer does, and those of the socket.
pub fn answer(stream: &mut TcpStream) -> io::Result<Answer> {
    Ok(answers(stream, 1)?.remove(0))
}

/// Reads so many answers to pipelined requests.
///
/// # Errors
/// As [`answer`].
///
/// # Panics
/// Never: it returns only when all are there.
pub fn answers(stream: &mut TcpStream, count: usize) -> io::Result<Vec<Answer>> {
    let deadline = Instant::now() + PATIENCE;
    let mut received = Vec::new();
    let mut found = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let bytes = stream.read(&mut piece)?;
        received.extend_from_slice(&piece[..bytes]);
        while let Some((answer, length)) = complete(&received, bytes == 0) {
            received.drain(..length);
            found.push(answer);
            if found.len() == count {
                return Ok(found);
            }
        }
        if bytes == 0 {
            let text = String::from_utf8_lossy(&received).into_owned();
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("no answer, but: {text:?}"),
            ));
        }
        if Instant::now() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// The first answer, if it is all there. One without a length is, once the connection has `ended`.
fn complete(received: &[u8], ended: bool) -> Option<(Answer, usize)> {
    let (answer, length) = Answer::parse(received)?;
    (ended || answer.head.to_ascii_lowercase().contains("content-length:")).then_some((answer, length))
}

/// Sends a request and reads its answer at the same time: a refusal may come while the body is still on its way, and
/// then the rest need not get through.
///
/// # Errors
/// Those of [`answer`].
pub fn request(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
    request_within(to, method, path, body, PATIENCE)
}

/// The same with less patience.
///
/// # Errors
/// Those of [`answer`].
pub fn request_within(
    to: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
    patience: Duration,
) -> io::Result<Answer> {
    exchange(
        to,
        head(method, path, body.len() as u64).as_bytes(),
        body,
        patience,
    )
}

/// A request with one header more.
///
/// # Errors
/// Those of [`answer`].
pub fn request_with(
    to: SocketAddr,
    method: &str,
    path: &str,
    header: &str,
    body: &[u8],
) -> io::Result<Answer> {
    let head = head(method, path, body.len() as u64);
    let head = head.replacen("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"), 1);
    exchange(to, head.as_bytes(), body, PATIENCE)
}

/// Sends a broken input, with the length that it claims, and reads the answer.
///
/// # Errors
/// Those of [`answer`].
pub fn send(to: SocketAddr, method: &str, path: &str, case: &Case) -> io::Result<Answer> {
    exchange(
        to,
        head(method, path, case.content_length()).as_bytes(),
        &case.body,
        PATIENCE,
    )
}

fn exchange(to: SocketAddr, head: &[u8], body: &[u8], patience: Duration) -> io::Result<Answer> {
    let mut stream = connect_within(to, patience)?;
    let mut writer = stream.try_clone()?;
    thread::scope(|scope| {
        // That writing fails is not an error: the answer tells.
        scope.spawn(move || writer.write_all(head).and_then(|()| writer.write_all(body)));
        let answer = answer(&mut stream);
        // A writer that is still at it has nobody to write to any more.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        answer
    })
}

/// How a client goes on that has sent only the beginning of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It sends nothing more, and waits.
    Silence,
    /// It says that nothing more will come, and waits.
    End,
    /// It sends a byte a second, at most so many, and waits.
    Drip(usize),
}

/// Sends `beginning`, goes on as `rest` says, and returns the answer; `None` if the machine hung up without one.
///
/// # Errors
/// `TimedOut` when the machine does neither in the time given, and those of the socket.
pub fn begin(to: SocketAddr, beginning: &[u8], rest: Rest, within: Duration) -> io::Result<Option<Answer>> {
    let deadline = Instant::now() + within;
    let mut stream = connect(to)?;
    stream.write_all(beginning)?;
    if rest == Rest::End {
        stream.shutdown(std::net::Shutdown::Write)?;
    }
    // The socket's own time-out is the beat at which a byte is sent.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut drops = if let Rest::Drip(most) = rest { most } else { 0 };
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    while Instant::now() < deadline {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(complete(&received, true).map(|(answer, _)| answer)),
            Ok(bytes) => received.extend_from_slice(&piece[..bytes]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if drops > 0 {
                    drops -= 1;
                    // A machine that has hung up is heard at the next read.
                    let _ = stream.write_all(b"x");
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
        if let Some((answer, _)) = complete(&received, false) {
            return Ok(Some(answer));
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// Sends `beginning` and disappears: the connection is reset, not ended.
///
/// # Errors
/// Those of the socket.
pub fn disappear(to: SocketAddr, beginning: &[u8]) -> io::Result<()> {
    let mut stream = connect(to)?;
    stream.write_all(beginning)?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// Many connections that say nothing. They last until they are dropped.
///
/// # Errors
/// Those of the socket.
pub fn idle(to: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    (0..count).map(|_| connect(to)).collect()
}

/// Whether the machine echoes this datagram: asks again until it does, since datagrams may get lost.
///
/// # Errors
/// `TimedOut`, and those of the socket.
pub fn echo(to: SocketAddr, payload: &[u8]) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let deadline = Instant::now() + PATIENCE;
    let mut received = vec![0; 65536];
    while Instant::now() < deadline {
        socket.send(payload)?;
        match socket.recv(&mut received) {
            Ok(bytes) if received[..bytes] == *payload => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // Nobody listens yet, or the machine is between two instars.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests;

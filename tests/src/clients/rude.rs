//! Requests that no honest client sends, and noise.

use super::Answer;
use crate::broken::archive::noise;

/// Bytes for a TCP port, and what may come back.
#[derive(Clone, Debug)]
pub struct Rude {
    /// What is wrong.
    pub name: String,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// The statuses that are right; with 0, hanging up without an answer is right as well.
    pub expected: Vec<u16>,
}

impl Rude {
    fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>, expected: &[u16]) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
            expected: expected.into(),
        }
    }

    /// Whether this is a right answer.
    #[must_use]
    pub fn accepts(&self, answer: Option<&Answer>) -> bool {
        self.expected.contains(&answer.map_or(0, |answer| answer.status))
    }
}

const STATUS: &str = "GET /v1/status HTTP/1.1\r\nHost: x\r\n";
const REFUSED: &[u16] = &[400, 431];
const NO_LENGTH: &[u16] = &[400, 411];
/// No HTTP at all: an error or silence.
const NOISE: &[u16] = &[400, 408, 414, 431, 0];

/// Requests for the control plane, each broken. None of them changes the machine.
#[must_use]
pub fn requests() -> Vec<Rude> {
    let image = |head: &str| format!("PUT /v1/image HTTP/1.1\r\nHost: instar\r\n{head}\r\n\r\n");
    let mut all = vec![
        Rude::new("no such path", "GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", &[404]),
        Rude::new(
            "a path upwards",
            "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
            &[400, 404],
        ),
        Rude::new(
            "another method",
            "DELETE /v1/image HTTP/1.1\r\nHost: x\r\n\r\n",
            &[405],
        ),
        Rude::new(
            "a method nobody knows",
            "INSTAR /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
            &[400, 405, 501],
        ),
        Rude::new(
            "an image by GET",
            "GET /v1/image HTTP/1.1\r\nHost: x\r\n\r\n",
            &[405],
        ),
        Rude::new("no length", image("X: y"), NO_LENGTH),
        Rude::new(
            "chunked",
            image("Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n",
            NO_LENGTH,
        ),
        Rude::new(
            "chunked and with a length",
            image("Content-Length: 5\r\nTransfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n",
            NO_LENGTH,
        ),
        Rude::new(
            "two lengths",
            image("Content-Length: 5\r\nContent-Length: 6") + "hello",
            &[400],
        ),
        Rude::new("a length below zero", image("Content-Length: -1"), &[400, 411]),
        Rude::new(
            "a length with a sign",
            image("Content-Length: +5") + "hello",
            &[400],
        ),
        Rude::new(
            "a length that is none",
            image("Content-Length: many"),
            &[400, 411],
        ),
        Rude::new(
            "a length of 2^64",
            image("Content-Length: 18446744073709551616"),
            &[400, 413],
        ),
        Rude::new(
            "a length of 2^64 - 1",
            image("Content-Length: 18446744073709551615"),
            &[413],
        ),
        Rude::new(
            "an order of 1 GiB",
            "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n",
            &[413],
        ),
        Rude::new(
            "a path of 64 KiB",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(65536)),
            &[400, 404, 414, 431],
        ),
        Rude::new(
            "a header of 64 KiB",
            format!("{STATUS}X: {}\r\n\r\n", "a".repeat(65536)),
            REFUSED,
        ),
        Rude::new(
            "ten thousand headers",
            format!("{STATUS}{}\r\n", "X: y\r\n".repeat(10_000)),
            REFUSED,
        ),
        Rude::new("a header without a name", format!("{STATUS}: y\r\n\r\n"), REFUSED),
        Rude::new("a zero in a header", format!("{STATUS}X: a\0b\r\n\r\n"), REFUSED),
        Rude::new("no version", "GET /v1/status\r\n\r\n", &[400, 0]),
        Rude::new("HTTP/9.9", "GET /v1/status HTTP/9.9\r\n\r\n", &[400, 505]),
        Rude::new("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 405, 505]),
        Rude::new("TLS", tls(), NOISE),
        Rude::new("blank lines", "\r\n".repeat(4096), &[400, 431, 408, 0]),
        Rude::new("zeros", vec![0; 16 * 1024], NOISE),
    ];
    all.extend((0..8).map(|seed| Rude::new(format!("noise {seed}"), noise(8192, 1000 + seed), NOISE)));
    all
}

/// The beginning of a TLS 1.2 ClientHello.
fn tls() -> Vec<u8> {
    let mut bytes = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    bytes.extend(noise(512, 77));
    bytes
}

/// Datagrams of all lengths that get through: nothing, one byte, what fits one frame, and what does not.
#[must_use]
pub fn datagrams() -> Vec<Vec<u8>> {
    [0, 1, 2, 7, 64, 512, 1471, 1472, 1473, 4000, 9000]
        .into_iter()
        .map(|length| noise(length, 31 + length as u64))
        .collect()
}

/// So many requests for the status, sent at once.
#[must_use]
pub fn pipelined(count: usize) -> Vec<u8> {
    format!("{STATUS}\r\n").repeat(count).into_bytes()
}

//! HTTP over a script instead of a network.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex};

use super::head::{Head, HeadError};
use super::*;
use crate::net::Duration;
use crate::net::tests::world::{Clock, World};

/// What a peer sends, piece by piece; after the last one it closes, or waits for ever.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    closes: bool,
    pause: Duration,
    clock: Clock,
    output: Arc<Mutex<Vec<u8>>>,
    /// Bytes of the answer that the peer takes.
    takes: usize,
}

impl Stream for Script {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TcpError> {
        if self.pause > Duration::ZERO {
            self.clock.sleep_until(self.clock.now() + self.pause).await;
        }
        let Some(piece) = self.pieces.front_mut() else {
            return if self.closes { Ok(0) } else { pending().await };
        };
        let read = piece.len().min(buffer.len());
        buffer[..read].copy_from_slice(&piece[..read]);
        piece.drain(..read);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Ok(read)
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), TcpError> {
        if self.output.lock().unwrap().len() + bytes.len() > self.takes {
            return pending().await;
        }
        self.output.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }
}

async fn handler(mut request: Request<Script, Clock>) -> Response {
    match request.path() {
        "/hello" => Response::text(200, "hello"),
        "/big" => Response::bytes(200, "text/plain", vec![b'x'; 100_000]),
        "/none" => Response::text(204, "")
            .header("X-A", "b")
            .header("X-Bad", "a\r\nb"),
        "/echo" => {
            let mut body = Vec::new();
            let mut piece = [0; 100];
            loop {
                match request.read_body(&mut piece).await {
                    Ok(0) => return Response::bytes(200, "application/octet-stream", body),
                    Ok(read) => body.extend_from_slice(&piece[..read]),
                    Err(error) => {
                        return Response::refusal(408, "timed-out", &error.to_string(), "\"again\"\n");
                    }
                }
            }
        }
        path => Response::text(404, &format!("{} {path}?{}", request.method(), request.query())),
    }
}

fn talk(pieces: impl IntoIterator<Item = Vec<u8>>, change: impl FnOnce(&mut Script)) -> (String, Duration) {
    let world = World::default();
    let output = Arc::<Mutex<Vec<u8>>>::default();
    let mut script = Script {
        pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect(),
        closes: true,
        pause: Duration::ZERO,
        clock: world.clock.clone(),
        output: output.clone(),
        takes: usize::MAX,
    };
    change(&mut script);
    world.block_on(converse(script, world.clock.clone(), &handler));
    let output = String::from_utf8(output.lock().unwrap().clone()).unwrap();
    (output, world.clock.now() - crate::net::Instant::ZERO)
}

fn say(text: &str) -> String {
    talk([text.as_bytes().to_vec()], |_| {}).0
}

fn bytewise(text: &[u8]) -> Vec<Vec<u8>> {
    text.iter().map(|byte| vec![*byte]).collect()
}

const HELLO: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn answers_keep_alive_and_pipelined_requests_however_they_arrive() {
    let text = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n\
                POST /echo?x=1 HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\n1234567\
                GET http://a/hello HTTP/1.1\r\nHost: a\r\n\r\n\
                POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\n";
    let text = format!(
        "{text}{}GET /hello HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n",
        "z".repeat(300)
    );
    let text = text + "GET /never HTTP/1.1\r\nHost: a\r\n\r\n";
    let whole = say(&text);
    assert_eq!(whole.matches("HTTP/1.1 200 OK").count(), 5);
    assert_eq!(whole.matches("Connection: close").count(), 1);
    assert!(whole.starts_with(HELLO));
    assert!(whole.contains("\r\nContent-Length: 7\r\n\r\n1234567HTTP"));
    assert!(!whole.contains("404"));
    assert_eq!(talk(bytewise(text.as_bytes()), |_| {}).0, whole);
    for size in 2..80 {
        assert_eq!(
            talk(text.as_bytes().chunks(size).map(<[u8]>::to_vec), |_| {}).0,
            whole
        );
    }
}

#[test]
fn paths_heads_and_bare_answers() {
    assert!(say("GET /a/b?c=d?e HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("\r\n\r\nGET /a/b?c=d?e"));
    let head = say("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.contains("Content-Length: 5") && head.ends_with("\r\n\r\n"));
    assert_eq!(
        say("GET /none HTTP/1.1\r\nHost: a\r\n\r\n"),
        "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"
    );
    assert!(say("GET /big HTTP/1.1\r\nHost: a\r\n\r\n").len() > 100_000);
    // HTTP/1.0 closes unless it is asked not to.
    assert!(say("GET /hello HTTP/1.0\r\n\r\n").contains("Connection: close"));
    assert_eq!(
        say("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        HELLO
    );
}

#[test]
fn bad_requests_are_refused_and_end_the_connection() {
    let rest = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(4096));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(33));
    let cases = [
        ("\u{0}\u{1}garbage\r\n\r\n", 400, "bad-request"),
        ("GET / HTTP/2.0\r\n\r\n", 400, "bad-request"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad-request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad-request"),
        ("GET /hello\r\n\r\n", 400, "bad-request"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "bad-request"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, "bad-request"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            400,
            "bad-request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
            400,
            "bad-request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
            400,
            "bad-request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            400,
            "bad-request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            400,
            "bad-request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            411,
            "length-required",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\ntransfer-encoding: x\r\n\r\n0\r\n",
            411,
            "length-required",
        ),
        (&long, 431, "bad-request"),
        (&many, 431, "bad-request"),
    ];
    for (text, status, code) in cases {
        let answer = say(&format!("{text}{rest}"));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{text:?}: {answer}"
        );
        assert!(
            answer.contains(&format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"")),
            "{answer}"
        );
        assert!(
            answer.contains("Connection: close") && !answer.contains("hello"),
            "{answer}"
        );
    }
    // The same length twice is one length.
    assert_eq!(
        say("GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        HELLO
    );
}

#[test]
fn expectations_are_met_or_the_connection_ends() {
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
    let pieces = [head.as_bytes().to_vec(), b"abc".to_vec()];
    let (answer, _) = talk(pieces, |_| {});
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"));
    assert!(answer.ends_with("\r\n\r\nabc"));
    // Nobody asks for this body: it may come or not.
    let answer = say(&head.replace("/echo", "/hello"));
    assert!(!answer.contains("100 Continue") && answer.contains("Connection: close"));
    // It came without being asked for.
    assert!(say(&format!("{head}abc")).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn unread_bodies_are_bounded() {
    let keeps = "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 16384\r\n\r\n";
    assert_eq!(
        talk([format!("{keeps}{}", "x".repeat(16384)).into_bytes()], |_| {}).0,
        HELLO
    );
    assert!(say(&keeps.replace("16384", "16385")).contains("Connection: close"));
}

#[test]
fn slow_peers_are_given_up() {
    let hang = |script: &mut Script| script.closes = false;
    let seconds = Duration::from_secs;
    // Nothing at all; then silence after a request.
    assert_eq!(talk([], hang), (String::new(), seconds(10)));
    let hello = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(talk([hello.to_vec()], hang), (HELLO.to_string(), seconds(30)));
    // Half a head, for ever; a byte a second.
    let (answer, took) = talk([b"GET /he".to_vec()], hang);
    assert!(answer.starts_with("HTTP/1.1 408 ") && took == seconds(10));
    let (answer, took) = talk(bytewise(hello), |script| script.pause = seconds(1));
    assert!(answer.starts_with("HTTP/1.1 408 ") && took == seconds(10));
    // Half a body.
    let half = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234";
    let (answer, took) = talk([half.to_vec()], hang);
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("5 bytes are missing"),
        "{answer}"
    );
    assert!(answer.contains("\\\"again\\\"\\n") && answer.contains("Connection: close"));
    assert_eq!(took, seconds(10));
    let (answer, _) = talk([half.to_vec()], |_| {});
    assert!(answer.contains("the connection ended, 5 bytes"), "{answer}");
    // An unread body that drips.
    let drip = b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n";
    let pieces = [drip.to_vec()].into_iter().chain(bytewise(&[b'x'; 99]));
    assert_eq!(talk(pieces, |script| script.pause = seconds(1)).1, seconds(11));
    // An answer that is not taken.
    let big = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n";
    let (answer, took) = talk([big.to_vec()], |script| script.takes = 10_000);
    assert!(answer.len() < 10_000 && took == seconds(10));
}

#[test]
fn a_handler_that_keeps_its_request_ends_the_connection() {
    let world = World::default();
    let output = Arc::<Mutex<Vec<u8>>>::default();
    let script = Script {
        pieces: [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].into(),
        closes: true,
        pause: Duration::ZERO,
        clock: world.clock.clone(),
        output: output.clone(),
        takes: usize::MAX,
    };
    let kept = Arc::new(Mutex::new(Vec::new()));
    world.block_on(converse(script, world.clock.clone(), &|request: Request<
        Script,
        Clock,
    >| {
        let kept = kept.clone();
        async move {
            kept.lock().unwrap().push(request);
            Response::text(200, "never seen")
        }
    }));
    assert!(output.lock().unwrap().is_empty());
}

/// A generator of hostile text: pieces of requests, cut and mixed with noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn text(&mut self) -> Vec<u8> {
        const PARTS: [&[u8]; 20] = [
            b"GET /hello HTTP/1.1\r\n",
            b"POST /echo HTTP/1.1\r\n",
            b"HEAD /a?b HTTP/1.0\r\n",
            b"Host: a\r\n",
            b"Content-Length: 5\r\n",
            b"Content-Length: 18446744073709551615\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b": ",
            b"\x00",
            b"\xff\xfe",
            b"12345",
            b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
            b"XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
        ];
        let mut text = Vec::new();
        for _ in 0..self.next(30) {
            match self.next(8) {
                0 => (0..self.next(300)).for_each(|_| text.push(self.next(256) as u8)),
                _ => text.extend_from_slice(PARTS[self.next(PARTS.len())]),
            }
        }
        if self.next(4) == 0 && !text.is_empty() {
            let at = self.next(text.len());
            text[at] = self.next(256) as u8;
        }
        text
    }
}

#[test]
fn noise_never_panics_and_pieces_do_not_matter() {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut good = 0;
    for _ in 0..3000 {
        let text = noise.text();
        let (whole, _) = talk([text.clone()], |_| {});
        good += usize::from(whole.starts_with("HTTP/1.1 200"));
        let mut pieces = Vec::new();
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(1 + noise.next(rest.len().min(200)));
            pieces.push(piece.to_vec());
            rest = more;
        }
        // A peer that waits to be asked for its body is asked or not, depending on whether it has sent some already.
        let same = |text: &str| text.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
        let (cut, _) = talk(pieces, |_| {});
        if !text.windows(7).any(|part| part == b"Expect:") {
            assert_eq!(same(&cut), same(&whole), "{:?}", String::from_utf8_lossy(&text));
        }
    }
    assert!(good > 20, "{good}");
}

#[test]
fn heads_are_parsed_in_place() {
    let text = b"\r\nPUT /v1/image?a HTTP/1.1\r\nHost: h\r\nX-Y: \xf0 z \r\n\r\nbody";
    let (head, length) = Head::parse(text).unwrap().unwrap();
    assert_eq!(length, text.len() - 4);
    assert_eq!((head.method(), head.target()), ("PUT", "/v1/image?a"));
    assert_eq!(
        head.headers().collect::<Vec<_>>(),
        [("Host", &b"h"[..]), ("X-Y", b"\xf0 z")]
    );
    for end in 0..length {
        assert!(matches!(Head::parse(&text[..end]), Ok(None)), "{end}");
    }
    assert_eq!(Head::parse(&[b'A'; 4096]).err(), Some(HeadError::TooLong));
}

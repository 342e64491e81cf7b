//! The web page: its files, what it asks for, and the stream that says when there is news.
//!
//! It shares the port and the connections with OTLP. So that readers never keep machines from reporting, only a few of
//! them are answered at a time, each connection ends with its answer, and none may be slow for long.

use super::http::Request;
use super::server::Shared;
use super::{api, fleet::Fleet};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most answers to readers at a time, streams included.
const MAX_READERS: usize = 32;
/// Most streams at a time.
pub(super) const MAX_STREAMS: usize = 8;
/// How long a reader may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// The least time between two pieces of news.
const PAUSE: Duration = Duration::from_millis(200);
/// The most time between two signs of life on a stream.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Files of the page: path, content type, contents.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/main.js", JAVASCRIPT, include_str!("page/main.js")),
    ("/dom.js", JAVASCRIPT, include_str!("page/dom.js")),
    ("/machines.js", JAVASCRIPT, include_str!("page/machines.js")),
    ("/upgrades.js", JAVASCRIPT, include_str!("page/upgrades.js")),
    ("/waterfall.js", JAVASCRIPT, include_str!("page/waterfall.js")),
    ("/chart.js", JAVASCRIPT, include_str!("page/chart.js")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// On every answer: nothing from elsewhere, nothing that was put in by a sender, in no foreign frame or page.
const HEADERS: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
     X-Content-Type-Options: nosniff\r\n\
     Referrer-Policy: no-referrer\r\n\
     Cross-Origin-Resource-Policy: same-origin\r\n\
     Cache-Control: no-store\r\n\
     Connection: close\r\n";

/// Who is being answered.
#[derive(Debug, Default)]
pub(super) struct Readers {
    all: AtomicUsize,
    streams: AtomicUsize,
}

/// One of a bounded number; its place is free again when it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |now: usize| (now < most).then_some(now + 1);
        let taken = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.is_ok().then_some(Place(count))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether a request is the page's, and not OTLP's.
pub(super) fn is_for_page(request: &Request) -> bool {
    request.path.starts_with("/api/") || FILES.iter().any(|(path, ..)| *path == request.path)
}

/// Answers a request of the page's; then the connection ends.
pub(super) fn answer(request: &Request, stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let plain = "text/plain; charset=utf-8";
    let Some(_place) = Place::take(&shared.readers.all, MAX_READERS) else {
        return write(
            stream,
            "503 Service Unavailable",
            plain,
            "too many readers at a time; try again\n",
        );
    };
    if !is_welcome(request, stream.local_addr()?) {
        let text = "this address is not the collector's own: use the one that it printed when it started\n";
        return write(stream, "403 Forbidden", plain, text);
    }
    if request.method != "GET" {
        return write(stream, "405 Method Not Allowed", plain, "the method is GET\n");
    }
    if let Some((_, content_type, contents)) = FILES.iter().find(|(path, ..)| *path == request.path) {
        return write(stream, "200 OK", content_type, contents);
    }
    let path = request.path.strip_prefix("/api/").unwrap_or_default();
    if path == "events" {
        return match Place::take(&shared.readers.streams, MAX_STREAMS) {
            Some(_place) => stream_events(stream, shared),
            None => write(
                stream,
                "503 Service Unavailable",
                plain,
                "too many open pages; close one\n",
            ),
        };
    }
    let fleet: Fleet = shared.look(|received| received.fleet.clone());
    match api::answer(path, &fleet, now_ms()) {
        Some(json) => write(stream, "200 OK", "application/json", &json),
        None => write(
            stream,
            "404 Not Found",
            plain,
            "there is no such thing (any more)\n",
        ),
    }
}

/// Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn write(stream: &mut TcpStream, status: &str, content_type: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{HEADERS}\r\n"
    );
    // One write: a reader that is slow keeps nothing but this thread and this answer.
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())
}

/// Whether a browser that shows a foreign page may have been led here: by a foreign name for this address (DNS
/// rebinding), which matters where this address is reached from this computer only, or by a link to a stream.
fn is_welcome(request: &Request, here: SocketAddr) -> bool {
    let Some(host) = &request.host else { return false };
    if let Some(origin) = &request.origin
        && origin.strip_prefix("http://") != Some(host)
    {
        return false;
    }
    !here.ip().to_canonical().is_loopback() || is_loopback(host)
}

/// Whether a `Host` header names this computer, with or without a port.
fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']').unwrap_or_default();
        let address = address.parse::<Ipv6Addr>();
        return (port.is_empty() || port.starts_with(':'))
            && address.is_ok_and(|address| address.is_loopback());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let address = name.parse::<Ipv4Addr>().map(IpAddr::V4);
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Server-sent events (WHATWG HTML, section 9.2): the number of the newest change, as often as there are any, but not
/// more often than the page can ask. A reader that is slow misses some, and nothing waits for it.
fn stream_events(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{HEADERS}\r\nretry: 1000\n\n");
    stream.write_all(head.as_bytes())?;
    let mut told = None;
    loop {
        let Some(revision) = shared.wait_for_news(told, SIGN_OF_LIFE) else {
            return Ok(());
        };
        let name = if told == Some(revision) { "alive" } else { "news" };
        told = Some(revision);
        stream.write_all(format!("event: {name}\ndata: {revision}\n\n").as_bytes())?;
        std::thread::sleep(PAUSE);
    }
}

//! The page over the wire: who is answered, with what, and how many at a time.

use super::page::MAX_STREAMS;
use super::tests::{ANY, SOON, connect, export, log, post, read_answer};
use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;

fn ask(collector: &Collector, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = connect(collector);
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let (status, head, body) = read_answer(&mut stream).expect("answered");
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "the connection ends");
    (status, head, String::from_utf8(body).expect("text"))
}

fn open_stream(collector: &Collector) -> (TcpStream, String) {
    let mut stream = connect(collector);
    stream
        .write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    let mut start = vec![0; 15];
    stream.read_exact(&mut start).expect("an answer");
    (stream, String::from_utf8_lossy(&start).into_owned())
}

/// Reads until these words have come.
fn read_until(stream: &mut TcpStream, words: &str) -> String {
    let mut text = String::new();
    while !text.contains(words) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("more");
        text.push(char::from(byte[0]));
    }
    text
}

#[test]
fn every_file_is_served_with_a_strict_policy_and_names_nothing_elsewhere() {
    let collector = Collector::start(ANY).expect("starts");
    let (status, _, page) = ask(&collector, "/", "Host: localhost\r\n");
    assert_eq!(status, 200);
    let files: Vec<&str> = ["href=\"/", "src=\"/"]
        .iter()
        .flat_map(|start| page.split(start).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    let scripts = ["dom.js", "machines.js", "upgrades.js", "waterfall.js", "chart.js"];
    for file in files.into_iter().chain(scripts).chain(["", "api/fleet"]) {
        let (status, head, body) = ask(&collector, &format!("/{file}"), "Host: localhost\r\n");
        assert_eq!(status, 200, "{file}");
        assert!(
            head.contains("Content-Security-Policy: default-src 'none'; "),
            "{head}"
        );
        assert!(
            !head.contains("unsafe") && head.contains("X-Content-Type-Options: nosniff\r\n"),
            "{head}"
        );
        let addresses = body
            .replace("http://www.w3.org/2000/svg", "")
            .replace("ENDPOINT=http://", "");
        assert!(!addresses.contains("://"), "{file} names an address");
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "DOMParser",
        ] {
            assert!(!body.contains(way), "{file} uses {way}");
        }
    }
    assert_eq!(ask(&collector, "/api/nothing", "Host: localhost\r\n").0, 404);
    assert_eq!(collector.received().malformed, 0);
    let mut stream = connect(&collector);
    stream
        .write_all(b"POST /api/fleet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .expect("sent");
    assert_eq!(read_answer(&mut stream).expect("answered").0, 405);
}

#[test]
fn foreign_names_are_refused() {
    let collector = Collector::start(ANY).expect("starts");
    let port = collector.address().port();
    for (headers, expected) in [
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        (format!("Host: LOCALHOST:{port}\r\n"), 200),
        ("Host: [::1]:9\r\n".into(), 200),
        (
            format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"),
            200,
        ),
        (
            format!("Host: localhost:{port}\r\nOrigin: http://evil.example\r\n"),
            403,
        ),
        ("Host: localhost\r\nOrigin: null\r\n".into(), 403),
        ("Host: evil.example\r\n".into(), 403),
        ("Host: localhost.evil.example\r\n".into(), 403),
        ("Host: 127.0.0.1.evil.example\r\n".into(), 403),
        ("Host: [::1].evil.example\r\n".into(), 403),
        ("Host: 10.0.0.1\r\n".into(), 403),
        ("Host:\r\n".into(), 403),
        (String::new(), 403),
    ] {
        for path in ["/", "/api/fleet", "/api/events"] {
            if path != "/api/events" || expected != 200 {
                assert_eq!(ask(&collector, path, &headers).0, expected, "{path} {headers}");
            }
        }
    }
    // A machine in QEMU's user network knows this computer by another name.
    let body = log(1, "x");
    let report = String::from_utf8_lossy(&export("/v1/logs", b"")).replace("Host: x", "Host: 10.0.2.2:4318");
    let report = report.replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
    let mut stream = connect(&collector);
    stream
        .write_all(&[report.as_bytes(), &body].concat())
        .expect("sent");
    assert_eq!(read_answer(&mut stream).expect("answered").0, 200);
}

#[test]
fn a_stream_tells_of_news_and_ends_with_the_collector() {
    let collector = Collector::start(ANY).expect("starts");
    let (mut stream, _) = open_stream(&collector);
    read_until(&mut stream, "event: news\ndata: 0\n\n");
    post(&collector, "/v1/logs", &log(1, "x")).expect("answered");
    read_until(&mut stream, "event: news\ndata: 1\n\n");
    let fleet: serde_json::Value =
        serde_json::from_str(&ask(&collector, "/api/fleet", "Host: localhost\r\n").2).expect("JSON");
    assert_eq!(
        (&fleet["revision"], &fleet["machines"][0]["host"]),
        (&1.into(), &"host".into())
    );
    drop(collector);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end");
}

#[test]
fn streams_and_readers_are_few_and_keep_nobody_from_reporting() {
    let collector = Collector::start(ANY).expect("starts");
    let mut streams: Vec<_> = (0..MAX_STREAMS).map(|_| open_stream(&collector)).collect();
    assert!(streams.iter().all(|(_, start)| start.starts_with("HTTP/1.1 200")));
    let (_, start) = open_stream(&collector);
    assert!(start.starts_with("HTTP/1.1 503"), "{start}");
    assert_eq!(
        ask(&collector, "/", "Host: localhost\r\n").0,
        200,
        "the page itself is still there"
    );
    // None of them reads any more, others never read what they asked for, and there is much to tell.
    let unread = (0..40).map(|_| {
        let mut stream = connect(&collector);
        stream
            .write_all(b"GET /main.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("sent");
        stream
    });
    let unread: Vec<_> = unread.collect();
    for number in 0..200 {
        let (status, ..) = post(&collector, "/v1/logs", &log(1, &number.to_string())).expect("answered");
        assert_eq!(status, 200);
    }
    collector
        .wait_for(|received| received.logs().count() == 200, SOON)
        .expect("all arrive");
    drop(unread);
    // A page that is closed gives its place to another: as soon as the collector writes to it.
    drop(streams.pop());
    let again = (0..200).any(|number| {
        post(&collector, "/v1/logs", &log(1, &format!("again {number}"))).expect("answered");
        let (_, start) = open_stream(&collector);
        start.starts_with("HTTP/1.1 200")
    });
    assert!(again);
}

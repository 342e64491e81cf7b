use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

/// The example of docs/interfaces.md.
const DOCUMENTED: &str = r#"{
  "image": {"name": "hello", "version": "1.0.0", "revision": "", "security_version": 0, "sha256": "…"},
  "generation": 1, "floor": 3, "host_id": "52:54:00:12:34:56", "instance_id": "uuid", "state": "serving",
  "nonce": "32 hex digits", "uptime_ns": 1, "machine_ns": 1, "cores": {"present": 4, "online": 4},
  "memory": {"chunk_bytes": 2097152, "chunks": {"total": 126, "free": 120, "own": 3, "staged": 0, "predecessor": 0},
             "heap": {"bytes": 1, "used": 1}},
  "flush": {"policy": "auto", "will_flush": false, "why": "no TDX KeyIDs and no SME"},
  "confidential": {"role": "host", "vendor": "intel", "hypervisor": false,
                   "tdx": {"enabled": false, "mktme_keyids": 63, "tdx_keyids": 0, "first_tdx_keyid": null},
                   "sme": "absent", "sev": null, "movdir64b": true, "wbnoinvd": true, "partial_write_erratum": true,
                   "tdx_module": {"present": false, "version": null, "why": "not asked: TDX is not enabled by the BIOS"}},
  "measurement": {"chain": "96 hex digits", "count": 1, "whole": true},
  "network": {"mac": "…", "address": "10.0.2.15/24", "gateway": "10.0.2.2", "dns": ["10.0.2.3"], "origin": "dhcp"},
  "telemetry": {"endpoint": "http://10.0.2.2:4318", "queued": 0, "delivered": 0, "dropped": 0},
  "staged": null,
  "last_replacement": {
    "trace_id": "32 hex digits", "from": "1.0.0", "to": "1.1.0", "outcome": "committed",
    "phases_ms": {"receive": 1.0, "verify": 1.0, "first_answer": null},
    "blackout_ms": 1.0,
    "flush": [{"core": 0, "cycles": 1, "ns": 1}],
    "spans": [{"name": "receive", "generation": 1, "start_ns": 1, "end_ns": 2}]
  },
  "history": [{"from": "1.0.0", "to": "1.1.0", "outcome": "committed", "reason": null, "trace_id": "32 hex digits", "blackout_ms": 1.0}]
}"#;

fn answer(status: u16, body: &str) -> Response {
    Response {
        status,
        body: body.as_bytes().to_vec(),
    }
}

#[test]
fn the_documented_status_is_understood() {
    let status: Status = decode(&answer(200, DOCUMENTED), 200).expect("understood");
    assert_eq!(status.memory.chunks.free, 120);
    let confidential = status.confidential.as_ref().expect("told");
    assert_eq!(
        (confidential.role.as_str(), confidential.sme.as_deref()),
        ("host", Some("absent"))
    );
    let tdx = confidential.tdx.expect("told");
    assert_eq!((tdx.mktme_keyids, tdx.first_tdx_keyid), (63, None));
    assert_eq!(status.floor, Some(3));
    assert!(status.measurement.as_ref().is_some_and(|measured| measured.whole));
    assert_eq!(status.history[0].outcome, "committed");
    let replacement = status.last_replacement.expect("one");
    assert_eq!(replacement.phases_ms.get("verify"), Some(&Some(1.0)));
    assert_eq!(replacement.phases_ms.get("first_answer"), Some(&None));
}

#[test]
fn a_refusal_keeps_its_code_and_hint() {
    let body = r#"{"error":{"code":"wrong-key","message":"signed by a stranger","hint":"sign again"}}"#;
    let error = decode::<Status>(&answer(403, body), 200).expect_err("refused");
    let failure = error.during("pushing");
    assert_eq!(failure.exit, Exit::Refused);
    assert_eq!(failure.hint, "sign again");
    assert!(failure.what.contains("403 wrong-key"), "{}", failure.what);
}

#[test]
fn another_server_is_told_apart() {
    for (status, body) in [(200, "<html>"), (404, "<html>"), (200, "{}"), (302, "")] {
        let error = decode::<Status>(&answer(status, body), 200).expect_err("not ours");
        assert_eq!(error.during("asking").exit, Exit::Failed, "{status} {body}");
    }
}

#[test]
fn addresses_are_read() {
    for (text, port) in [
        ("127.0.0.1", PORT),
        ("127.0.0.1:8000", 8000),
        ("http://127.0.0.1:8000/", 8000),
        ("[::1]", PORT),
        ("[::1]:9", 9),
    ] {
        assert_eq!(parse_address(text).expect(text).port(), port);
    }
    for bad in [
        "",
        "http://",
        "127.0.0.1:99999",
        "a b",
        "127.0.0.1:x",
        "127.0.0.1/v1/status",
    ] {
        assert_eq!(parse_address(bad).expect_err(bad).exit, Exit::Usage);
    }
}

#[test]
fn a_pipelines_span_goes_with_images_and_orders() {
    const SPAN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let head = || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\nbody") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            bytes.extend(byte);
        }
        let no = b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(no).expect("an answer");
        String::from_utf8(bytes).expect("text")
    };
    for span in [Some(SPAN), None] {
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                let limits = Limits::patient();
                let pushed = push(address, b"body", span, limits, |_| {});
                (pushed.is_err(), order(address, b"body", span, limits).is_err())
            });
            for path in ["PUT /v1/image ", "POST /v1/orders "] {
                let head = head();
                assert!(head.starts_with(path), "{head}");
                let line = format!("\r\ntraceparent: {SPAN}\r\n");
                assert_eq!(head.contains(&line), span.is_some(), "{head}");
            }
            assert_eq!(client.join().expect("no panic"), (true, true));
        });
    }
}

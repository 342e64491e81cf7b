use super::show::Show;
use super::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as WireSpan};
use prost::Message;
use std::io::{Read, Write};
use std::net::TcpStream;

pub(super) const SOON: Duration = Duration::from_secs(10);
pub(super) const ANY: &str = "127.0.0.1:0";

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn instar(generation: i64) -> Option<Resource> {
    let attributes = vec![
        pair("service.name", Value::StringValue("hello".into())),
        pair("service.version", Value::StringValue(format!("1.{generation}.0"))),
        pair(
            "service.instance.id",
            Value::StringValue(format!("instance-{generation}")),
        ),
        pair("host.id", Value::StringValue("host".into())),
        pair("instar.generation", Value::IntValue(generation)),
    ];
    Some(Resource {
        attributes,
        ..Resource::default()
    })
}

/// A span of trace 7: `(id, parent, name, start in ms, end in ms)`.
type Sketch<'a> = (u8, u8, &'a str, u64, u64);

fn spans(generation: i64, sketches: &[Sketch]) -> Vec<u8> {
    let span = |(id, parent, name, start, end): &Sketch| WireSpan {
        trace_id: vec![7; 16],
        span_id: vec![*id; 8],
        parent_span_id: if *parent == 0 {
            Vec::new()
        } else {
            vec![*parent; 8]
        },
        name: (*name).into(),
        start_time_unix_nano: start * 1_000_000,
        end_time_unix_nano: end * 1_000_000,
        ..WireSpan::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: sketches.iter().map(span).collect(),
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        resource: instar(generation),
        scope_spans,
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

pub(super) fn log(generation: i64, message: &str) -> Vec<u8> {
    let record = LogRecord {
        time_unix_nano: 3_723_004_000_000,
        severity_text: "INFO".into(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(message.into())),
        }),
        ..LogRecord::default()
    };
    let scope = Some(InstrumentationScope {
        name: "net".into(),
        ..InstrumentationScope::default()
    });
    let scope_logs = vec![ScopeLogs {
        scope,
        log_records: vec![record],
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        resource: instar(generation),
        scope_logs,
        ..ResourceLogs::default()
    }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn uptime(generation: i64, seconds: f64) -> Vec<u8> {
    let point = NumberDataPoint {
        value: Some(Number::AsDouble(seconds)),
        time_unix_nano: 5,
        ..NumberDataPoint::default()
    };
    let data = Some(Data::Gauge(Gauge {
        data_points: vec![point],
    }));
    let metrics = vec![Metric {
        name: "system.uptime".into(),
        unit: "s".into(),
        data,
        ..Metric::default()
    }];
    let scope_metrics = vec![ScopeMetrics {
        metrics,
        ..ScopeMetrics::default()
    }];
    let resource = instar(generation);
    let resource_metrics = vec![ResourceMetrics {
        resource,
        scope_metrics,
        ..ResourceMetrics::default()
    }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

pub(super) fn connect(collector: &Collector) -> TcpStream {
    let stream = TcpStream::connect(collector.address()).expect("the collector listens");
    stream.set_read_timeout(Some(SOON)).expect("set");
    stream
}

fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

pub(super) fn export(path: &str, body: &[u8]) -> Vec<u8> {
    request(path, "Content-Type: application/x-protobuf\r\n", body)
}

/// Status, head and body of one answer.
pub(super) fn read_answer(stream: &mut TcpStream) -> std::io::Result<(u16, String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let garbage = std::io::Error::from(std::io::ErrorKind::InvalidData);
    let head = String::from_utf8(head).map_err(std::io::Error::other)?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or(garbage)?;
    let length = head
        .split("Content-Length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .map_or(0, |n| n.parse().expect("number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, head, body))
}

pub(super) fn post(
    collector: &Collector,
    path: &str,
    body: &[u8],
) -> std::io::Result<(u16, String, Vec<u8>)> {
    let mut stream = TcpStream::connect(collector.address())?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(&export(path, body))?;
    read_answer(&mut stream)
}

#[test]
fn takes_all_signals_and_tells_both_ends_apart() {
    let collector = Collector::start(ANY).expect("starts");
    let mut stream = connect(&collector);
    let before = [
        (1, 0, "replace", 0, 100),
        (2, 1, "receive", 0, 40),
        (3, 1, "flush", 50, 60),
    ];
    for (path, body) in [
        ("/v1/traces", spans(1, &before)),
        ("/v1/logs", log(1, "staged")),
        ("/v1/metrics", uptime(1, 1.5)),
        (
            "/v1/traces",
            spans(2, &[(4, 1, "start", 60, 80), (5, 4, "network", 70, 80)]),
        ),
        ("/v1/traces", spans(2, &[(5, 4, "network", 70, 80)])),
    ] {
        stream.write_all(&export(path, &body)).expect("sent");
        let (status, _, answer) = read_answer(&mut stream).expect("answered");
        assert_eq!((status, answer.len()), (200, 0), "{path}");
    }
    let received = collector
        .wait_for(|received| received.spans().count() == 5, SOON)
        .expect("arrives");
    assert_eq!(
        received.from_generation(1),
        Counts {
            spans: 3,
            logs: 1,
            points: 1
        }
    );
    assert_eq!(received.both_ends(1), (5, 2));
    assert_eq!(
        (received.duplicates, received.requests, received.accepted),
        (1, 5, 5)
    );
    assert_eq!(received.by_instance().len(), 2);
    assert_eq!(
        received.points().next().map(|point| point.value.clone()),
        Some(1.5.into())
    );
    let trace = received.trace(&"07".repeat(16)).expect("known");
    assert!(trace.is_complete());
    assert_eq!(trace.root().expect("a root").name, "replace");
    let names: Vec<_> = trace.spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["replace", "receive", "flush", "start", "network"]);
    assert_eq!(
        (received.traces().len(), received.trace("x").is_none()),
        (1, true)
    );
    let drawn = trace.waterfall();
    let lines: Vec<_> = drawn.lines().collect();
    assert_eq!(lines.len(), 6, "{drawn}");
    assert!(
        lines[0].starts_with("replace hello 1.1.0 (generation 1) → hello 1.2.0 (generation 2), 100.0 ms"),
        "{drawn}"
    );
    assert!(lines[1].contains(&"█".repeat(48)), "{drawn}");
    assert!(
        lines[5].contains("    network") && lines[5].contains("▓"),
        "{drawn}"
    );
}

#[test]
fn half_a_trace_is_not_complete() {
    let trace = |parts: &[(i64, &[Sketch])]| {
        let items = parts
            .iter()
            .map(|(generation, sketches)| spans(*generation, sketches));
        let items = items.flat_map(|body| decode::items(decode::Signal::Traces, &body).expect("decodes").0);
        let mut received = Received::default();
        received.take(items.collect());
        received.traces().remove(0)
    };
    assert!(
        !trace(&[(1, &[(1, 0, "replace", 0, 1)])]).is_complete(),
        "one end only"
    );
    assert!(
        !trace(&[(1, &[(2, 1, "a", 0, 1)]), (2, &[(3, 1, "b", 0, 1)])]).is_complete(),
        "no root"
    );
    assert!(
        trace(&[(1, &[(1, 9, "a", 0, 1)]), (2, &[(3, 1, "b", 0, 1)])]).is_complete(),
        "the root's parent is elsewhere"
    );
    let knot = trace(&[(
        1,
        &[
            (1, 2, "a", 5, 1),
            (2, 1, "b", 0, 0),
            (3, 3, "c\x1b[2J", 0, u64::MAX / 1_000_000),
        ],
    )]);
    assert!(!knot.is_complete() && !knot.waterfall().contains('\x1b'));
}

#[test]
fn refuses_what_is_not_otlp_and_lives_on() {
    let collector = Collector::start(ANY).expect("starts");
    let huge = "POST /v1/logs HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_string();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let json =
        String::from_utf8(request("/v1/logs", "Content-Type: application/json\r\n", b"{}")).expect("text");
    let zipped = "Content-Type: application/x-protobuf\r\nContent-Encoding: gzip\r\n";
    let zipped = String::from_utf8(request("/v1/logs", zipped, b"x")).expect("text");
    let garbage = String::from_utf8(export("/v1/logs", b"garbage")).expect("text");
    for (bytes, expected) in [
        (garbage.as_str(), 400),
        ("GARBAGE\r\n\r\n", 400),
        (
            "POST /v1/logs HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        ("POST /v1/logs HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", 400),
        ("GET /favicon.ico HTTP/1.1\r\n\r\n", 404),
        ("GET /v1/logs HTTP/1.1\r\n\r\n", 405),
        ("POST /v1/logs HTTP/1.1\r\n\r\n", 411),
        (
            "POST /v1/logs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            411,
        ),
        (huge.as_str(), 413),
        (json.as_str(), 415),
        (zipped.as_str(), 415),
        (long.as_str(), 431),
    ] {
        let mut stream = connect(&collector);
        stream.write_all(bytes.as_bytes()).expect("sent");
        let (status, ..) = read_answer(&mut stream).expect("answered");
        assert_eq!(status, expected, "{}", &bytes[..bytes.len().min(60)]);
    }
    assert_eq!(collector.received().malformed, 12);
    assert_eq!(collector.received().items().count(), 0);
    // A request in single bytes, by a sender that waits for permission.
    let mut stream = connect(&collector);
    let body = log(1, "x");
    let headers = "Content-Type: application/x-protobuf; a=b\r\nExpect: 100-continue\r\n";
    let whole = request("/v1/logs", headers, &body);
    let (head, body) = whole.split_at(whole.len() - body.len());
    head.iter()
        .for_each(|byte| stream.write_all(&[*byte]).expect("sent"));
    assert_eq!(read_answer(&mut stream).expect("answered").0, 100);
    stream.write_all(body).expect("sent");
    assert_eq!(read_answer(&mut stream).expect("answered").0, 200);
    assert_eq!(collector.received().logs().count(), 1);
}

#[test]
fn spans_with_invalid_ids_are_a_partial_success() {
    let collector = Collector::start(ANY).expect("starts");
    let (status, _, body) = post(
        &collector,
        "/v1/traces",
        &spans(1, &[(0, 0, "bad", 0, 1), (1, 0, "good", 0, 1)]),
    )
    .expect("answered");
    let answer = ExportTraceServiceResponse::decode(&*body).expect("decodes");
    assert_eq!(
        (status, answer.partial_success.expect("partial").rejected_spans),
        (200, 1)
    );
    assert_eq!(collector.received().spans().count(), 1);
}

#[test]
fn prints_lines_that_nobody_outside_can_break() {
    let collector = Collector::start(ANY).expect("starts");
    post(&collector, "/v1/logs", &log(1, "up\n\x1b[31mred")).expect("answered");
    post(&collector, "/v1/metrics", &uptime(1, 2.0)).expect("answered");
    let mut next = 0;
    let items = collector.items_since(&mut next, SOON);
    assert_eq!((items.len(), next), (2, 2));
    let mut text = Vec::new();
    Show::new(false).items(&mut text, &items).expect("written");
    let text = String::from_utf8(text).expect("text");
    let expected = "● hello 1.1.0 generation 1 on host, instance instance-1\n01:02:03.004 host 1 INFO  net: up\u{fffd}\u{fffd}[31mred\n";
    assert_eq!(text, expected);
    let mut json = Vec::new();
    Show::new(true).items(&mut json, &items).expect("written");
    let json = String::from_utf8(json).expect("text");
    let objects: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        (&objects[0]["kind"], &objects[1]["kind"]),
        (&"log".into(), &"metric".into())
    );
    assert_eq!(objects[1]["resource"]["instar.generation"], 1);
}

//! The judge lets a good conversation pass, and finds each fault in a bad one.

use super::{Body, Expected, Request, problems};
use libos::telemetry::names;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        metric::Data, number_data_point::Value as Number,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};

const SECOND: u64 = 1_000_000_000;
const BOOT: u64 = 1_700_000_000 * SECOND;
const ONE: &str = "0b0e1c56-7c1f-4a4c-9a52-7a1c38c2c001";
const TWO: &str = "0b0e1c56-7c1f-4a4c-9a52-7a1c38c2c002";

fn any(text: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Value::StringValue(text.into())),
    })
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: any(value),
        ..KeyValue::default()
    }
}

fn resource(instance: &str) -> Option<Resource> {
    let pairs = [
        ("service.name", "hello"),
        ("service.version", "1.0.0"),
        ("service.instance.id", instance),
        ("host.id", "here"),
        ("telemetry.sdk.name", "instar"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", "0.1.0"),
        ("rack", "7"),
    ];
    Some(Resource {
        attributes: pairs.map(|(key, value)| pair(key, value)).to_vec(),
        ..Resource::default()
    })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "instar".into(),
        ..InstrumentationScope::default()
    })
}

fn request(second: u64, body: Body) -> Request {
    Request {
        content_type: "application/x-protobuf".into(),
        received_ns: BOOT + second * SECOND,
        body,
    }
}

fn point(start: u64, second: u64, number: i64) -> NumberDataPoint {
    NumberDataPoint {
        start_time_unix_nano: BOOT + start * SECOND,
        time_unix_nano: BOOT + second * SECOND,
        value: Some(Number::AsInt(number)),
        ..NumberDataPoint::default()
    }
}

/// At this second, by an instar that was entered at `start`: a counter of its own, one since cold boot, a gauge, a
/// histogram of the application's.
fn metrics(instance: &str, start: u64, second: u64, own: i64, since_boot: i64) -> Request {
    let counter = |metric: names::Metric, point| Metric {
        name: metric.name().into(),
        unit: metric.unit().into(),
        data: Some(Data::Sum(Sum {
            data_points: vec![point],
            aggregation_temporality: 2,
            is_monotonic: true,
        })),
        ..Metric::default()
    };
    let gauge = Metric {
        name: names::UPTIME.name().into(),
        unit: names::UPTIME.unit().into(),
        data: Some(Data::Gauge(Gauge {
            data_points: vec![point(start, second, 5)],
        })),
        ..Metric::default()
    };
    let histogram = Metric {
        name: "requests.duration".into(),
        unit: "s".into(),
        data: Some(Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                start_time_unix_nano: BOOT + start * SECOND,
                time_unix_nano: BOOT + second * SECOND,
                count: 3,
                explicit_bounds: vec![0.1, 1.0],
                bucket_counts: vec![1, 2, 0],
                ..HistogramDataPoint::default()
            }],
            aggregation_temporality: 2,
        })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics {
        scope: scope(),
        metrics: vec![
            counter(names::EXPORT_RETRIES, point(start, second, own)),
            counter(names::NMIS, point(0, second, since_boot)),
            gauge,
            histogram,
        ],
        ..ScopeMetrics::default()
    }];
    let body = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource(instance),
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    };
    request(second, Body::Metrics(body))
}

fn log(second: u64, text: &str) -> Request {
    let record = LogRecord {
        time_unix_nano: BOOT + second * SECOND,
        observed_time_unix_nano: BOOT + second * SECOND,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: any(text),
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs {
        scope: scope(),
        log_records: vec![record],
        ..ScopeLogs::default()
    }];
    let body = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(ONE),
            scope_logs,
            ..ResourceLogs::default()
        }],
    };
    request(second, Body::Logs(body))
}

fn spans(second: u64, ids: &[(u8, u8)]) -> Request {
    let id = |number: u8| if number == 0 { Vec::new() } else { vec![number; 8] };
    let spans = ids.iter().map(|(number, parent)| Span {
        trace_id: vec![7; 16],
        span_id: id(*number),
        parent_span_id: id(*parent),
        name: format!("span {number}"),
        kind: 1,
        start_time_unix_nano: BOOT + (second - 1) * SECOND,
        end_time_unix_nano: BOOT + second * SECOND,
        ..Span::default()
    });
    let scope_spans = vec![ScopeSpans {
        scope: scope(),
        spans: spans.collect(),
        ..ScopeSpans::default()
    }];
    let body = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(TWO),
            scope_spans,
            ..ResourceSpans::default()
        }],
    };
    request(second, Body::Traces(body))
}

fn expected() -> Expected {
    Expected {
        since_ns: BOOT,
        operators: vec!["rack".into()],
        parents: vec!["0909090909090909".into()],
    }
}

/// An upgrade at second 10.
fn good() -> Vec<Request> {
    vec![
        log(1, "hello"),
        metrics(ONE, 0, 5, 3, 2),
        metrics(TWO, 10, 15, 1, 2),
        spans(16, &[(1, 9), (2, 1), (3, 1)]),
        spans(17, &[(3, 1), (4, 2)]),
    ]
}

#[test]
fn a_good_conversation_passes() {
    // The third span came twice: the same, but told at another time, so it is another one to `same`.
    let mut requests = good();
    requests.pop();
    assert_eq!(problems(&requests, &expected()), Vec::<String>::new());
    requests.push(spans(16, &[(3, 1), (4, 2)]));
    assert_eq!(problems(&requests, &expected()), Vec::<String>::new());
}

#[test]
fn a_span_that_comes_again_changed_is_found() {
    let found = problems(&good(), &expected());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("its id is also that of"), "{found:?}");
}

fn assert_found(words: &str, problems: &[String]) {
    assert!(
        problems.iter().any(|problem| problem.contains(words)),
        "{words}: {problems:?}"
    );
}

/// What is complained about, and how to bring that about.
type Fault<T> = (&'static str, fn(&mut T));

fn first_metric(request: &mut Request, change: impl FnOnce(&mut Metric)) {
    if let Body::Metrics(body) = &mut request.body {
        change(&mut body.resource_metrics[0].scope_metrics[0].metrics[0]);
    }
}

fn number(request: &mut Request, change: impl FnOnce(&mut NumberDataPoint)) {
    first_metric(request, |metric| {
        if let Some(Data::Sum(sum)) = &mut metric.data {
            change(&mut sum.data_points[0]);
        }
    });
}

fn histogram(request: &mut Request, change: impl FnOnce(&mut HistogramDataPoint)) {
    if let Body::Metrics(body) = &mut request.body
        && let Some(Data::Histogram(histogram)) =
            &mut body.resource_metrics[0].scope_metrics[0].metrics[3].data
    {
        change(&mut histogram.data_points[0]);
    }
}

fn who(request: &mut Request, change: impl FnOnce(&mut Vec<KeyValue>)) {
    if let Body::Metrics(body) = &mut request.body {
        change(
            &mut body.resource_metrics[0]
                .resource
                .as_mut()
                .expect("a resource")
                .attributes,
        );
    }
}

#[test]
fn every_fault_of_a_metric_is_found() {
    let faults: [Fault<Request>; 22] = [
        ("content type", |it| it.content_type = "text/plain".into()),
        ("no telemetry.sdk.name", |it| {
            who(it, |all| all.retain(|pair| pair.key != "telemetry.sdk.name"));
        }),
        ("not a UUID", |it| {
            who(it, |all| all[2] = pair("service.instance.id", "7"))
        }),
        ("there twice", |it| who(it, |all| all.push(all[0].clone()))),
        ("rack2 is not on the allow-list", |it| {
            who(it, |all| all.push(pair("rack2", "7")));
        }),
        ("rack is not on the allow-list", |it| {
            number(it, |point| point.attributes.push(pair("rack", "7")));
        }),
        ("has no value", |it| who(it, |all| all[0].value = None)),
        ("may hold an address", |it| {
            who(it, |all| all[0] = pair("service.name", "at 0x7fffed"));
        }),
        ("no scope", |it| {
            if let Body::Metrics(body) = &mut it.body {
                body.resource_metrics[0].scope_metrics[0].scope = None;
            }
        }),
        ("its name is empty", |it| {
            first_metric(it, |metric| metric.name.clear())
        }),
        ("its unit is empty", |it| {
            first_metric(it, |metric| metric.unit.clear())
        }),
        ("is listed", |it| {
            first_metric(it, |metric| metric.unit = "By".into())
        }),
        ("and were", |it| {
            first_metric(it, |metric| metric.unit = "By".into())
        }),
        ("it is not on the list", |it| {
            first_metric(it, |metric| metric.name = "instar.mystery".into());
        }),
        ("not cumulative", |it| {
            first_metric(it, |metric| {
                if let Some(Data::Sum(sum)) = &mut metric.data {
                    sum.aggregation_temporality = 1;
                }
            });
        }),
        ("without a number", |it| number(it, |point| point.value = None)),
        ("its time is before its start", |it| {
            number(it, |point| point.start_time_unix_nano = point.time_unix_nano + 1);
        }),
        ("its time is 1", |it| number(it, |point| point.time_unix_nano = 1)),
        ("less than nothing", |it| {
            number(it, |point| point.value = Some(Number::AsInt(-1)));
        }),
        ("do not rise", |it| {
            histogram(it, |point| point.explicit_bounds = vec![1.0, 0.1])
        }),
        ("one bucket more", |it| {
            histogram(it, |point| point.bucket_counts = vec![1, 2])
        }),
        ("do not add up", |it| histogram(it, |point| point.count = 4)),
    ];
    for (words, damage) in faults {
        let mut requests = vec![metrics(ONE, 0, 5, 3, 2), metrics(ONE, 0, 15, 3, 2)];
        assert_eq!(problems(&requests, &expected()), Vec::<String>::new());
        damage(&mut requests[1]);
        assert_found(words, &problems(&requests, &expected()));
    }
}

#[test]
fn counters_that_do_not_begin_again_are_found() {
    let fell = |requests: &[Request]| {
        let found = problems(requests, &expected());
        found.iter().any(|problem| problem.contains("it fell from"))
    };
    let before = metrics(ONE, 0, 5, 3, 2);
    // The successor counts from nothing, but says that it counts since the predecessor's start.
    assert!(fell(&[before.clone(), metrics(TWO, 0, 15, 1, 2)]));
    // What is counted since cold boot has forgotten something.
    assert!(fell(&[before.clone(), metrics(TWO, 10, 15, 1, 1)]));
    // The same in the order in which a queue may deliver it.
    assert!(fell(&[metrics(TWO, 10, 15, 1, 1), before.clone()]));
    assert!(!fell(&[metrics(TWO, 10, 15, 1, 2), before.clone()]));
    let found = problems(&[before, metrics(ONE, 1, 15, 3, 2)], &expected());
    assert_found("its start moved", &found);
}

#[test]
fn every_fault_of_a_span_is_found() {
    let one = |change: fn(&mut Span)| {
        let mut request = spans(16, &[(1, 0), (2, 1)]);
        if let Body::Traces(body) = &mut request.body {
            change(&mut body.resource_spans[0].scope_spans[0].spans[1]);
        }
        problems(&[request], &expected())
    };
    assert_eq!(one(|_| {}), Vec::<String>::new());
    let faults: [Fault<Span>; 11] = [
        ("its trace id is invalid", |span| span.trace_id = vec![0; 16]),
        ("its span id is invalid", |span| span.span_id = vec![1; 7]),
        ("its parent's id is invalid", |span| {
            span.parent_span_id = vec![1; 9]
        }),
        ("its own parent", |span| {
            span.parent_span_id = span.span_id.clone()
        }),
        ("its parent never came", |span| span.parent_span_id = vec![5; 8]),
        ("2 roots", |span| span.parent_span_id.clear()),
        ("its id is also that of", |span| span.span_id = vec![1; 8]),
        ("its name is empty", |span| span.name.clear()),
        ("ends before it begins", |span| {
            span.end_time_unix_nano = span.start_time_unix_nano - 1
        }),
        ("its end is", |span| span.end_time_unix_nano += 10 * SECOND),
        ("not on the allow-list", |span| {
            span.attributes.push(pair("user", "x"))
        }),
    ];
    for (words, fault) in faults {
        assert_found(words, &one(fault));
    }
}

#[test]
fn every_fault_of_a_log_record_is_found() {
    let one = |change: fn(&mut LogRecord)| {
        let mut request = log(5, "hello");
        if let Body::Logs(body) = &mut request.body {
            change(&mut body.resource_logs[0].scope_logs[0].log_records[0]);
        }
        problems(&[request], &expected())
    };
    assert_eq!(one(|_| {}), Vec::<String>::new());
    let faults: [Fault<LogRecord>; 7] = [
        ("its time is 0", |record| record.time_unix_nano = 0),
        ("before it happened", |record| record.time_unix_nano += 1),
        ("its severity is", |record| record.severity_number = 0),
        ("its severity's text is empty", |record| {
            record.severity_text.clear()
        }),
        ("it has no body", |record| record.body = None),
        ("may hold an address", |record| {
            record.body = any("free at 0xffff8000")
        }),
        ("its trace id is 01", |record| record.trace_id = vec![1]),
    ];
    for (words, fault) in faults {
        assert_found(words, &one(fault));
    }
}

#[test]
fn only_otlps_paths_and_messages_decode() {
    assert!(Body::decode("/v1/metrics", &[]).is_ok());
    assert!(Body::decode("/v1/metrics", &[0xff]).is_err());
    assert!(Body::decode("/v2/metrics", &[]).is_err());
}

//! What we encode, decoded with the official types.

use super::exporter::Counters;
use super::metrics::{Chunks, Core, KeyIds, Network, Replacements, Snapshot};
use super::model::Distribution;
use super::names::{self, Kind};
use super::resource::{Identity, resource, uuid_v4};
use super::span::{Context, Event, Outcome, Span, SpanId, TraceId, traceparent};
use super::{Resource, logs, metrics, otlp, span};
use crate::confidential::module::Module;
use crate::confidential::platform::{Platform, Role, Vendor};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, metric::Data, number_data_point::Value as Number,
};
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use proptest::prelude::*;
use prost::Message;

pub(super) const BOOT: u64 = 1_700_000_000_000_000_000;

pub(super) fn instar(generation: u64) -> Resource {
    resource(&Identity {
        service_name: "",
        image_name: "hello",
        image_version: "1.0.0",
        revision: "",
        instance_id: uuid_v4([generation as u8; 16]),
        generation,
        host_id: "host",
        measurement: "",
        platform: &Platform {
            vendor: Vendor::Amd,
            hypervisor: true,
            role: Role::TdxGuest,
            movdir64b: false,
            wbnoinvd: false,
            partial_write_erratum: false,
        },
        tdx_module: &Module::absent(&""),
        attributes: &[],
    })
}

pub(super) fn snapshot() -> Snapshot {
    Snapshot {
        start_unix_ns: BOOT + 50,
        boot_unix_ns: BOOT,
        uptime_ns: 1_500_000_000,
        chunk_bytes: 2 << 20,
        chunks: Chunks {
            free: 120,
            own: 3,
            staged: 2,
            predecessor: 1,
            private: 4,
            preserved: 5,
        },
        private_pages: super::metrics::PrivatePages {
            module: 512,
            td: 1536,
        },
        heap_bytes: 4 << 20,
        heap_used: 1234,
        cores: (0..4)
            .map(|number| Core {
                number,
                busy_ns: 1_000_000_000 + number,
                idle_ns: 500_000_000,
                tasks: 7,
            })
            .collect(),
        network: Network {
            rx_bytes: 1,
            tx_bytes: 2,
            rx_packets: 3,
            tx_packets: 4,
            rx_drops: 5,
            tx_drops: u64::MAX,
            rx_errors: 6,
            tx_errors: 7,
        },
        tcp_states: [0, 5, 0, 0, 2, 0, 0, 0, 0, 0, 1],
        keyids: Some(KeyIds { mktme: 31, tdx: 32 }),
        replacements: Replacements {
            committed: 7,
            rolled_back: 8,
            failed: 9,
        },
        security_floor: 12,
        machine_checks: 10,
        nmis: 11,
        dropped_records: 12,
        blackout_ns: Some(12_000_000),
        flushes: [&[0, 2, 1][..], &[0, 0, 0]].map(|counts| Distribution {
            bounds: &[0.001, 0.01],
            counts: counts.to_vec(),
            sum: 0.5,
        }),
        telemetry: Counters {
            delivered: [1, 2, 3],
            retries: 4,
            queued_bytes: 5,
            ..Counters::default()
        },
    }
}

#[test]
fn metrics_as_the_specification_has_them() {
    let families = metrics::families(&snapshot());
    let body = otlp::body(
        &instar(1),
        BOOT + 90,
        &[("instar", &families), ("application", &[])],
    );
    let request = ExportMetricsServiceRequest::decode(&*body).expect("decodes");
    assert_eq!(
        request.resource_metrics[0].scope_metrics.len(),
        1,
        "no empty scope"
    );
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!(
        metrics.len(),
        names::METRICS.len(),
        "each metric of the list is sent"
    );
    for metric in metrics {
        let listed = names::METRICS
            .iter()
            .find(|listed| listed.name() == metric.name)
            .expect("listed");
        assert_eq!(metric.unit, listed.unit());
        let (kind, points) = match metric.data.as_ref().expect("data") {
            Data::Gauge(gauge) => (Kind::Gauge, &gauge.data_points),
            Data::Sum(sum) => {
                assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
                (
                    if sum.is_monotonic {
                        Kind::Counter
                    } else {
                        Kind::UpDownCounter
                    },
                    &sum.data_points,
                )
            }
            Data::Histogram(histogram) => {
                assert_eq!(listed.kind(), Kind::Histogram);
                assert_eq!(
                    histogram.aggregation_temporality(),
                    AggregationTemporality::Cumulative
                );
                continue;
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(kind, listed.kind(), "{}", metric.name);
        assert!(!points.is_empty());
        for (index, point) in points.iter().enumerate() {
            assert!(BOOT <= point.start_time_unix_nano && point.start_time_unix_nano < point.time_unix_nano);
            assert!(point.value.is_some());
            assert!(
                points[..index]
                    .iter()
                    .all(|other| other.attributes != point.attributes),
                "one stream twice"
            );
        }
    }
    let points = |name: &str| match &metrics
        .iter()
        .find(|metric| metric.name == name)
        .expect("sent")
        .data
    {
        Some(Data::Gauge(gauge)) => gauge.data_points.clone(),
        Some(Data::Sum(sum)) => sum.data_points.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(points("system.uptime")[0].value, Some(Number::AsDouble(1.5)));
    assert_eq!(
        points("system.memory.limit")[0].value,
        Some(Number::AsInt(135 * (2 << 20)))
    );
    let private = points("instar.private.pages");
    assert_eq!(
        [&private[0].value, &private[1].value],
        [&Some(Number::AsInt(512)), &Some(Number::AsInt(1536))]
    );
    assert_eq!(
        points("system.network.packet.dropped")[1].value,
        Some(Number::AsInt(i64::MAX))
    );
    assert_eq!(points("system.network.io")[0].start_time_unix_nano, BOOT + 50);
    for since_boot in ["instar.replacements", "instar.machine_checks", "instar.nmis"] {
        assert_eq!(points(since_boot)[0].start_time_unix_nano, BOOT, "{since_boot}");
    }
    assert_eq!(points("instar.replacements")[1].start_time_unix_nano, BOOT + 50);
    assert_eq!(points("instar.machine_checks")[0].value, Some(Number::AsInt(10)));
    assert_eq!(points("instar.nmis")[0].value, Some(Number::AsInt(11)));
    assert_eq!(
        points("system.cpu.time")[2].value,
        Some(Number::AsDouble(1.000_000_001))
    );
    assert_eq!(
        points("instar.replacement.blackout")[0].value,
        Some(Number::AsDouble(0.012))
    );
}

#[test]
fn histograms_as_the_specification_has_them() {
    let families = metrics::families(&snapshot());
    let body = otlp::body(&instar(1), BOOT + 90, &[("instar", &families)]);
    let request = ExportMetricsServiceRequest::decode(&*body).expect("decodes");
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let flushes = metrics
        .iter()
        .find(|metric| metric.name == "instar.flush.duration");
    let Some(Data::Histogram(histogram)) = &flushes.expect("sent").data else {
        panic!("{flushes:?}")
    };
    let [stop, early] = &histogram.data_points[..] else {
        panic!("{histogram:?}")
    };
    assert_eq!(
        (
            stop.count,
            stop.sum,
            &stop.bucket_counts[..],
            &stop.explicit_bounds[..]
        ),
        (3, Some(0.5), &[0, 2, 1][..], &[0.001, 0.01][..])
    );
    assert_eq!((early.count, early.start_time_unix_nano), (0, BOOT + 50));
    assert_eq!(early.attributes[0].key, "instar.flush.moment");
}

#[test]
fn logs_by_scope_and_bounded() {
    let long = "ä".repeat(2000);
    let trace = Some(Context {
        trace_id: TraceId::new([7; 16]),
        span_id: SpanId::new([8; 8]),
        flags: 3,
    });
    let record = |machine_ns, level, target, message| logs::Record {
        machine_ns,
        level,
        target,
        message,
        trace,
    };
    let records = [
        record(1, log::Level::Info, "net", "up"),
        record(2, log::Level::Error, "replace", &long),
        record(3, log::Level::Warn, "net", ""),
    ];
    let body = logs::body(BOOT, BOOT + 10, &instar(1), &records);
    let request = ExportLogsServiceRequest::decode(&*body).expect("decodes");
    let scopes = &request.resource_logs[0].scope_logs;
    let shape: Vec<_> = scopes
        .iter()
        .map(|logs| (logs.scope.clone().expect("scope").name, logs.log_records.len()))
        .collect();
    assert_eq!(shape, [("net".to_string(), 2), ("replace".to_string(), 1)]);
    let first = &scopes[0].log_records[0];
    assert_eq!(
        (first.time_unix_nano, first.observed_time_unix_nano),
        (BOOT + 1, BOOT + 10)
    );
    assert_eq!((first.severity_number, first.severity_text.as_str()), (9, "INFO"));
    assert_eq!(
        (&first.trace_id[..], &first.span_id[..], first.flags),
        (&[7; 16][..], &[8; 8][..], 3)
    );
    let Some(Any::StringValue(text)) = scopes[1].log_records[0].body.clone().and_then(|any| any.value) else {
        panic!("no text")
    };
    assert!(text.ends_with("ä…") && text.len() <= super::records::MAX_MESSAGE);
    assert!(logs::body(0, 0, &instar(1), &[]).is_empty());
}

#[test]
fn spans_of_both_instars_in_one_trace() {
    let (trace, whole) = (TraceId::new([3; 16]), SpanId::new([4; 8]));
    let span = |name, generation, index, start, end| {
        Span::new(
            name,
            trace,
            whole.part(generation, index),
            Some(whole),
            start,
            end,
        )
    };
    let mut flush = span("flush", 1, 1, 20, 30)
        .with(names::CORE, 2u64)
        .with(names::FLUSHED, super::Value::Bool(true));
    flush.events.push(Event {
        name: "reported".into(),
        at_ns: 29,
        attributes: vec![(names::ERROR_TYPE, "x".into())],
    });
    flush.outcome = Outcome::Error("slow".into());
    let root = Span::new("replace", trace, whole, None, 10, 60);
    let before = [root, flush];
    let after = [span("start", 2, 0, 50, 40)];
    let (one, two) = (instar(1), instar(2));
    let body = span::body(BOOT, &[(&one, &before), (&two, &after), (&two, &[])]);
    let request = ExportTraceServiceRequest::decode(&*body).expect("decodes");
    assert_eq!(request.resource_spans.len(), 2);
    let spans: Vec<_> = request
        .resource_spans
        .iter()
        .flat_map(|part| &part.scope_spans[0].spans)
        .collect();
    assert!(
        spans
            .iter()
            .all(|span| span.trace_id == [3; 16] && span.span_id.len() == 8)
    );
    assert!(
        spans
            .iter()
            .all(|span| span.start_time_unix_nano <= span.end_time_unix_nano)
    );
    assert_eq!(
        (spans[0].parent_span_id.len(), &spans[1].parent_span_id),
        (0, &spans[0].span_id)
    );
    let flush = spans[1];
    assert_eq!(
        (flush.start_time_unix_nano, flush.end_time_unix_nano),
        (BOOT + 20, BOOT + 30)
    );
    assert_eq!(flush.kind(), SpanKind::Internal);
    let keys: Vec<_> = flush.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(keys, ["cpu.logical_number", "instar.flush.done"]);
    assert_eq!(
        (flush.events[0].name.as_str(), flush.events[0].time_unix_nano),
        ("reported", BOOT + 29)
    );
    let status = flush.status.clone().expect("status");
    assert_eq!(
        (status.code(), status.message.as_str()),
        (StatusCode::Error, "slow")
    );
    assert!(span::body(BOOT, &[]).is_empty());
}

#[test]
fn span_ids_are_stable_and_distinct() {
    let parts = |whole: [u8; 8]| {
        let whole = SpanId::new(whole);
        (0..50).flat_map(move |generation| (0..50).map(move |index| whole.part(generation, index).bytes()))
    };
    assert_eq!(parts([9; 8]).nth(7), parts([9; 8]).nth(7));
    // Two replacements may be of one trace, in one machine or in two.
    let mut ids: Vec<_> = parts([9; 8]).chain(parts([10; 8])).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5000);
    assert_ne!(TraceId::new([0; 16]).bytes(), [0; 16]);
    assert_ne!(SpanId::new([0; 8]).bytes(), [0; 8]);
}

#[test]
fn trace_context() {
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let client = traceparent(header).expect("valid");
    assert_eq!(
        (
            client.trace_id.text().as_str(),
            client.span_id.text().as_str(),
            client.flags
        ),
        ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
    );
    assert!(traceparent(&(header.replacen("00", "cc", 1) + "-more")).is_some());
    for bad in [
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
    ] {
        assert_eq!(traceparent(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn any_span_decodes(name in "\\PC{0,20}", trace: [u8; 16], id: [u8; 8], start: u64, end: u64, boot: u64, error in "\\PC{0,20}") {
        let mut span = Span::new(name.clone(), TraceId::new(trace), SpanId::new(id), None, start, end);
        span.outcome = Outcome::Error(error);
        let body = span::body(boot, &[(&instar(1), &[span])]);
        let request = ExportTraceServiceRequest::decode(&*body).expect("decodes");
        let decoded = &request.resource_spans[0].scope_spans[0].spans[0];
        prop_assert_eq!(&decoded.name, &name);
        prop_assert!(decoded.start_time_unix_nano <= decoded.end_time_unix_nano);
    }

    #[test]
    fn any_traceparent_is_an_answer(header in "\\PC{0,70}") {
        let _ = traceparent(&header);
    }
}

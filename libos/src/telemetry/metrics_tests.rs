//! The metrics that we encode, decoded with the official types.

use super::counters::Counters;
use super::metrics::{Chunks, Core, KeyIds, Network, Replacements, Snapshot, Syslog};
use super::model::Distribution;
use super::names::{self, Kind};
use super::wire_tests::{BOOT, instar};
use super::{metrics, otlp};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, metric::Data, number_data_point::Value as Number,
};
use prost::Message;

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
        syslog: Some(Syslog {
            delivered: 14,
            dropped: 15,
        }),
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

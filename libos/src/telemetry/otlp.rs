//! Metrics as OTLP (`metrics.v1`).

use alloc::vec::Vec;
use prost::Message;

use super::model::{Family, Label, Point, Value};
use super::names::Kind;
use super::proto::{self, Data, HistogramDataPoint, KeyValue, Number, NumberDataPoint, Resource};

/// The body of a metrics request: an `ExportMetricsServiceRequest` with the families of each scope. `now_unix_ns` is when
/// they were gathered.
pub fn body(resource: &Resource, now_unix_ns: u64, scopes: &[(&str, &[Family])]) -> Vec<u8> {
    let scope_metrics = scopes
        .iter()
        .filter(|(_, families)| !families.is_empty())
        .map(|(name, families)| proto::ScopeMetrics {
            scope: Some(proto::InstrumentationScope { name: (*name).into() }),
            metrics: families
                .iter()
                .map(|family| metric(family, now_unix_ns))
                .collect(),
        });
    let resource_metrics = alloc::vec![proto::ResourceMetrics {
        resource: Some(resource.clone()),
        scope_metrics: scope_metrics.collect(),
    }];
    proto::MetricsRequest { resource_metrics }.encode_to_vec()
}

fn metric(family: &Family, now_unix_ns: u64) -> proto::Metric {
    let numbers = || {
        let points = family.points.iter();
        points
            .filter_map(|point| Some(number(point, now_unix_ns, scalar(&point.value)?)))
            .collect()
    };
    let sum = |is_monotonic| {
        Data::Sum(proto::Sum {
            data_points: numbers(),
            aggregation_temporality: proto::CUMULATIVE,
            is_monotonic,
        })
    };
    let data = match family.metric.kind {
        Kind::Gauge => Data::Gauge(proto::Gauge {
            data_points: numbers(),
        }),
        Kind::Counter => sum(true),
        Kind::UpDownCounter => sum(false),
        Kind::Histogram => Data::Histogram(proto::Histogram {
            data_points: family
                .points
                .iter()
                .filter_map(|point| histogram(point, now_unix_ns))
                .collect(),
            aggregation_temporality: proto::CUMULATIVE,
        }),
    };
    proto::Metric {
        name: family.metric.name.into(),
        unit: family.metric.unit.into(),
        data: Some(data),
    }
}

fn scalar(value: &Value) -> Option<Number> {
    match value {
        Value::Int(number) => Some(Number::Int(*number)),
        Value::Double(number) => Some(Number::Double(*number)),
        Value::Histogram(_) => None,
    }
}

fn number(point: &Point, now_unix_ns: u64, value: Number) -> NumberDataPoint {
    NumberDataPoint {
        start_time_unix_nano: point.start_unix_ns,
        time_unix_nano: now_unix_ns,
        value: Some(value),
        attributes: attributes(point),
    }
}

fn histogram(point: &Point, now_unix_ns: u64) -> Option<HistogramDataPoint> {
    let Value::Histogram(distribution) = &point.value else {
        return None;
    };
    Some(HistogramDataPoint {
        start_time_unix_nano: point.start_unix_ns,
        time_unix_nano: now_unix_ns,
        count: distribution.count(),
        sum: Some(distribution.sum),
        bucket_counts: distribution.counts.clone(),
        explicit_bounds: distribution.bounds.to_vec(),
        attributes: attributes(point),
    })
}

fn attributes(point: &Point) -> Vec<KeyValue> {
    let attributes = point.attributes().map(|(attribute, label)| {
        let value = match label {
            Label::Text(text) => text.into(),
            Label::Number(number) => number.into(),
        };
        KeyValue::new(attribute, value)
    });
    attributes.collect()
}

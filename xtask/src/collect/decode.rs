//! From OTLP's official messages to items.

use super::received::{Item, Log, Point, Source, Span};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::{DecodeError, Message};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// The three kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Metrics,
    Logs,
    Traces,
}

impl Signal {
    /// The path that its requests are posted to.
    pub const fn path(self) -> &'static str {
        match self {
            Signal::Metrics => "/v1/metrics",
            Signal::Logs => "/v1/logs",
            Signal::Traces => "/v1/traces",
        }
    }

    /// The signal whose path this is.
    pub fn of_path(path: &str) -> Option<Self> {
        [Signal::Metrics, Signal::Logs, Signal::Traces]
            .into_iter()
            .find(|signal| signal.path() == path)
    }
}

/// The items of a request's body, each with its encoded size, and how many were left out because their ids are invalid.
pub(super) fn items(signal: Signal, body: &[u8]) -> Result<(Vec<(Item, usize)>, i64), DecodeError> {
    let mut items = Vec::new();
    let mut invalid = 0;
    match signal {
        Signal::Metrics => {
            for part in ExportMetricsServiceRequest::decode(body)?.resource_metrics {
                let source = source(part.resource);
                for metric in part.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                    points(&source, metric, &mut items);
                }
            }
        }
        Signal::Logs => {
            for part in ExportLogsServiceRequest::decode(body)?.resource_logs {
                let source = source(part.resource);
                for scope in part.scope_logs {
                    let target = scope.scope.map(|scope| scope.name).unwrap_or_default();
                    for record in scope.log_records {
                        let size = record.encoded_len();
                        let message = match json_of(record.body) {
                            Value::String(text) => text,
                            other => other.to_string(),
                        };
                        // "Time unknown" is 0; then the moment of observation is the best there is.
                        let time_ns = match record.time_unix_nano {
                            0 => record.observed_time_unix_nano,
                            known => known,
                        };
                        let log = Log {
                            source: source.clone(),
                            time_ns,
                            severity: record.severity_text,
                            target: target.clone(),
                            message,
                            trace_id: id::<16>(&record.trace_id),
                        };
                        items.push((Item::Log(Arc::new(log)), size));
                    }
                }
            }
        }
        Signal::Traces => {
            for part in ExportTraceServiceRequest::decode(body)?.resource_spans {
                let source = source(part.resource);
                for span in part.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    let size = span.encoded_len();
                    let (Some(trace_id), Some(span_id)) = (id::<16>(&span.trace_id), id::<8>(&span.span_id))
                    else {
                        invalid += 1;
                        continue;
                    };
                    let failed = span.status.filter(|status| status.code() == StatusCode::Error);
                    let span = Span {
                        source: source.clone(),
                        trace_id,
                        span_id,
                        parent: id::<8>(&span.parent_span_id),
                        name: span.name,
                        start_ns: span.start_time_unix_nano,
                        end_ns: span.end_time_unix_nano,
                        attributes: object(span.attributes),
                        events: span
                            .events
                            .into_iter()
                            .map(|event| (event.time_unix_nano, event.name))
                            .collect(),
                        error: failed.map(|status| status.message),
                    };
                    items.push((Item::Span(Arc::new(span)), size));
                }
            }
        }
    }
    Ok((items, invalid))
}

fn points(source: &Arc<Source>, metric: Metric, items: &mut Vec<(Item, usize)>) {
    let Metric { name, unit, data, .. } = metric;
    let mut push = |monotonic, start_ns, time_ns, value, attributes, size| {
        let (metric, unit, attributes) = (name.clone(), unit.clone(), object(attributes));
        let point = Point {
            source: source.clone(),
            metric,
            unit,
            monotonic,
            start_ns,
            time_ns,
            value,
            attributes,
        };
        items.push((Item::Point(Arc::new(point)), size));
    };
    let mut numbers = |points: Vec<NumberDataPoint>, monotonic| {
        for point in points {
            let size = point.encoded_len();
            let value = match point.value {
                Some(Number::AsInt(number)) => json!(number),
                Some(Number::AsDouble(number)) => json!(number),
                None => Value::Null,
            };
            push(
                monotonic,
                point.start_time_unix_nano,
                point.time_unix_nano,
                value,
                point.attributes,
                size,
            );
        }
    };
    match data {
        Some(Data::Gauge(gauge)) => numbers(gauge.data_points, false),
        Some(Data::Sum(sum)) => numbers(sum.data_points, sum.is_monotonic),
        Some(Data::Histogram(histogram)) => {
            for point in histogram.data_points {
                let size = point.encoded_len();
                let value = json!({"count": point.count, "sum": point.sum, "bounds": point.explicit_bounds,
                    "counts": point.bucket_counts});
                push(
                    true,
                    point.start_time_unix_nano,
                    point.time_unix_nano,
                    value,
                    point.attributes,
                    size,
                );
            }
        }
        // Instar sends neither of the others.
        _ => {}
    }
}

fn source(resource: Option<Resource>) -> Arc<Source> {
    let attributes = object(resource.map(|resource| resource.attributes).unwrap_or_default());
    let text = |name: &str| {
        attributes
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Arc::new(Source {
        service: text("service.name"),
        version: text("service.version"),
        instance: text("service.instance.id"),
        host: text("host.id"),
        generation: attributes.get("instar.generation").and_then(Value::as_u64),
        attributes,
    })
}

fn object(pairs: Vec<KeyValue>) -> Map<String, Value> {
    pairs
        .into_iter()
        .map(|pair| (pair.key, json_of(pair.value)))
        .collect()
}

/// Nesting is bounded by prost, which decodes at most 100 levels.
fn json_of(value: Option<AnyValue>) -> Value {
    match value.and_then(|any| any.value) {
        Some(Any::StringValue(text)) => Value::String(text),
        Some(Any::BoolValue(yes)) => Value::Bool(yes),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::DoubleValue(number)) => json!(number),
        Some(Any::ArrayValue(array)) => array
            .values
            .into_iter()
            .map(|value| json_of(Some(value)))
            .collect(),
        Some(Any::KvlistValue(list)) => Value::Object(object(list.values)),
        Some(Any::BytesValue(bytes)) => Value::String(hex(&bytes)),
        Some(Any::StringValueStrindex(_)) | None => Value::Null,
    }
}

/// An id as text; none if it is of another length or all zero, both of which the specification calls invalid.
fn id<const LENGTH: usize>(bytes: &[u8]) -> Option<String> {
    (bytes.len() == LENGTH && bytes.iter().any(|byte| *byte != 0)).then(|| hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

//! Metrics (metrics data model), and what their streams do over time and across a jump.

use super::{Judge, shown};
use libos::telemetry::names;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, HistogramDataPoint, Metric, metric::Data, number_data_point::Value as Number,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// Metrics so called are libos's own, and all on its list.
const OURS: [&str; 3] = ["instar.", "system.", "process."];

/// What was seen of each metric so far.
#[derive(Default)]
pub(super) struct Streams {
    /// Unit and kind of each metric, which all instars agree on.
    metrics: BTreeMap<String, (String, &'static str)>,
    /// When each instar's streams begin.
    starts: BTreeMap<(String, String), u64>,
    /// What a counter has counted since a start, and when that was told.
    counted: BTreeMap<(String, u64), (u64, f64)>,
}

/// One point, of whatever kind.
struct Point<'a> {
    start_ns: u64,
    time_ns: u64,
    attributes: &'a [KeyValue],
    /// What only grows in it; none in a gauge.
    grows: Option<f64>,
}

impl Judge<'_> {
    pub(super) fn metrics(&mut self, body: &ExportMetricsServiceRequest, streams: &mut Streams) {
        self.demand(!body.resource_metrics.is_empty(), "metrics", "an empty request");
        for part in &body.resource_metrics {
            let instance = self.resource("metrics", part.resource.as_ref());
            for scope in &part.scope_metrics {
                self.scope("metrics", scope.scope.as_ref());
                let mut seen = BTreeSet::new();
                for metric in &scope.metrics {
                    let twice = !seen.insert(&metric.name);
                    self.demand(!twice, &metric.name, "it is there twice in one scope");
                    self.metric(&instance, metric, streams);
                }
            }
        }
    }

    fn metric(&mut self, instance: &str, metric: &Metric, streams: &mut Streams) {
        let place = format!("metric {}", metric.name);
        self.text("metric", "its name", &metric.name);
        self.text(&place, "its unit", &metric.unit);
        self.attributes(&place, &metric.metadata, false);
        let kind = kind(metric);
        self.demand(kind != "none", &place, "it has no data of a known kind");
        let now = (metric.unit.clone(), kind);
        let before = streams
            .metrics
            .entry(metric.name.clone())
            .or_insert_with(|| now.clone());
        if *before != now {
            let what = format!("its unit and kind are {now:?}, and were {before:?}");
            self.complain(&place, &what);
        }
        let listed = names::METRICS.iter().find(|listed| listed.name() == metric.name);
        match listed {
            Some(listed) => {
                let should = (listed.unit().to_owned(), format!("{:?}", listed.kind()));
                let is = (metric.unit.clone(), kind.to_owned());
                self.demand(
                    is == should,
                    &place,
                    &format!("{is:?} where {should:?} is listed"),
                );
            }
            None => {
                let ours = OURS.iter().any(|prefix| metric.name.starts_with(prefix));
                self.demand(!ours, &place, "it is not on the list");
            }
        }
        let points = self.points(&place, metric);
        self.demand(!points.is_empty(), &place, "it has no points");
        let mut seen = BTreeSet::new();
        for point in &points {
            let key = key(&metric.name, point.attributes);
            self.demand(
                seen.insert(key.clone()),
                &key,
                "two points with the same attributes",
            );
            self.point(instance, &key, point, streams);
        }
    }

    fn point(&mut self, instance: &str, key: &str, point: &Point<'_>, streams: &mut Streams) {
        self.attributes(key, point.attributes, false);
        self.moment(key, "its time", point.time_ns);
        let Some(grown) = point.grows else { return };
        self.moment(key, "its start", point.start_ns);
        self.demand(
            point.start_ns <= point.time_ns,
            key,
            "its time is before its start",
        );
        self.demand(grown >= 0.0, key, "it has counted less than nothing");
        let start = *streams
            .starts
            .entry((instance.to_owned(), key.to_owned()))
            .or_insert(point.start_ns);
        self.demand(
            start == point.start_ns,
            key,
            "its start moved within one instar's life",
        );
        // Whoever tells it, from one start on a counter does not fall: a successor that goes on counting must say what its
        // predecessor said. Requests may come in another order than they were made.
        let last = streams
            .counted
            .entry((key.to_owned(), point.start_ns))
            .or_insert((point.time_ns, grown));
        let (earlier, later) = if last.0 <= point.time_ns {
            (last.1, grown)
        } else {
            (grown, last.1)
        };
        if earlier > later {
            self.complain(
                key,
                &format!("it fell from {earlier} to {later}, and its start did not move"),
            );
        }
        if last.0 <= point.time_ns {
            *last = (point.time_ns, grown);
        }
    }

    fn points<'a>(&mut self, place: &str, metric: &'a Metric) -> Vec<Point<'a>> {
        let (numbers, monotonic) = match &metric.data {
            Some(Data::Gauge(gauge)) => (&gauge.data_points, false),
            Some(Data::Sum(sum)) => {
                self.cumulative(place, sum.aggregation_temporality);
                (&sum.data_points, sum.is_monotonic)
            }
            Some(Data::Histogram(histogram)) => {
                self.cumulative(place, histogram.aggregation_temporality);
                let points = &histogram.data_points;
                return points.iter().map(|point| self.histogram(place, point)).collect();
            }
            _ => return Vec::new(),
        };
        let mut points = Vec::new();
        for point in numbers {
            #[expect(
                clippy::cast_precision_loss,
                reason = "beyond 2^53 a fall of one is not looked for"
            )]
            let value = match point.value {
                Some(Number::AsInt(number)) => number as f64,
                Some(Number::AsDouble(number)) => number,
                None => f64::NAN,
            };
            self.demand(value.is_finite(), place, "a point without a number");
            points.push(Point {
                start_ns: point.start_time_unix_nano,
                time_ns: point.time_unix_nano,
                attributes: &point.attributes,
                grows: monotonic.then_some(value),
            });
        }
        points
    }

    fn cumulative(&mut self, place: &str, temporality: i32) {
        let cumulative = temporality == AggregationTemporality::Cumulative as i32;
        self.demand(cumulative, place, "its temporality is not cumulative");
    }

    fn histogram<'a>(&mut self, place: &str, point: &'a HistogramDataPoint) -> Point<'a> {
        let bounds = &point.explicit_bounds;
        self.demand(bounds.is_sorted(), place, "its bounds do not rise");
        let buckets = point.bucket_counts.len();
        let fits = buckets == bounds.len() + 1 || (buckets == 0 && bounds.is_empty());
        self.demand(fits, place, "it has not one bucket more than bounds");
        let sum: u64 = point.bucket_counts.iter().sum();
        self.demand(
            buckets == 0 || sum == point.count,
            place,
            "its buckets do not add up to its count",
        );
        #[expect(clippy::cast_precision_loss, reason = "nothing is counted 2^53 times")]
        let grows = point.count as f64;
        Point {
            start_ns: point.start_time_unix_nano,
            time_ns: point.time_unix_nano,
            attributes: &point.attributes,
            grows: Some(grows),
        }
    }
}

/// The kind, as [`names::Kind`] calls it.
fn kind(metric: &Metric) -> &'static str {
    match &metric.data {
        Some(Data::Gauge(_)) => "Gauge",
        Some(Data::Sum(sum)) if sum.is_monotonic => "Counter",
        Some(Data::Sum(_)) => "UpDownCounter",
        Some(Data::Histogram(_)) => "Histogram",
        _ => "none",
    }
}

/// A stream's name: the metric and its attributes, in order.
fn key(metric: &str, attributes: &[KeyValue]) -> String {
    let mut pairs: Vec<_> = attributes
        .iter()
        .map(|attribute| format!("{}={}", attribute.key, shown(attribute.value.as_ref())))
        .collect();
    pairs.sort();
    format!("{metric}{{{}}}", pairs.join(","))
}

//! What came in, within bounds, and questions about it.

use super::fleet::Fleet;
use super::page::now_ms;
use super::trace::Trace;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Sum of the sizes of what is kept. Beyond it the oldest goes.
const MAX_BYTES: usize = 64 << 20;

/// Requests that are remembered. Beyond it the oldest goes.
const MAX_ARRIVALS: usize = 1 << 16;

/// What an item costs besides its encoded size: the structures that hold it.
const OVERHEAD: usize = 512;

/// Who sent: the resource's attributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// `service.name`.
    pub service: String,
    /// `service.version`.
    pub version: String,
    /// `service.instance.id`: new in each instar.
    pub instance: String,
    /// `host.id`.
    pub host: String,
    /// `instar.generation`, if it is an instar.
    pub generation: Option<u64>,
    /// All attributes of the resource.
    pub attributes: Map<String, Value>,
}

/// A span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Who sent it.
    pub source: Arc<Source>,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The parent's span id.
    pub parent: Option<String>,
    /// What was done.
    pub name: String,
    /// Unix nanoseconds.
    pub start_ns: u64,
    /// Unix nanoseconds.
    pub end_ns: u64,
    /// More about it.
    pub attributes: Map<String, Value>,
    /// Moments within it: time in Unix nanoseconds and name.
    pub events: Vec<(u64, String)>,
    /// The status's message, if the status is an error.
    pub error: Option<String>,
}

/// A log record.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Who sent it.
    pub source: Arc<Source>,
    /// Unix nanoseconds.
    pub time_ns: u64,
    /// `INFO`, …
    pub severity: String,
    /// The instrumentation scope.
    pub target: String,
    /// What was said.
    pub message: String,
    /// The trace it belongs to, 32 hexadecimal digits.
    pub trace_id: Option<String>,
}

/// One point of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Who sent it.
    pub source: Arc<Source>,
    /// The metric's name.
    pub metric: String,
    /// The metric's unit.
    pub unit: String,
    /// A sum that only grows.
    pub monotonic: bool,
    /// Unix nanoseconds.
    pub start_ns: u64,
    /// Unix nanoseconds.
    pub time_ns: u64,
    /// Number, or an object for a histogram.
    pub value: Value,
    /// What distinguishes this stream of points from others of the metric.
    pub attributes: Map<String, Value>,
}

/// Anything that was received.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// From `/v1/traces`.
    Span(Arc<Span>),
    /// From `/v1/logs`.
    Log(Arc<Log>),
    /// From `/v1/metrics`.
    Point(Arc<Point>),
}

impl Item {
    /// Who sent it.
    pub fn source(&self) -> &Arc<Source> {
        match self {
            Item::Span(span) => &span.source,
            Item::Log(log) => &log.source,
            Item::Point(point) => &point.source,
        }
    }

    /// As one JSON object; `kind` tells the three apart.
    pub fn json(&self) -> Value {
        let (mut object, source) = match self {
            Item::Span(span) => (span.json(), &span.source),
            Item::Log(log) => (
                json!({"kind": "log", "time_ns": log.time_ns, "severity": log.severity, "target": log.target,
                    "message": log.message, "trace_id": log.trace_id}),
                &log.source,
            ),
            Item::Point(point) => (
                json!({"kind": "metric", "metric": point.metric, "unit": point.unit, "value": point.value,
                    "monotonic": point.monotonic, "start_ns": point.start_ns, "time_ns": point.time_ns,
                    "attributes": point.attributes}),
                &point.source,
            ),
        };
        object["resource"] = Value::Object(source.attributes.clone());
        object
    }
}

impl Span {
    /// As one JSON object, without the resource.
    pub fn json(&self) -> Value {
        let events: Vec<_> = self
            .events
            .iter()
            .map(|(time, name)| json!({"time_ns": time, "name": name}))
            .collect();
        json!({"kind": "span", "trace_id": self.trace_id, "span_id": self.span_id, "parent": self.parent,
            "name": self.name, "generation": self.source.generation, "start_ns": self.start_ns,
            "end_ns": self.end_ns, "attributes": self.attributes, "events": events, "error": self.error})
    }
}

/// A request, whatever it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it was whole.
    pub at: Instant,
    /// `/v1/metrics`, `/v1/logs` or `/v1/traces`.
    pub path: &'static str,
    /// Length of its head.
    pub head_bytes: usize,
    /// Length of its body.
    pub body_bytes: usize,
    /// The same for the same body, so that one that is sent again can be told.
    pub body: u64,
    /// The status that it was answered with, if it was answered with one.
    pub status: Option<u16>,
}

/// How many items of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans.
    pub spans: usize,
    /// Log records.
    pub logs: usize,
    /// Points of metrics.
    pub points: usize,
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> usize {
        self.spans + self.logs + self.points
    }

    fn add(&mut self, item: &Item) {
        match item {
            Item::Span(_) => self.spans += 1,
            Item::Log(_) => self.logs += 1,
            Item::Point(_) => self.points += 1,
        }
    }
}

/// What came in and is still kept.
#[derive(Clone, Debug, Default)]
pub struct Received {
    items: VecDeque<(Item, usize)>,
    /// Number of the first item kept, counted from 0 at the start: how many were forgotten.
    first: u64,
    bytes: usize,
    spans: HashSet<(String, String)>,
    /// The last requests that were export requests of OTLP, oldest first.
    pub arrivals: VecDeque<Arrival>,
    /// Bytes of answers that were written.
    pub answered_bytes: u64,
    /// Connections, those that were closed at once too.
    pub connections: u64,
    /// What is shown of it.
    pub(super) fleet: Fleet,
    /// Requests, whatever was answered.
    pub requests: u64,
    /// Requests whose items were taken.
    pub accepted: u64,
    /// Requests that were no OTLP: the sender's fault.
    pub malformed: u64,
    /// Spans that came again (at-least-once delivery) and were left out.
    pub duplicates: u64,
}

impl Received {
    /// Everything, oldest first.
    pub fn items(&self) -> impl DoubleEndedIterator<Item = &Item> {
        self.items.iter().map(|(item, _)| item)
    }

    /// Spans, oldest first.
    pub fn spans(&self) -> impl DoubleEndedIterator<Item = &Arc<Span>> {
        self.items().filter_map(|item| {
            if let Item::Span(span) = item {
                Some(span)
            } else {
                None
            }
        })
    }

    /// Log records, oldest first.
    pub fn logs(&self) -> impl DoubleEndedIterator<Item = &Arc<Log>> {
        self.items().filter_map(|item| {
            if let Item::Log(log) = item {
                Some(log)
            } else {
                None
            }
        })
    }

    /// Points of metrics, oldest first.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Arc<Point>> {
        self.items().filter_map(|item| {
            if let Item::Point(point) = item {
                Some(point)
            } else {
                None
            }
        })
    }

    /// Items that were forgotten to stay within bounds.
    pub fn forgotten(&self) -> u64 {
        self.first
    }

    /// Items from sources like this.
    pub fn count(&self, like: impl Fn(&Source) -> bool) -> Counts {
        let mut counts = Counts::default();
        self.items()
            .filter(|item| like(item.source()))
            .for_each(|item| counts.add(item));
        counts
    }

    /// Items of one generation.
    pub fn from_generation(&self, generation: u64) -> Counts {
        self.count(|source| source.generation == Some(generation))
    }

    /// Items of the instar that was replaced and of the one that replaced it: `(from_predecessor, from_successor)`.
    pub fn both_ends(&self, predecessor: u64) -> (usize, usize) {
        (
            self.from_generation(predecessor).total(),
            self.from_generation(predecessor + 1).total(),
        )
    }

    /// Items by who sent them, in the order in which they were first heard of.
    pub fn by_instance(&self) -> Vec<(Arc<Source>, Counts)> {
        let mut counts: Vec<(Arc<Source>, Counts)> = Vec::new();
        for item in self.items() {
            let instance = &item.source().instance;
            match counts.iter_mut().find(|(source, _)| source.instance == *instance) {
                Some((_, counts)) => counts.add(item),
                None => {
                    let mut first = Counts::default();
                    first.add(item);
                    counts.push((item.source().clone(), first));
                }
            }
        }
        counts
    }

    /// All traces, in the order in which they began.
    pub fn traces(&self) -> Vec<Trace> {
        let mut spans: BTreeMap<&str, Vec<Arc<Span>>> = BTreeMap::new();
        for span in self.spans() {
            spans.entry(&span.trace_id).or_default().push(span.clone());
        }
        let mut traces: Vec<_> = spans.into_values().map(Trace::new).collect();
        traces.sort_by_key(Trace::start_ns);
        traces
    }

    /// The trace with this id, 32 hexadecimal digits.
    pub fn trace(&self, trace_id: &str) -> Option<Trace> {
        let spans: Vec<_> = self
            .spans()
            .filter(|span| span.trace_id == trace_id)
            .cloned()
            .collect();
        (!spans.is_empty()).then(|| Trace::new(spans))
    }

    /// The number that the next item will have.
    pub(super) fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Items from number `next` on.
    pub(super) fn since(&self, next: u64) -> Vec<Item> {
        let skip = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.items().skip(skip).cloned().collect()
    }

    /// Remembers a request.
    pub(super) fn arrived(&mut self, arrival: Arrival) {
        self.arrivals.push_back(arrival);
        if self.arrivals.len() > MAX_ARRIVALS {
            self.arrivals.pop_front();
        }
    }

    /// Takes items in, each with its encoded size.
    pub(super) fn take(&mut self, items: Vec<(Item, usize)>) {
        let now_ms = now_ms();
        for (item, size) in items {
            if let Item::Span(span) = &item
                && !self.spans.insert((span.trace_id.clone(), span.span_id.clone()))
            {
                self.duplicates += 1;
                continue;
            }
            self.fleet.take(&item, now_ms);
            self.bytes += size + OVERHEAD;
            self.items.push_back((item, size + OVERHEAD));
        }
        while self.bytes > MAX_BYTES
            && let Some((item, size)) = self.items.pop_front()
        {
            self.bytes -= size;
            self.first += 1;
            if let Item::Span(span) = item {
                self.spans.remove(&(span.trace_id.clone(), span.span_id.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let mut received = Received::default();
        let source = Arc::new(Source::default());
        for number in 0..100u64 {
            let span = Span {
                source: source.clone(),
                trace_id: "t".into(),
                span_id: number.to_string(),
                parent: None,
                name: "x".into(),
                start_ns: 0,
                end_ns: 0,
                attributes: serde_json::Map::new(),
                events: Vec::new(),
                error: None,
            };
            received.take(vec![(Item::Span(Arc::new(span)), 1 << 20)]);
        }
        assert_eq!(
            (received.items().count(), received.forgotten(), received.end()),
            (63, 37, 100)
        );
        assert_eq!(received.since(98).len(), 2);
        assert_eq!(received.since(0).len(), 63);
    }
}

//! What a machine sends to a collector, judged: everything that OTLP's specification and its data models ask of a body, and
//! that nothing leaves the machine which may not.
//!
//! Pure: requests in, problems out, so that tests of its own see it reject what is wrong.

use libos::telemetry::names::Attribute;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use prost::{DecodeError, Message};
use std::collections::BTreeSet;

mod logs;
mod metrics;
mod spans;
#[cfg(test)]
mod tests;

/// How far the machine's clock may be from this computer's: its clock chip counts whole seconds.
const SKEW_NS: u64 = 2_000_000_000;

/// Hexadecimal digits that, after `0x`, may be an address.
const ADDRESS_DIGITS: usize = 6;

/// A request's body, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// From `/v1/metrics`.
    Metrics(ExportMetricsServiceRequest),
    /// From `/v1/logs`.
    Logs(ExportLogsServiceRequest),
    /// From `/v1/traces`.
    Traces(ExportTraceServiceRequest),
}

impl Body {
    /// Decodes what was posted to `path`.
    ///
    /// # Errors
    /// If it is not that path's message, or the path is none of OTLP's.
    pub fn decode(path: &str, body: &[u8]) -> Result<Self, String> {
        let decoded = match path {
            "/v1/metrics" => ExportMetricsServiceRequest::decode(body).map(Body::Metrics),
            "/v1/logs" => ExportLogsServiceRequest::decode(body).map(Body::Logs),
            "/v1/traces" => ExportTraceServiceRequest::decode(body).map(Body::Traces),
            _ => return Err(format!("{path} is no path of OTLP/HTTP")),
        };
        decoded.map_err(|error: DecodeError| format!("{path}: {error}"))
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `Content-Type`, as it was sent.
    pub content_type: String,
    /// When it came, in Unix nanoseconds.
    pub received_ns: u64,
    /// What it said.
    pub body: Body,
}

/// What only the test knows.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// When the machine was started, in Unix nanoseconds: nothing is older.
    pub since_ns: u64,
    /// Attributes of the resource that the operator gave.
    pub operators: Vec<String>,
    /// Span ids that lie outside: given by `traceparent`, 16 hexadecimal digits.
    pub parents: Vec<String>,
}

/// Everything that is wrong with what was sent by one machine, in the order in which it came; empty if nothing is. Parents
/// are looked for in all requests: judge when the traces are complete.
#[must_use]
pub fn problems(requests: &[Request], expected: &Expected) -> Vec<String> {
    let mut judge = Judge {
        expected,
        received_ns: 0,
        problems: Vec::new(),
    };
    let mut streams = metrics::Streams::default();
    let mut traces = spans::Traces::default();
    for request in requests {
        judge.received_ns = request.received_ns;
        if request.content_type != "application/x-protobuf" {
            judge.complain(
                "request",
                &format!("its content type is {}", request.content_type),
            );
        }
        match &request.body {
            Body::Metrics(body) => judge.metrics(body, &mut streams),
            Body::Logs(body) => judge.logs(body),
            Body::Traces(body) => judge.spans(body, &mut traces),
        }
    }
    judge.parents(&traces);
    judge.problems
}

struct Judge<'a> {
    expected: &'a Expected,
    received_ns: u64,
    problems: Vec<String>,
}

impl Judge<'_> {
    fn complain(&mut self, place: &str, what: &str) {
        self.problems.push(format!("{place}: {what}"));
    }

    fn demand(&mut self, holds: bool, place: &str, what: &str) {
        if !holds {
            self.complain(place, what);
        }
    }

    /// A moment within the test.
    fn moment(&mut self, place: &str, name: &str, ns: u64) {
        let within = self.expected.since_ns.saturating_sub(SKEW_NS)..=self.received_ns + SKEW_NS;
        if !within.contains(&ns) {
            self.complain(
                place,
                &format!("{name} is {ns}, not from {} to {}", within.start(), within.end()),
            );
        }
    }

    /// A text that is not empty, and in which nothing looks like an address.
    fn text(&mut self, place: &str, name: &str, text: &str) {
        self.demand(!text.is_empty(), place, &format!("{name} is empty"));
        if text.split("0x").skip(1).any(|rest| {
            let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
            digits >= ADDRESS_DIGITS
        }) {
            self.complain(place, &format!("{name} may hold an address: {text}"));
        }
    }

    /// Who sent: returns who it is, for messages and to tell instars apart.
    fn resource(&mut self, place: &str, resource: Option<&Resource>) -> String {
        let Some(resource) = resource else {
            self.complain(place, "no resource");
            return String::new();
        };
        self.attributes(place, &resource.attributes, true);
        let text = |name: &str| text_of(&resource.attributes, name).unwrap_or_default();
        for name in [
            "service.name",
            "service.version",
            "service.instance.id",
            "host.id",
            "telemetry.sdk.name",
            "telemetry.sdk.language",
            "telemetry.sdk.version",
        ] {
            self.demand(!text(name).is_empty(), place, &format!("no {name}"));
        }
        let instance = text("service.instance.id");
        self.demand(is_uuid(instance), place, &format!("not a UUID: {instance}"));
        instance.to_owned()
    }

    fn scope(&mut self, place: &str, scope: Option<&InstrumentationScope>) {
        match scope {
            Some(scope) => {
                self.text(place, "the scope's name", &scope.name);
                self.attributes(place, &scope.attributes, false);
            }
            None => self.complain(place, "no scope"),
        }
    }

    /// Attributes: each once, with a value, and on the allow-list; those of the operator's only where `resource` is.
    fn attributes(&mut self, place: &str, attributes: &[KeyValue], resource: bool) {
        let mut seen = BTreeSet::new();
        for attribute in attributes {
            let key = &attribute.key;
            self.demand(
                seen.insert(key),
                place,
                &format!("the attribute {key} is there twice"),
            );
            let operators = resource && self.expected.operators.contains(key);
            let allowed = operators || Attribute::named(key).is_some();
            self.demand(
                allowed,
                place,
                &format!("the attribute {key} is not on the allow-list"),
            );
            match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
                None => self.complain(place, &format!("the attribute {key} has no value")),
                Some(value) => self.value(place, key, value),
            }
        }
    }

    fn value(&mut self, place: &str, name: &str, value: &Value) {
        match value {
            Value::StringValue(text) => self.text(place, name, text),
            Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_) => {}
            other => self.complain(place, &format!("{name} has a value of another kind: {other:?}")),
        }
    }
}

fn text_of<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Version 4, variant 1 (RFC 9562): what `service.instance.id` should be.
fn is_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    let right = |(index, byte): (usize, &u8)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        14 => *byte == b'4',
        19 => b"89ab".contains(byte),
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
    };
    bytes.len() == 36 && bytes.iter().enumerate().all(right)
}

/// A value as text, to compare.
fn shown(value: Option<&AnyValue>) -> String {
    format!("{:?}", value.and_then(|any| any.value.as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Spans: the phases of an upgrade, from both instars in one trace (OTLP, `trace.v1`; W3C Trace Context).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
#[cfg(feature = "otlp")]
use prost::Message;

use super::attributes::Value;
use super::names::Attribute;
use super::percent::{hex, hex_digit};
#[cfg(feature = "otlp")]
use super::proto::{self, KeyValue, Resource};

/// Names a trace; never all zero, which the specification calls invalid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId([u8; 16]);

/// Names a span within a trace; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// A trace id from random bytes, or from what crossed the jump. All zero becomes one.
    pub fn new(bytes: [u8; 16]) -> Self {
        TraceId(if bytes == [0; 16] { [1; 16] } else { bytes })
    }

    /// The 16 bytes.
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// 32 lower-case hexadecimal digits.
    pub fn text(self) -> String {
        hex(&self.0)
    }
}

impl SpanId {
    /// A span id. All zero becomes one.
    pub fn new(bytes: [u8; 8]) -> Self {
        SpanId(if bytes == [0; 8] { [1; 8] } else { bytes })
    }

    /// The 8 bytes.
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }

    /// 16 lower-case hexadecimal digits.
    pub fn text(self) -> String {
        hex(&self.0)
    }

    /// The id of a part of this span, which is a random one: from numbers instead of chance, so that a span that is told twice
    /// has the same id. Different for each `(generation, index)`. Not made from the trace's id, which many machines may have
    /// from one pipeline, or one machine twice.
    pub fn part(self, generation: u64, index: u32) -> SpanId {
        // SplitMix64's finalizer: each step is a bijection, so two numbers that differ give ids that differ as long as
        // generation * 2^20 + index does.
        let mut mixed = u64::from_be_bytes(self.0) ^ (generation << 20).wrapping_add(index.into());
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        SpanId::new((mixed ^ (mixed >> 31)).to_be_bytes())
    }
}

/// `trace-flags`: whoever has this span may have recorded it (W3C Trace Context, section 3.2.2.5).
pub const SAMPLED: u8 = 0x01;
/// `trace-flags`: the trace id is random (W3C Trace Context level 2, section 3.2.2.5).
pub const RANDOM: u8 = 0x02;

/// A span as others refer to it: what a `traceparent` header says, and what log records carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// Its trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The `trace-flags`.
    pub flags: u8,
}

/// What a W3C `traceparent` header says: `00-TRACE-SPAN-FLAGS`. `None` if it is anything else; then a new trace begins (W3C
/// Trace Context, section 3.2).
pub fn traceparent(header: &str) -> Option<Context> {
    let mut fields = header.trim_ascii().split('-');
    let version: [u8; 1] = unhex(fields.next()?)?;
    let trace: [u8; 16] = unhex(fields.next()?)?;
    let span: [u8; 8] = unhex(fields.next()?)?;
    let [flags]: [u8; 1] = unhex(fields.next()?)?;
    // Later versions may have more fields, version 0 has not, and version 255 is invalid.
    let more = fields.next().is_some();
    let valid = version[0] != 0xff && !(version[0] == 0 && more) && trace != [0; 16] && span != [0; 8];
    valid.then_some(Context {
        trace_id: TraceId(trace),
        span_id: SpanId(span),
        flags,
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // Upper case is not allowed here, though it is in percent-encoding.
    if text.len() != 2 * N || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = hex_digit(digits[0])? << 4 | hex_digit(digits[1])?;
    }
    Some(bytes)
}

/// How a span ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// Nothing said: the ordinary case.
    #[default]
    Unset,
    /// Said to be good.
    Ok,
    /// Failed, and why in a few words.
    Error(String),
}

/// A moment within a span.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// What happened, as a name: `core stopped`.
    pub name: Cow<'static, str>,
    /// When, on the machine's clock.
    pub at_ns: u64,
    /// More about it.
    pub attributes: Vec<(Attribute, Value)>,
}

/// A phase. Times count nanoseconds from the cold boot, as everything in a timeline does.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// What was done: `receive`, `flush`, …
    pub name: Cow<'static, str>,
    /// The upgrade.
    pub trace_id: TraceId,
    /// This span.
    pub span_id: SpanId,
    /// The span that this one is a part of; none for the root of a trace that began here.
    pub parent: Option<SpanId>,
    /// Whether that one is another machine's.
    pub parent_is_remote: bool,
    /// The trace's flags: [`SAMPLED`], [`RANDOM`].
    pub flags: u8,
    /// Begin.
    pub start_ns: u64,
    /// End; not before the beginning.
    pub end_ns: u64,
    /// More about it.
    pub attributes: Vec<(Attribute, Value)>,
    /// Moments within it.
    pub events: Vec<Event>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Span {
    /// A span without attributes.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        trace_id: TraceId,
        span_id: SpanId,
        parent: Option<SpanId>,
        start_ns: u64,
        end_ns: u64,
    ) -> Self {
        let (attributes, events) = (Vec::new(), Vec::new());
        let name = name.into();
        Span {
            name,
            trace_id,
            span_id,
            parent,
            parent_is_remote: false,
            flags: SAMPLED,
            start_ns,
            end_ns,
            attributes,
            events,
            outcome: Outcome::Unset,
        }
    }

    /// The span with one more attribute.
    pub fn with(mut self, attribute: Attribute, value: impl Into<Value>) -> Self {
        self.attributes.push((attribute, value.into()));
        self
    }

    #[cfg(feature = "otlp")]
    fn encodable(&self, boot_unix_ns: u64) -> proto::Span {
        let start_time_unix_nano = boot_unix_ns.saturating_add(self.start_ns);
        let (message, code) = match &self.outcome {
            Outcome::Unset => (None, 0),
            Outcome::Ok => (None, 1),
            Outcome::Error(message) => (Some(message), 2),
        };
        let event = |event: &Event| proto::Event {
            time_unix_nano: boot_unix_ns.saturating_add(event.at_ns),
            name: event.name.as_ref().into(),
            attributes: pairs(&event.attributes),
        };
        proto::Span {
            trace_id: self.trace_id.0.to_vec(),
            span_id: self.span_id.0.to_vec(),
            parent_span_id: self.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
            name: self.name.as_ref().into(),
            kind: proto::SPAN_KIND_INTERNAL,
            start_time_unix_nano,
            // A collector may refuse a span that ends before it begins.
            end_time_unix_nano: boot_unix_ns.saturating_add(self.end_ns).max(start_time_unix_nano),
            attributes: pairs(&self.attributes),
            events: self.events.iter().map(event).collect(),
            status: (code != 0).then(|| proto::Status {
                message: message.cloned().unwrap_or_default(),
                code,
            }),
            flags: u32::from(self.flags)
                | proto::SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE
                | if self.parent_is_remote {
                    proto::SPAN_FLAGS_CONTEXT_IS_REMOTE
                } else {
                    0
                },
        }
    }
}

#[cfg(feature = "otlp")]
fn pairs(attributes: &[(Attribute, Value)]) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|(attribute, value)| KeyValue::new(*attribute, value.clone()))
        .collect()
}

/// The body of a traces request: an `ExportTraceServiceRequest` with one `ResourceSpans` for each instar that has spans.
/// `boot_unix_ns` is the time of the cold boot in Unix nanoseconds, the zero of the spans' clock. Empty without spans.
#[cfg(feature = "otlp")]
pub fn body(boot_unix_ns: u64, instars: &[(&Resource, &[Span])]) -> Vec<u8> {
    let resource_spans = instars
        .iter()
        .filter(|(_, spans)| !spans.is_empty())
        .map(|(resource, spans)| proto::ResourceSpans {
            resource: Some((*resource).clone()),
            scope_spans: alloc::vec![proto::ScopeSpans {
                scope: Some(proto::InstrumentationScope {
                    name: "instar.replace".into()
                }),
                spans: spans.iter().map(|span| span.encodable(boot_unix_ns)).collect(),
            }],
        })
        .collect();
    proto::TraceRequest { resource_spans }.encode_to_vec()
}

//! Spans (OTLP, `trace.v1`; W3C Trace Context).

use super::{Judge, hex};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, status::StatusCode},
};
use std::collections::BTreeMap;

/// Spans by trace and id.
#[derive(Default)]
pub(super) struct Traces(BTreeMap<(Vec<u8>, Vec<u8>), Span>);

/// Whether this is an id: so long, and not all zero.
pub(super) fn is_id(bytes: &[u8], length: usize) -> bool {
    bytes.len() == length && bytes.iter().any(|byte| *byte != 0)
}

impl Judge<'_> {
    pub(super) fn spans(&mut self, body: &ExportTraceServiceRequest, traces: &mut Traces) {
        self.demand(!body.resource_spans.is_empty(), "spans", "an empty request");
        for part in &body.resource_spans {
            self.resource("spans", part.resource.as_ref());
            for scope in &part.scope_spans {
                self.scope("spans", scope.scope.as_ref());
                self.demand(!scope.spans.is_empty(), "spans", "a scope without spans");
                for span in &scope.spans {
                    self.span(span);
                    let key = (span.trace_id.clone(), span.span_id.clone());
                    // What crosses the jump may come twice, but the same.
                    let first = traces.0.entry(key).or_insert_with(|| span.clone());
                    if !same(first, span) {
                        self.complain(&place(span), &format!("its id is also that of {}", place(first)));
                    }
                }
            }
        }
    }

    fn span(&mut self, span: &Span) {
        let place = place(span);
        self.demand(is_id(&span.trace_id, 16), &place, "its trace id is invalid");
        self.demand(is_id(&span.span_id, 8), &place, "its span id is invalid");
        let parent = &span.parent_span_id;
        self.demand(
            parent.is_empty() || is_id(parent, 8),
            &place,
            "its parent's id is invalid",
        );
        self.demand(*parent != span.span_id, &place, "it is its own parent");
        self.text(&place, "its name", &span.name);
        self.demand(
            (1..=5).contains(&span.kind),
            &place,
            "its kind is not from 1 to 5",
        );
        self.moment(&place, "its start", span.start_time_unix_nano);
        self.moment(&place, "its end", span.end_time_unix_nano);
        self.demand(
            span.start_time_unix_nano <= span.end_time_unix_nano,
            &place,
            "it ends before it begins",
        );
        self.attributes(&place, &span.attributes, false);
        for event in &span.events {
            self.text(&place, "an event's name", &event.name);
            self.moment(&place, "an event", event.time_unix_nano);
            self.attributes(&place, &event.attributes, false);
        }
        for link in &span.links {
            let valid = is_id(&link.trace_id, 16) && is_id(&link.span_id, 8);
            self.demand(valid, &place, "a link's ids are invalid");
            self.attributes(&place, &link.attributes, false);
        }
        if let Some(status) = &span.status {
            if status.code() == StatusCode::Error {
                self.text(&place, "its error", &status.message);
            }
            let message = status.message.is_empty() || status.code() == StatusCode::Error;
            self.demand(message, &place, "its status has a message but is no error");
        }
    }

    /// Every parent is there, or was given from outside; and a trace has one root.
    pub(super) fn parents(&mut self, traces: &Traces) {
        let mut roots: BTreeMap<&[u8], usize> = BTreeMap::new();
        for ((trace, _), span) in &traces.0 {
            let known = traces
                .0
                .contains_key(&(trace.clone(), span.parent_span_id.clone()));
            let outside = self.expected.parents.contains(&hex(&span.parent_span_id));
            let roots = roots.entry(trace).or_default();
            if span.parent_span_id.is_empty() || outside {
                *roots += 1;
            } else {
                self.demand(known, &place(span), "its parent never came");
            }
        }
        for (trace, count) in roots {
            self.demand(
                count == 1,
                &format!("trace {}", hex(trace)),
                &format!("{count} roots"),
            );
        }
    }
}

fn same(one: &Span, other: &Span) -> bool {
    let facts = |span: &Span| {
        (
            span.name.clone(),
            span.parent_span_id.clone(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
        )
    };
    facts(one) == facts(other)
}

fn place(span: &Span) -> String {
    format!("span {} {}", span.name, hex(&span.span_id))
}

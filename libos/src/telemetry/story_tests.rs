//! A replacement's trace, decoded with the official types.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, status::StatusCode};
use proptest::prelude::*;
use prost::Message;

use super::story::{self, Facts};
use super::wire_tests::{BOOT, instar};
use super::{queue, span};
use crate::replace::handover::MAX_UNDELIVERED_BYTES;
use crate::replace::timeline::{CoreFlush, Moments, Outcome, Parent, Phase, Timeline};

const FACTS: Facts = Facts {
    flush_policy: "always",
    cores: 2,
    elf_bytes: 398_112,
    error: None,
};

fn flush(core: u32, start_ns: u64) -> CoreFlush {
    CoreFlush {
        core,
        start_ns,
        end_ns: start_ns + 5,
        cycles: 12,
    }
}

/// All that the predecessor did, on a machine of so many cores that flush.
fn before_the_jump(cores: u32) -> Timeline {
    let mut timeline = Timeline::new([7; 16], [9; 8], "1.0.0".into(), "1.1.0".into());
    timeline.record(Phase::Receive, 1, 1_000, 2_000);
    timeline.record(Phase::Verify, 1, 2_000, 2_100);
    timeline.record(Phase::Stage, 1, 2_100, 2_500);
    timeline.record(Phase::Order, 1, 3_000, 3_050);
    timeline.record(Phase::EarlyFlush, 1, 3_060, 3_900);
    timeline.early_flushes = (0..cores).map(|core| flush(core, 3_070)).collect();
    timeline.record(Phase::Reset, 1, 3_900, 3_910);
    timeline.private_pages_reset = 3;
    timeline.record(Phase::Quiesce, 1, 4_000, 4_200);
    timeline.record(Phase::Stop, 1, 4_200, 4_500);
    timeline.record_flushes(1, (0..cores).map(|core| flush(core, 4_250)).collect());
    timeline
}

fn committed(cores: u32) -> Timeline {
    let mut timeline = before_the_jump(cores);
    let moments = Moments {
        entered: Some(4_600),
        network_start: Some(5_000),
        network_up: Some(5_500),
        cores_called: Some(5_600),
        cores_online: Some(5_900),
        first_answer: Some(5_700),
    };
    timeline.record_successor(1, 4_510, &moments, None);
    timeline.record(Phase::Probation, 2, 4_510, 6_000);
    timeline.record(Phase::Commit, 2, 6_000, 6_500);
    timeline.outcome = Outcome::Committed;
    timeline
}

/// One that died while the network came up.
fn rolled_back() -> Timeline {
    let mut timeline = before_the_jump(2);
    let moments = Moments {
        entered: Some(4_600),
        network_start: Some(5_000),
        ..Moments::default()
    };
    timeline.record_successor(1, 4_510, &moments, Some(5_200));
    timeline.record(Phase::Rollback, 1, 5_200, 5_800);
    timeline.outcome = Outcome::RolledBack;
    timeline.reason = "panic: oh".into();
    timeline
}

fn encoded(timeline: &Timeline, facts: &Facts) -> Vec<u8> {
    let (one, two) = (instar(1), instar(2));
    let mut ours = story::parts(timeline, 2, facts);
    ours.push(story::root(timeline, facts));
    span::body(BOOT, &[(&one, &story::parts(timeline, 1, facts)), (&two, &ours)])
}

/// The spans with the generation of the resource that they are told under.
fn decoded(timeline: &Timeline, facts: &Facts) -> Vec<(i64, Span)> {
    let body = encoded(timeline, facts);
    let request = ExportTraceServiceRequest::decode(&*body).expect("decodes");
    let mut spans = Vec::new();
    for part in request.resource_spans {
        let resource = part.resource.expect("a resource").attributes;
        let Some(Any::IntValue(generation)) = value(&resource, "instar.generation") else {
            panic!("no generation")
        };
        let told = part.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(told.map(|span| (generation, span)));
    }
    spans
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Any> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    found.value.clone()?.value
}

fn text(span: &Span, key: &str) -> Option<String> {
    match value(&span.attributes, key)? {
        Any::StringValue(text) => Some(text),
        other => panic!("{key}: {other:?}"),
    }
}

fn named<'a>(spans: &'a [(i64, Span)], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|(_, span)| span.name == name);
    let (_, span) = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "{name} twice");
    span
}

/// What holds of every trace: one root, all parents there, each id once, everything within what it is a part of.
fn check(spans: &[(i64, Span)]) {
    let root = named(spans, "replacement");
    let ids: BTreeMap<_, _> = spans.iter().map(|(_, span)| (&span.span_id, span)).collect();
    assert_eq!(ids.len(), spans.len(), "each id once");
    for (_, span) in spans {
        assert_eq!(span.trace_id, root.trace_id);
        assert_eq!(span.flags & 0xff, root.flags & 0xff);
        assert_ne!(span.flags & SpanFlags::ContextHasIsRemoteMask as u32, 0);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        if span.span_id != root.span_id {
            let parent = ids[&span.parent_span_id];
            assert!(
                parent.start_time_unix_nano <= span.start_time_unix_nano
                    && span.end_time_unix_nano <= parent.end_time_unix_nano,
                "{} is not within {}",
                span.name,
                parent.name
            );
        }
    }
}

#[test]
fn a_commit_is_one_whole_trace() {
    let spans = decoded(&committed(2), &FACTS);
    check(&spans);
    let told = |generation: i64| -> BTreeSet<&str> {
        let of = spans.iter().filter(|(by, _)| *by == generation);
        of.map(|(_, span)| span.name.as_str()).collect()
    };
    let predecessors = [
        "receive",
        "verify",
        "stage",
        "order",
        "early_flush",
        "reset",
        "quiesce",
        "stop",
        "flush",
        "flush core",
        "jump",
    ];
    assert_eq!(told(1), predecessors.into());
    let successors = [
        "start",
        "network",
        "first_answer",
        "cores",
        "probation",
        "commit",
        "replacement",
    ];
    assert_eq!(told(2), successors.into());
    for (flushes, count) in [("early_flush", 2), ("flush", 2)] {
        let parent = &named(&spans, flushes).span_id;
        let cores = spans.iter().filter(|(_, span)| span.parent_span_id == *parent);
        assert_eq!(cores.count(), count, "{flushes}");
    }
    let root = named(&spans, "replacement");
    assert!(root.parent_span_id.is_empty() && root.status.is_none());
    assert_eq!(root.start_time_unix_nano, BOOT + 1_000);
    assert_eq!(root.end_time_unix_nano, BOOT + 6_500);
    // Random, as ours are, and recorded.
    assert_eq!(root.flags & 0xff, 3);
    assert_eq!(root.flags & SpanFlags::ContextIsRemoteMask as u32, 0);
    for (key, expected) in [
        ("instar.replacement.from", Any::StringValue("1.0.0".into())),
        ("instar.replacement.to", Any::StringValue("1.1.0".into())),
        ("instar.replacement.outcome", Any::StringValue("committed".into())),
        ("instar.flush.policy", Any::StringValue("always".into())),
        ("instar.flush.done", Any::BoolValue(true)),
        ("instar.cores", Any::IntValue(2)),
        ("instar.image.elf_bytes", Any::IntValue(398_112)),
    ] {
        assert_eq!(value(&root.attributes, key), Some(expected), "{key}");
    }
    assert_eq!(text(root, "error.type"), None);
    let reset = named(&spans, "reset");
    assert_eq!(
        value(&reset.attributes, "instar.private.pages_reset"),
        Some(Any::IntValue(3))
    );
}

#[test]
fn a_rollback_tells_how_far_the_successor_came() {
    let facts = Facts {
        error: Some("panic"),
        ..FACTS
    };
    let spans = decoded(&rolled_back(), &facts);
    check(&spans);
    for cut in ["network", "probation"] {
        let span = named(&spans, cut);
        assert_eq!(
            span.end_time_unix_nano,
            BOOT + 5_200,
            "{cut} ends with the successor"
        );
        let status = span.status.as_ref().expect("a status");
        assert_eq!(status.code(), StatusCode::Error, "{cut}");
        assert_eq!(text(span, "error.type").as_deref(), Some("panic"), "{cut}");
    }
    for whole in ["jump", "start", "rollback"] {
        assert!(named(&spans, whole).status.is_none(), "{whole}");
    }
    for missing in ["cores", "first_answer", "commit"] {
        assert!(spans.iter().all(|(_, span)| span.name != missing), "{missing}");
    }
    let root = named(&spans, "replacement");
    let status = root.status.as_ref().expect("a status");
    assert_eq!(
        (status.code(), status.message.as_str()),
        (StatusCode::Error, "panic: oh")
    );
    assert_eq!(text(root, "error.type").as_deref(), Some("panic"));
    assert_eq!(
        text(root, "instar.replacement.outcome").as_deref(),
        Some("rolled-back")
    );
}

#[test]
fn a_pipelines_span_is_the_roots_parent() {
    let mut timeline = committed(1);
    timeline.parent = Some(Parent {
        span_id: [5; 8],
        flags: 0,
    });
    let spans = decoded(&timeline, &FACTS);
    check(&spans);
    for (_, span) in &spans {
        let is_root = span.name == "replacement";
        let remote = span.flags & SpanFlags::ContextIsRemoteMask as u32 != 0;
        assert_eq!((remote, span.parent_span_id == [5; 8]), (is_root, is_root));
        // Told, whatever the pipeline samples; its id may not be random.
        assert_eq!(span.flags & 0xff, 1);
    }
}

/// The bound that holds while the collector is away (`docs/interfaces.md`).
#[test]
fn three_traces_of_the_largest_machine_are_handed_over() {
    let largest = encoded(&committed(64), &FACTS).len();
    let usual = encoded(&committed(4), &FACTS).len();
    println!("64 cores: {largest} bytes, 4 cores: {usual} bytes");
    assert!(largest <= MAX_UNDELIVERED_BYTES / 3 && usual <= MAX_UNDELIVERED_BYTES / 18);
    let mut waiting = queue::Queue::new(queue::Limits::default());
    for _ in 0..3 {
        waiting.push(super::Signal::Traces, encoded(&committed(64), &FACTS));
    }
    assert_eq!(waiting.undelivered(MAX_UNDELIVERED_BYTES).len(), 3);
}

proptest! {
    /// Whatever a successor reached, in whatever order its cores marked it.
    #[test]
    fn any_rollback_is_a_whole_trace(
        moments in any::<[Option<u16>; 6]>(), ended in any::<u16>(), later in any::<u16>(), cores in 0_u32..5,
    ) {
        let [entered, network_start, network_up, cores_called, cores_online, first_answer] =
            moments.map(|moment| moment.map(|at| 4_510 + u64::from(at)));
        let moments = Moments { entered, network_start, network_up, cores_called, cores_online, first_answer };
        let mut timeline = before_the_jump(cores);
        let ended = 4_510 + u64::from(ended);
        timeline.record_successor(1, 4_510, &moments, Some(ended));
        timeline.record(Phase::Rollback, 1, ended, ended + u64::from(later));
        let facts = Facts { error: Some("hang"), ..FACTS };
        check(&decoded(&timeline, &facts));
    }
}

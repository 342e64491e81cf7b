//! Whether the trace of a replacement is whole (docs/interfaces.md, "The trace of a replacement").

use crate::collector::{Collector, Span};
use std::collections::{BTreeMap, BTreeSet};

/// The phases of a predecessor that flushes, up to the jump, in the order of their beginnings.
pub const BEFORE: [&str; 10] = [
    "receive",
    "verify",
    "stage",
    "order",
    "early_flush",
    "reset",
    "quiesce",
    "stop",
    "flush",
    "jump",
];

/// The phases of a successor until it is committed, when somebody has asked it something.
pub const AFTER: [&str; 6] = ["start", "network", "first_answer", "cores", "probation", "commit"];

/// Those of them of which each begins no earlier than the one before, and than all of [`BEFORE`].
const IN_ORDER_AFTER: [&str; 4] = ["start", "network", "first_answer", "commit"];

/// What a trace should be.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// 32 hex digits.
    pub trace: &'a str,
    /// The span of whoever asked, 16 hex digits; empty without one.
    pub parent: &'a str,
    /// The predecessor's generation.
    pub from: i64,
    /// The phases that it has, each once.
    pub phases: Vec<&'a str>,
    /// Those of them that ended with an error.
    pub cut_off: &'a [&'a str],
    /// The cores that flushed while the predecessor served, and in the stop.
    pub flushed: [Vec<i64>; 2],
}

impl Expected<'_> {
    /// Waits for the root, which comes with all the rest or not at all, and judges. Returns the spans, by name; without those of the cores.
    ///
    /// # Panics
    /// If the trace is not as it should be.
    pub fn wait(&self, collector: &Collector) -> BTreeMap<String, Span> {
        let of_trace = |span: &&Span| span.trace == self.trace;
        let spans = collector.wait_for_spans(self.trace, |spans| {
            let mut ours = spans.iter().filter(of_trace);
            ours.any(|span| span.name == "replacement")
        });
        let spans: Vec<Span> = spans.iter().filter(of_trace).cloned().collect();
        self.judge(&spans)
    }

    /// The same for the spans of the trace.
    ///
    /// # Panics
    /// If the trace is not as it should be.
    pub fn judge(&self, spans: &[Span]) -> BTreeMap<String, Span> {
        let root = assert_whole(spans);
        let (cores, phases): (Vec<&Span>, Vec<&Span>) =
            spans.iter().partition(|span| span.name == "flush core");
        let by_name: BTreeMap<String, Span> = phases
            .iter()
            .map(|span| (span.name.clone(), (*span).clone()))
            .collect();
        let expected: BTreeSet<&str> = self.phases.iter().copied().chain(["replacement"]).collect();
        let told: BTreeSet<&str> = by_name.keys().map(String::as_str).collect();
        assert_eq!(told, expected);
        assert_eq!(by_name.len(), phases.len(), "a phase was told twice: {spans:#?}");
        assert_eq!(root.parent, self.parent);
        for span in spans {
            self.judge_span(span, root);
        }
        let starts: Vec<u64> = BEFORE
            .iter()
            .chain(&IN_ORDER_AFTER)
            .filter_map(|name| Some(by_name.get(*name)?.start_ns))
            .collect();
        assert!(starts.is_sorted(), "not in order: {by_name:#?}");
        if let Some(rollback) = by_name.get("rollback") {
            assert!(phases.iter().all(|span| span.start_ns <= rollback.start_ns));
            assert_eq!(rollback.end_ns, root.end_ns);
        }
        for (flush, expected) in ["early_flush", "flush"].iter().zip(&self.flushed) {
            let parent = by_name.get(*flush).map(|span| &span.id);
            let of = cores.iter().filter(|span| Some(&span.parent) == parent);
            let mut numbers: Vec<i64> = of.filter_map(|span| span.core).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, *expected, "{flush}");
        }
        by_name
    }

    fn judge_span(&self, span: &Span, root: &Span) {
        // "Sampled", and that it is known whether the parent is remote.
        assert_eq!(span.flags & 0x101, 0x101, "{span:?}");
        let is_root = span.id == root.id;
        assert_eq!(span.flags & 0x200 != 0, is_root && !self.parent.is_empty());
        let of_successor = AFTER.contains(&&*span.name);
        let generation = match &*span.name {
            // Told by the one that is left.
            "replacement" => self.from + i64::from(self.phases.contains(&"commit")),
            _ => self.from + i64::from(of_successor),
        };
        assert_eq!(span.generation, generation, "{span:?}");
        let not_committed = is_root && !self.phases.contains(&"commit");
        let failed = self.cut_off.contains(&&*span.name) || not_committed;
        assert_eq!(span.failed, failed, "{span:?}");
        assert_eq!(span.error.is_some(), failed, "{span:?}");
    }
}

/// Judges what holds of every trace, and returns its root: each span is there once, its parent is there, and it lies within that one.
///
/// # Panics
/// If the trace is not whole.
pub fn assert_whole(spans: &[Span]) -> &Span {
    let ids: BTreeMap<&str, &Span> = spans.iter().map(|span| (&*span.id, span)).collect();
    assert_eq!(ids.len(), spans.len(), "a span came twice: {spans:#?}");
    let (roots, parts): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|span| span.name == "replacement");
    for span in parts {
        let parent = ids.get(&*span.parent);
        let parent = parent.unwrap_or_else(|| panic!("{span:?} has no parent"));
        assert!(
            parent.start_ns <= span.start_ns && span.start_ns <= span.end_ns && span.end_ns <= parent.end_ns,
            "{span:?} is not within {parent:?}"
        );
    }
    let [root] = roots[..] else {
        panic!("not one root: {roots:?}")
    };
    assert!(
        !ids.contains_key(&*root.parent) && root.start_ns <= root.end_ns,
        "{root:?}"
    );
    root
}

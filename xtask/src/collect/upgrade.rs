//! One upgrade, as its spans tell it: outcome, blackout, and a row for each span.

use super::fleet::{cut, instance, text_of};
use super::received::Span;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Deepest level that is drawn.
const MAX_DEPTH: usize = 8;
/// Most attributes kept of a span.
const MAX_ATTRIBUTES: usize = 12;

/// A span of an upgrade, cut to size.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub id: u64,
    pub parent: Option<u64>,
    pub name: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub generation: Option<u64>,
    pub version: String,
    pub instance: String,
    pub attributes: Vec<(String, String)>,
    pub error: Option<String>,
}

/// How an upgrade ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// Not yet, as far as is known.
    Pending,
    Committed,
    RolledBack,
    Failed,
}

impl Outcome {
    /// As `/v1/status` has it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pending => "pending",
            Outcome::Committed => "committed",
            Outcome::RolledBack => "rolled-back",
            Outcome::Failed => "failed",
        }
    }
}

/// One upgrade of one machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Upgrade {
    /// Trace id and root span's id.
    pub id: String,
    pub trace_id: String,
    pub host: String,
    pub service: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub error_type: Option<String>,
    /// Unix milliseconds.
    pub start_ms: u64,
    pub duration_ns: u64,
    /// The instar that is to be replaced; spans of any other are the successor's.
    pub predecessor: Option<u64>,
    /// The successor, as it is named among the machine's instars, if it has told anything.
    pub successor: Option<String>,
    /// How long nobody was answered, if it is known.
    pub blackout_ns: Option<u64>,
    /// The blackout may have been shorter: nobody said when the successor first answered.
    pub blackout_at_most: bool,
    /// How many cores flushed their caches.
    pub cores_flushed: usize,
    /// The parts of the blackout: from and to, in nanoseconds since the beginning.
    pub blackout: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
}

/// Whose work a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum By {
    /// The upgrade as a whole.
    Both,
    Predecessor,
    Successor,
}

/// A span in its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub depth: usize,
    pub name: String,
    /// Since the beginning of the upgrade.
    pub start_ns: u64,
    pub duration_ns: u64,
    pub generation: Option<u64>,
    pub by: By,
    /// Whose flush it is.
    pub core: Option<u64>,
    pub error: Option<String>,
    pub attributes: Vec<(String, String)>,
}

impl Bar {
    /// The span, cut to size; none if its id is none.
    pub fn of(span: &Span) -> Option<Self> {
        let number = |id: &str| u64::from_str_radix(id, 16).ok();
        let attributes = span.attributes.iter().take(MAX_ATTRIBUTES);
        Some(Bar {
            id: number(&span.span_id)?,
            parent: span.parent.as_deref().and_then(number),
            name: cut(&span.name, 64),
            start_ns: span.start_ns,
            end_ns: span.end_ns.max(span.start_ns),
            generation: span.source.generation,
            version: cut(&span.source.version, 64),
            instance: instance(&span.source),
            attributes: attributes
                .map(|(name, value)| (cut(name, 64), text_of(value, 128)))
                .collect(),
            error: span.error.as_deref().map(|error| cut(error, 1024)),
        })
    }

    fn attribute(&self, name: &str) -> Option<String> {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }

    /// Whose flush it is, if it is one.
    fn core(&self) -> Option<u64> {
        self.attribute("cpu.logical_number")
            .and_then(|core| core.parse().ok())
    }

    /// The span that all others of an upgrade are parts of.
    fn is_root(&self) -> bool {
        self.attribute("instar.replacement.outcome").is_some() || self.name == "replacement"
    }
}

impl Upgrade {
    /// The upgrades that these spans of one machine in one trace tell of. A pipeline's trace may hold several.
    pub fn all(trace_id: &str, host: &str, service: &str, bars: &BTreeMap<u64, Bar>) -> Vec<Self> {
        let mut groups: BTreeMap<u64, Vec<&Bar>> = BTreeMap::new();
        for bar in bars.values() {
            groups.entry(root_id(bar, bars)).or_default().push(bar);
        }
        groups
            .into_iter()
            .filter(|(_, bars)| bars.iter().any(|bar| is_part(bar)))
            .map(|(root, bars)| Self::of(root, trace_id, host, service, bars))
            .collect()
    }

    fn of(root_id: u64, trace_id: &str, host: &str, service: &str, mut bars: Vec<&Bar>) -> Self {
        bars.sort_by(|a, b| a.start_ns.cmp(&b.start_ns).then(b.end_ns.cmp(&a.end_ns)));
        let root = bars.iter().find(|bar| bar.id == root_id && bar.is_root());
        let start = bars.first().map_or(0, |bar| bar.start_ns);
        let end = bars.iter().map(|bar| bar.end_ns).max().unwrap_or(start);
        let predecessor = bars.iter().filter_map(|bar| bar.generation).min();
        let outcome = match root {
            None => Outcome::Pending,
            Some(root) => match root.attribute("instar.replacement.outcome").as_deref() {
                Some("committed") => Outcome::Committed,
                Some("rolled-back") => Outcome::RolledBack,
                Some("failed") => Outcome::Failed,
                _ if root.error.is_some() => Outcome::Failed,
                _ => Outcome::Pending,
            },
        };
        let by = |successor: bool| {
            bars.iter()
                .find(|bar| (bar.generation != predecessor) == successor && !bar.is_root())
        };
        let version = |successor: bool| by(successor).map(|bar| bar.version.clone());
        let told = |name: &str| root.and_then(|root| root.attribute(name));
        let (blackout, at_most) = blackout(&bars, outcome);
        let since = |ns: u64| ns.saturating_sub(start);
        let blackout: Vec<_> = blackout.into_iter().map(|(a, b)| (since(a), since(b))).collect();
        Upgrade {
            id: format!("{trace_id}-{root_id:016x}"),
            trace_id: trace_id.to_owned(),
            host: host.to_owned(),
            service: service.to_owned(),
            from: told("instar.replacement.from").or_else(|| version(false)),
            to: told("instar.replacement.to").or_else(|| version(true)),
            outcome,
            reason: root
                .and_then(|root| root.error.clone())
                .filter(|text| !text.is_empty()),
            error_type: told("error.type"),
            start_ms: start / 1_000_000,
            duration_ns: end - start,
            predecessor,
            successor: by(true).map(|bar| bar.instance.clone()),
            blackout_ns: (!blackout.is_empty()).then(|| blackout.iter().map(|(from, to)| to - from).sum()),
            blackout_at_most: at_most,
            cores_flushed: bars
                .iter()
                .filter_map(|bar| bar.core())
                .collect::<BTreeSet<_>>()
                .len(),
            blackout,
            rows: rows(&bars, start, predecessor),
        }
    }

    /// Without its spans.
    pub fn summary(mut self) -> Self {
        self.rows.clear();
        self
    }
}

/// The id of the root that a span hangs on, whether it has come already or not.
fn root_id(bar: &Bar, bars: &BTreeMap<u64, Bar>) -> u64 {
    let mut top = bar;
    for _ in 0..MAX_DEPTH {
        match top.parent.and_then(|parent| bars.get(&parent)) {
            Some(parent) if !top.is_root() => top = parent,
            _ => break,
        }
    }
    if top.is_root() {
        top.id
    } else {
        top.parent.unwrap_or(top.id)
    }
}

/// Whether only an upgrade has such a span.
fn is_part(bar: &Bar) -> bool {
    bar.is_root() || ["receive", "stage", "early_flush", "quiesce", "jump"].contains(&&*bar.name)
}

/// The times in which nobody was answered, and whether it may have been less.
fn blackout(bars: &[&Bar], outcome: Outcome) -> (Vec<(u64, u64)>, bool) {
    let find = |name: &str| bars.iter().find(|bar| bar.name == name);
    let Some(quiesced) = find("quiesce").map(|bar| bar.end_ns) else {
        return (Vec::new(), false);
    };
    let answered = find("first_answer").map(|bar| bar.end_ns.max(quiesced));
    let back = find("rollback").map(|bar| (bar.start_ns.max(quiesced), bar.end_ns.max(quiesced)));
    let end = bars.iter().map(|bar| bar.end_ns).max().unwrap_or(quiesced);
    match (answered, back) {
        (Some(answered), Some((from, to))) if from > answered => {
            (vec![(quiesced, answered), (from, to)], false)
        }
        (_, Some((_, to))) => (vec![(quiesced, to)], true),
        (Some(answered), None) => (vec![(quiesced, answered)], false),
        (None, None) if outcome == Outcome::Failed => (vec![(quiesced, end)], true),
        (None, None) => (Vec::new(), false),
    }
}

/// The spans as a tree, parents first, each level by time.
fn rows(bars: &[&Bar], start: u64, predecessor: Option<u64>) -> Vec<Row> {
    let known: BTreeSet<u64> = bars.iter().map(|bar| bar.id).collect();
    let mut children: BTreeMap<u64, Vec<&Bar>> = BTreeMap::new();
    let mut stack: Vec<(usize, &Bar)> = Vec::new();
    // Latest first on the stack, so that the earliest comes off it first.
    for bar in bars.iter().rev() {
        match bar.parent {
            Some(parent) if known.contains(&parent) && parent != bar.id => {
                children.entry(parent).or_default().push(bar);
            }
            _ => stack.push((0, bar)),
        }
    }
    let mut rows = Vec::with_capacity(bars.len());
    // A knot of spans that name each other as parents hangs on nothing: it is not drawn.
    while let Some((depth, bar)) = stack.pop() {
        for child in children.remove(&bar.id).unwrap_or_default() {
            stack.push(((depth + 1).min(MAX_DEPTH), child));
        }
        rows.push(Row {
            depth,
            name: bar.name.clone(),
            start_ns: bar.start_ns - start,
            duration_ns: bar.end_ns - bar.start_ns,
            generation: bar.generation,
            by: match bar.generation == predecessor {
                _ if bar.is_root() => By::Both,
                true => By::Predecessor,
                false => By::Successor,
            },
            core: bar.core(),
            error: bar.error.clone(),
            attributes: bar.attributes.clone(),
        });
    }
    rows
}

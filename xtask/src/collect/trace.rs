//! Spans put together to one upgrade, and drawn as text.

use super::received::Span;
use super::show::clean;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

/// Columns of the bars.
const WIDTH: u64 = 48;

/// One trace.
#[derive(Clone, Debug)]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// By their beginning; of those that begin together the longest first, so that parents precede their parts.
    pub spans: Vec<Arc<Span>>,
}

impl Trace {
    /// Puts spans of one trace together.
    pub(super) fn new(mut spans: Vec<Arc<Span>>) -> Self {
        spans.sort_by(|a, b| a.start_ns.cmp(&b.start_ns).then(b.end_ns.cmp(&a.end_ns)));
        let trace_id = spans
            .first()
            .map(|span| span.trace_id.clone())
            .unwrap_or_default();
        Trace { trace_id, spans }
    }

    /// When the first span began, in Unix nanoseconds.
    pub fn start_ns(&self) -> u64 {
        self.spans.first().map_or(0, |span| span.start_ns)
    }

    /// When the last span ended, in Unix nanoseconds.
    pub fn end_ns(&self) -> u64 {
        self.spans.iter().map(|span| span.end_ns).max().unwrap_or(0)
    }

    /// The first span of this name.
    pub fn span(&self, name: &str) -> Option<&Arc<Span>> {
        self.spans.iter().find(|span| span.name == name)
    }

    /// The generations that took part.
    pub fn generations(&self) -> BTreeSet<u64> {
        self.spans
            .iter()
            .filter_map(|span| span.source.generation)
            .collect()
    }

    /// The span that all others are a part of, if there is exactly one such. Its own parent may lie elsewhere: in the
    /// pipeline that asked for the upgrade.
    pub fn root(&self) -> Option<&Arc<Span>> {
        let ids: HashSet<&str> = self.spans.iter().map(|span| span.span_id.as_str()).collect();
        let outside = |parent: &Option<String>| parent.as_deref().is_none_or(|parent| !ids.contains(parent));
        let mut tops = self.spans.iter().filter(|span| outside(&span.parent));
        let top = tops.next()?;
        tops.next().is_none().then_some(top)
    }

    /// Whether nothing is missing as far as can be seen: all spans hang together, and both instars told.
    pub fn is_complete(&self) -> bool {
        self.root().is_some() && self.generations().len() >= 2
    }

    /// The trace as text: one line and one bar for each span; the instar that was replaced draws with `█`, its successor
    /// with `▓`.
    pub fn waterfall(&self) -> String {
        let mut text = String::new();
        let (start, end) = (self.start_ns(), self.end_ns());
        let whole = (end - start).max(1);
        let title = self.root().map_or("trace", |root| &root.name);
        let versions: Vec<_> = self.versions();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} {}, {:.1} ms, trace {}",
            clean(title),
            versions.join(" → "),
            ms(whole),
            self.trace_id
        );
        let first = self.generations().first().copied();
        let depths = self.depths();
        let name_width = self
            .spans
            .iter()
            .map(|span| 2 * depths[span.span_id.as_str()] + clean(&span.name).chars().count());
        let name_width = name_width.max().unwrap_or(0).min(40);
        for span in &self.spans {
            let scale = |ns: u64| {
                u64::try_from(u128::from(ns - start) * u128::from(WIDTH) / u128::from(whole)).unwrap_or(0)
            };
            let from = scale(span.start_ns).min(WIDTH - 1);
            // Rounded up, so that even the shortest is seen.
            let length = scale(span.end_ns.max(span.start_ns)).max(from + 1) - from;
            let bar = if span.source.generation == first {
                "█"
            } else {
                "▓"
            };
            let name = format!(
                "{}{}",
                "  ".repeat(depths[span.span_id.as_str()]),
                clean(&span.name)
            );
            let generation = span
                .source
                .generation
                .map_or_else(|| "-".into(), |generation| generation.to_string());
            let _ = write!(
                text,
                "{generation:>3} {name:name_width$} {:>10.3} ms │{}{}{}│",
                ms(span.end_ns.saturating_sub(span.start_ns)),
                " ".repeat(from as usize),
                bar.repeat(length as usize),
                " ".repeat((WIDTH - from - length) as usize)
            );
            if let Some(core) = span.attributes.get("cpu.logical_number") {
                let _ = write!(text, " core {core}");
            }
            if let Some(error) = &span.error {
                let _ = write!(text, " {}", clean(error));
            }
            text.push('\n');
        }
        text
    }

    /// Service and version of each generation, once.
    fn versions(&self) -> Vec<String> {
        let mut spans: Vec<_> = self.spans.iter().collect();
        spans.sort_by_key(|span| span.source.generation);
        let mut versions = Vec::new();
        for span in spans {
            let generation = span
                .source
                .generation
                .map_or_else(String::new, |number| format!(" (generation {number})"));
            let version = format!(
                "{} {}{generation}",
                clean(&span.source.service),
                clean(&span.source.version)
            );
            if versions.last() != Some(&version) {
                versions.push(version);
            }
        }
        versions
    }

    /// How deep each span lies in the tree, at most 8: a parent may name itself as its own.
    fn depths(&self) -> HashMap<&str, usize> {
        let parents: HashMap<&str, &str> = self
            .spans
            .iter()
            .filter_map(|span| Some((span.span_id.as_str(), span.parent.as_deref()?)))
            .collect();
        let known: HashSet<&str> = self.spans.iter().map(|span| span.span_id.as_str()).collect();
        let depth = |id: &str| {
            let step = |id: &&str| parents.get(*id).copied().filter(|parent| known.contains(parent));
            std::iter::successors(step(&id), step).take(8).count()
        };
        known.iter().map(|id| (*id, depth(id))).collect()
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

//! An upgrade's spans as lines with bars.

use super::draw::Theme;
use crate::collect::show::clean;
use crate::collect::upgrade::{By, Row, Upgrade};
use crate::timeline;
use ratatui::text::{Line, Span};
use std::ops::Range;

/// Columns for the name, and for the duration.
const NAME: usize = 20;
const DURATION: usize = 11;

/// A line for each of these spans, for a place that is `width` columns wide.
pub(super) fn lines(
    upgrade: &Upgrade,
    rows: Range<usize>,
    width: usize,
    part: Option<usize>,
    theme: &Theme,
) -> Vec<Line<'static>> {
    let columns = width.saturating_sub(NAME + DURATION + 2).max(8);
    let (from, to) = range(upgrade, part);
    let scale = |ns: u64| {
        let since = u128::from(ns.clamp(from, to) - from) * columns as u128;
        usize::try_from(since / u128::from(to - from)).unwrap_or(0)
    };
    let line = |row: &Row| {
        let name = match row.core {
            Some(core) => format!("core {core}"),
            None => clean(&row.name),
        };
        let name: String = format!("{}{name}", " ".repeat(row.depth.min(4)))
            .chars()
            .take(NAME - 1)
            .collect();
        let duration = timeline::duration(row.duration_ns as f64 / 1e6);
        let mut spans = vec![Span::raw(format!("{name:NAME$}{duration:>DURATION$}  "))];
        let end = row.start_ns.saturating_add(row.duration_ns);
        // Rounded so that even the shortest is seen, and none is drawn where it is not.
        let first = scale(row.start_ns).min(columns - 1);
        let bar = if end < from || row.start_ns > to {
            0..0
        } else {
            first..scale(end).max(first + 1)
        };
        let (sign, style) = match row.by {
            By::Both => ("━", theme.plain),
            By::Predecessor => ("█", theme.predecessor),
            By::Successor => ("▒", theme.successor),
        };
        let dark = |column: usize| {
            upgrade
                .blackout
                .iter()
                .any(|(begin, end)| (scale(*begin)..scale(*end)).contains(&column))
        };
        spans.extend((0..columns).map(|column| match column {
            _ if bar.contains(&column) => Span::styled(sign, style),
            _ if dark(column) => Span::styled("·", theme.muted),
            _ => Span::raw(" "),
        }));
        Line::from(spans)
    };
    upgrade
        .rows
        .iter()
        .take(rows.end)
        .skip(rows.start)
        .map(line)
        .collect()
}

/// From where to where time is drawn, in nanoseconds since the beginning; never empty. `part`: of the blackout; a tenth of
/// its length is left at both sides.
fn range(upgrade: &Upgrade, part: Option<usize>) -> (u64, u64) {
    let all = (0, upgrade.duration_ns.max(1));
    match part.and_then(|part| upgrade.blackout.get(part)) {
        Some((from, to)) if from < to => {
            let margin = (to - from) / 10;
            (from.saturating_sub(margin), to.saturating_add(margin).min(all.1))
        }
        _ => all,
    }
}

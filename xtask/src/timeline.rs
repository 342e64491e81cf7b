//! A replacement's timeline, drawn for people.

use crate::control::{CoreFlush, Replacement, Span};
use std::fmt::Write as _;

/// The phases in their order.
pub const PHASES: [&str; 12] = [
    "receive",
    "verify",
    "stage",
    "order",
    "early_flush",
    "reset",
    "quiesce",
    "stop",
    "flush",
    "start",
    "network",
    "first_answer",
];

/// How many of [`PHASES`] happen while the predecessor still serves.
const SERVING: usize = 6;

/// How wide the bars' field is, in characters.
const WIDTH: usize = 40;

/// One line of the drawing.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    generation: Option<u64>,
    /// From the group's start.
    start_ms: f64,
    took_ms: f64,
}

/// The whole timeline: what happened while serving, what happened in the blackout, each core's flush.
pub fn draw(replacement: &Replacement) -> String {
    let mut text = String::new();
    let (serving, blackout) = PHASES.split_at(SERVING);
    group(
        &mut text,
        "while the predecessor served",
        &rows(replacement, serving),
    );
    group(
        &mut text,
        "from the order to the successor's first answer",
        &rows(replacement, blackout),
    );
    if replacement.private_pages_reset > 0 {
        _ = writeln!(text, "  private pages reset: {}", replacement.private_pages_reset);
    }
    if replacement.flush.is_empty() {
        text.push_str("  caches: not flushed, by the policy\n");
    }
    flushes(
        &mut text,
        "caches written back and invalidated early, while serving",
        &replacement.early_flush,
    );
    flushes(
        &mut text,
        "caches written back and invalidated in the stop",
        &replacement.flush,
    );
    text
}

/// The rows of `phases`, on one clock that starts with the first of them.
fn rows(replacement: &Replacement, phases: &[&str]) -> Vec<Row> {
    let spans: Vec<&Span> = phases
        .iter()
        .filter_map(|phase| replacement.spans.iter().find(|span| span.name == *phase))
        .collect();
    let start = spans.iter().map(|span| span.start_ns).min().unwrap_or(0);
    // Without spans the phases follow one another.
    let mut cursor = 0.0;
    let mut rows = Vec::new();
    for phase in phases {
        let took = replacement.phases_ms.get(*phase).copied().flatten();
        let span = spans.iter().find(|span| span.name == *phase);
        let (start_ms, took_ms) = match (span, took) {
            (Some(span), took) => (
                ms(span.start_ns - start),
                took.unwrap_or_else(|| ms(span.end_ns.saturating_sub(span.start_ns))),
            ),
            (None, Some(took)) => (cursor, took),
            (None, None) => continue,
        };
        cursor = start_ms + took_ms;
        let name = phase.replace('_', " ");
        rows.push(Row {
            name,
            generation: span.map(|span| span.generation),
            start_ms,
            took_ms,
        });
    }
    rows
}

fn group(text: &mut String, title: &str, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let total = rows
        .iter()
        .map(|row| row.start_ms + row.took_ms)
        .fold(0.0, f64::max);
    _ = writeln!(text, "  {title}: {}", duration(total));
    for row in rows {
        let who = row
            .generation
            .map_or(String::new(), |generation| format!("instar {generation}"));
        let bar = bar(row.start_ms, row.took_ms, total);
        _ = writeln!(
            text,
            "    {:<13} {:<10} {:>11}  {bar}",
            row.name,
            who,
            duration(row.took_ms)
        );
    }
}

fn flushes(text: &mut String, title: &str, flushes: &[CoreFlush]) {
    if flushes.is_empty() {
        return;
    }
    _ = writeln!(text, "  {title}");
    let longest = flushes.iter().map(|flush| ms(flush.ns)).fold(0.0, f64::max);
    for flush in flushes {
        let took = ms(flush.ns);
        let cycles = format!("{} cycles", flush.cycles);
        let bar = bar(0.0, took, longest);
        _ = writeln!(
            text,
            "    {:<10} {cycles:>16} {:>11}  {bar}",
            format!("core {}", flush.core),
            duration(took)
        );
    }
}

/// A bar from `start` that is `length` long, in a field that is `total` wide: eighths of a character, never invisible.
fn bar(start: f64, length: f64, total: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if total <= 0.0 {
        return "▏".to_owned();
    }
    let eighths = |value: f64| cells(value / total * 8.0 * WIDTH as f64);
    let offset = (eighths(start) / 8).min(WIDTH - 1);
    let length = eighths(length).clamp(1, (WIDTH - offset) * 8);
    format!(
        "{}{}{}",
        " ".repeat(offset),
        "█".repeat(length / 8),
        PARTS.get(length % 8).unwrap_or(&"")
    )
}

/// A number of eighths; what is no number is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the field before"
)]
fn cells(value: f64) -> usize {
    if value.is_finite() {
        value.clamp(0.0, (8 * WIDTH) as f64).round() as usize
    } else {
        0
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Milliseconds with a precision that fits, in a unit that fits.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 1.0 => format!("{ms:.2} ms"),
        ms => format!("{:.1} µs", ms * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fit_their_field_and_are_never_invisible() {
        assert_eq!(bar(0.0, 10.0, 10.0).chars().count(), WIDTH);
        assert_eq!(bar(0.0, 0.0, 10.0), "▏");
        assert_eq!(bar(10.0, 10.0, 10.0).chars().count(), WIDTH);
        assert_eq!(bar(0.0, 5.0, 10.0), "█".repeat(20));
        assert_eq!(bar(5.0, 0.125, 10.0), format!("{}▌", " ".repeat(20)));
        for odd in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(bar(odd, odd, 10.0).chars().count() <= WIDTH + 1);
        }
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        assert_eq!(duration(0.0123), "12.3 µs");
        assert_eq!(duration(1.5), "1.50 ms");
        assert_eq!(duration(123.4), "123 ms");
        assert_eq!(duration(12_340.0), "12.3 s");
    }

    #[test]
    fn unknown_phases_are_left_out() {
        let mut replacement = Replacement {
            phases_ms: [
                ("stop".to_owned(), Some(2.0)),
                ("start".to_owned(), Some(6.0)),
                ("flush".to_owned(), None),
            ]
            .into(),
            ..Replacement::default()
        };
        let rows = rows(&replacement, &PHASES[SERVING..]);
        assert_eq!(
            rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
            ["stop", "start"]
        );
        assert!((rows[1].start_ms - 2.0).abs() < 1e-9);
        let text = draw(&replacement);
        assert!(
            text.contains("first answer: 8.00 ms") && text.contains("not flushed"),
            "{text}"
        );
        replacement.flush = vec![CoreFlush {
            core: 3,
            cycles: 2500,
            ns: 1000,
        }];
        assert!(draw(&replacement).contains("core 3"));
    }

    #[test]
    fn spans_decide_where_bars_begin() {
        let span = |name: &str, generation, start_ns, end_ns| Span {
            name: name.to_owned(),
            generation,
            start_ns,
            end_ns,
        };
        let replacement = Replacement {
            spans: vec![
                span("quiesce", 1, 5_000_000, 6_000_000),
                span("start", 2, 8_000_000, 9_000_000),
            ],
            ..Replacement::default()
        };
        let rows = rows(&replacement, &PHASES[SERVING..]);
        assert_eq!(
            rows[1],
            Row {
                name: "start".to_owned(),
                generation: Some(2),
                start_ms: 3.0,
                took_ms: 1.0
            }
        );
    }
}

//! From what came in to the screen's cells.

use super::view::{Pane, View};
use super::{Shown, waterfall};
use crate::collect::fleet::Machine;
use crate::collect::show::clean;
use crate::collect::upgrade::{Outcome, Upgrade};
use crate::timeline;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{
    Block, Borders, Cell, Clear, List, ListItem, ListState, Paragraph, Row, Table, TableState, Wrap,
};

/// Below this many columns parts stand one above the other.
const WIDE: u16 = 110;

/// Styles; without colours what matters is still told by words and signs.
pub(super) struct Theme {
    pub plain: Style,
    pub muted: Style,
    pub predecessor: Style,
    pub successor: Style,
    good: Style,
    back: Style,
    bad: Style,
}

impl Theme {
    pub fn new(colour: bool) -> Self {
        let of = |color: Color| {
            if colour {
                Style::new().fg(color)
            } else {
                Style::new()
            }
        };
        Theme {
            plain: Style::new(),
            muted: Style::new().add_modifier(Modifier::DIM),
            predecessor: of(Color::Cyan),
            successor: of(Color::Yellow),
            good: of(Color::Green),
            back: of(Color::Yellow),
            bad: of(Color::Red),
        }
    }

    fn outcome(&self, outcome: Outcome) -> (&'static str, Style) {
        match outcome {
            Outcome::Pending => ("… under way", self.plain),
            Outcome::Committed => ("✓ committed", self.good),
            Outcome::RolledBack => ("↩ rolled back", self.back),
            Outcome::Failed => ("✕ failed", self.bad),
        }
    }
}

/// The whole screen.
pub(super) fn screen(frame: &mut Frame, shown: &Shown, view: &View) {
    let theme = Theme::new(shown.colour);
    let area = frame.area();
    let machines = u16::try_from(shown.fleet.machines.len()).unwrap_or(u16::MAX);
    let [head, top, middle, bottom, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(machines.saturating_add(3).min((area.height / 4).max(4))),
        Constraint::Fill(1),
        Constraint::Length((area.height / 4).clamp(3, 10)),
        Constraint::Length(1),
    ])
    .areas(area);
    let title = format!(
        "Instar collector at {} (also a page for a browser)",
        shown.address
    );
    frame.render_widget(
        Paragraph::new(title).style(Style::new().add_modifier(Modifier::BOLD)),
        head,
    );
    let keys = "Tab: next part   ↑↓ jk: move   Enter: waterfall   z: zoom   ?: help   q: quit";
    frame.render_widget(Paragraph::new(keys).style(theme.muted), foot);
    if shown.fleet.machines.is_empty() {
        let rest = area.inner(ratatui::layout::Margin::new(2, 3));
        return frame.render_widget(
            Paragraph::new(nothing_yet(shown)).wrap(Wrap { trim: false }),
            rest,
        );
    }
    let [list, detail] = if area.width >= WIDE {
        Layout::horizontal([Constraint::Percentage(38), Constraint::Fill(1)]).areas(middle)
    } else {
        let upgrades = u16::try_from(shown.upgrades.len()).unwrap_or(u16::MAX);
        let height = upgrades.saturating_add(2).min((middle.height / 3).max(3));
        Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(middle)
    };
    machines_table(frame, top, shown, view, &theme);
    upgrades_list(frame, list, shown, view, &theme);
    upgrade_detail(frame, detail, shown, view, &theme);
    log(frame, bottom, shown, view, &theme);
    if view.help {
        help(frame, area);
    }
}

fn nothing_yet(shown: &Shown) -> String {
    let port = shown.address.rsplit(':').next().unwrap_or_default();
    format!(
        "No machine has reported yet. Give one this word on its command line:\n\n  \
         OTEL_EXPORTER_OTLP_ENDPOINT=http://ADDRESS:{port}\n\n\
         For a machine that `cargo xtask run` starts, this computer is 10.0.2.2:\n\n  \
         cargo xtask run hello --append OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{port}"
    )
}

fn block(title: String, pane: Pane, view: &View) -> Block<'static> {
    let focused = pane == view.pane;
    let style = if focused {
        Style::new().add_modifier(Modifier::BOLD)
    } else {
        Style::new()
    };
    // Without colours the focus is seen by its sign.
    let title = if focused {
        format!(" ▸ {title} ")
    } else {
        format!(" {title} ")
    };
    Block::new()
        .borders(Borders::TOP)
        .title(title)
        .border_style(style)
}

fn selected() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn machines_table(frame: &mut Frame, area: Rect, shown: &Shown, view: &View, theme: &Theme) {
    let row = |machine: &Machine| {
        let last = shown.upgrades.iter().find(|upgrade| upgrade.host == machine.host);
        let (word, style) = last.map_or(("–", theme.plain), |upgrade| theme.outcome(upgrade.outcome));
        let generation = machine
            .running
            .generation
            .map_or_else(|| "–".into(), |number| number.to_string());
        let seen = shown.now_ms.saturating_sub(machine.last_seen_ms) / 1000;
        Row::new([
            Cell::new(clean(&machine.host)),
            Cell::new(clean(&format!(
                "{} {}",
                machine.running.service, machine.running.version
            ))),
            Cell::new(generation),
            Cell::new(word).style(style),
            Cell::new(facts(machine)),
            Cell::new(format!("{seen} s ago")),
        ])
    };
    let head = ["host", "image", "gen", "last upgrade", "platform", "heard of"];
    let widths = [
        Constraint::Min(17),
        Constraint::Min(14),
        Constraint::Length(4),
        Constraint::Length(13),
        Constraint::Min(12),
        Constraint::Length(10),
    ];
    let table = Table::new(shown.fleet.machines.iter().map(|machine| row(machine)), widths)
        .header(Row::new(head).style(theme.muted))
        .row_highlight_style(selected())
        .block(block("Machines".into(), Pane::Machines, view));
    let mut state = TableState::new().with_selected(view.machine_index(shown));
    frame.render_stateful_widget(table, area, &mut state);
}

fn facts(machine: &Machine) -> String {
    let told = |name: &str| machine.facts.get(name).map(String::as_str);
    let role = told("instar.platform.role").unwrap_or("–");
    let tdx = match told("instar.tdx.keyids") {
        None | Some("0") => String::new(),
        Some(keyids) => format!(", {keyids} TDX KeyIDs"),
    };
    clean(&format!("{role}{tdx}"))
}

fn upgrades_list(frame: &mut Frame, area: Rect, shown: &Shown, view: &View, theme: &Theme) {
    let item = |upgrade: &Upgrade| {
        let (word, style) = theme.outcome(upgrade.outcome);
        ListItem::new(Line::from(vec![
            ratatui::text::Span::styled(format!("{word:14}"), style),
            ratatui::text::Span::raw(format!("{:>17}  {}", blackout(upgrade), versions(upgrade))),
        ]))
    };
    let list = List::new(shown.upgrades.iter().map(item))
        .highlight_style(selected())
        .block(block(
            format!("Upgrades: {}", shown.upgrades.len()),
            Pane::Upgrades,
            view,
        ));
    let chosen = (!shown.upgrades.is_empty()).then(|| view.upgrade_index(shown));
    let mut state = ListState::default().with_selected(chosen);
    frame.render_stateful_widget(list, area, &mut state);
}

fn versions(upgrade: &Upgrade) -> String {
    let or = |version: &Option<String>| clean(version.as_deref().unwrap_or("?"));
    format!("{} → {}", or(&upgrade.from), or(&upgrade.to))
}

fn blackout(upgrade: &Upgrade) -> String {
    upgrade.blackout_ns.map_or_else(String::new, |ns| {
        let at_most = if upgrade.blackout_at_most { "at most " } else { "" };
        format!("{at_most}{}", timeline::duration(ns as f64 / 1e6))
    })
}

fn upgrade_detail(frame: &mut Frame, area: Rect, shown: &Shown, view: &View, theme: &Theme) {
    let Some(upgrade) = view.upgrade(shown) else {
        let none = Paragraph::new("none yet: `cargo xtask upgrade` replaces a machine's image");
        return frame.render_widget(none.block(block("Waterfall".into(), Pane::Waterfall, view)), area);
    };
    let part = view.part(upgrade);
    let words = ["", ", around the blackout", ", the way back"];
    let words = words[part.map_or(0, |part| part + 1).min(2)];
    let title = format!(
        "{} {} on {}{words}",
        clean(&upgrade.service),
        versions(upgrade),
        clean(&upgrade.host)
    );
    let (word, style) = theme.outcome(upgrade.outcome);
    let mut lines = vec![Line::styled(format!("{word}  {}", reason(upgrade)), style)];
    if upgrade.blackout_ns.is_some() {
        lines[0].push_span(format!("blackout {} (·)", blackout(upgrade)));
    }
    lines.push(Line::styled("█ predecessor  ▒ successor", theme.muted));
    let rows = view.waterfall_from..view.waterfall_from + usize::from(area.height);
    lines.extend(waterfall::lines(upgrade, rows, area.width.into(), part, theme));
    frame.render_widget(
        Paragraph::new(lines).block(block(title, Pane::Waterfall, view)),
        area,
    );
}

fn reason(upgrade: &Upgrade) -> String {
    match (&upgrade.reason, &upgrade.error_type) {
        (Some(reason), Some(kind)) if !reason.starts_with(kind.as_str()) => {
            format!("{}: {}  ", clean(kind), clean(reason))
        }
        (Some(reason), _) => format!("{}  ", clean(reason)),
        (None, Some(kind)) => format!("{}  ", clean(kind)),
        (None, None) => String::new(),
    }
}

fn log(frame: &mut Frame, area: Rect, shown: &Shown, view: &View, theme: &Theme) {
    let Some(machine) = shown.fleet.machines.get(view.machine_index(shown)) else {
        return;
    };
    let room = usize::from(area.height.saturating_sub(1));
    let end = machine.logs.len() - view.log_from_end.min(machine.logs.len());
    let lines = machine
        .logs
        .iter()
        .take(end)
        .skip(end.saturating_sub(room))
        .map(|line| {
            let style = match line.severity.as_str() {
                "ERROR" => theme.bad,
                "WARN" => theme.back,
                _ => theme.plain,
            };
            let seconds = line.time_ms / 1000 % 86_400;
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let text = format!("{:5} {}: {}", line.severity, line.target, line.message);
            Line::styled(
                format!("{hours:02}:{minutes:02}:{seconds:02} {}", clean(&text)),
                style,
            )
        });
    let title = format!("Log of {} (UTC)", clean(&machine.host));
    frame.render_widget(
        Paragraph::new(lines.collect::<Vec<_>>()).block(block(title, Pane::Log, view)),
        area,
    );
}

fn help(frame: &mut Frame, area: Rect) {
    let text = "Tab, ←→, h l   next or previous part\n\
                ↑↓, j k        move within it\n\
                PgUp, PgDn     ten at once\n\
                Home End, g G  first, last\n\
                Enter          from the list to the waterfall; Esc: back\n\
                z              the whole upgrade, the blackout, the way back\n\
                q, Ctrl-C      quit\n\n\
                █ what the predecessor did, ▒ what the successor did,\n\
                · nobody is answered. Times are of the machine's clock.";
    let place = area.centered(Constraint::Length(64), Constraint::Length(12));
    frame.render_widget(Clear, place);
    frame.render_widget(
        Paragraph::new(text).block(Block::bordered().title(" Help ")),
        place,
    );
}

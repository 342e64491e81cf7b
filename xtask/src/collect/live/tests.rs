use super::view::{Flow, Pane, View};
use super::*;
use crate::collect::api_tests::story;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

fn shown(colour: bool) -> Shown {
    let fleet = story();
    let mut upgrades = fleet.upgrades();
    upgrades.reverse();
    Shown {
        fleet,
        upgrades,
        now_ms: 5000,
        address: "http://127.0.0.1:4318".into(),
        colour,
    }
}

fn drawn(width: u16, height: u16, shown: &Shown, view: &View) -> (String, Vec<Color>) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal
        .draw(|frame| draw::screen(frame, shown, view))
        .expect("drawn");
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    let text = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n");
    let colours = buffer
        .content()
        .iter()
        .map(|cell| cell.fg)
        .filter(|colour| *colour != Color::Reset);
    (text.collect(), colours.collect())
}

fn press(view: &mut View, shown: &Shown, codes: &[KeyCode]) {
    for code in codes {
        assert_eq!(view.key(KeyEvent::from(*code), shown), Flow::GoOn);
    }
}

#[test]
fn shows_machines_upgrades_waterfall_and_log() {
    let shown = shown(true);
    let mut view = View::default();
    let (text, colours) = drawn(140, 40, &shown, &view);
    for words in [
        "http://127.0.0.1:4318",
        "hello 1.1.0",
        "↩ rolled back",
        "✓ committed",
        "panic: as the version says",
        "1.1.0 → 1.2.0",
        "core 0",
        "core 1",
        "▸ Upgrades: 2",
        "net: staged",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    assert!(!colours.is_empty());
    assert!(text.contains('█') && text.contains('·'), "{text}");
    // The older one has a successor that told something.
    press(&mut view, &shown, &[KeyCode::Char('j')]);
    let (text, _) = drawn(140, 40, &shown, &view);
    assert!(
        text.contains('▒') && text.contains("blackout 30.00 ms (·)"),
        "{text}"
    );
}

#[test]
fn small_and_colourless_screens_show_what_fits() {
    let shown = shown(false);
    let mut view = View {
        help: true,
        ..View::default()
    };
    for (width, height) in [(80, 24), (60, 20), (20, 6), (3, 2), (1, 1), (300, 100)] {
        let (_, colours) = drawn(width, height, &shown, &view);
        assert!(colours.is_empty(), "{width} by {height}");
    }
    press(&mut view, &shown, &[KeyCode::Esc]);
    let (text, _) = drawn(80, 30, &shown, &view);
    assert!(
        text.contains("core 1") && text.contains("↩ rolled back"),
        "{text}"
    );
    let empty = Shown {
        fleet: Fleet::default(),
        upgrades: Vec::new(),
        ..self::shown(false)
    };
    let (text, _) = drawn(100, 30, &empty, &View::default());
    assert!(
        text.contains("OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:4318"),
        "{text}"
    );
}

#[test]
fn keys_move_and_end() {
    let shown = shown(false);
    let mut view = View::default();
    press(&mut view, &shown, &[KeyCode::Down, KeyCode::Down, KeyCode::Down]);
    assert_eq!(view.upgrade_index(&shown), 1, "no further than the last");
    press(&mut view, &shown, &[KeyCode::Up]);
    assert_eq!(view.upgrade_index(&shown), 0);
    press(&mut view, &shown, &[KeyCode::Enter]);
    assert_eq!(view.pane, Pane::Waterfall);
    press(&mut view, &shown, &[KeyCode::End]);
    let rows = view.upgrade(&shown).expect("one").rows.len();
    assert_eq!(view.waterfall_from, rows - 1);
    press(
        &mut view,
        &shown,
        &[KeyCode::Esc, KeyCode::Tab, KeyCode::Tab, KeyCode::Tab],
    );
    assert_eq!(view.pane, Pane::Machines);
    press(&mut view, &shown, &[KeyCode::BackTab, KeyCode::Home]);
    assert_eq!(
        (view.pane, view.log_from_end),
        (Pane::Log, shown.fleet.machines[0].logs.len() - 1)
    );
    let part = |view: &View| view.part(view.upgrade(&shown).expect("one"));
    assert_eq!(part(&view), None, "the whole");
    press(&mut view, &shown, &[KeyCode::Char('z')]);
    assert_eq!(part(&view), Some(0), "the blackout");
    let (text, _) = drawn(140, 40, &shown, &view);
    assert!(text.contains(", around the blackout"), "{text}");
    press(&mut view, &shown, &[KeyCode::Char('z')]);
    assert_eq!(part(&view), None, "it has one part");
    let (mut quit, mut cancel) = (view.clone(), view.clone());
    assert_eq!(quit.key(KeyEvent::from(KeyCode::Char('q')), &shown), Flow::End);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(cancel.key(control_c, &shown), Flow::End);
}

#[test]
fn nobody_outside_moves_the_cursor() {
    let mut shown = shown(false);
    for upgrade in &mut shown.upgrades {
        upgrade.to = Some("\x1b[2J\u{202e}x".into());
        upgrade.reason = Some("a\nb\x07".into());
        for row in &mut upgrade.rows {
            row.name = "\x1b]0;\u{202e}x\x07".into();
        }
    }
    let (text, _) = drawn(120, 40, &shown, &View::default());
    let harmful = |character: char| character != '\n' && (character.is_control() || character == '\u{202e}');
    assert!(!text.contains(harmful), "{text}");
}

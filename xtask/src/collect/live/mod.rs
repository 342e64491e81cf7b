//! The live view in a terminal: machines, upgrades, one upgrade's waterfall, the last log lines.
//!
//! | module | what |
//! |---|---|
//! | [`view`] | what is selected, and what keys do: pure |
//! | [`draw`] | from what came in to the screen's cells: pure |
//! | [`waterfall`] | an upgrade's lines: pure |

mod draw;
#[cfg(test)]
mod tests;
mod view;
mod waterfall;

use super::fleet::Fleet;
use super::page::now_ms;
use super::server::Collector;
use super::upgrade::Upgrade;
use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use view::{Flow, View};

/// How long a key is waited for before the next look at what came in.
const LOOK: Duration = Duration::from_millis(200);

/// How often times that are told as "ago" are told anew.
const TICK: Duration = Duration::from_secs(1);

/// What is to be drawn.
struct Shown {
    fleet: Fleet,
    /// Newest first.
    upgrades: Vec<Upgrade>,
    now_ms: u64,
    address: String,
    /// Whether there are to be colours (<https://no-color.org>).
    colour: bool,
}

/// Shows what comes in until a key or a signal ends it; leaves the terminal as it was, also on a panic.
pub(super) fn main(collector: &Collector) -> Result<()> {
    let mut terminal =
        ratatui::try_init().context("the terminal cannot be used for a live view; add --plain")?;
    let ended = show(collector, &mut terminal);
    ratatui::restore();
    ended
}

fn show(collector: &Collector, terminal: &mut ratatui::DefaultTerminal) -> Result<()> {
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        flag::register(signal, signalled.clone())?;
    }
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut view = View::default();
    let mut shown = Shown {
        fleet: Fleet::default(),
        upgrades: Vec::new(),
        now_ms: now_ms(),
        address: format!("http://{}", collector.address()),
        colour,
    };
    let mut drawn: Option<Instant> = None;
    while !signalled.load(Ordering::Relaxed) {
        let news = collector.with(|received| {
            (received.fleet.revision != shown.fleet.revision).then(|| received.fleet.clone())
        });
        if let Some(fleet) = news {
            shown.upgrades = fleet.upgrades();
            shown.upgrades.reverse();
            shown.fleet = fleet;
            drawn = None;
        }
        if drawn.is_none_or(|drawn| drawn.elapsed() >= TICK) {
            shown.now_ms = now_ms();
            view.settle(&shown);
            terminal.draw(|frame| draw::screen(frame, &shown, &view))?;
            drawn = Some(Instant::now());
        }
        if !event::poll(LOOK)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release && view.key(key, &shown) == Flow::End => {
                return Ok(());
            }
            _ => drawn = None,
        }
    }
    Ok(())
}

//! What is selected, and what keys do.

use super::Shown;
use crate::collect::upgrade::Upgrade;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A part of the screen that keys can be for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    Machines,
    #[default]
    Upgrades,
    Waterfall,
    Log,
}

/// Whether to go on after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    GoOn,
    End,
}

/// What is selected.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub pane: Pane,
    /// The selected machine's key; the first one if there is no such.
    pub machine: Option<u32>,
    /// The selected upgrade's id; the newest one, whichever that is, as long as nothing was selected.
    pub upgrade: Option<String>,
    /// Lines of the waterfall above the screen.
    pub waterfall_from: usize,
    /// Lines of the log below the screen.
    pub log_from_end: usize,
    /// Whole upgrade or a part of its blackout; as the upgrade is, unless a key has said.
    pub part: Option<Option<usize>>,
    pub help: bool,
}

impl View {
    /// The selected machine's place among all.
    pub fn machine_index(&self, shown: &Shown) -> usize {
        let machines = &shown.fleet.machines;
        machines
            .iter()
            .position(|machine| Some(machine.key) == self.machine)
            .unwrap_or(0)
    }

    /// The selected upgrade's place among all.
    pub fn upgrade_index(&self, shown: &Shown) -> usize {
        let upgrades = &shown.upgrades;
        upgrades
            .iter()
            .position(|upgrade| Some(&upgrade.id) == self.upgrade.as_ref())
            .unwrap_or(0)
    }

    /// The selected upgrade.
    pub fn upgrade<'a>(&self, shown: &'a Shown) -> Option<&'a Upgrade> {
        shown.upgrades.get(self.upgrade_index(shown))
    }

    /// The part of the blackout around which time is drawn; none: the whole upgrade.
    pub fn part(&self, upgrade: &Upgrade) -> Option<usize> {
        let short = upgrade
            .blackout_ns
            .is_some_and(|blackout| blackout < upgrade.duration_ns / 10);
        let part = self.part.unwrap_or(short.then_some(0));
        part.filter(|part| *part < upgrade.blackout.len())
    }

    /// The next part, and after the last the whole.
    fn zoom(&mut self, upgrade: &Upgrade) {
        let next = self.part(upgrade).map_or(0, |part| part + 1);
        self.part = Some(Some(next).filter(|next| *next < upgrade.blackout.len()));
    }

    /// Keeps what is scrolled within what there is.
    pub fn settle(&mut self, shown: &Shown) {
        let rows = self.upgrade(shown).map_or(0, |upgrade| upgrade.rows.len());
        self.waterfall_from = self.waterfall_from.min(rows.saturating_sub(1));
        let machine = shown.fleet.machines.get(self.machine_index(shown));
        let lines = machine.map_or(0, |machine| machine.logs.len());
        self.log_from_end = self.log_from_end.min(lines.saturating_sub(1));
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, shown: &Shown) -> Flow {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Flow::End,
            KeyCode::Char('q') => return Flow::End,
            // Any other key takes the help away.
            _ if self.help => self.help = false,
            KeyCode::Char('?') => self.help = true,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.pane = self.pane.next(),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.pane = self.pane.previous(),
            KeyCode::Enter if self.pane == Pane::Upgrades => self.pane = Pane::Waterfall,
            KeyCode::Esc => self.pane = Pane::Upgrades,
            KeyCode::Down | KeyCode::Char('j') => self.step(1, shown),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1, shown),
            KeyCode::PageDown => self.step(10, shown),
            KeyCode::PageUp => self.step(-10, shown),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN, shown),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX, shown),
            KeyCode::Char('z') => {
                if let Some(upgrade) = self.upgrade(shown) {
                    self.zoom(upgrade);
                }
            }
            _ => {}
        }
        self.settle(shown);
        Flow::GoOn
    }

    fn step(&mut self, by: isize, shown: &Shown) {
        let to = |at: usize, count: usize| at.saturating_add_signed(by).min(count.saturating_sub(1));
        match self.pane {
            Pane::Machines => {
                let index = to(self.machine_index(shown), shown.fleet.machines.len());
                self.machine = shown.fleet.machines.get(index).map(|machine| machine.key);
                self.log_from_end = 0;
            }
            Pane::Upgrades => {
                let index = to(self.upgrade_index(shown), shown.upgrades.len());
                self.upgrade = shown.upgrades.get(index).map(|upgrade| upgrade.id.clone());
                self.waterfall_from = 0;
                self.part = None;
            }
            Pane::Waterfall => self.waterfall_from = self.waterfall_from.saturating_add_signed(by),
            // The newest line is at the bottom.
            Pane::Log => self.log_from_end = self.log_from_end.saturating_add_signed(by.saturating_neg()),
        }
    }
}

impl Pane {
    fn next(self) -> Self {
        match self {
            Pane::Machines => Pane::Upgrades,
            Pane::Upgrades => Pane::Waterfall,
            Pane::Waterfall => Pane::Log,
            Pane::Log => Pane::Machines,
        }
    }

    fn previous(self) -> Self {
        self.next().next().next()
    }
}

//! What the page asks for, as JSON. Shapes: `docs/interfaces.md`, "What the collector's page asks".

use super::fleet::{Fleet, Generation, Line, Machine, Number};
use super::upgrade::Upgrade;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// Most upgrades in one answer: the newest.
pub(super) const MAX_UPGRADES: usize = 200;

/// `/api/fleet`.
#[derive(Serialize)]
struct Overview<'a> {
    revision: u64,
    now_ms: u64,
    machines: Vec<Summary<'a>>,
    upgrades: Vec<Upgrade>,
}

/// One machine, in short.
#[derive(Serialize)]
struct Summary<'a> {
    key: u32,
    host: &'a str,
    running: &'a Generation,
    last_seen_ms: u64,
    facts: &'a BTreeMap<&'static str, String>,
    /// How its last replacement stands.
    last: Option<&'static str>,
}

/// `/api/machines/KEY`.
#[derive(Serialize)]
struct Details<'a> {
    key: u32,
    host: &'a str,
    generations: &'a VecDeque<Generation>,
    logs: &'a VecDeque<Line>,
    numbers: Vec<&'a Number>,
}

/// What `/api/PATH` answers; none if there is no such thing.
pub(super) fn answer(path: &str, fleet: &Fleet, now_ms: u64) -> Option<String> {
    if path == "fleet" {
        return json(&overview(fleet, now_ms));
    }
    if let Some(key) = path.strip_prefix("machines/") {
        let key = key.parse::<u32>().ok()?;
        let machine = fleet.machines.iter().find(|machine| machine.key == key)?;
        return json(&details(machine));
    }
    let id = path.strip_prefix("upgrades/")?;
    json(&fleet.upgrade(id)?)
}

fn json(shape: &impl Serialize) -> Option<String> {
    serde_json::to_string(shape).ok()
}

fn overview(fleet: &Fleet, now_ms: u64) -> Overview<'_> {
    let upgrades = fleet.upgrades();
    let summary = |machine: &'_ std::sync::Arc<Machine>| -> Option<&'static str> {
        let last = upgrades.iter().rev().find(|upgrade| upgrade.host == machine.host);
        last.map(|upgrade| upgrade.outcome.name())
    };
    let machines = fleet
        .machines
        .iter()
        .map(|machine| Summary {
            key: machine.key,
            host: &machine.host,
            running: &machine.running,
            last_seen_ms: machine.last_seen_ms,
            facts: &machine.facts,
            last: summary(machine),
        })
        .collect();
    let skip = upgrades.len().saturating_sub(MAX_UPGRADES);
    Overview {
        revision: fleet.revision,
        now_ms,
        machines,
        upgrades: upgrades.into_iter().skip(skip).map(Upgrade::summary).collect(),
    }
}

fn details(machine: &Machine) -> Details<'_> {
    Details {
        key: machine.key,
        host: &machine.host,
        generations: &machine.generations,
        logs: &machine.logs,
        numbers: machine.numbers.values().collect(),
    }
}

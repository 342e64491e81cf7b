//! What the page is told: shapes, bounds, and what senders can do to it.

use super::fleet::*;
use super::received::{Item, Log, Point, Source, Span};
use super::upgrade::Outcome;
use super::{api, page};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// An instar of a machine.
fn source(host: &str, generation: u64, version: &str) -> Arc<Source> {
    let attributes = json!({"instar.measurement": format!("chain-{generation}"), "instar.platform.role": "host",
        "instar.tdx.keyids": 32, "secret": "not told"});
    Arc::new(Source {
        service: "hello".into(),
        version: version.into(),
        instance: format!("{host}-{generation}-{version}"),
        host: host.into(),
        generation: Some(generation),
        attributes: attributes.as_object().cloned().unwrap_or_default(),
    })
}

/// A span: id, parent, name, from and to in milliseconds.
type Sketch<'a> = (u64, u64, &'a str, u64, u64);

fn span(source: &Arc<Source>, trace: u8, (id, parent, name, from, to): Sketch) -> Span {
    let mut attributes = Map::new();
    if name == "flush core" {
        attributes.insert("cpu.logical_number".into(), json!(id % 10));
    }
    Span {
        source: source.clone(),
        trace_id: format!("{trace:02x}").repeat(16),
        span_id: format!("{id:016x}"),
        parent: (parent != 0).then(|| format!("{parent:016x}")),
        name: name.into(),
        start_ns: from * 1_000_000,
        end_ns: to * 1_000_000,
        attributes,
        events: Vec::new(),
        error: None,
    }
}

fn ended(mut root: Span, from: &str, to: &str, outcome: &str) -> Item {
    let told = json!({"instar.replacement.from": from, "instar.replacement.to": to, "instar.replacement.outcome": outcome});
    root.attributes
        .extend(told.as_object().cloned().unwrap_or_default());
    Item::Span(Arc::new(root))
}

fn log(source: &Arc<Source>, time_ms: u64, message: &str) -> Item {
    Item::Log(Arc::new(Log {
        source: source.clone(),
        time_ns: time_ms * 1_000_000,
        severity: "INFO".into(),
        target: "net".into(),
        message: message.into(),
        trace_id: None,
    }))
}

fn point(source: &Arc<Source>, time_ms: u64, metric: &str, value: Value) -> Item {
    Item::Point(Arc::new(Point {
        source: source.clone(),
        metric: metric.into(),
        unit: "By".into(),
        monotonic: false,
        start_ns: 0,
        time_ns: time_ms * 1_000_000,
        value,
        attributes: Map::from_iter([("state".to_owned(), json!("used"))]),
    }))
}

/// One machine: an upgrade that was committed, and one that was not.
pub(super) fn story() -> Fleet {
    let (one, two) = (source("m", 1, "1.0.0"), source("m", 2, "1.1.0"));
    let mut fleet = Fleet::default();
    fleet.take(&log(&one, 1000, "staged"), 1);
    let first = [
        (10, 1, "receive", 1000, 1040),
        (11, 1, "quiesce", 1050, 1060),
        (12, 1, "flush", 1060, 1062),
        (20, 12, "flush core", 1060, 1061),
        (21, 12, "flush core", 1061, 1062),
    ];
    for sketch in first {
        fleet.take(&Item::Span(Arc::new(span(&one, 7, sketch))), 2);
    }
    for sketch in [(13, 1, "start", 1062, 1070), (14, 1, "first_answer", 1070, 1090)] {
        fleet.take(&Item::Span(Arc::new(span(&two, 7, sketch))), 2);
    }
    fleet.take(
        &ended(
            span(&two, 7, (1, 0, "replacement", 1000, 1100)),
            "1.0.0",
            "1.1.0",
            "committed",
        ),
        2,
    );
    fleet.take(&log(&two, 1200, "serving"), 3);
    fleet.take(&point(&two, 1210, "system.memory.usage", json!(4096)), 3);
    // What the predecessor had not delivered comes late.
    fleet.take(&log(&one, 1045, "order accepted"), 4);
    let second = [
        (30, 3, "quiesce", 2050, 2060),
        (31, 3, "probation", 2060, 2070),
        (32, 3, "rollback", 2070, 2080),
        (33, 3, "early_flush", 2040, 2042),
        (40, 33, "flush core", 2040, 2041),
        (41, 33, "flush core", 2041, 2042),
    ];
    for sketch in second {
        fleet.take(&Item::Span(Arc::new(span(&two, 8, sketch))), 5);
    }
    let mut root = span(&two, 8, (3, 99, "replacement", 2000, 2090));
    root.error = Some("panic: as the version says".into());
    root.attributes.insert("error.type".into(), json!("panic"));
    fleet.take(&ended(root, "1.1.0", "1.2.0", "rolled-back"), 5);
    fleet
}

fn ask(fleet: &Fleet, path: &str) -> Value {
    let text = api::answer(path, fleet, 9).unwrap_or_else(|| panic!("{path} is not there"));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_fleet_tells_who_runs_and_how_upgrades_ended() {
    let fleet = story();
    let told = ask(&fleet, "fleet");
    let machine = &told["machines"][0];
    assert_eq!(
        (&machine["host"], &machine["last"]),
        (&json!("m"), &json!("rolled-back"))
    );
    assert_eq!(
        machine["running"]["generation"], 2,
        "late words do not say who runs"
    );
    assert_eq!(
        machine["facts"],
        json!({"instar.platform.role": "host", "instar.tdx.keyids": "32"})
    );
    let upgrades = told["upgrades"].as_array().expect("a list");
    let shape = |upgrade: &Value| {
        json!([
            upgrade["from"],
            upgrade["to"],
            upgrade["outcome"],
            upgrade["blackout_ns"],
            upgrade["blackout_at_most"]
        ])
    };
    assert_eq!(
        shape(&upgrades[0]),
        json!(["1.0.0", "1.1.0", "committed", 30_000_000, false])
    );
    assert_eq!(
        shape(&upgrades[1]),
        json!(["1.1.0", "1.2.0", "rolled-back", 20_000_000, true])
    );
    assert_eq!(upgrades[1]["reason"], "panic: as the version says");
    assert_eq!(upgrades[1]["error_type"], "panic");
    assert!(upgrades[0].get("rows").is_none(), "the overview has no spans");
    let key = &machine["key"];
    let machine = ask(&fleet, &format!("machines/{key}"));
    let generations: Vec<_> = machine["generations"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert_eq!(
        (generations.len(), &generations[1]["measurement"]),
        (2, &json!("chain-2"))
    );
    let messages: Vec<_> = machine["logs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| &line["message"])
        .collect();
    assert_eq!(
        messages,
        ["staged", "order accepted", "serving"],
        "by the machine's time"
    );
    assert_eq!(
        machine["numbers"],
        json!([{"metric": "system.memory.usage", "unit": "By", "of": "used", "value": 4096.0}])
    );
    assert_eq!(api::answer("machines/77", &fleet, 0), None);
    assert_eq!(api::answer("upgrades/", &fleet, 0), None);
    assert_eq!(api::answer("", &fleet, 0), None);
}

#[test]
fn an_upgrade_is_a_row_for_each_span() {
    let fleet = story();
    let id = fleet.upgrades()[0].id.clone();
    let told = ask(&fleet, &format!("upgrades/{id}"));
    let rows = told["rows"].as_array().expect("a list");
    let shape: Vec<_> = rows
        .iter()
        .map(|row| json!([row["depth"], row["name"], row["by"], row["core"]]))
        .collect();
    let expected = [
        json!([0, "replacement", "both", null]),
        json!([1, "receive", "predecessor", null]),
        json!([1, "quiesce", "predecessor", null]),
        json!([1, "flush", "predecessor", null]),
        json!([2, "flush core", "predecessor", 0]),
        json!([2, "flush core", "predecessor", 1]),
        json!([1, "start", "successor", null]),
        json!([1, "first_answer", "successor", null]),
    ];
    assert_eq!(shape, expected);
    assert_eq!(told["blackout"], json!([[60_000_000, 90_000_000]]));
    assert_eq!(
        (&rows[2]["start_ns"], &rows[2]["duration_ns"]),
        (&json!(50_000_000), &json!(10_000_000))
    );
}

#[test]
fn an_upgrade_is_shown_while_it_happens_and_apart_from_others_of_its_trace() {
    let (one, two) = (source("m", 1, "1.0.0"), source("n", 4, "1.0.0"));
    let mut fleet = Fleet::default();
    // A pipeline's trace: two machines, and one of them twice; no root has come yet.
    for (from, root, at) in [(&one, 50, 100), (&two, 51, 110), (&one, 52, 300)] {
        let receive = span(from, 9, (root + 100, root, "receive", at, at + 10));
        fleet.take(&Item::Span(Arc::new(receive)), 1);
    }
    let upgrades = fleet.upgrades();
    let shape: Vec<_> = upgrades
        .iter()
        .map(|upgrade| (upgrade.host.as_str(), upgrade.outcome, upgrade.start_ms))
        .collect();
    assert_eq!(
        shape,
        [
            ("m", Outcome::Pending, 100),
            ("n", Outcome::Pending, 110),
            ("m", Outcome::Pending, 300)
        ]
    );
    assert_eq!(upgrades[0].from.as_deref(), Some("1.0.0"));
    assert_eq!(upgrades[0].blackout_ns, None);
    let id = upgrades[0].id.clone();
    let root = span(&one, 9, (50, 7777, "replacement", 100, 200));
    fleet.take(&ended(root, "1.0.0", "2.0.0", "failed"), 2);
    let upgrades = fleet.upgrades();
    assert_eq!(
        (upgrades.len(), &upgrades[0].id),
        (3, &id),
        "the root joins its parts"
    );
    assert_eq!(
        (upgrades[0].outcome, upgrades[0].rows.len()),
        (Outcome::Failed, 2)
    );
}

#[test]
fn a_rollback_after_the_first_answer_has_two_dark_times() {
    let two = source("m", 2, "1.1.0");
    let three = source("m", 3, "1.2.0");
    let mut fleet = Fleet::default();
    for (from, sketch) in [
        (&two, (1, 9, "quiesce", 0, 10)),
        (&three, (2, 9, "first_answer", 20, 40)),
        (&two, (3, 9, "rollback", 1000, 1005)),
    ] {
        fleet.take(&Item::Span(Arc::new(span(from, 1, sketch))), 1);
    }
    let upgrade = &fleet.upgrades()[0];
    assert_eq!(
        (upgrade.blackout_ns, upgrade.blackout_at_most),
        (Some(35_000_000), false)
    );
    assert_eq!(
        upgrade.to.as_deref(),
        Some("1.2.0"),
        "as the successor said itself"
    );
}

#[test]
fn hostile_senders_cost_a_bounded_amount_and_stay_text() {
    let mut fleet = Fleet::default();
    let long = "<script>alert(1)</script>\u{1f600}".repeat(300);
    for number in 0..1000u64 {
        let mut from = Source::clone(&source(&format!("{long}{number}"), number, &long));
        from.host = format!("{number} {long}");
        from.attributes.insert("instar.sme".into(), json!(long));
        let from = Arc::new(from);
        fleet.take(&log(&from, u64::MAX / 1_000_000, &long), number);
        fleet.take(
            &point(&from, number, &format!("system.memory.{long}"), json!(1)),
            number,
        );
        let mut part = span(
            &from,
            (number % 256) as u8,
            (number + 1, number + 1, "receive", 5, 1),
        );
        part.attributes
            .extend((0..100).map(|key| (format!("{key}{long}"), json!(long))));
        part.end_ns = u64::MAX;
        fleet.take(&Item::Span(Arc::new(part)), number);
    }
    assert_eq!(fleet.machines.len(), MAX_MACHINES);
    assert!(fleet.machines[0].host.starts_with("872 "), "the oldest went");
    let overview = api::answer("fleet", &fleet, 0).expect("an answer");
    assert!(overview.len() < 1 << 20, "{}", overview.len());
    let details = ask(&fleet, &format!("machines/{}", fleet.machines[0].key)).to_string();
    assert!(details.len() < 16 << 10, "{}", details.len());
    for upgrade in fleet.upgrades() {
        let one = ask(&fleet, &format!("upgrades/{}", upgrade.id)).to_string();
        assert!(one.len() < 16 << 10, "{}", one.len());
    }
}

#[test]
fn one_machine_has_bounds_too() {
    let mut fleet = Fleet::default();
    for number in 0..10_000u64 {
        let from = source("m", number / 50, "1.0.0");
        fleet.take(&log(&from, number, &number.to_string()), number);
        fleet.take(
            &point(&from, number, &format!("system.memory.{number}"), json!(1)),
            number,
        );
        let part = span(&from, 3, (number + 2, 1, "receive", number, number));
        fleet.take(&Item::Span(Arc::new(part)), number);
    }
    let machine = &fleet.machines[0];
    assert_eq!(
        (machine.generations.len(), machine.logs.len()),
        (MAX_GENERATIONS, MAX_LOGS)
    );
    assert_eq!(machine.numbers.len(), 64);
    assert_eq!(
        machine.logs.back().map(|line| line.message.as_str()),
        Some("9999")
    );
    assert_eq!(fleet.upgrades()[0].rows.len(), MAX_BARS_OF_ONE);
    for trace in 0..80 {
        for number in 0..500u64 {
            let part = span(
                &source("m", 1, "1.0.0"),
                trace,
                (number + 2, 1, "receive", number, number),
            );
            fleet.take(&Item::Span(Arc::new(part)), 1);
        }
    }
    let rows: usize = fleet.upgrades().iter().map(|upgrade| upgrade.rows.len()).sum();
    assert!(rows <= MAX_BARS && rows > MAX_BARS - 5000, "{rows}");
}

#[test]
fn knots_of_spans_end() {
    let from = source("m", 1, "1.0.0");
    let mut fleet = Fleet::default();
    for sketch in [
        (1, 2, "receive", 0, 1),
        (2, 1, "stage", 0, 1),
        (3, 3, "jump", 0, 1),
        (4, 3, "quiesce", 5, 5),
    ] {
        fleet.take(&Item::Span(Arc::new(span(&from, 1, sketch))), 1);
    }
    // What matters is that this ends.
    for upgrade in fleet.upgrades() {
        ask(&fleet, &format!("upgrades/{}", upgrade.id));
    }
    let _ = page::now_ms();
}

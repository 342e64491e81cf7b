//! Promise `both-ends-tell`: one replacement is one trace, whole and told once, whoever is left to tell it and wherever the
//! collector was in the meantime.

use machine_tests::{
    clients::{self, Answer},
    collector::{Away, Collector},
    image::Parts,
    machine::{Machine, Setup},
    matrix::patch_entry,
    prepared::App,
    trace::{AFTER, BEFORE, Expected},
};
use serde_json::Value;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn boot(cores: u32, app: App, append: &str) -> Machine {
    Setup {
        app,
        cores,
        append: format!("{append} instar.flush=always"),
        ..Setup::default()
    }
    .boot()
}

fn trace_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.body);
    let trace = answer.json()["accepted"]["trace_id"].clone();
    trace.as_str().expect("a trace id").to_owned()
}

/// Orders what is staged. Returns the trace.
fn order(machine: &Machine, header: &str) -> String {
    let order = machine.facts().replace(&machine.prepared.operator);
    let answer = clients::request_with(machine.control, "POST", "/v1/orders", header, &order);
    trace_of(&answer.expect("an answer to an order"))
}

/// Stages an image, and replaces by it. Returns the trace, when the successor is committed.
fn upgrade(machine: &Machine, image_header: &str, order_header: &str) -> String {
    let image = &machine.prepared.new;
    let answer = clients::request_with(machine.control, "PUT", "/v1/image", image_header, image);
    assert_eq!(answer.expect("an answer to a push").status, 201);
    let next = machine.facts().generation + 1;
    let trace = order(machine, order_header);
    machine.wait_line(&format!("instar: serving generation={next} "));
    machine.wait_until("the successor, committed", |status| {
        status["generation"] == next && status["state"] == "serving"
    });
    trace
}

const NOTHING: &str = "X-Nothing: 1";

fn committed<'a>(trace: &'a str, from: i64, cores: i64) -> Expected<'a> {
    Expected {
        trace,
        parent: "",
        from,
        phases: [&BEFORE[..], &AFTER[..]].concat(),
        cut_off: &[],
        flushed: [0..cores, 0..cores].map(Iterator::collect),
    }
}

#[test]
fn an_upgrade_is_a_part_of_the_pipelines_trace() {
    for cores in [1, 4] {
        let collector = Collector::start();
        let machine = boot(cores, App::Hello, &collector.append());
        let cores = i64::from(cores);
        // Not sampled there; told all the same.
        let header = format!("Traceparent: 00-{TRACE}-{SPAN}-00");
        let other = format!("traceparent: 00-{}-{SPAN}-01", "1".repeat(32));
        assert_eq!(upgrade(&machine, &other, &header), TRACE);
        machine.assert_answers();
        let expected = Expected {
            parent: SPAN,
            ..committed(TRACE, 1, cores)
        };
        let spans = expected.wait(&collector);
        assert_eq!(spans["replacement"].flags & 0xff, 1, "the id may not be random");
        assert_eq!(
            (&*spans["jump"].version, &*spans["start"].version),
            ("1.0.0", "1.1.0")
        );
        // The same story by itself.
        let status = machine.wait_until("the whole story", |status| {
            status["last_replacement"]["blackout_ms"].is_number()
        });
        let last = &status["last_replacement"];
        assert_eq!(last["span_id"], *spans["replacement"].id);
        let told = last["spans"].as_array().expect("spans").iter();
        let mut told: Vec<&str> = told.filter_map(|span| span["name"].as_str()).collect();
        let mut phases = expected.phases;
        told.sort_unstable();
        phases.sort_unstable();
        assert_eq!(told, phases);

        // What both instars said while it went on belongs to it.
        let root = &spans["replacement"].id;
        for (generation, words) in [
            (1, "order accepted: replace by image"),
            (2, " committed, blackout "),
        ] {
            collector.wait_for_logs(words, |logs| {
                logs.iter().any(|log| {
                    log.generation == generation
                        && log.message.contains(words)
                        && log.trace == TRACE
                        && log.span == *root
                })
            });
        }
        if cores == 1 {
            continue;
        }

        // The push's will do, if the order has none.
        let header = format!("traceparent: 00-{TRACE}-{SPAN}-03");
        let image = &machine.prepared.new;
        let pushed = clients::request_with(machine.control, "PUT", "/v1/image", &header, image);
        assert_eq!(pushed.expect("an answer").status, 201);
        assert_eq!(order(&machine, NOTHING), TRACE, "the image's");
        machine.wait_until("the third", |status| {
            status["generation"] == 3 && status["state"] == "serving"
        });
        machine.assert_answers();
        let second = collector.wait_for_spans("another root", |spans| {
            let roots = spans.iter().filter(|span| span.name == "replacement");
            roots.filter(|span| span.trace == TRACE).count() == 2
        });
        let second: Vec<_> = second
            .into_iter()
            .skip_while(|span| span.id != *root)
            .skip(1)
            .filter(|span| span.trace == TRACE)
            .collect();
        let expected = Expected {
            parent: SPAN,
            ..committed(TRACE, 2, cores)
        };
        let told = expected.judge(&second);
        let ids = told
            .values()
            .all(|span| spans.values().all(|first| first.id != span.id));
        assert!(ids, "two replacements of one trace have ids of their own");

        // One that is invalid, and two, are none.
        for header in [
            format!("traceparent: 00-{TRACE}-{}-01", "0".repeat(16)),
            format!("traceparent: 00-{TRACE}-{SPAN}-01\r\ntraceparent: 00-{TRACE}-{SPAN}-01"),
        ] {
            let from = machine.status()["generation"].as_i64().expect("a generation");
            let trace = upgrade(&machine, NOTHING, &header);
            assert_ne!(trace, TRACE);
            machine.assert_answers();
            let told = committed(&trace, from, cores).wait(&collector);
            assert_eq!(told["replacement"].flags & 0xff, 3, "ours is random");
        }
    }
}

/// Stages an image of this version, orders it, and waits until the predecessor is back from it.
fn fail(machine: &Machine, elf: &[u8], version: &str) -> (String, Value) {
    machine.stage(&Parts::signed(elf, version, &machine.prepared.release).pack());
    let trace = order(machine, NOTHING);
    // Asking while nobody is there costs seconds of retransmission.
    machine.wait_line(&format!("{version} gave the machine back"));
    let status = machine.wait_until("the predecessor", |status| {
        let last = &status["last_replacement"];
        last["trace_id"] == *trace && last["outcome"] == "rolled-back" && status["state"] == "serving"
    });
    (trace, status)
}

/// Each moment at which a successor may die, and how far it came: phases that ended, and those that were cut off.
const DEATHS: [(&str, &[&str], &[&str]); 5] = [
    ("before-heap", &[], &["start"]),
    ("before-network", &["start"], &["network"]),
    ("before-cores", &["start", "network"], &["first_answer"]),
    ("after", &["start", "network", "cores"], &["first_answer"]),
    ("before-commit", &["start", "network", "cores"], &["first_answer"]),
];

#[test]
fn a_rollback_tells_how_far_the_successor_came() {
    for cores in [1, 4] {
        let collector = Collector::start();
        let machine = boot(cores, App::Trial, &collector.append());
        let Parts { elf, .. } = &machine.prepared.parts;
        let rolled_back = |trace: &str, done: &[&'static str], cut_off: &[&'static str]| {
            let cut_off = [cut_off, &["probation"]].concat();
            let phases = [&BEFORE[..], done, &cut_off, &["rollback"]].concat();
            let mut phases: Vec<&str> = phases;
            phases.sort_unstable();
            phases.dedup();
            let expected = Expected {
                phases,
                cut_off: &cut_off,
                ..committed(trace, 1, cores.into())
            };
            expected.wait(&collector)
        };
        let mut instances = Vec::new();
        for (moment, done, cut_off) in DEATHS {
            let version = format!("1.2.0-panic.{moment}");
            let (trace, status) = fail(&machine, elf, &version);
            let spans = rolled_back(&trace, done, cut_off);
            let last = &status["last_replacement"];
            for span in last["spans"].as_array().expect("spans") {
                let name = span["name"].as_str().unwrap_or_default();
                let expected = cut_off.contains(&name) || name == "probation";
                assert_eq!(span["cut_off"], expected, "{version}: {span}");
            }
            for span in cut_off.iter().map(|name| &spans[*name]) {
                assert_eq!(span.end_ns, spans["probation"].end_ns, "{version}");
                assert_eq!(
                    (span.error.as_deref(), &*span.version),
                    (Some("panic"), &*version)
                );
            }
            instances.push(spans["probation"].instance.clone());
        }
        instances.push(collector_instance(&collector, 1));
        instances.sort_unstable();
        instances.dedup();
        assert_eq!(instances.len(), DEATHS.len() + 1, "each instar has its own");

        // Nothing of it ran.
        let mut elf = elf.clone();
        patch_entry(&mut elf, &[0x0f, 0x0b]);
        let (trace, _) = fail(&machine, &elf, "1.2.0-first");
        rolled_back(&trace, &[], &["jump"]);

        // And one that did all that it should.
        machine.stage(&machine.prepared.new);
        machine.try_out();
        machine.assert_answers();
        machine.end_trial("rollback");
        let status = machine.wait_for_predecessor();
        let trace = status["last_replacement"]["trace_id"].as_str().expect("a trace");
        rolled_back(trace, &["start", "network", "first_answer", "cores"], &[]);
        let said = "it had said: INFO libos::serve: network";
        let logs = collector.wait_for_logs(said, |logs| {
            logs.iter()
                .any(|log| log.trace == trace && log.message.starts_with(said))
        });
        assert!(logs.iter().any(|log| log.trace == trace && log.generation == 2));
        assert_eq!(machine.order(b"").status, 400);
        collector.wait_for_logs("what comes later belongs to none", |logs| {
            logs.iter()
                .any(|log| log.message.contains("refused POST") && log.trace.is_empty())
        });
    }
}

/// The UUID of the instar that tells the root.
fn collector_instance(collector: &Collector, generation: i64) -> String {
    let spans = collector.wait_for_spans("a root", |spans| !spans.is_empty());
    let mut roots = spans.iter().filter(|span| span.name == "replacement");
    let root = roots.find(|span| span.generation == generation).expect("a root");
    root.instance.clone()
}

#[test]
fn the_collector_is_away_for_an_upgrade() {
    let away = Away::hold();
    let machine = boot(4, App::Hello, &away.append());
    let trace = upgrade(&machine, NOTHING, NOTHING);
    machine.assert_answers();
    machine.wait_line(" committed, blackout ");
    committed(&trace, 1, 4).wait(&away.arrive());
}

#[test]
fn the_collector_is_away_for_three_upgrades_in_a_row() {
    let away = Away::hold();
    let machine = boot(4, App::Hello, &away.append());
    // Nobody asks the first two anything: each is replaced while it still waits for its first answer.
    let traces = [1, 2, 3].map(|from| (from, upgrade(&machine, NOTHING, NOTHING)));
    machine.assert_answers();
    machine.wait_line("replacement of 1.1.0 by 1.1.0 committed, blackout ");
    let collector = away.arrive();
    for (from, trace) in &traces {
        let mut expected = committed(trace, *from, 4);
        if *from < 3 {
            expected.phases.retain(|phase| *phase != "first_answer");
        }
        expected.wait(&collector);
    }
}

/// The collector comes back while the second successor is on trial, and takes what that one sends; then the machine is given back.
/// What both instars had in their hands is sent by one of them.
#[test]
fn the_collector_is_away_for_a_rollback() {
    let away = Away::hold();
    let machine = boot(4, App::Hello, &away.append());
    let first = upgrade(&machine, NOTHING, NOTHING);
    machine.assert_answers();
    machine.wait_line(" committed, blackout ");
    machine.stage(&machine.prepared.new);
    machine.try_out();
    machine.end_trial("rollback");
    let given_back = |status: &Value| status["last_replacement"]["trace_id"].as_str().map(str::to_owned);
    let second = given_back(&machine.wait_for_predecessor()).expect("a trace");

    machine.stage(&machine.prepared.new);
    machine.try_out();
    let collector = away.arrive();
    collector.wait_for_logs("a word of the third instar", |logs| {
        logs.iter().any(|log| log.generation == 3)
    });
    machine.end_trial("rollback");
    let third = given_back(&machine.wait_for_predecessor()).expect("a trace");

    let phases = [
        "start",
        "network",
        "first_answer",
        "cores",
        "probation",
        "rollback",
    ];
    let rolled_back = |trace| Expected {
        phases: [&BEFORE[..], &phases].concat(),
        cut_off: &["first_answer", "probation"],
        ..committed(trace, 2, 4)
    };
    // The last comes last: when it has come, what would come twice has come twice.
    rolled_back(&third).wait(&collector);
    rolled_back(&second).wait(&collector);
    committed(&first, 1, 4).wait(&collector);
    let logs = collector.wait_for_logs("the first words", |logs| !logs.is_empty());
    for words in ["order accepted: replace by image", "gave the machine back"] {
        let told = logs
            .iter()
            .filter(|log| log.message.contains(words) && log.trace == second);
        assert_eq!(told.count(), 1, "{words}");
    }
}

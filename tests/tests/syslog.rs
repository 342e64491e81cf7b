//! Log records reach a syslog server, Debian's rsyslog, across replacements and while it is away: nothing is lost within
//! bounds, and what is lost is counted.

use machine_tests::{
    clients,
    machine::{Machine, Setup},
    prepared::App,
    rsyslog::{Message, Rsyslog},
};
use serde_json::Value;
use std::collections::BTreeSet;

fn boot(rsyslog: &Rsyslog, app: App) -> Machine {
    Setup {
        app,
        append: rsyslog.append(),
        cores: 2,
        ..Setup::default()
    }
    .boot()
}

fn syslog(status: &Value) -> &Value {
    &status["telemetry"]["syslog"]
}

/// The numbers of an instar's messages, each once.
fn numbers(messages: &[Message], generation: u32) -> BTreeSet<u32> {
    let ours = messages.iter().filter(|message| message.generation == generation);
    ours.map(Message::number).collect()
}

/// From 1 on, none is missing.
fn assert_whole(messages: &[Message], generation: u32) {
    let numbers = numbers(messages, generation);
    let expected: BTreeSet<u32> = (1..=numbers.len() as u32).collect();
    assert_eq!(numbers, expected, "of generation {generation}: {messages:#?}");
}

#[test]
fn a_replacement_while_the_server_is_away_and_a_rollback() {
    let mut rsyslog = Rsyslog::new();
    rsyslog.start();
    let machine = boot(&rsyslog, App::Hello);
    let first = rsyslog.wait_for("log records go to 10.0.2.2");
    assert_eq!(
        (&*first.host, &*first.app, first.generation, &*first.target),
        ("52:54:00:12:34:56", "hello", 1, "libos::telemetry::syslog::push")
    );
    assert_eq!(
        (&*first.facility, first.severity, &*first.version),
        ("daemon", 6, "1")
    );
    assert_eq!(first.parameter("software"), Some("hello"));
    assert_eq!(first.parameter("swVersion"), Some("1.0.0"));
    assert_eq!(first.parameter("ip"), Some("10.0.2.15"));
    assert!(first.text.starts_with('\u{feff}'), "{first:?}");
    // `2026-11-25T02:24:52.123456Z`, as rsyslog has parsed it.
    assert_eq!((first.time.len(), &first.time[26..]), (27, "Z"), "{first:?}");

    machine.wait_until("all is sent", |status| {
        let sent = syslog(status)["sent"].as_u64();
        syslog(status)["queued"] == 0 && sent == Some(rsyslog.messages().len() as u64)
    });
    rsyslog.stop();
    machine.wait_until("the server is missed", |status| {
        syslog(status)["connected"] == false
    });
    machine.stage(&machine.prepared.new);
    machine.replace();
    machine.assert_answers();
    rsyslog.start();
    let committed = rsyslog.wait_for("replacement of 1.0.0 by 1.1.0 committed, blackout ");
    assert_eq!((committed.generation, committed.severity), (2, 6));
    assert_eq!(committed.parameter("swVersion"), Some("1.1.0"));
    let ordered = rsyslog.wait_for("replacing 1.0.0 by 1.1.0");
    assert_eq!(
        (ordered.generation, ordered.parameter("swVersion")),
        (1, Some("1.0.0"))
    );
    let messages = rsyslog.messages();
    for generation in [1, 2] {
        assert_whole(&messages, generation);
    }
    assert_eq!(syslog(&machine.status())["dropped"], 0);

    machine.stage(&machine.prepared.old);
    machine.try_out();
    machine.end_trial("rollback");
    machine.wait_for_predecessor();
    let back = rsyslog.wait_for("1.0.0 gave the machine back, hello 1.1.0 serves on");
    assert_eq!((back.generation, back.severity), (2, 3));
    assert!(back.text.contains("order"), "{back:?}");
    assert_whole(&rsyslog.messages(), 2);
}

#[test]
fn more_than_there_is_room_for() {
    let mut rsyslog = Rsyslog::new();
    let machine = boot(&rsyslog, App::Trial);
    let misses = |status: &Value| syslog(status)["dropped"].as_u64().unwrap_or_default();
    // Nobody listens. Each request makes one log record.
    let mut records = 0;
    while misses(&machine.status()) < 5 {
        for _ in 0..50 {
            let answer = clients::request(machine.http, "POST", "/misbehave?core=0&how=nothing", b"");
            assert_eq!(answer.expect("an answer").status, 200);
        }
        records += 50;
        assert!(records < 5000, "{}", machine.status());
    }
    machine.assert_serves();
    rsyslog.start();
    let told = rsyslog.wait_for("log records were lost for want of room");
    assert_eq!(told.severity, 4, "{told:?}");
    let status = machine.wait_until("all is sent", |status| syslog(status)["queued"] == 0);
    let sent = syslog(&status)["sent"].as_u64().unwrap_or_default() as usize;
    let messages = rsyslog.wait_until("what was sent", |messages| messages.len() == sent);
    let lost = misses(&status);
    assert!(
        told.text
            .trim_start_matches('\u{feff}')
            .starts_with(&format!("{lost} ")),
        "{told:?}, {status}"
    );
    // The gaps in the numbers tell it too.
    let highest = messages.iter().map(Message::number).max().unwrap_or_default();
    assert_eq!(u64::from(highest) - messages.len() as u64, lost);
}

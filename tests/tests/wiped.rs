//! Promise `way-back`, its other side: once a successor is committed, nothing of its predecessor's memory can be read.

use machine_tests::{
    clients,
    machine::{Machine, Setup},
    prepared::App,
};
use std::{fs::File, io::Read};

/// How often the application plants the marker.
const PLANTED: u64 = 1000;

fn ask(machine: &Machine, method: &str, path: &str) -> String {
    let answer = clients::request(machine.http, method, path, b"").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.trim().to_owned()
}

fn occurrences(machine: &Machine, turned: &str) -> u64 {
    let count = ask(machine, "GET", &format!("/occurrences?turned={turned}"));
    count.parse().expect("a number")
}

#[test]
fn nothing_of_the_predecessor_is_readable_after_the_commit() {
    let machine = Setup {
        app: App::Trial,
        memory: 128,
        ..Setup::default()
    }
    .boot();
    let mut marker = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut marker))
        .expect("random bytes");
    let turned: String = marker.iter().map(|byte: &u8| format!("{:02x}", !byte)).collect();
    ask(&machine, "POST", &format!("/plant?turned={turned}"));
    assert!(
        occurrences(&machine, &turned) >= PLANTED,
        "the search finds what is there"
    );

    machine.stage(&machine.prepared.new);
    let operator = &machine.prepared.operator;
    let order = machine.facts().order("replace", "commit = \"order\"\n", operator);
    assert_eq!(machine.order(&order).status, 202);
    machine.wait_line("instar: serving generation=2 ");
    machine.wait_until("the successor", |status| status["generation"] == 2);
    // On trial the predecessor's memory is whole, and the search reads it.
    assert!(occurrences(&machine, &turned) >= PLANTED);

    let order = machine.facts().order("commit", "", operator);
    assert_eq!(machine.order(&order).status, 202);
    machine.wait_until("the commit", |status| status["state"] == "serving");
    assert_eq!(occurrences(&machine, &turned), 0);
}

//! Promise `state`: what an application stashes is found by its successors, and a replacement without it does not happen.

use machine_tests::{
    clients,
    machine::{Machine, Setup},
    prepared::App,
};

/// Says something to the keeper.
fn tell(machine: &Machine, path: &str) -> Result<String, String> {
    let answer = clients::request(machine.http, "GET", path, b"").expect("the keeper answers");
    match answer.status {
        200 => Ok(answer.body),
        _ => Err(answer.body),
    }
}

fn told(machine: &Machine, path: &str) -> String {
    tell(machine, path).unwrap_or_else(|problem| panic!("{path}: {problem}"))
}

fn preserved(machine: &Machine) -> (u64, u64) {
    let chunks = machine.status()["memory"]["chunks"].clone();
    let count = |owner: &str| chunks[owner].as_u64().expect("a number");
    (count("preserved"), count("total"))
}

fn keeper() -> Machine {
    let setup = Setup {
        app: App::Keeper,
        cores: 2,
        ..Setup::default()
    };
    setup.boot()
}

fn replace(machine: &Machine, image: &[u8]) {
    machine.stage(image);
    machine.replace();
}

#[test]
fn records_and_regions_cross_and_what_nobody_takes_goes_on() {
    let machine = keeper();
    let (_, total) = preserved(&machine);
    told(&machine, "/stash/taken/1/one");
    told(&machine, "/stash/later/99/from%20the%20future");
    // A chunk less the page that is ours, and one byte more.
    assert_eq!(told(&machine, "/region/small/2093056"), "2093056");
    assert_eq!(told(&machine, "/region/large/2093057"), "4190208");
    assert!(tell(&machine, "/region/large/1").is_err(), "a name is there once");
    assert_eq!(preserved(&machine), (3, total));

    replace(&machine, &machine.prepared.new);
    assert_eq!(preserved(&machine), (3, total));
    assert_eq!(told(&machine, "/take/hook"), "1 generation 1");
    assert_eq!(told(&machine, "/take/taken"), "1 one");
    assert!(tell(&machine, "/take/taken").is_err(), "once");
    assert_eq!(told(&machine, "/keep/large"), "7 4190208 [Some(90), Some(165)]");
    assert!(tell(&machine, "/keep/large").is_err(), "somebody holds it");

    // Nobody has taken `later` and `small` here; `taken` is gone.
    replace(&machine, &machine.prepared.old);
    assert_eq!(told(&machine, "/take/later"), "99 from%20the%20future");
    assert!(tell(&machine, "/take/taken").is_err());
    assert_eq!(told(&machine, "/take/hook"), "2 generation 2");
    assert_eq!(told(&machine, "/keep/small"), "7 2093056 [Some(90), Some(165)]");

    // What is released is memory again, wiped: the next region is in its place.
    told(&machine, "/release/small");
    assert_eq!(preserved(&machine), (2, total));
    assert_eq!(told(&machine, "/region/next/1"), "2093056");
    assert_eq!(preserved(&machine), (3, total));
}

/// A successor that is ordered to give the machine back hands its state back too.
#[test]
fn an_orderly_rollback_brings_the_state_back() {
    let machine = keeper();
    told(&machine, "/stash/old/1/before");
    told(&machine, "/stash/both/1/before");
    for round in 1..=2 {
        machine.stage(&machine.prepared.new);
        machine.try_out();
        assert_eq!(told(&machine, "/take/hook"), "1 generation 1");
        told(&machine, "/stash/both/2/on-trial");
        told(&machine, &format!("/stash/new-{round}/3/on-trial"));
        machine.end_trial("rollback");
        machine.wait_for_predecessor();
        // What the successor's hook stashed, too.
        assert_eq!(told(&machine, "/take/hook"), "2 generation 2");
        assert_eq!(told(&machine, &format!("/take/new-{round}")), "3 on-trial");
        let expected = vec!["RolledBack"; round].join(", ");
        assert_eq!(told(&machine, "/returned"), format!("[{expected}]"));
    }
    assert_eq!(told(&machine, "/take/both"), "2 on-trial");
    assert_eq!(told(&machine, "/take/old"), "1 before");
}

#[test]
fn without_its_state_nothing_is_replaced() {
    let machine = keeper();
    let mut returns = 0;
    machine.stage(&machine.prepared.new);
    for (hook, words) in [
        (
            "/hook/fail",
            "the application did not save its state: told to fail",
        ),
        (
            "/hook/hang",
            "the application did not save its state within 1000 ms",
        ),
    ] {
        told(&machine, hook);
        let order = machine.facts().replace(&machine.prepared.operator);
        assert_eq!(machine.order(&order).status, 202);
        machine.wait_line(words);
        machine.wait_until("the machine to serve on", |status| {
            status["state"] == "staged" && status["last_replacement"]["outcome"] == "failed"
        });
        returns += 1;
        let expected = vec!["NotReplaced"; returns].join(", ");
        assert_eq!(told(&machine, "/returned"), format!("[{expected}]"));
        // What was stashed for that attempt is forgotten, and regions can be made again.
        assert!(tell(&machine, "/take/hook").is_err());
        told(&machine, &format!("/region/after-{returns}/1"));
    }
    told(&machine, "/hook/count");
    machine.replace();
    assert_eq!(told(&machine, "/take/hook"), "1 generation 1");
    assert_eq!(preserved(&machine).0, 2);
}

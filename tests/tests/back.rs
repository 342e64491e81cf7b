//! Promise `way-back`: a successor that fails gives the machine back to its predecessor, alive.

use machine_tests::image::Parts;
use machine_tests::machine::{Machine, Setup};
use machine_tests::matrix::patch_entry;
use serde_json::Value;

const CORES: u32 = 4;

/// Orders the staged image, on trial until an order or for this long.
fn order_on_trial(machine: &Machine, probation_ms: u32) {
    let facts = machine.facts();
    let words = format!("probation_ms = {probation_ms}\ncommit = \"order\"\n");
    let answer = machine.order(&facts.order("replace", &words, &machine.prepared.operator));
    assert_eq!(answer.status, 202, "{}", answer.body);
}

#[test]
fn an_order_gives_the_machine_back_and_another_one_commits() {
    let machine = Setup::default().boot();
    let before = machine.traces();
    for round in 1..=3 {
        machine.stage(&machine.prepared.new);
        machine.try_out();
        machine.assert_answers();
        machine.end_trial("rollback");
        let status = machine.wait_for_predecessor();
        machine.assert_serves();
        let last = &status["last_replacement"];
        assert_eq!(
            (&status["generation"], &last["reason"]),
            (&1.into(), &"order: an order".into())
        );
        // Its own last lines are told by the predecessor.
        machine.wait_line("it had said: INFO libos::serve: network 10.0.2.15/24");
        assert_eq!(machine.traces(), before, "round {round}");
        assert_eq!(status["history"].as_array().map(Vec::len), Some(round));
    }
    machine.stage(&machine.prepared.new);
    machine.try_out();
    machine.end_trial("commit");
    let status = machine.wait_until("the successor, committed", |status| status["state"] == "serving");
    assert_eq!(status["image"]["version"], "1.1.0");
    // What has been committed cannot be given back.
    let answer = machine.order(&machine.facts().order("rollback", "", &machine.prepared.operator));
    assert_eq!(answer.status, 409, "{}", answer.body);
}

#[test]
fn what_is_not_committed_in_time_is_given_back() {
    let machine = Setup::default().boot();
    machine.stage(&machine.prepared.new);
    order_on_trial(&machine, 1500);
    let status = machine.wait_for_predecessor();
    let reason = status["last_replacement"]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("deadline: "), "{reason}");
}

/// Stages an image whose first instruction is this one, orders it, and returns the predecessor's status when it is back.
fn first_instruction(machine: &Machine, code: &[u8]) -> Value {
    let mut elf = machine.prepared.parts.elf.clone();
    patch_entry(&mut elf, code);
    machine.stage(&Parts::signed(&elf, "1.2.0", &machine.prepared.release).pack());
    let answer = machine.order(&machine.facts().replace(&machine.prepared.operator));
    assert_eq!(answer.status, 202, "{}", answer.body);
    machine.wait_for_predecessor()
}

#[test]
fn a_fault_in_the_first_instruction() {
    let machine = Setup::default().boot();
    for _ in 0..3 {
        let before = machine.traces();
        let status = first_instruction(&machine, &[0x0f, 0x0b]);
        assert_eq!(status["generation"], 1);
        assert_eq!(status["cores"]["online"], CORES);
        machine.assert_serves();
        assert_eq!(machine.traces(), before);
        println!("{}", status["last_replacement"]);
    }
    // And a good one after all.
    machine.stage(&machine.prepared.new);
    assert_eq!(machine.replace().status["generation"], 2);
}

#[test]
fn a_hang_in_the_first_instruction() {
    let machine = Setup::default().boot();
    let status = first_instruction(&machine, &[0xeb, 0xfe]);
    assert_eq!(status["cores"]["online"], CORES);
    machine.assert_serves();
    println!("{}", status["last_replacement"]);
}

//! Promise `way-back`: a successor that fails gives the machine back to its predecessor, alive.

use machine_tests::image::Parts;
use machine_tests::machine::{Machine, Setup};
use serde_json::Value;

const CORES: u32 = 4;

/// Stages an image whose first instruction is this one, orders it, and returns the predecessor's status when it is back.
fn first_instruction(machine: &Machine, code: &[u8]) -> Value {
    let mut elf = machine.prepared.parts.elf.clone();
    let mark = b"\x0f\x1f\x80ENTR";
    let entry = elf
        .windows(mark.len())
        .position(|bytes| bytes == mark)
        .expect("the entry's mark");
    elf[entry..entry + code.len()].copy_from_slice(code);
    machine.stage(&Parts::signed(&elf, "1.2.0", &machine.prepared.release).pack());
    let answer = machine.order(&machine.facts().replace(&machine.prepared.operator));
    assert_eq!(answer.status, 202, "{}", answer.body);
    machine.wait_until("the predecessor is back", |status| {
        status["last_replacement"]["outcome"] == "rolled-back" && status["state"] == "serving"
    })
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

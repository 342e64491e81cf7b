//! Every network card that is driven.

use machine_tests::{
    echoes::Asking,
    machine::{Replaced, Setup},
};
use std::time::Duration;

const MAC: &str = "52:54:00:12:34:56";

/// Shows that a machine with this card serves, and goes on serving over one replacement after another. Returns what the
/// blackouts took inside, sorted, in milliseconds.
fn replaced_under_a_client(nic: &'static str, cores: u32, times: u64) -> Vec<f64> {
    let machine = Setup {
        cores,
        nic,
        ..Setup::default()
    }
    .boot();
    machine.assert_serves();
    assert_eq!(machine.status()["network"]["mac"], MAC);
    let asking = Asking::start(machine.echo, Duration::from_millis(2));
    let (mut outside, mut inside) = (Vec::new(), Vec::new());
    for generation in 2..2 + times {
        machine.stage(&machine.prepared.new);
        let Replaced {
            status,
            ordered,
            serving,
            ..
        } = machine.replace();
        outside.push((ordered, serving));
        assert_eq!(
            (&status["generation"], &status["network"]["mac"]),
            (&generation.into(), &MAC.into())
        );
        inside.extend(status["last_replacement"]["blackout_ms"].as_f64());
    }
    machine.assert_serves();
    let echoes = asking.stop();
    let lost = echoes.lost_outside(&outside);
    assert!(lost.is_empty(), "{} lost outside the blackouts", lost.len());
    assert_eq!(inside.len() as u64, times, "a blackout was not told of");
    inside.sort_unstable_by(f64::total_cmp);
    println!("{nic}, {cores} cores, {times} replacements: blackouts inside, in ms: {inside:?}");
    inside
}

/// A card that is set up with a pause shows: QEMU's takes no frames for a second after a write to RCTL, and a new
/// negotiation of the link takes half a second.
const LONGEST: f64 = 400.0;

#[test]
fn an_e1000_and_one_core() {
    let blackouts = replaced_under_a_client("e1000", 1, 5);
    assert!(blackouts[2] < LONGEST, "{blackouts:?}");
}

#[test]
fn an_e1000_and_four_cores() {
    let blackouts = replaced_under_a_client("e1000", 4, 5);
    assert!(blackouts[2] < LONGEST, "{blackouts:?}");
}

#[test]
fn of_two_cards_virtio_is_taken() {
    let machine = Setup {
        // Behind the other one in the order of the bus.
        nic: "virtio-net-pci,addr=0x9",
        arguments: ["-device", "e1000,addr=0x8,mac=52:54:00:65:43:21,romfile="]
            .map(Into::into)
            .into(),
        ..Setup::default()
    }
    .boot();
    assert_eq!(machine.status()["network"]["mac"], MAC);
    machine.assert_serves();
}

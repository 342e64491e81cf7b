//! Promise `floor-holds`: an image below the security floor never runs, and the floor rises on commit only.

use machine_tests::{
    image::Parts,
    machine::{Machine, Setup, scratch},
    prepared::App,
};
use std::{fs, path::PathBuf};

/// Version 1.1.0 as of a security version.
fn image(machine: &Machine, security_version: u64) -> Vec<u8> {
    let prepared = machine.prepared;
    let parts = prepared
        .parts
        .of_security_version(security_version, &prepared.release);
    parts.pack()
}

fn floor(machine: &Machine) -> u64 {
    machine.status()["floor"].as_u64().expect("the status tells it")
}

/// Nothing below `floor` is staged; what is staged stays.
fn lower_ones_are_refused(machine: &Machine, lowest: u64) {
    assert_eq!(floor(machine), lowest);
    let before = machine.traces();
    for lower in (0..lowest).rev().take(3) {
        let verdict = machine.push(&image(machine, lower)).refusal();
        assert_eq!(
            verdict,
            Ok((403, "below-floor".into())),
            "security version {lower}"
        );
        assert_eq!(machine.traces(), before);
    }
}

/// A successor that gave the machine back has raised nothing.
#[test]
fn lower_versions_are_refused_before_and_after_any_number_of_jumps() {
    let machine = Setup::default().boot();
    lower_ones_are_refused(&machine, 0);
    machine.stage(&image(&machine, 2));
    assert_eq!(floor(&machine), 0, "what is staged has not been committed");
    for (jump, security_version) in [2, 2, 5, 5, 9].into_iter().enumerate() {
        if security_version > floor(&machine) {
            let lowest = floor(&machine);
            machine.stage(&image(&machine, security_version));
            machine.try_out();
            assert_eq!(floor(&machine), lowest, "on trial");
            machine.end_trial("rollback");
            machine.wait_for_predecessor();
            lower_ones_are_refused(&machine, lowest);
        }
        machine.stage(&image(&machine, security_version));
        let status = machine.replace().status;
        assert_eq!(
            (&status["generation"], &status["image"]["security_version"]),
            (&(jump + 2).into(), &security_version.into())
        );
        lower_ones_are_refused(&machine, security_version);
    }
    // What is not below it is welcome, and does not lower it.
    machine.stage(&image(&machine, 9));
    lower_ones_are_refused(&machine, 9);
    machine.assert_serves();
}

/// A file with version 1.0.0 as of a security version.
fn file(security_version: u64) -> PathBuf {
    let prepared = App::Hello.prepared();
    let parts = Parts::of(&prepared.old).of_security_version(security_version, &prepared.release);
    let path = scratch(&format!("floor-{security_version}.tar"));
    fs::write(&path, parts.pack()).expect("written");
    path
}

#[test]
fn the_first_stage_starts_nothing_below_the_floor_it_is_given() {
    for (append, line) in [
        ("instar.floor=4", "first stage: below-floor: security version 3"),
        (
            "instar.floor=18446744073709551615 instar.floor=1",
            "first stage: below-floor: ",
        ),
        ("instar.floor=4x", "first stage: instar.floor on the command line"),
    ] {
        let machine = Setup {
            image: Some(file(3)),
            append: append.into(),
            ..Setup::default()
        }
        .start();
        machine.wait_line(line);
        let said = machine.said();
        // The stage codes: entered, and refused; neither verified nor jumped.
        let below = line.contains("below-floor");
        assert!(said.starts_with(if below { "1F" } else { "1" }), "{said}");
        assert!(!said.contains('J') && !said.contains("serving"), "{said}");
    }
}

#[test]
fn the_first_image_goes_on_with_the_floor_of_the_cold_boot() {
    let machine = Setup {
        image: Some(file(3)),
        append: "instar.floor=2".into(),
        ..Setup::default()
    }
    .boot();
    lower_ones_are_refused(&machine, 3);
    machine.stage(&image(&machine, 3));
    machine.replace();
    lower_ones_are_refused(&machine, 3);
}

//! While an image is received, verified and staged, clients are served as before.

use machine_tests::{
    echoes::{Asking, Echoes},
    image::Parts,
    machine::Setup,
};
use std::time::{Duration, Instant};

/// Appended to the ELF: a push that takes its time, and a digest over it.
const LARGE: usize = 8 << 20;

#[test]
fn no_gap_while_an_image_is_pushed() {
    let machine = Setup::default().boot();
    let mut elf = machine.prepared.parts.elf.clone();
    elf.resize(elf.len() + LARGE, 0x5a);
    let large = Parts::signed(&elf, "1.2.0", &machine.prepared.release).pack();
    let asking = Asking::start(machine.echo, Duration::from_millis(1));

    // The same time without a push as with one: what this computer itself does to the figures.
    let start = Instant::now();
    machine.stage(&large);
    let length = start.elapsed();
    let quiet = Instant::now();
    machine.wait_until("as long a time without a push", |_| quiet.elapsed() >= length * 3);
    let pushing = Instant::now();
    for image in [&machine.prepared.new, &large, &machine.prepared.old] {
        machine.stage(image);
    }
    let end = Instant::now();
    let echoes = asking.stop();

    let (gap_quiet, gap_pushing) = (
        echoes.longest_gap(quiet, pushing),
        echoes.longest_gap(pushing, end),
    );
    println!(
        "quiet:   longest gap {gap_quiet:?}, round trips {}",
        figures(&echoes, quiet, pushing)
    );
    println!(
        "pushing: longest gap {gap_pushing:?}, round trips {}",
        figures(&echoes, pushing, end)
    );
    assert!(
        gap_pushing <= gap_quiet * 2 + Duration::from_millis(50),
        "a gap of {gap_pushing:?} while an image was pushed, {gap_quiet:?} without"
    );
    // A client that did not get to ask sees a gap too; a round trip is the machine's alone.
    let longest = |from, to| {
        echoes
            .round_trips(from, to)
            .last()
            .copied()
            .unwrap_or(Duration::MAX)
    };
    let (quiet, pushing) = (longest(quiet, pushing), longest(pushing, end));
    assert!(
        pushing <= quiet * 2 + Duration::from_millis(20),
        "a round trip of {pushing:?} while an image was pushed, {quiet:?} without"
    );
    assert!(echoes.lost_outside(&[]).is_empty(), "questions were lost");
}

fn figures(echoes: &Echoes, from: Instant, to: Instant) -> String {
    let times = echoes.round_trips(from, to);
    let at = |percent: usize| {
        times
            .get(times.len().saturating_sub(1) * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    format!(
        "of {}: median {:?}, 99 % {:?}, longest {:?}",
        times.len(),
        at(50),
        at(99),
        at(100)
    )
}

//! Promise `flush-then-report`: every core's caches are written back before any core enters the successor, and the
//! core that jumps does so last. Seen from outside, by the emulator.

use machine_tests::{
    machine::{Machine, Setup, scratch},
    witness::{Witness, every_core_flushed_before_successor, nobody_flushed},
};
use std::time::Duration;

const CORES: u32 = 4;
const REPLACEMENTS: usize = 3;

/// Boots with this policy and replaces a few times; how many flushes the machine says there were, each time.
fn replaced(policy: &str, witness: &Witness) -> (Machine, Vec<usize>) {
    let machine = Setup {
        cores: CORES,
        append: format!("instar.flush={policy}"),
        arguments: witness.arguments().into(),
        ..Setup::default()
    }
    .boot();
    let mut told = Vec::new();
    for image in [&machine.prepared.new, &machine.prepared.old]
        .into_iter()
        .cycle()
        .take(REPLACEMENTS)
    {
        machine.stage(image);
        let status = machine.replace().status;
        told.push(status["last_replacement"]["flush"].as_array().map_or(0, Vec::len));
    }
    (machine, told)
}

#[test]
fn always_means_every_core_and_the_jumping_core_last() {
    let witness = Witness::new(&scratch("always.log")).expect("the witness");
    let (_machine, told) = replaced("always", &witness);
    let log = witness.log().expect("a log");
    assert_eq!(
        every_core_flushed_before_successor(&log, CORES),
        Ok(REPLACEMENTS),
        "{log:#?}"
    );
    assert_eq!(
        told, [CORES as usize; REPLACEMENTS],
        "what the machine says of itself"
    );
}

/// On hardware a flush takes milliseconds. Whichever core is the slow one, nobody jumps before it is done.
#[test]
fn a_slow_flush_is_waited_for() {
    for slow in 0..CORES {
        let witness = Witness::new(&scratch(&format!("slow-{slow}.log"))).expect("the witness");
        let witness = witness.slow(slow, Duration::from_millis(200));
        let (_machine, told) = replaced("always", &witness);
        let log = witness.log().expect("a log");
        assert_eq!(
            every_core_flushed_before_successor(&log, CORES),
            Ok(REPLACEMENTS),
            "core {slow} is slow: {log:#?}"
        );
        assert_eq!(
            told, [CORES as usize; REPLACEMENTS],
            "what the machine says of itself"
        );
    }
}

#[test]
fn never_means_nobody() {
    let witness = Witness::new(&scratch("never.log")).expect("the witness");
    let (_machine, told) = replaced("never", &witness);
    assert_eq!(nobody_flushed(&witness.log().expect("a log")), Ok(REPLACEMENTS));
    assert_eq!(told, [0; REPLACEMENTS], "what the machine says of itself");
}

/// QEMU's processor has neither TDX KeyIDs nor SME.
#[test]
fn auto_means_nobody_where_nothing_is_encrypted() {
    let witness = Witness::new(&scratch("auto.log")).expect("the witness");
    let (machine, told) = replaced("auto", &witness);
    assert_eq!(nobody_flushed(&witness.log().expect("a log")), Ok(REPLACEMENTS));
    assert_eq!(told, [0; REPLACEMENTS], "what the machine says of itself");
    let flush = &machine.status()["flush"];
    assert_eq!(
        (&flush["policy"], &flush["will_flush"]),
        (&"auto".into(), &false.into())
    );
}

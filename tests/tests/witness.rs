//! Promise `flush-then-report`: every core's caches are written back before any core enters the successor, and the
//! core that jumps does so last. Seen from outside, by the emulator.

use machine_tests::{
    machine::{Machine, Setup, scratch},
    witness::{Witness, every_core_flushed_before_successor, nobody_flushed},
};
use std::time::Duration;

const CORES: u32 = 4;
const REPLACEMENTS: usize = 3;

/// Boots with this policy and replaces a few times.
fn replaced(policy: &str, witness: &Witness) -> Machine {
    let machine = Setup {
        cores: CORES,
        append: format!("instar.flush={policy}"),
        arguments: witness.arguments().into(),
        ..Setup::default()
    }
    .boot();
    for image in [&machine.prepared.new, &machine.prepared.old]
        .into_iter()
        .cycle()
        .take(REPLACEMENTS)
    {
        machine.stage(image);
        let status = machine.replace().status;
        let flushed = status["last_replacement"]["flush"].as_array().map_or(0, Vec::len);
        let expected = if policy == "always" { CORES as usize } else { 0 };
        assert_eq!(flushed, expected, "what the machine says of itself: {status}");
    }
    machine
}

#[test]
fn always_means_every_core_and_the_jumping_core_last() {
    let witness = Witness::new(&scratch("always.log")).expect("the witness");
    let _machine = replaced("always", &witness);
    let log = witness.log().expect("a log");
    assert_eq!(
        every_core_flushed_before_successor(&log, CORES),
        Ok(REPLACEMENTS),
        "{log:#?}"
    );
}

/// On hardware a flush takes milliseconds. Whichever core is the slow one, nobody jumps before it is done.
#[test]
fn a_slow_flush_is_waited_for() {
    for slow in 0..CORES {
        let witness = Witness::new(&scratch(&format!("slow-{slow}.log"))).expect("the witness");
        let witness = witness.slow(slow, Duration::from_millis(200));
        let _machine = replaced("always", &witness);
        let log = witness.log().expect("a log");
        assert_eq!(
            every_core_flushed_before_successor(&log, CORES),
            Ok(REPLACEMENTS),
            "core {slow} is slow: {log:#?}"
        );
    }
}

#[test]
fn never_means_nobody() {
    let witness = Witness::new(&scratch("never.log")).expect("the witness");
    let _machine = replaced("never", &witness);
    assert_eq!(nobody_flushed(&witness.log().expect("a log")), Ok(REPLACEMENTS));
}

/// QEMU's processor has neither TDX KeyIDs nor SME.
#[test]
fn auto_means_nobody_where_nothing_is_encrypted() {
    let witness = Witness::new(&scratch("auto.log")).expect("the witness");
    let machine = replaced("auto", &witness);
    assert_eq!(nobody_flushed(&witness.log().expect("a log")), Ok(REPLACEMENTS));
    let flush = &machine.status()["flush"];
    assert_eq!(
        (&flush["policy"], &flush["will_flush"]),
        (&"auto".into(), &false.into())
    );
}

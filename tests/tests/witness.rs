//! Promise `flush-then-report`: every core's caches are written back before any core enters the successor, and the
//! core that jumps does so last. Seen from outside, by the emulator.

use machine_tests::{
    machine::{Machine, Setup, scratch},
    witness::{
        Kind, Log, Witness, every_core_flushed_before_successor, every_core_flushed_early, nobody_flushed,
    },
};
use std::time::Duration;

const CORES: u32 = 4;
const REPLACEMENTS: usize = 3;

/// Boots with these words and replaces a few times; how many flushes in the stop and early the machine says there were,
/// each time.
fn replaced(cores: u32, words: &str, witness: &Witness) -> (Machine, Vec<[usize; 2]>) {
    let machine = Setup {
        cores,
        append: words.into(),
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
        let last = &status["last_replacement"];
        told.push(["flush", "early_flush"].map(|which| last[which].as_array().map_or(0, Vec::len)));
    }
    (machine, told)
}

/// Every core flushed early, and again in the stop, the jumping one last; and the machine says the same of itself.
fn all_flushed(log: &Log, cores: u32, told: &[[usize; 2]]) {
    let stops = log.events.iter().filter(|event| event.kind == Kind::Stop).count();
    assert_eq!(stops, REPLACEMENTS, "{log:#?}");
    for judge in [every_core_flushed_before_successor, every_core_flushed_early] {
        assert_eq!(judge(log, cores), Ok(REPLACEMENTS), "{log:#?}");
    }
    assert_eq!(
        told, [[cores as usize; 2]; REPLACEMENTS],
        "what the machine says of itself"
    );
}

#[test]
fn always_means_every_core_and_the_jumping_core_last() {
    for cores in [1, 2, 4, 8, 16] {
        for early in ["serial", "simultaneous"] {
            let witness =
                Witness::new(&scratch(&format!("always-{cores}-{early}.log"))).expect("the witness");
            let words = format!("instar.flush=always instar.early-flush={early}");
            let (_machine, told) = replaced(cores, &words, &witness);
            all_flushed(&witness.log().expect("a log"), cores, &told);
        }
    }
}

#[test]
fn no_early_flush_where_none_is_wanted() {
    let witness = Witness::new(&scratch("late.log")).expect("the witness");
    let (_machine, told) = replaced(CORES, "instar.flush=always instar.early-flush=never", &witness);
    let log = witness.log().expect("a log");
    assert_eq!(
        every_core_flushed_before_successor(&log, CORES),
        Ok(REPLACEMENTS),
        "{log:#?}"
    );
    let flushes = log.events.iter().skip_while(|event| event.kind != Kind::Order);
    let flushes = flushes.filter(|event| event.kind == Kind::Wbinvd).count();
    assert_eq!(flushes, REPLACEMENTS * CORES as usize, "{log:#?}");
    assert_eq!(
        told,
        [[CORES as usize, 0]; REPLACEMENTS],
        "what the machine says of itself"
    );
}

/// On hardware a flush takes milliseconds. Whichever core is the slow one, nobody jumps before it is done.
#[test]
fn a_slow_flush_is_waited_for() {
    for slow in 0..CORES {
        let witness = Witness::new(&scratch(&format!("slow-{slow}.log"))).expect("the witness");
        let witness = witness.slow(slow, Duration::from_millis(200));
        let (_machine, told) = replaced(CORES, "instar.flush=always", &witness);
        all_flushed(&witness.log().expect("a log"), CORES, &told);
    }
}

#[test]
fn never_means_nobody() {
    for cores in [1, 2, 4, 8, 16] {
        let witness = Witness::new(&scratch(&format!("never-{cores}.log"))).expect("the witness");
        let (_machine, told) = replaced(cores, "instar.flush=never", &witness);
        assert_eq!(nobody_flushed(&witness.log().expect("a log")), Ok(REPLACEMENTS));
        assert_eq!(told, [[0; 2]; REPLACEMENTS], "what the machine says of itself");
    }
}

/// QEMU's processor has neither TDX KeyIDs nor SME.
#[test]
fn auto_means_nobody_where_nothing_is_encrypted() {
    let witness = Witness::new(&scratch("auto.log")).expect("the witness");
    let (machine, told) = replaced(CORES, "instar.flush=auto", &witness);
    assert_eq!(nobody_flushed(&witness.log().expect("a log")), Ok(REPLACEMENTS));
    assert_eq!(told, [[0; 2]; REPLACEMENTS], "what the machine says of itself");
    let flush = &machine.status()["flush"];
    assert_eq!(
        (&flush["policy"], &flush["will_flush"]),
        (&"auto".into(), &false.into())
    );
}

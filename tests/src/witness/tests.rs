//! The judge must condemn: each broken log here is a machine with one defect.

use super::{
    Log, LogError, Violation, every_core_flushed_before_successor, every_core_flushed_early, nobody_flushed,
};

/// A log of `kind vcpu` words, numbered.
fn log(events: &str) -> Log {
    let mut text = String::from("# witness vcpus=4\n");
    for (sequence, event) in events.split(',').map(str::trim).enumerate() {
        let (kind, vcpu) = event.split_once(' ').expect("kind and vcpu");
        text += &format!("{sequence} {kind} vcpu={vcpu} addr=0x1000\n");
    }
    Log::parse(&text).expect("a whole log")
}

const FIRMWARE: &str = "wbinvd 0, wbinvd 0, enter 0";
const GOOD: &str = "order 1, wbinvd 3, wbinvd 0, wbinvd 2, wbinvd 1, enter 1";

fn all(replacement: &str) -> Result<usize, Violation> {
    every_core_flushed_before_successor(&log(&format!("{FIRMWARE}, {replacement}")), 4)
}

#[test]
fn a_good_machine_passes() {
    assert_eq!(all(GOOD), Ok(1));
    assert_eq!(all(&format!("{GOOD}, {GOOD}, {GOOD}")), Ok(3));
    // Early flushes while still running do no harm, as long as the last ones are right.
    assert_eq!(
        all("order 0, wbinvd 0, wbinvd 1, wbinvd 2, wbinvd 3, wbinvd 2, wbinvd 0, enter 0"),
        Ok(1)
    );
}

#[test]
fn early_flushes_do_not_count_for_the_stop() {
    let early = "order 0, wbinvd 0, wbinvd 1, wbinvd 2, wbinvd 3, stop 0";
    let judge = |rest: &str| {
        let log = log(&format!("{FIRMWARE}, {early}, {rest}"));
        (
            every_core_flushed_early(&log, 4),
            every_core_flushed_before_successor(&log, 4),
        )
    };
    assert_eq!(
        judge("wbinvd 2, wbinvd 1, wbinvd 3, wbinvd 0, enter 0"),
        (Ok(1), Ok(1))
    );
    let not_flushed = |core, enter| {
        Err(Violation::NotFlushed {
            core,
            enter,
            late: None,
        })
    };
    assert_eq!(
        judge("wbinvd 2, wbinvd 1, wbinvd 0, enter 0"),
        (Ok(1), not_flushed(3, 12))
    );
    assert_eq!(
        every_core_flushed_early(&log(&format!("{FIRMWARE}, {GOOD}")), 4),
        not_flushed(0, 8)
    );
}

#[test]
fn one_core_missing() {
    let broken = "order 1, wbinvd 3, wbinvd 0, wbinvd 1, enter 1";
    assert_eq!(
        all(broken),
        Err(Violation::NotFlushed {
            core: 2,
            enter: 7,
            late: None
        })
    );
}

#[test]
fn no_flush_at_all() {
    assert_eq!(
        all("order 0, enter 0"),
        Err(Violation::NotFlushed {
            core: 0,
            enter: 4,
            late: None
        })
    );
}

#[test]
fn the_replacing_core_is_never_flushed() {
    let broken = "order 0, wbinvd 1, wbinvd 2, wbinvd 3, enter 0";
    assert_eq!(
        all(broken),
        Err(Violation::NotFlushed {
            core: 0,
            enter: 7,
            late: None
        })
    );
}

#[test]
fn the_replacing_core_is_not_last() {
    let broken = "order 0, wbinvd 1, wbinvd 0, wbinvd 2, wbinvd 3, enter 0";
    assert_eq!(
        all(broken),
        Err(Violation::NotLast {
            jumper: 0,
            flush: 5,
            core: 2,
            later: 6
        })
    );
}

#[test]
fn reported_before_the_flush() {
    let broken = "order 0, wbinvd 1, wbinvd 2, wbinvd 0, enter 0, wbinvd 3";
    assert_eq!(
        all(broken),
        Err(Violation::NotFlushed {
            core: 3,
            enter: 7,
            late: Some(8)
        })
    );
}

#[test]
fn wbnoinvd_is_not_a_flush() {
    let broken = "order 0, wbinvd 1, wbnoinvd 2, wbinvd 3, wbinvd 0, enter 0";
    assert_eq!(
        all(broken),
        Err(Violation::NotFlushed {
            core: 2,
            enter: 8,
            late: None
        })
    );
}

#[test]
fn flushes_before_the_order_do_not_count() {
    let broken = "wbinvd 0, wbinvd 1, wbinvd 2, wbinvd 3, order 0, enter 0";
    assert_eq!(
        all(broken),
        Err(Violation::NotFlushed {
            core: 0,
            enter: 8,
            late: None
        })
    );
    // Those of an order that failed do not count for the next one.
    let again = "order 1, wbinvd 3, wbinvd 0, wbinvd 2, wbinvd 1, order 1, enter 1";
    assert_eq!(
        all(again),
        Err(Violation::NotFlushed {
            core: 0,
            enter: 9,
            late: None
        })
    );
}

#[test]
fn the_second_replacement_is_judged_too() {
    let broken = format!("{GOOD}, order 1, wbinvd 0, wbinvd 2, wbinvd 1, enter 1");
    assert_eq!(
        all(&broken),
        Err(Violation::NotFlushed {
            core: 3,
            enter: 13,
            late: None
        })
    );
}

#[test]
fn a_log_without_a_replacement_proves_nothing() {
    let boot = log(FIRMWARE);
    assert_eq!(
        every_core_flushed_before_successor(&boot, 4),
        Err(Violation::NoReplacement)
    );
    assert_eq!(nobody_flushed(&boot), Err(Violation::NoReplacement));
    assert_eq!(
        all("order 0, wbinvd 0"),
        Err(Violation::NeverEntered { order: 3 })
    );
    assert_eq!(
        all("wbinvd 0, enter 0"),
        Err(Violation::EnteredWithoutOrder { enter: 4 })
    );
}

#[test]
fn nobody_means_nobody() {
    assert_eq!(
        nobody_flushed(&log("wbinvd 0, enter 0, order 0, enter 0, order 2, enter 2")),
        Ok(2)
    );
    for (broken, core, flush) in [
        ("enter 0, order 0, wbinvd 3, enter 0", 3, 2),
        ("enter 0, order 0, wbnoinvd 1, enter 0", 1, 2),
        ("enter 0, order 0, enter 0, wbinvd 2", 2, 3),
    ] {
        assert_eq!(
            nobody_flushed(&log(broken)),
            Err(Violation::Flushed { core, flush }),
            "{broken}"
        );
    }
}

#[test]
fn a_broken_log_is_no_evidence() {
    assert_eq!(Log::parse(""), Err(LogError::Header(String::new())));
    let gap = "# witness vcpus=1\n0 enter vcpu=0 addr=0x1\n2 order vcpu=0 addr=0x1\n";
    assert_eq!(
        Log::parse(gap),
        Err(LogError::Gap {
            expected: 1,
            found: 2
        })
    );
    for line in [
        "0 jump vcpu=0 addr=0x1",
        "0 enter vcpu=0",
        "0 enter vcpu=x addr=0x1",
        "0 enter vcpu=0 addr=0x1 x",
    ] {
        let text = format!("# witness vcpus=1\n{line}\n");
        assert_eq!(
            Log::parse(&text),
            Err(LogError::Line {
                number: 2,
                text: line.into()
            })
        );
    }
}

#[test]
fn a_last_line_cut_short_is_left_out() {
    let text = "# witness vcpus=1\n0 enter vcpu=0 addr=0x1\n1 order vc";
    assert_eq!(Log::parse(text).expect("a log").events.len(), 1);
}

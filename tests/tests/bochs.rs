//! Promise `flush-then-report` on a machine whose BIOS has enabled TDX: the policy finds out by itself, and every core's caches
//! are written back after the order and before the successor's first output, by the emulator's own log.

use machine_tests::{collector::Collector, machine::Bochs};
use serde_json::Value;
use std::collections::BTreeSet;

/// What a machine tells of itself, and what the emulator logged.
struct Story {
    /// `/v1/status` before the order.
    before: Value,
    /// The successor's.
    after: Value,
    /// Cores in the order in which they flushed, after the order was sent and before the successor's first output.
    flushed: Vec<u32>,
}

/// The main job: boot, serve, push, order, serve, report.
fn main_job(cores: u32, tdx_keyids: u32) -> Story {
    let collector = Collector::start();
    let machine = Bochs {
        cores,
        tdx_keyids,
        append: collector.append(),
        ..Bochs::default()
    }
    .boot();
    machine.assert_serves();
    machine.stage(&machine.prepared.new);
    let before = machine.status();
    // Bochs writes each line when it happens. What is logged from here on happened after this moment, and that is before the
    // order goes out.
    let mark = machine.rig_log().len();
    let replaced = machine.replace();
    machine.assert_serves();

    let trace = replaced.status["last_replacement"]["trace_id"]
        .as_str()
        .expect("a trace");
    collector.wait_for_spans("spans of both instars", |spans| {
        let ours = spans.iter().filter(|span| span.trace == trace);
        ours.map(|span| span.generation).collect::<BTreeSet<_>>() == [1, 2].into()
    });

    let whole = machine.flushes_since(0);
    let [firmware, first, second] = whole.as_slice() else {
        panic!("not two instars: {whole:?}")
    };
    // A BIOS flushes on the core that boots; an instar does not when it comes up, and does not before it is ordered.
    assert!(firmware.cores().iter().all(|core| *core == 0), "{firmware:?}");
    assert_eq!(second.flushes, [], "the successor flushes nothing by itself");
    let since = machine.flushes_since(mark);
    assert_eq!(since.len(), 2, "one successor: {since:?}");
    assert_eq!(since[0], *first, "nothing was flushed before the order was sent");
    assert!(first.entered.is_some());

    let after = replaced.status;
    assert_eq!(after["image"]["version"], "1.1.0");
    assert_eq!(
        after["cores"],
        serde_json::json!({"present": cores, "online": cores})
    );
    Story {
        before,
        after,
        flushed: first.cores(),
    }
}

/// The cores that flushed, as the successor reports it.
fn reported(status: &Value, which: &str) -> BTreeSet<u64> {
    let flushes = status["last_replacement"][which].as_array().expect("a list");
    flushes
        .iter()
        .filter_map(|flush| flush["core"].as_u64())
        .collect()
}

fn every_core_flushes(cores: u32) {
    let story = main_job(cores, 32);
    for status in [&story.before, &story.after] {
        assert_eq!(
            status["flush"],
            serde_json::json!({
                "policy": "auto",
                "will_flush": true,
                "why": "TDX is enabled by the BIOS: 32 TDX KeyIDs",
            })
        );
    }
    // Twice each: early, one after the other, while the machine serves; and in the stop, where the replacing core is the last.
    let others: Vec<u32> = (1..cores).collect();
    assert_eq!(story.flushed.len(), 2 * cores as usize, "{:?}", story.flushed);
    let (early, stop) = story.flushed.split_at(cores as usize);
    assert_eq!(early, [others.as_slice(), &[0]].concat(), "early, one by one");
    let (last, first) = stop.split_last().expect("not empty");
    assert_eq!(*last, 0, "the replacing core flushes last: {stop:?}");
    let mut first = first.to_vec();
    first.sort_unstable();
    assert_eq!(first, others, "each other core, once");
    for which in ["flush", "early_flush"] {
        assert_eq!(reported(&story.after, which), (0..u64::from(cores)).collect());
    }
}

fn nobody_flushes(tdx_keyids: u32, why: &str) {
    let story = main_job(2, tdx_keyids);
    assert_eq!(
        story.before["flush"],
        serde_json::json!({"policy": "auto", "will_flush": false, "why": why})
    );
    assert_eq!(story.flushed, Vec::<u32>::new(), "the emulator's log");
    for which in ["flush", "early_flush"] {
        assert_eq!(reported(&story.after, which), [].into(), "the machine's word");
    }
}

#[test]
fn two_cores_flush_where_the_bios_has_enabled_tdx() {
    every_core_flushes(2);
}

#[test]
fn four_cores_flush_where_the_bios_has_enabled_tdx() {
    every_core_flushes(4);
}

#[test]
fn nobody_flushes_without_tdx_keyids() {
    nobody_flushes(0, "no TDX KeyIDs and no SME");
}

/// TDX needs one KeyID for its module and one for a guest.
#[test]
fn nobody_flushes_with_one_tdx_keyid() {
    nobody_flushes(1, "no TDX KeyIDs and no SME");
}

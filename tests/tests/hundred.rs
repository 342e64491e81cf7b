//! A hundred replacements in one machine: nothing is lost, worn out or left behind.

use machine_tests::{
    echoes::Asking,
    machine::{Replaced, Setup},
};
use std::time::Duration;

const TIMES: u64 = 100;
const CORES: u32 = 4;

#[test]
fn a_hundred_replacements() {
    let machine = Setup {
        cores: CORES,
        append: "instar.flush=always".into(),
        ..Setup::default()
    }
    .boot();
    let asking = Asking::start(machine.echo, Duration::from_millis(2));
    let mut blackouts = Vec::new();
    let mut inside = Vec::new();
    let mut free = None;
    for time in 1..=TIMES {
        let (image, version) = match time % 2 {
            1 => (&machine.prepared.new, "1.1.0"),
            _ => (&machine.prepared.old, "1.0.0"),
        };
        machine.stage(image);
        let Replaced {
            status,
            ordered,
            serving,
            ..
        } = machine.replace();
        blackouts.push((ordered, serving));
        assert_eq!(
            (&status["generation"], &status["image"]["version"]),
            (&(time + 1).into(), &version.into())
        );
        assert_eq!(
            status["cores"],
            serde_json::json!({"present": CORES, "online": CORES}),
            "after {time}"
        );
        // What the predecessor had becomes free once the successor is committed to.
        let status = machine.wait_until("the predecessor's memory", |status| {
            status["memory"]["chunks"]["predecessor"] == 0 && status["memory"]["chunks"]["staged"] == 0
        });
        let now = status["memory"]["chunks"]["free"].as_u64();
        assert_eq!(
            *free.get_or_insert(now),
            now,
            "free chunks after {time}: {status}"
        );
        inside.extend(status["last_replacement"]["blackout_ms"].as_f64());
    }
    machine.assert_serves();
    let echoes = asking.stop();
    let lost = echoes.lost_outside(&blackouts);
    let (asked, answered) = echoes.counts();
    let mut outside: Vec<Duration> = blackouts
        .iter()
        .map(|&(from, to)| echoes.gap_around(from, to))
        .collect();
    outside.sort_unstable();
    inside.sort_unstable_by(f64::total_cmp);
    println!(
        "{TIMES} replacements: {answered} of {asked} echoes answered; blackout outside {:?} to {:?}, median {:?}; \
         inside median {:?} ms",
        outside[0],
        outside[outside.len() - 1],
        outside[outside.len() / 2],
        inside.get(inside.len() / 2),
    );
    assert!(
        lost.is_empty(),
        "{} of {asked} lost outside the blackouts",
        lost.len()
    );
    assert_eq!(
        inside.len() as u64,
        TIMES,
        "each instar knows how long the blackout was"
    );
}

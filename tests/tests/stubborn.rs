//! Promise `fail-before-jump`, at the last step before the jump: cores that do not stop when they are asked to.

use machine_tests::{
    clients,
    collector::Collector,
    machine::{Machine, Setup, scratch},
    prepared::App,
    trace::{BEFORE, Expected},
    witness::{Kind, Witness, every_core_flushed_before_successor},
};

const CORES: u32 = 4;

fn boot(append: &str, witness: &Witness) -> Machine {
    Setup {
        app: App::Trial,
        cores: CORES,
        append: format!("instar.flush=always {append}"),
        arguments: witness.arguments().into(),
        ..Setup::default()
    }
    .boot()
}

fn misbehave(machine: &Machine, core: u32, how: &str) {
    let path = format!("/misbehave?core={core}&how={how}");
    let answer = clients::request(machine.http, "POST", &path, b"").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Interrupts off, and a loop: the core hears the NMI.
#[test]
fn a_deaf_core_is_stopped_by_nmi() {
    let witness = Witness::new(&scratch("deaf.log")).expect("the witness");
    let machine = boot("", &witness);
    for round in 1..=2 {
        misbehave(&machine, 2, "deaf");
        machine.stage(&machine.prepared.new);
        let status = machine.replace().status;
        let cores = serde_json::json!({"present": CORES, "online": CORES});
        assert_eq!(status["cores"], cores, "round {round}");
        machine.assert_serves();
        let log = witness.log().expect("a log");
        assert_eq!(
            every_core_flushed_before_successor(&log, CORES),
            Ok(round),
            "{log:#?}"
        );
    }
    assert!(counter(&machine, "nmis") >= 2, "without an NMI it was not deaf");
}

fn counter(machine: &Machine, name: &str) -> u64 {
    let answer = clients::request(machine.http, "GET", "/counters", b"").expect("an answer");
    let value = answer.body.split_whitespace().find_map(|word| {
        let (key, value) = word.split_once('=')?;
        (key == name).then(|| value.parse().ok())?
    });
    value.unwrap_or_else(|| panic!("no {name} in {}", answer.body))
}

/// Neither interrupt nor NMI: the replacement is refused, as often as it is ordered, and the machine serves on.
#[test]
fn a_dead_core_is_no_reason_to_jump() {
    let collector = Collector::start();
    let witness = Witness::new(&scratch("dead.log")).expect("the witness");
    let machine = boot(&collector.append(), &witness);
    machine.stage(&machine.prepared.new);
    misbehave(&machine, 2, "dead");
    let before = machine.traces();
    let measured = machine.status()["measurement"].clone();
    for failures in 1..=2 {
        let failed = machine.status()["last_replacement"]["trace_id"].clone();
        let answer = machine.order(&machine.facts().replace(&machine.prepared.operator));
        assert_eq!(answer.status, 202, "{}", answer.body);
        let status = machine.wait_until("the failure", |status| {
            let last = &status["last_replacement"];
            last["outcome"] == "failed" && last["trace_id"] != failed
        });
        let trace = status["last_replacement"]["trace_id"]
            .as_str()
            .unwrap_or_default();
        // The dead core is still counted as online: nobody has heard otherwise.
        assert_eq!(machine.traces(), before, "as before the order");
        assert_eq!(
            status["measurement"], measured,
            "what was not entered has not run"
        );
        let history = status["history"].as_array().expect("a history");
        assert_eq!(history.len(), failures, "{history:?}");
        let last = &history[failures - 1];
        assert_eq!(
            (&last["outcome"], &last["trace_id"]),
            (&"failed".into(), &trace.into())
        );
        let reason = last["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("stop-failed: "), "{reason}");
        machine.assert_serves();
        // All that there was of it. The core that is dead did not flush.
        Expected {
            trace,
            parent: "",
            from: 1,
            phases: [&BEFORE[..7], &["stop"]].concat(),
            cut_off: &["stop"],
            flushed: [vec![0, 1, 3], vec![]],
        }
        .wait(&collector);
    }
    let said = machine.said();
    let refused = said.lines().filter(|line| line.contains("did not stop")).count();
    assert_eq!(refused, 2);
    assert!(said.contains("cores 0b100 did not stop"), "it names the core");
    // The others have come back from the pen and work.
    for core in [1, 3] {
        misbehave(&machine, core, "nothing");
        machine.wait_line(&format!("core {core} is well"));
    }
    let log = witness.log().expect("a log");
    assert_eq!(entries(&log), 1, "nobody has jumped");
}

fn entries(log: &machine_tests::witness::Log) -> usize {
    log.events
        .iter()
        .filter(|event| event.kind == Kind::Enter)
        .count()
}

/// A core that panics while the cores are being stopped gives way: it flushes and goes to the pen like any other, and the
/// successor has the machine with all its cores.
#[test]
fn a_panic_while_stopping_gives_way() {
    let witness = Witness::new(&scratch("panic.log")).expect("the witness");
    let machine = boot("", &witness);
    machine.stage(&machine.prepared.new);
    misbehave(&machine, 2, "panic-in-stop");
    let status = machine.replace().status;
    let line = machine.wait_line("panic on core");
    assert!(
        line.contains("core 2") && line.contains("while the cores are stopped"),
        "{line}"
    );
    let cores = serde_json::json!({"present": CORES, "online": CORES});
    assert_eq!((&status["generation"], &status["cores"]), (&2.into(), &cores));
    machine.assert_serves();
    let log = witness.log().expect("a log");
    assert_eq!(
        every_core_flushed_before_successor(&log, CORES),
        Ok(1),
        "{log:#?}"
    );
    assert_eq!(entries(&log), 2, "nobody has reset the machine");
}

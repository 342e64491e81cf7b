//! Promise `private-pages`: what the TDX module or a TD had is reset before the next image comes, or handed over as it is.

use machine_tests::{
    clients,
    collector::Collector,
    machine::{Bochs, Machine, Setup},
    prepared::App,
};
use serde_json::{Value, json};
use xtask::machine::Processor;

/// Says something to the vault.
fn tell(machine: &Machine, path: &str) -> Result<String, String> {
    let answer = clients::request(machine.http, "GET", path, b"").expect("the vault answers");
    match answer.status {
        200 => Ok(answer.body),
        _ => Err(answer.body),
    }
}

fn told(machine: &Machine, path: &str) -> String {
    tell(machine, path).unwrap_or_else(|problem| panic!("{path}: {problem}"))
}

fn chunks(status: &Value, whose: &str) -> u64 {
    status["memory"]["chunks"][whose].as_u64().expect("a number")
}

fn vault() -> Setup {
    Setup {
        app: App::Vault,
        cores: 2,
        ..Setup::default()
    }
}

#[test]
fn without_tdx_nothing_is_private() {
    let machine = vault().boot();
    let before = machine.status();
    for path in ["/take/1/td/1", "/take/40/module/1"] {
        let refused = tell(&machine, path).expect_err("this machine has no TDX KeyIDs");
        assert!(refused.contains("0 TDX KeyIDs"), "{refused}");
    }
    let nothing = json!({"records": 0, "pages": 0, "to_hand_over": 0});
    let after = machine.status();
    assert_eq!(after["private_memory"], nothing);
    assert_eq!(chunks(&after, "private"), 0);
    assert_eq!(chunks(&after, "total"), chunks(&before, "total"));
    machine.stage(&machine.prepared.new);
    let last = &machine.replace().status["last_replacement"];
    assert_eq!(last["outcome"], "committed");
    assert_eq!(last["private_pages_reset"], 0);
}

/// The whole life of private memory, on a machine whose BIOS has enabled TDX.
fn reset_and_handed_over(machine: &Machine) {
    let before = machine.status();
    let handed = told(machine, "/take/40/td/2");
    let module = told(machine, "/take/41/module/1");
    let reset = told(machine, "/take/40/td/8");
    let sums = [&handed, &module].map(|at| told(machine, &format!("/sum/{at}")));
    for at in [&handed, &module] {
        told(machine, &format!("/hand-over/{at}"));
    }
    let status = machine.status();
    assert_eq!(chunks(&status, "private"), 11);
    assert_eq!(chunks(&status, "total"), chunks(&before, "total"));
    assert_eq!(
        status["private_memory"],
        json!({"records": 3, "pages": 11 * 512, "to_hand_over": 3 * 512})
    );
    assert_eq!(told(machine, &format!("/left/{reset}/8")), (8 << 18).to_string());

    machine.stage(&machine.prepared.new);
    let status = machine.replace().status;
    let last = &status["last_replacement"];
    assert_eq!(last["private_pages_reset"], 8 * 512, "{last}");
    assert!(
        last["phases_ms"]["reset"].as_f64().is_some_and(|ms| ms > 0.0),
        "{last}"
    );
    assert_eq!(
        told(machine, &format!("/left/{reset}/8")),
        "0",
        "not a word is left"
    );
    eprintln!(
        "total {} before, {} now",
        chunks(&before, "total"),
        chunks(&status, "total")
    );
    assert_eq!(chunks(&status, "private"), 3);
    assert_eq!(chunks(&status, "total"), chunks(&before, "total"));
    let lines = told(machine, "/inherited");
    for line in [
        format!("{handed} 40 {}", 2 << 21),
        format!("{module} 41 {}", 1 << 21),
    ] {
        assert!(lines.lines().any(|found| found == line), "{lines}");
    }
    assert_eq!(
        [&handed, &module].map(|at| told(machine, &format!("/sum/{at}"))),
        sums
    );

    // One is released here, the other goes on in turn.
    told(machine, &format!("/release/{handed}"));
    assert_eq!(chunks(&machine.status(), "private"), 1);
    machine.stage(&machine.prepared.old);
    let status = machine.replace().status;
    assert_eq!(status["last_replacement"]["private_pages_reset"], 0);
    assert_eq!(chunks(&status, "total"), chunks(&before, "total"));
    assert_eq!(told(machine, "/inherited").lines().count(), 1);
    assert_eq!(told(machine, &format!("/sum/{module}")), sums[1]);
    // What is dropped and is to be handed over stays for the successor, or for whoever asks.
    told(machine, &format!("/drop/{module}"));
    assert_eq!(machine.status()["private_memory"]["to_hand_over"], 512);
    assert_eq!(told(machine, "/inherited").lines().count(), 1);
    told(machine, &format!("/release/{module}"));
    // What is dropped and is not is released in the background.
    let dropped = told(machine, "/take/42/td/1");
    told(machine, &format!("/drop/{dropped}"));
    let status = machine.wait_until("the end of private memory", |status| {
        chunks(status, "private") == 0
    });
    assert_eq!(status["private_memory"]["records"], 0);
    assert_eq!(chunks(&status, "total"), chunks(&before, "total"));
    assert_eq!(
        chunks(&status, "free") + chunks(&status, "own"),
        chunks(&before, "free") + chunks(&before, "own")
    );
}

/// What cannot be reset is not given to the next image: the replacement is refused, and the machine serves on.
fn erratum_refuses(machine: &Machine) {
    let taken = told(machine, "/take/40/td/2");
    let sum = told(machine, &format!("/sum/{taken}"));
    machine.stage(&machine.prepared.new);
    let order = machine.facts().replace(&machine.prepared.operator);
    assert_eq!(machine.order(&order).status, 202);
    let status = machine.wait_until("the refusal", |status| {
        status["last_replacement"]["outcome"] == "failed"
    });
    machine.wait_line("1024 private pages cannot be reset");
    assert_eq!(status["generation"], 1);
    assert_eq!(
        told(machine, &format!("/sum/{taken}")),
        sum,
        "nothing was touched"
    );
    // It can still be taken and handed over, and then nothing stands in the way.
    told(machine, &format!("/hand-over/{taken}"));
    assert_eq!(machine.replace().status["generation"], 2);
    assert_eq!(told(machine, "/inherited").lines().count(), 1);
    assert_eq!(told(machine, &format!("/sum/{taken}")), sum);
}

/// A machine whose BIOS has enabled TDX, and which reports.
fn with_tdx(processor: Processor, collector: &Collector) -> Machine {
    let setup = Bochs {
        app: App::Vault,
        processor,
        append: collector.append(),
        ..Bochs::default()
    };
    setup.boot()
}

#[test]
fn private_pages_are_reset_or_handed_over() {
    let collector = Collector::start();
    reset_and_handed_over(&with_tdx(Processor::TigerLake, &collector));
    // The spans of the first replacement are sent by its successor, when it has seen its first answer.
    collector.wait_for_spans("the reset", |spans| {
        let mut resets = spans
            .iter()
            .filter(|span| span.name == "reset" && span.generation == 1);
        resets.any(|span| span.pages_reset == Some(8 * 512))
    });
}

#[test]
fn an_erratum_without_its_cure_refuses_the_replacement() {
    let collector = Collector::start();
    erratum_refuses(&with_tdx(Processor::PartialWriteErratum, &collector));
    collector.wait_for_spans("the failed replacement", |spans| {
        let mut roots = spans.iter().filter(|span| span.name == "replacement");
        roots.any(|span| span.error.as_deref() == Some("private-pages"))
    });
}

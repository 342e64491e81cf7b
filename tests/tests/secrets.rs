//! Nothing secret leaves: a successor that faults or panics tells everyone where, and nobody an address, a register or a value.
//! Every byte that was sent is looked at.

use machine_tests::{
    clients,
    collector::Collector,
    image::Parts,
    machine::{Machine, Setup},
    prepared::App,
    rsyslog::Rsyslog,
};

/// `libos::trial::MARKER`, as registers and as the error print it.
const MARKER: [&str; 2] = ["5ec2e7f00d15900d", "6828275003244777485"];
/// Where the kind `fault` writes to.
const ADDRESS: &str = "7f0000000000";

/// Sends a successor that fails, and waits until everybody has been told. Returns the reason.
fn fail(machine: &Machine, collector: &Collector, rsyslog: &Rsyslog, kind: &str) -> String {
    let version = format!("1.2.0-{kind}.after");
    let prepared = App::Trial.prepared();
    machine.stage(&Parts::signed(&prepared.parts.elf, &version, &prepared.release).pack());
    let answer = machine.order(&machine.facts().replace(&prepared.operator));
    assert_eq!(answer.status, 202, "{}", answer.body);
    let trace = answer.json()["accepted"]["trace_id"]
        .as_str()
        .expect("a trace id")
        .to_owned();
    machine.wait_until("the predecessor is back", |status| {
        let last = &status["last_replacement"];
        last["trace_id"] == trace.as_str() && last["outcome"] == "rolled-back" && status["state"] == "serving"
    });
    rsyslog.wait_for(&format!("{version} gave the machine back"));
    collector.wait_for_spans("the replacement's end", |spans| {
        spans
            .iter()
            .any(|span| span.trace == trace && span.error.is_some())
    });
    machine.wait_until("all is sent", |status| {
        status["telemetry"]["queued"] == 0 && status["telemetry"]["syslog"]["queued"] == 0
    });
    let said = format!("{version} gave the machine back");
    assert!(collector.has_received(said.as_bytes()));
    let status = machine.status();
    status["last_replacement"]["reason"]
        .as_str()
        .expect("a reason")
        .to_owned()
}

/// The first number in `text` that may be an address: five hexadecimal digits or more behind `0x`, unless they are an offset in
/// an image.
fn address_in(text: &[u8]) -> Option<String> {
    let starts = (0..text.len().saturating_sub(2)).filter(|at| text[*at..].starts_with(b"0x"));
    starts
        .map(|at| {
            let digits = text[at + 2..]
                .iter()
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count();
            (at, digits)
        })
        .find(|(at, digits)| *digits >= 5 && !text[..*at].ends_with(b"image+"))
        .map(|(at, digits)| String::from_utf8_lossy(&text[at..at + 2 + digits]).into_owned())
}

#[test]
fn a_successor_that_faults_or_panics_tells_where_and_no_more() {
    let collector = Collector::start();
    let mut rsyslog = Rsyslog::new();
    rsyslog.start();
    let machine = Setup {
        app: App::Trial,
        append: format!("{} {}", collector.append(), rsyslog.append()),
        cores: 2,
        ..Setup::default()
    }
    .boot();
    let fault = fail(&machine, &collector, &rsyslog, "fault");
    assert!(
        fault.starts_with("fault: fault: page fault (vector 14, error 0x2) on core 0 at image+0x"),
        "{fault}"
    );
    assert!(fault.ends_with(": nothing is mapped there"), "{fault}");
    let gp = fail(&machine, &collector, &rsyslog, "gp");
    assert!(
        gp.starts_with("fault: fault: general protection (vector 13, error 0x0) on core 0 at image+0x"),
        "{gp}"
    );
    let panic = fail(&machine, &collector, &rsyslog, "secret");
    assert!(panic.contains("libos/src/trial.rs:"), "{panic}");
    assert!(panic.ends_with(": the key store opens: …"), "{panic}");
    // What it said before crossed as a line, without the address in it.
    rsyslog.wait_for("it had said: WARN libos::trial: a key at 0x…");

    // The serial line says all.
    let serial = machine.said();
    for words in [MARKER[0], MARKER[1], ADDRESS, "a key at 0x"] {
        assert!(serial.contains(words), "{words}");
    }
    // What was sent says nothing of it.
    let page = |path: &str| {
        let answer = clients::request(machine.control, "GET", path, b"").expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body.into_bytes()
    };
    for (what, bytes) in [
        ("syslog", rsyslog.bytes()),
        ("OTLP", collector.bytes()),
        ("/v1/status", page("/v1/status")),
        ("/v1/measurements", page("/v1/measurements")),
        ("/metrics", page("/metrics")),
    ] {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        for secret in [MARKER[0], MARKER[1], ADDRESS] {
            assert!(!text.contains(secret), "{what} tells {secret}");
        }
        // Binary bodies hold numbers as numbers.
        let mut numbers = Vec::new();
        for number in [0x5ec2_e7f0_0d15_900d_u64, 0x7f00_0000_0000] {
            numbers.extend([number.to_le_bytes(), number.to_be_bytes()]);
        }
        for number in numbers {
            assert!(
                !bytes.windows(8).any(|window| window == number),
                "{what} tells {number:x?}"
            );
        }
        assert_eq!(address_in(&bytes), None, "{what}");
    }
}

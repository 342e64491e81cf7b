//! Promises `only-signed-runs`, `fail-before-jump`, `input-is-hostile`: whatever is wrong with an image or an order, it
//! is refused with an error that says what, nothing is left of it, and the instar serves on.

use machine_tests::{
    broken::{self, Case, Forge, flips, orders, signed},
    clients,
    machine::{DEADLINE, Machine, Setup},
    prepared::Prepared,
};
use std::{io::Write, time::Instant};

const LIMIT: u64 = 64 << 20;

fn forge(prepared: &Prepared) -> Forge<'_> {
    Forge {
        good: &prepared.parts,
        release: &prepared.release,
        stranger: &prepared.stranger,
    }
}

/// A machine on which a good image is staged already: it must stay staged.
fn staged() -> Machine {
    let machine = Setup::default().boot();
    machine.stage(&machine.prepared.new);
    machine
}

/// Sends each case; afterwards everything must be as it was.
fn all_refused(machine: &Machine, method: &str, path: &str, cases: impl IntoIterator<Item = Case>) {
    let before = machine.traces();
    let own = machine.own_chunks();
    let mut wrong = Vec::new();
    for case in cases {
        let answer = clients::send(machine.control, method, path, &case)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        match answer.refusal() {
            Ok((status, code)) if case.accepts(status, &code) => {}
            verdict => wrong.push(format!("{}: {verdict:?}, not {:?}", case.name, case.expected)),
        }
        assert_eq!(machine.traces(), before, "{} left a trace", case.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    machine.assert_bounded(own);
    machine.assert_serves();
}

#[test]
fn broken_images() {
    let machine = staged();
    all_refused(
        &machine,
        "PUT",
        "/v1/image",
        broken::images(forge(machine.prepared), LIMIT),
    );
    // The one that was staged before is none the worse.
    machine.replace();
    machine.assert_serves();
}

#[test]
fn flipped_bits() {
    let machine = staged();
    let good = &machine.prepared.parts;
    all_refused(&machine, "PUT", "/v1/image", flips::manifest(good));
    // More than a thousand refusals later, whatever the heap keeps for connections is there: from here on it stays.
    let own = machine.own_chunks();
    all_refused(&machine, "PUT", "/v1/image", flips::signature(good));
    all_refused(&machine, "PUT", "/v1/image", flips::elf_headers(good).step_by(61));
    all_refused(&machine, "PUT", "/v1/image", flips::elf_sample(good, 64));
    assert!(
        machine.own_chunks() <= own + 1,
        "from {own} to {} chunks",
        machine.own_chunks()
    );
}

#[test]
fn truncated_images() {
    let machine = staged();
    all_refused(
        &machine,
        "PUT",
        "/v1/image",
        flips::truncated(&machine.prepared.parts),
    );
}

#[test]
fn larger_than_memory() {
    let machine = Setup {
        memory: 48,
        ..Setup::default()
    }
    .boot();
    let case = signed::larger_than_memory(forge(machine.prepared), LIMIT - 4096);
    all_refused(&machine, "PUT", "/v1/image", [case]);
    let small = signed::larger_than_memory(forge(machine.prepared), 46 << 20);
    all_refused(&machine, "PUT", "/v1/image", [small]);
    machine.stage(&machine.prepared.new);
}

#[test]
fn a_limit_of_the_command_line() {
    let machine = Setup {
        append: "instar.max-image=65536".into(),
        ..Setup::default()
    }
    .boot();
    let image = Case {
        name: "a good image above the limit".into(),
        body: machine.prepared.new.clone(),
        claimed: None,
        expected: vec![(413, "too-large")],
    };
    all_refused(&machine, "PUT", "/v1/image", [image]);
}

#[test]
fn a_second_push_during_the_first() {
    let machine = Setup::default().boot();
    let image = &machine.prepared.new;
    let mut first = clients::connect(machine.control).expect("connected");
    first
        .write_all(clients::head("PUT", "/v1/image", image.len() as u64).as_bytes())
        .expect("sent");
    first.write_all(&image[..image.len() / 2]).expect("sent");
    machine.wait_until("receiving", |status| status["state"] == "receiving");
    let second = machine.push(image).refusal();
    assert_eq!(second, Ok((409, "busy".into())));
    first.write_all(&image[image.len() / 2..]).expect("sent");
    assert_eq!(clients::answer(&mut first).expect("an answer").status, 201);
    machine.replace();
    machine.assert_serves();
}

#[test]
fn clients_that_disappear() {
    let machine = staged();
    let before = machine.traces();
    for beginning in machine.beginnings() {
        clients::disappear(machine.control, &beginning).expect("sent");
        machine.wait_for_traces(&before);
    }
    // What the last of them sent may not even have been read: who can push again is alone.
    let alone = Instant::now() + DEADLINE;
    while machine.push(&machine.prepared.new).status != 201 {
        assert!(
            Instant::now() < alone,
            "somebody who is gone still keeps others out"
        );
    }
    machine.replace();
    machine.assert_serves();
}

#[test]
fn broken_orders() {
    let machine = staged();
    let prepared = machine.prepared;
    let keys = orders::Keys {
        operator: &prepared.operator,
        release: &prepared.release,
        stranger: &prepared.stranger,
    };
    let count = orders::cases(&machine.facts(), keys).len();
    for index in 0..count {
        // A refused order may have used the nonce up: each case is made from what the machine says now.
        let case = orders::cases(&machine.facts(), keys).swap_remove(index);
        all_refused(&machine, "POST", "/v1/orders", [case]);
    }
    machine.replace();
    machine.assert_serves();
}

#[test]
fn replayed_orders() {
    let machine = Setup::default().boot();
    // Nothing is staged yet.
    let mut facts = machine.facts();
    facts.image = "0".repeat(64);
    let early = machine
        .order(&facts.replace(&machine.prepared.operator))
        .refusal();
    assert_eq!(early, Ok((409, "nothing-staged".into())));

    machine.stage(&machine.prepared.new);
    let order = machine.replace().order;
    machine.stage(&machine.prepared.new);
    let before = machine.traces();
    for _ in 0..3 {
        let (status, code) = machine.order(&order).refusal().expect("a refusal");
        assert!(
            status == 403 && ["wrong-generation", "wrong-nonce"].contains(&code.as_str()),
            "{status} {code}"
        );
        assert_eq!(machine.traces(), before);
    }
    machine.assert_serves();
}

//! Promise `input-is-hostile`, where it takes patience: clients that say nothing, or little, and are shut out only when their time is over.
//! The machines here do nothing for most of that time, so that these tests run beside the others.

use machine_tests::{
    clients::{self, PATIENCE, Rest},
    machine::{Machine, Setup, Turn},
};

/// A machine that others do not wait for.
fn machine() -> Machine {
    Setup {
        turn: Turn::Patient,
        ..Setup::default()
    }
    .boot()
}

fn staged() -> Machine {
    let machine = machine();
    machine.stage(&machine.prepared.new);
    machine
}

#[test]
fn clients_that_stop_sending() {
    let machine = staged();
    let before = machine.traces();
    for (rest, patience) in [(Rest::End, PATIENCE), (Rest::Silence, PATIENCE * 2)] {
        for beginning in machine.beginnings() {
            let answer = clients::begin(machine.control, &beginning, rest, patience).expect("an end");
            let verdict = answer.map(|answer| answer.refusal().expect("a refusal"));
            // A head that is not all there is no request yet.
            let code = if beginning.len() < 20 {
                "bad-request"
            } else {
                "truncated"
            };
            let expected = [None, Some((408, "timed-out".into())), Some((400, code.into()))];
            assert!(
                expected.contains(&verdict),
                "after {} bytes, {rest:?}: {verdict:?}",
                beginning.len()
            );
            machine.wait_for_traces(&before);
        }
    }
    machine.replace();
    machine.assert_serves();
}

/// A byte a second keeps no push alive for ever.
#[test]
fn a_client_that_drips() {
    let machine = staged();
    let before = machine.traces();
    let beginning = &machine.beginnings()[3];
    let answer = clients::begin(machine.control, beginning, Rest::Drip(600), PATIENCE * 10).expect("an end");
    if let Some(answer) = answer {
        assert_eq!(answer.refusal(), Ok((408, "timed-out".into())));
    }
    machine.wait_for_traces(&before);
    machine.assert_serves();
}

#[test]
fn many_connections_that_say_nothing() {
    let machine = machine();
    let (before, own) = (machine.traces(), machine.own_chunks());
    for port in [machine.control, machine.http] {
        let idle = clients::idle(port, 100).expect("connected");
        // They may use all places up for a while, not for ever.
        machine.wait_until("an answer all the same", |status| status["state"] == "serving");
        drop(idle);
        machine.assert_serves();
    }
    machine.wait_for_traces(&before);
    machine.assert_bounded(own);
}

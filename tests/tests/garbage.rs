//! Promise `input-is-hostile`: garbage on every port gets an error or silence, and changes nothing.

use machine_tests::{
    broken::archive::noise,
    clients::{self, PATIENCE, Rest, rude},
    machine::{Machine, Setup},
};
use std::{
    io::Write,
    net::{SocketAddr, UdpSocket},
};

fn send_all(machine: &Machine, to: SocketAddr, requests: Vec<rude::Rude>, strict: bool) {
    let mut wrong = Vec::new();
    for request in requests {
        let answer = clients::begin(to, &request.bytes, Rest::End, PATIENCE)
            .unwrap_or_else(|error| panic!("{}: {error}", request.name));
        if strict && !request.accepts(answer.as_ref()) {
            wrong.push(format!(
                "{}: {answer:?}, not {:?}",
                request.name, request.expected
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    machine.assert_serves();
}

#[test]
fn garbage_for_the_control_plane() {
    let machine = Setup::default().boot();
    let (before, own) = (machine.traces(), machine.own_chunks());
    send_all(&machine, machine.control, rude::requests(), true);
    machine.wait_for_traces(&before);
    machine.assert_bounded(own);
}

#[test]
fn garbage_for_the_application() {
    let machine = Setup::default().boot();
    let (before, own) = (machine.traces(), machine.own_chunks());
    // The application has its own paths and limits: an end is all that is asked for.
    send_all(&machine, machine.http, rude::requests(), false);
    machine.wait_for_traces(&before);
    machine.assert_bounded(own);
}

#[test]
fn datagrams_of_all_lengths() {
    let machine = Setup::default().boot();
    let (before, own) = (machine.traces(), machine.own_chunks());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for round in 0..20 {
        for datagram in rude::datagrams() {
            socket.send_to(&datagram, machine.echo).expect("sent");
        }
        clients::echo(machine.echo, &noise(1472, round)).expect("the largest that fits one frame is echoed");
    }
    machine.wait_for_traces(&before);
    machine.assert_bounded(own);
    machine.assert_serves();
}

#[test]
fn pipelined_requests() {
    let machine = Setup::default().boot();
    let mut stream = clients::connect(machine.control).expect("connected");
    stream.write_all(&rude::pipelined(50)).expect("sent");
    // Either all in turn, or the first and an end: never something in between two answers.
    match clients::answers(&mut stream, 50) {
        Ok(answers) => assert!(answers.iter().all(|answer| answer.status == 200)),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}"),
    }
    machine.assert_serves();
}

#[test]
fn connections_that_come_and_go() {
    let machine = Setup::default().boot();
    let (before, own) = (machine.traces(), machine.own_chunks());
    for round in 0..120u64 {
        let to = if round % 2 == 0 {
            machine.control
        } else {
            machine.http
        };
        clients::disappear(to, &noise((round % 40) as usize, round)).expect("sent");
    }
    machine.wait_for_traces(&before);
    machine.assert_bounded(own);
    machine.assert_serves();
}

//! Promise `way-back`, for connections: a raw TCP connection of the application outlives a replacement that fails, and its
//! peer is told when one succeeds.

use machine_tests::{
    clients,
    machine::{DEADLINE, Machine, Setup},
    prepared::App,
};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// Connections at a time.
const PEERS: usize = 3;

fn boot() -> Machine {
    Setup {
        app: App::Trial,
        ..Setup::default()
    }
    .boot()
}

/// Connections to the application's TCP echo, each used once.
fn connections(machine: &Machine) -> Vec<TcpStream> {
    let address = machine.tcp_echo.expect("QEMU's machines are reached there");
    (0..PEERS)
        .map(|peer| {
            let mut stream = clients::connect(address).expect("a connection");
            echoed(&mut stream, &format!("before, {peer}")).expect("an echo");
            stream
        })
        .collect()
}

/// Says something and hears it again.
fn echoed(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard)?;
    assert_eq!(String::from_utf8_lossy(&heard), text);
    Ok(())
}

/// Says a byte now and then, without waiting for its echo, and returns what it has said.
fn talk_until(stream: &mut TcpStream, over: impl Fn() -> bool) -> Vec<u8> {
    let deadline = Instant::now() + DEADLINE;
    let mut said = Vec::new();
    while !over() {
        assert!(Instant::now() < deadline, "it does not come to an end");
        let byte = said.len() as u8;
        stream.write_all(&[byte]).expect("sent");
        said.push(byte);
        thread::sleep(Duration::from_millis(20));
    }
    said
}

/// Shows that connections which were idle, or in the middle of a word, during a failed replacement go on.
fn assert_go_on(streams: &mut [TcpStream]) {
    for (peer, stream) in streams.iter_mut().enumerate() {
        for word in ["after", "and again"] {
            echoed(stream, &format!("{word}, {peer}")).unwrap_or_else(|error| panic!("peer {peer}: {error}"));
        }
    }
}

/// The last steps before the jump fail: the card has been reset, and set up again two seconds later.
#[test]
fn a_refused_stop_costs_no_connection() {
    let machine = boot();
    let mut streams = connections(&machine);
    machine.stage(&machine.prepared.new);
    let answer =
        clients::request(machine.http, "POST", "/misbehave?core=2&how=dead", b"").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = machine.order(&machine.facts().replace(&machine.prepared.operator));
    assert_eq!(answer.status, 202, "{}", answer.body);
    // One goes on talking, into the two seconds in which the card is off.
    let said = talk_until(&mut streams[0], || machine.said().contains("did not stop"));
    machine.wait_until("the failure", |status| {
        status["last_replacement"]["outcome"] == "failed"
    });
    let mut heard = vec![0; said.len()];
    streams[0]
        .read_exact(&mut heard)
        .expect("what was said meanwhile");
    assert_eq!(heard, said);
    assert_go_on(&mut streams);
    machine.assert_serves();
}

/// The same with a successor that fails: it has answered the network, and has left the kept connections alone.
#[test]
fn a_successor_that_fails_costs_no_connection() {
    let machine = boot();
    let mut streams = connections(&machine);
    machine.stage(&machine.prepared.new);
    let order = |action, more| {
        let answer = machine.order(&machine.facts().order(action, more, &machine.prepared.operator));
        assert_eq!(answer.status, 202, "{}", answer.body);
    };
    order("replace", "commit = \"order\"\nprobation_ms = 600000\n");
    machine.wait_line("instar: serving generation=2 ");
    machine.assert_answers();
    order("rollback", "");
    // The successor hears this, and must not answer.
    let said = talk_until(&mut streams[0], || {
        machine.said().contains("gave the machine back")
    });
    machine.wait_until("the way back", |status| {
        status["generation"] == 1 && status["last_replacement"]["outcome"] == "rolled-back"
    });
    let mut heard = vec![0; said.len()];
    streams[0]
        .read_exact(&mut heard)
        .expect("what was said meanwhile");
    assert_eq!(heard, said);
    assert_go_on(&mut streams);
    machine.assert_serves();
}

/// The peers learn at the commit that their connections are over, also those that only wait.
#[test]
fn a_commit_ends_the_predecessors_connections() {
    let machine = boot();
    let mut streams = connections(&machine);
    machine.stage(&machine.prepared.new);
    machine.replace();
    for (peer, stream) in streams.iter_mut().enumerate() {
        // The last one speaks, the others wait.
        let spoken = match peer + 1 == PEERS {
            true => stream.write_all(b"anybody?"),
            false => Ok(()),
        };
        // The emulator's network passes a reset on as the end of the connection, or as a reset.
        let ended = spoken.and_then(|()| stream.read(&mut [0; 9]));
        let reset =
            |error: &io::Error| matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(
            matches!(ended, Ok(0)) || ended.as_ref().is_err_and(reset),
            "peer {peer}: {ended:?}"
        );
    }
    for stream in &mut connections(&machine) {
        echoed(stream, "the successor's").expect("an echo");
    }
    machine.assert_serves();
}

//! Promises `state` and `way-back` together: a key-value server under load is upgraded and gives the machine back, many times, and
//! no write that it has acknowledged is missing afterwards.

use machine_tests::{
    image::Parts,
    machine::{Machine, Setup},
    matrix::patch_entry,
    prepared::App,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Upgrades that stay, and as many that fail.
const ROUNDS: usize = 20;

/// A client of one connection at a time.
struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
        }
    }

    /// One command's answer, a line; `None` if the connection broke, and nobody knows what has become of the command.
    fn say(&mut self, command: &str) -> Option<String> {
        self.ask(command, 1)?.pop()
    }

    /// Some commands' answers, so many lines.
    fn ask(&mut self, commands: &str, lines: usize) -> Option<Vec<String>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address).ok()?;
                stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
                none.insert(BufReader::new(stream))
            }
        };
        let asked = stream.get_mut().write_all(format!("{commands}\r\n").as_bytes());
        let mut heard = Vec::new();
        while asked.is_ok() && heard.len() < lines {
            let mut line = String::new();
            match stream.read_line(&mut line) {
                Ok(bytes) if bytes > 0 && line.ends_with('\n') => heard.push(line.trim_end().to_owned()),
                _ => break,
            }
        }
        if heard.len() == lines {
            return Some(heard);
        }
        self.stream = None;
        None
    }
}

/// What a writer knows.
#[derive(Default)]
struct Written {
    /// `w:0` up to here have been acknowledged.
    sets: AtomicU64,
    /// Increments that were acknowledged, and those of which nobody knows.
    increments: AtomicU64,
    doubtful: AtomicU64,
}

fn write(address: SocketAddr, written: &Written, over: &AtomicBool) {
    let mut client = Client::new(address);
    while !over.load(Ordering::Relaxed) {
        let next = written.sets.load(Ordering::Relaxed);
        // Again until it is acknowledged: the same value at the same key.
        if client.say(&format!("SET w:{next} {next}")).as_deref() == Some("+OK") {
            written.sets.store(next + 1, Ordering::Relaxed);
        }
        match client.say("INCR counter") {
            Some(answer) if answer.starts_with(':') => written.increments.fetch_add(1, Ordering::Relaxed),
            _ => written.doubtful.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// redis's own load, again and again: it gives up when its connections are reset. How often it came to its end.
fn benchmark(address: SocketAddr, over: &AtomicBool) -> usize {
    let mut ended_well = 0;
    while !over.load(Ordering::Relaxed) {
        let status = Command::new("redis-benchmark")
            .args(["-h", "127.0.0.1", "-p", &address.port().to_string()])
            .args(["-t", "set,get,incr", "-n", "2000", "-c", "4", "-r", "1000", "-q"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("it starts (Debian: apt-get install redis-tools)");
        ended_well += usize::from(status.success());
    }
    ended_well
}

/// An image that fails in its first instruction.
fn broken(machine: &Machine) -> Vec<u8> {
    let mut elf = machine.prepared.parts.elf.clone();
    // UD2.
    patch_entry(&mut elf, &[0x0f, 0x0b]);
    Parts::signed(&elf, "1.2.0", &machine.prepared.release).pack()
}

#[test]
fn no_acknowledged_write_is_missing_after_forty_replacements() {
    let machine = Setup {
        app: App::Kv,
        cores: 2,
        ..Setup::default()
    }
    .boot();
    let (written, over) = (Arc::new(Written::default()), Arc::new(AtomicBool::new(false)));
    let writer = {
        let (written, over, address) = (Arc::clone(&written), Arc::clone(&over), machine.resp);
        thread::spawn(move || write(address, &written, &over))
    };
    let load = {
        let (over, address) = (Arc::clone(&over), machine.resp);
        thread::spawn(move || benchmark(address, &over))
    };
    let broken = broken(&machine);
    for round in 0..ROUNDS {
        machine.stage(&broken);
        let answer = machine.order(&machine.facts().replace(&machine.prepared.operator));
        assert_eq!(answer.status, 202, "{}", answer.body);
        let status = machine.wait_until("the predecessor is back", |status| {
            status["last_replacement"]["outcome"] == "rolled-back" && status["state"] == "serving"
        });
        assert_eq!(status["generation"], round + 1);
        // Up and down between two record formats.
        let next = [&machine.prepared.new, &machine.prepared.old][round % 2];
        machine.stage(next);
        machine.replace();
    }
    over.store(true, Ordering::Relaxed);
    writer.join().expect("it ends");
    let loads = load.join().expect("it ends");
    let (sets, increments, doubtful) = (
        written.sets.load(Ordering::Relaxed),
        written.increments.load(Ordering::Relaxed),
        written.doubtful.load(Ordering::Relaxed),
    );
    println!(
        "{sets} sets and {increments} increments acknowledged, {doubtful} in doubt; {loads} loads ran through"
    );
    assert!(sets > 1000 && increments > 1000, "there was hardly any load");
    let mut client = Client::new(machine.resp);
    for keys in (0..sets).collect::<Vec<_>>().chunks(100) {
        let commands: Vec<_> = keys.iter().map(|key| format!("GET w:{key}")).collect();
        // A bulk string: its length, and itself.
        let lines = client
            .ask(&commands.join("\r\n"), 2 * keys.len())
            .expect("answers");
        for (key, lines) in keys.iter().zip(lines.chunks(2)) {
            let value = key.to_string();
            assert_eq!(lines, [format!("${}", value.len()), value], "w:{key}");
        }
    }
    let counter = client.say("INCRBY counter 0").expect("an answer");
    let counter: u64 = counter
        .strip_prefix(':')
        .and_then(|digits| digits.parse().ok())
        .expect("a number");
    assert!(
        (increments..=increments + doubtful).contains(&counter),
        "{counter} of {increments} and {doubtful} in doubt"
    );
}

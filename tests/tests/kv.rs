//! Promise `state`: what an application has acknowledged survives every upgrade and downgrade, and the blackout does not grow
//! with it. Shown with the key-value server and redis's own clients.

use machine_tests::{
    machine::{Machine, Replaced, Setup},
    prepared::App,
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

fn kv(memory: u32) -> Machine {
    let setup = Setup {
        app: App::Kv,
        cores: 2,
        memory,
        ..Setup::default()
    };
    setup.boot()
}

/// What one of redis's clients says about this machine.
fn redis(program: &str, machine: &Machine, words: &[&str], input: &str) -> String {
    let mut client = Command::new(program)
        .args(["-h", "127.0.0.1", "-p", &machine.resp.port().to_string()])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts (Debian: apt-get install redis-tools)");
    client
        .stdin
        .take()
        .expect("it is piped")
        .write_all(input.as_bytes())
        .expect("it reads");
    let output = client.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {text}");
    text
}

/// One command's answer.
fn say(machine: &Machine, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    redis("redis-cli", machine, &words, "").trim_end().to_owned()
}

#[test]
fn redis_clients_work_unchanged() {
    let machine = kv(256);
    for (line, answer) in [
        ("PING", "PONG"),
        ("SET a 1 EX 100", "OK"),
        ("INCRBY a 41", "42"),
        ("TTL a", "100"),
        ("MSET b x c y", "OK"),
        ("MGET a b none c", "42\nx\n\ny"),
        ("SET b z NX", ""),
        ("GET b", "x"),
        ("TYPE b", "string"),
        ("DBSIZE", "3"),
        ("DEBUG OBJECT b", "format:1 kind:0 bytes:48"),
    ] {
        assert_eq!(say(&machine, line), answer, "{line}");
    }
    // As redis-cli reads a file: a pipeline, with a transaction in it.
    let script = "MULTI\nINCR n\nINCR n\nEXEC\nGET n\nSET short life PX 1\n";
    let answers = redis("redis-cli", &machine, &[], script);
    assert_eq!(answers, "OK\nQUEUED\nQUEUED\n1\n2\n2\nOK\n");
    assert_eq!(say(&machine, "GET short"), "");
    let mass: String = (0..5000)
        .map(|number| format!("SET many:{number} {number}\n"))
        .collect();
    assert!(redis("redis-cli", &machine, &["--pipe"], &mass).contains("errors: 0, replies: 5000"));
    let scanned = redis("redis-cli", &machine, &["--scan", "--pattern", "many:*7"], "");
    assert_eq!(scanned.lines().count(), 500);
    // What nobody asks for goes, too: found by the sweep.
    let gone: String = (0..200)
        .map(|number| format!("SET gone:{number} x PX 1\n"))
        .collect();
    redis("redis-cli", &machine, &["--pipe"], &gone);
    machine.wait_until("the end of what has expired", |_| {
        say(&machine, "DBSIZE") == "5004"
    });

    // Few clients: QEMU's user network listens with a backlog of one, and whoever comes when it is full comes again a second
    // later, then two, then four.
    for arguments in [&["-P", "16", "-c", "4"][..], &["-c", "8"]] {
        let tests = ["-n", "5000", "-q", "-t", "ping,set,get,incr,mset", "-r", "1000"];
        let report = redis("redis-benchmark", &machine, &[&tests[..], arguments].concat(), "");
        assert_eq!(report.matches("requests per second").count(), 6, "{report}");
        println!("{}", report.replace('\r', "\n"));
    }
    assert_eq!(say(&machine, "GET a"), "42");
}

/// Somebody who asks all the time, so that there is a first answer.
struct Asking {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Asking {
    fn at(address: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let ask = move || {
            let patience = Duration::from_millis(20);
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(b"PING\r\n")?;
            stream.read(&mut [0; 16])
        };
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // During the blackout nobody answers.
                let _ = ask();
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Replaces the image; how long nobody answered, in milliseconds, and how long this took the successor until its network
/// was up.
fn replace(machine: &Machine, image: &[u8]) -> (f64, f64) {
    machine.stage(image);
    let asking = Asking::at(machine.resp);
    let Replaced { status, .. } = machine.replace();
    let told = |status: &Value| status["last_replacement"]["blackout_ms"].as_f64();
    let status = match told(&status) {
        Some(_) => status,
        None => machine.wait_until("the first answer", |status| told(status).is_some()),
    };
    drop(asking);
    let phases = &status["last_replacement"]["phases_ms"];
    let inside = ["start", "network"].map(|phase| phases[phase].as_f64().expect("it is told"));
    (told(&status).expect("it was waited for"), inside.iter().sum())
}

/// Up and down; each time everything must be there. The figures of both.
fn up_and_down(machine: &Machine, keys: usize) -> [(f64, f64); 2] {
    let digest = say(machine, "DEBUG DIGEST");
    let preserved = machine.status()["memory"]["chunks"]["preserved"].clone();
    let images = [(&machine.prepared.new, "2"), (&machine.prepared.old, "1")];
    images.map(|(image, format)| {
        let figures = replace(machine, image);
        println!(
            "{keys} keys: blackout {:.2} ms, start and network {:.2} ms",
            figures.0, figures.1
        );
        assert!(say(machine, "INFO").contains(&format!("record_format:{format}")));
        assert_eq!(say(machine, "DEBUG DIGEST"), digest);
        assert_eq!(machine.status()["memory"]["chunks"]["preserved"], preserved);
        figures
    })
}

#[test]
fn a_million_keys_go_up_and_down() {
    const MANY: usize = 1_000_000;
    let machine = kv(768);
    let populate = |count: usize| assert_eq!(say(&machine, &format!("DEBUG POPULATE {count}")), "OK");
    populate(1000);
    let few = up_and_down(&machine, 1000);
    // Records of both formats beside each other: half of them are written by the newer version.
    populate(MANY / 2);
    replace(&machine, &machine.prepared.new);
    populate(MANY);
    assert_eq!(
        say(&machine, "DEBUG OBJECT key:999999"),
        "format:2 kind:0 bytes:96"
    );
    assert_eq!(say(&machine, "SET key:1 changed"), "OK");
    replace(&machine, &machine.prepared.old);
    assert_eq!(say(&machine, "GET key:1"), "changed");
    assert_eq!(say(&machine, "OBJECT FREQ key:999999"), "1");
    let many = up_and_down(&machine, MANY);
    // By way of an image that knows nothing of it.
    let digest = say(&machine, "DEBUG DIGEST");
    machine.stage(&App::Hello.prepared().new);
    machine.replace();
    machine.assert_serves();
    machine.stage(&machine.prepared.new);
    machine.replace();
    assert_eq!(say(&machine, "DEBUG DIGEST"), digest);
    assert_eq!(say(&machine, "DBSIZE"), MANY.to_string());
    let least = |figures: [(f64, f64); 2]| figures[0].1.min(figures[1].1);
    // A thousand times as many keys. Were one of them looked at in the blackout, it would be a second.
    assert!(least(many) < 3.0 * least(few) + 10.0, "{many:?} {few:?}");
}

/// Writes one key after the other until nobody answers; how many were acknowledged.
fn write_until_the_end(address: SocketAddr, round: &str) -> usize {
    let mut stream = TcpStream::connect(address).expect("somebody serves");
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let mut acknowledged = 0;
    loop {
        let request = format!("SET {round}:{acknowledged} {acknowledged}\r\n");
        let mut reply = [0; 5];
        let written = stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.read_exact(&mut reply));
        match written {
            Ok(()) if &reply == b"+OK\r\n" => acknowledged += 1,
            _ => return acknowledged,
        }
    }
}

#[test]
fn no_acknowledged_write_is_lost_by_a_rollback() {
    const MANY: usize = 40_000;
    let machine = kv(512);
    assert_eq!(say(&machine, "SET before 1"), "OK");
    let mut expected = 1;
    for (round, probation_ms) in [("order", 600_000), ("deadline", 4000)] {
        machine.stage(&machine.prepared.new);
        let facts = machine.facts();
        let words = format!("probation_ms = {probation_ms}\ncommit = \"order\"\n");
        let order = facts.order("replace", &words, &machine.prepared.operator);
        assert_eq!(machine.order(&order).status, 202);
        machine.wait_until("the successor, on trial", |status| {
            status["generation"] == 2 && status["state"] == "replacing"
        });
        let preserved = |machine: &Machine| machine.status()["memory"]["chunks"]["preserved"].as_u64();
        let before = preserved(&machine);
        // Enough for regions that the predecessor does not know, in records of a format that it does not write.
        assert_eq!(say(&machine, &format!("DEBUG POPULATE {MANY} {round} 300")), "OK");
        assert_eq!(
            say(&machine, &format!("DEBUG OBJECT {round}:1")),
            "format:2 kind:0 bytes:384"
        );
        let grown = preserved(&machine);
        assert!(grown > before, "{grown:?} {before:?}");
        assert_eq!(say(&machine, &format!("SET {round} x")), "OK");
        let address = machine.resp;
        let name = format!("w-{round}");
        let writer = thread::spawn(move || write_until_the_end(address, &name));
        if round == "order" {
            machine.wait_until("some writes", |_| {
                say(&machine, &format!("EXISTS w-{round}:100")) == "1"
            });
            let order = machine.facts().order("rollback", "", &machine.prepared.operator);
            assert_eq!(machine.order(&order).status, 202);
        }
        let acknowledged = writer.join().expect("it counts");
        machine.wait_until("the predecessor is back", |status| {
            status["last_replacement"]["outcome"] == "rolled-back" && status["state"] == "serving"
        });
        let written = redis("redis-cli", &machine, &["KEYS", &format!("w-{round}:*")], "");
        let written = written.lines().count();
        println!("{round}: {acknowledged} writes acknowledged on trial, {written} there after the rollback");
        assert!(acknowledged > 0);
        // The last one may have been done, and its answer lost.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&written),
            "{written} of {acknowledged}"
        );
        assert_eq!(say(&machine, &format!("GET {round}")), "x");
        expected += MANY + written + 1;
        assert_eq!(say(&machine, "DBSIZE"), expected.to_string());
        assert_eq!(
            preserved(&machine),
            grown,
            "the predecessor has taken the successor's regions in"
        );
        assert!(say(&machine, "INFO").contains("record_format:1"));
    }
    // And all of it goes on to a successor that stays.
    let digest = say(&machine, "DEBUG DIGEST");
    replace(&machine, &machine.prepared.new);
    assert_eq!(say(&machine, "DEBUG DIGEST"), digest);
}

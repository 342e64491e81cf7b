//! Non-maskable interrupts and machine checks that nobody asked for, at every moment of a replacement and onto every core:
//! nothing is lost, and what can be survived is survived and told of. QEMU's monitor injects them.

use machine_tests::{
    clients,
    machine::{DEADLINE, Machine, Setup, scratch},
    monitored::{Monitored, word_at},
    prepared::App,
    witness::Witness,
};
use std::{
    ffi::OsString,
    thread,
    time::{Duration, Instant},
};
use xtask::machine::Monitor;

const CORES: u32 = 4;
const ROUNDS: usize = 20;
const INJECTIONS_A_ROUND: usize = 10;
/// How long the flushes of the first and the last core take: long enough to be met in them.
const FLUSH: Duration = Duration::from_millis(30);

/// An error that the memory scrubber found in what nobody has used (Intel SDM vol. 3, table 16-6, SRAO): VAL, UC, EN,
/// MISCV, ADDRV, S.
const SURVIVABLE: u64 = 1 << 63 | 1 << 61 | 1 << 60 | 1 << 59 | 1 << 58 | 1 << 56 | 0xc0;
/// The same, and what the core was doing is lost: PCC.
const FATAL: u64 = SURVIVABLE | 1 << 57;

/// Where the pen lies, and in it the page of core 1.
const PEN: u64 = 0x1_0000;
const SLOT_1: u64 = PEN + 11 * 4096;

/// Words of the pen's header (`libos/src/cpu/pen.rs`): the layout stays from version to version.
#[derive(Clone, Copy)]
enum Word {
    StopStart = 96,
    StopEnd = 104,
    Jump = 112,
    Nmis = 120,
    MachineChecks = 128,
}

/// A moment of a replacement, known by the word of the pen's header that has changed when it has come.
const MOMENTS: [(&str, Option<Word>); 4] = [
    ("the order is accepted", None),
    (
        "some cores wait in the pen, the last one flushes",
        Some(Word::StopStart),
    ),
    (
        "all others wait in the pen, the first core flushes",
        Some(Word::StopEnd),
    ),
    ("the successor runs", Some(Word::Jump)),
];

/// A machine whose cores all take NMIs, and its monitor.
struct Injector {
    machine: Machine,
    monitor: Monitor,
    nmis: u64,
    machine_checks: u64,
    injections: usize,
}

impl Injector {
    /// Boots a machine whose cores all hear NMIs.
    fn boot(name: &str) -> Self {
        let injector = Self::start(name, &[]);
        injector.machine.wait_line("instar: serving generation=1 ");
        injector
            .machine
            .wait_until("the first answer", |status| status["state"] == "serving");
        let heard = clients::request(injector.machine.http, "POST", "/hear-nmis", b"").expect("an answer");
        assert_eq!(heard.status, 200, "{}", heard.body);
        injector
    }

    fn start(name: &str, more: &[&str]) -> Self {
        let witness = Witness::new(&scratch(&format!("{name}.log"))).expect("the witness");
        let witness = witness.slow(0, FLUSH).slow(CORES - 1, FLUSH);
        let mut arguments = witness.arguments().to_vec();
        arguments.extend(more.iter().map(OsString::from));
        let setup = Setup {
            app: App::Trial,
            cores: CORES,
            append: "instar.flush=always".into(),
            arguments,
            ..Setup::default()
        };
        let Monitored { machine, monitor } = Monitored::start(name, setup);
        Self {
            machine,
            monitor,
            nmis: 0,
            machine_checks: 0,
            injections: 0,
        }
    }

    /// A word of the pen, read past the machine.
    fn word(&mut self, word: Word) -> u64 {
        self.memory(PEN + word as u64)
    }

    fn memory(&mut self, address: u64) -> u64 {
        word_at(&mut self.monitor, address)
    }

    /// A command of the monitor without arguments.
    fn run(&mut self, command: &str) {
        let done = self.monitor.execute(command, serde_json::json!({}));
        done.unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    fn wait(&mut self, what: &str, word: Word, right: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let value = self.word(word);
            if right(value) {
                return;
            }
            assert!(Instant::now() < deadline, "{what} did not come: {value}");
            thread::yield_now();
        }
    }

    /// An NMI to all cores; returns when all have taken it.
    fn nmi(&mut self) {
        self.send_nmi();
        self.wait_for_nmis();
    }

    fn send_nmi(&mut self) {
        // A successor on trial has a watchdog, whose NMIs count too.
        self.nmis = self.word(Word::Nmis) + u64::from(CORES);
        self.monitor.human("nmi").expect("an NMI");
        self.injections += 1;
    }

    /// Until every core has taken every NMI so far: two that come together would be one.
    fn wait_for_nmis(&mut self) {
        let expected = self.nmis;
        self.wait("every core's NMI", Word::Nmis, |count| count >= expected);
    }

    /// A machine check to one core, in a bank of its own. The core must have dealt with the one before: QEMU resets the
    /// machine otherwise, as a processor shuts down.
    fn machine_check(&mut self, core: u32, status: u64) {
        const RIPV_MCIP: u64 = 0b101;
        let command = format!("mce {core} {} {status:#x} {RIPV_MCIP} 0x1234000 0x8c", core + 1);
        let said = self.monitor.human(&command).expect("a machine check");
        assert_eq!(said, "", "{command}");
        self.injections += 1;
        self.machine_checks += 1;
    }

    /// Until every machine check so far has been counted, by whatever instar.
    fn wait_for_machine_checks(&mut self) {
        let expected = self.machine_checks;
        self.wait("every machine check", Word::MachineChecks, |count| {
            count >= expected
        });
    }

    fn order(&mut self) {
        self.machine.stage(&self.machine.prepared.new);
        let order = self.machine.facts().replace(&self.machine.prepared.operator);
        let answer = self.machine.order(&order);
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
}

#[test]
fn nothing_is_lost() {
    let mut injector = Injector::boot("nothing-lost");
    let before = injector.machine.traces();
    for round in 0..ROUNDS {
        let (what, word) = MOMENTS[round % MOMENTS.len()];
        let at = injector.injections;
        // Nobody is on trial: these are the only ones.
        injector.nmi();
        assert_eq!(injector.word(Word::Nmis), injector.nmis, "round {round}");
        injector.machine_check(round as u32 % CORES, SURVIVABLE);
        injector.wait_for_machine_checks();

        let then = word.map(|word| (word, injector.word(word)));
        injector.order();
        if let Some((word, then)) = then {
            injector.wait(what, word, |now| now != then);
        }
        // Without time in between each core gets both at once. Not in a flush: the machine stops only when it is over.
        let frozen = matches!(word, None | Some(Word::Jump));
        if frozen {
            injector.run("stop");
        }
        injector.send_nmi();
        // The first core last: one whose flush is slow takes it when the flush is over.
        for core in (0..CORES).rev() {
            injector.machine_check(core, SURVIVABLE);
        }
        if frozen {
            injector.run("cont");
        }
        injector.wait_for_nmis();
        injector.nmi();
        let next = round as u64 + 2;
        injector
            .machine
            .wait_line(&format!("instar: serving generation={next} "));
        let status = injector.machine.wait_until("the successor, committed", |status| {
            status["generation"] == next && status["state"] == "serving"
        });
        let cores = serde_json::json!({"present": CORES, "online": CORES});
        assert_eq!(status["cores"], cores, "round {round}, when {what}");
        injector.wait_for_machine_checks();

        injector.machine_check((round as u32 + 1) % CORES, SURVIVABLE);
        injector.nmi();
        injector.wait_for_machine_checks();
        injector.machine.assert_serves();
        assert_eq!(injector.injections - at, INJECTIONS_A_ROUND);
    }
    assert_eq!(injector.injections, 200);
    assert_eq!(injector.word(Word::MachineChecks), injector.machine_checks);
    let mut after = injector.machine.traces();
    after["generation"] = before["generation"].clone();
    assert_eq!(after, before);
    // All have been told of, whichever instar was there when they came.
    let expected = injector.machine_checks;
    let told = |said: &str| {
        let line = |line: &str| {
            line.split_once(" machine-check errors")?
                .0
                .rsplit(' ')
                .next()?
                .parse::<u64>()
                .ok()
        };
        said.lines().filter_map(line).sum::<u64>()
    };
    injector
        .machine
        .wait_until("a record of every machine check", |_| {
            told(&injector.machine.said()) == expected
        });
}

/// A machine that was stopped while a fresh core waited in the pen, before any image has had it.
fn fresh_core() -> Injector {
    for _ in 0..20 {
        let mut injector = Injector::start("fresh", &["-S"]);
        // That is a matter of a few milliseconds: the machine gets them one slice at a time.
        while !injector.machine.said().contains("serving") {
            injector.run("cont");
            injector.run("stop");
            // The second word at 16 says whether the core is present.
            if injector.memory(SLOT_1 + 16) >> 32 == 1 {
                return injector;
            }
        }
    }
    panic!("the fresh core was gone whenever the machine had stopped");
}

#[test]
fn a_core_that_was_never_called_survives() {
    let mut injector = fresh_core();
    injector.machine_check(1, SURVIVABLE);
    injector.run("cont");
    injector.machine.wait_line("instar: serving generation=1 ");
    injector.wait_for_machine_checks();
    injector
        .machine
        .wait_line("1 machine-check errors, the last in bank 2 of core 1");
    injector.machine.assert_serves();
}

/// In a running image.
#[test]
fn harm_ends_the_instar() {
    let mut injector = Injector::boot("harm");
    injector.machine_check(2, FATAL);
    let line = injector
        .machine
        .wait_line("machine check on core 2: bank 3 has status 0x");
    assert!(line.contains("what the core was doing is lost"), "{line}");
    injector.machine.wait_line("the machine is reset");
    injector.machine.wait_end();
}

/// While no image is in charge of the core.
#[test]
fn harm_in_the_pen_resets_the_machine() {
    let mut injector = Injector::boot("harm-pen");
    let before = injector.word(Word::StopEnd);
    injector.order();
    injector.wait("the first core's flush", Word::StopEnd, |now| now != before);
    injector.machine_check(1, FATAL);
    injector.machine.wait_end();
    let said = injector.machine.said();
    assert!(said.lines().any(|line| line.ends_with('M')), "it says why");
}

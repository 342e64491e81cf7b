//! Promise `way-back`, cell by cell: each kind of failure, at each moment of a successor's life, with one core and with four.
//!
//! One predecessor survives all the cells of its machine: each ends with it serving, with all cores and the chunks that it had,
//! and with the reason at the collector. What was seen is the table in `docs/way-back.md`: `INSTAR_WRITE_TABLES=1` writes it,
//! and otherwise it must be the one that is there, but for the milliseconds.

use machine_tests::{
    collector::{Collector, Span},
    machine::{DEADLINE, Machine, Setup},
    matrix::{
        self, Cell,
        Kind::{self, Dead, Shutdown},
        Phase, Seen,
    },
    monitored::Monitored,
    prepared::App,
    trace::assert_whole,
};
use std::{ffi::OsString, thread, time::Instant};

/// Uncorrected, and what the core was doing is lost (Intel SDM vol. 3, table 16-6): VAL, UC, EN, MISCV, ADDRV, PCC, S.
const FATAL: u64 = 1 << 63 | 1 << 61 | 1 << 60 | 1 << 59 | 1 << 58 | 1 << 57 | 1 << 56 | 0xc0;
/// The word of the pen's header that is written just before the jump (`libos/src/cpu/pen.rs`).
const JUMP: u64 = 0x1_0000 + 112;

struct Bench {
    monitored: Monitored,
    collector: Collector,
    cores: u32,
}

impl Bench {
    fn boot(name: &str, cores: u32, more: &[&str]) -> Self {
        let collector = Collector::start();
        let monitored = Monitored::boot(
            name,
            Setup {
                app: App::Trial,
                cores,
                append: collector.append(),
                arguments: more.iter().map(OsString::from).collect(),
                ..Setup::default()
            },
        );
        Self {
            monitored,
            collector,
            cores,
        }
    }

    fn machine(&self) -> &Machine {
        &self.monitored.machine
    }

    /// Orders the image of this cell, and does from outside what it takes.
    fn order(&mut self, cell: Cell) -> String {
        let version = cell.version();
        self.machine().stage(&cell.image(
            &self.machine().prepared.parts.elf,
            &self.machine().prepared.release,
        ));
        // Long enough for a start, and not the half minute that an operator has.
        let trial = match cell.kind {
            Kind::NoNetwork | Kind::Late => "probation_ms = 1500\n",
            _ => "",
        };
        let facts = self.machine().facts();
        let order = facts.order("replace", trial, &self.machine().prepared.operator);
        let before = self.monitored.memory(JUMP);
        let answer = self.machine().order(&order);
        assert_eq!(answer.status, 202, "{version}: {}", answer.body);
        if cell.kind == Kind::MachineCheck {
            self.machine_check(cell, &version, before);
        }
        version
    }

    /// A machine check for the core that waits for it.
    fn machine_check(&mut self, cell: Cell, version: &str, jump: u64) {
        if cell.phase == Phase::FirstInstruction {
            let deadline = Instant::now() + DEADLINE;
            while self.monitored.memory(JUMP) == jump {
                assert!(Instant::now() < deadline, "{version}: no jump");
                thread::yield_now();
            }
        } else {
            self.machine().wait_line(&format!("trial: {version} begins"));
        }
        let core = cell.core;
        let command = format!("mce {core} 3 {FATAL:#x} 0x5 0x1234000 0x8c");
        let said = self.monitored.monitor.human(&command).expect("a machine check");
        assert_eq!(said, "", "{command}");
    }

    /// Runs a cell to its end, and says what was seen.
    fn run(&mut self, cell: Cell) -> Seen {
        let before = self.machine().traces();
        let version = self.order(cell);
        // Asking while nobody is there costs seconds of retransmission.
        self.machine()
            .wait_line(&format!("{version} gave the machine back"));
        let status = self.machine().wait_until(&version, |status| {
            let last = &status["last_replacement"];
            last["to"] == *version && last["outcome"] == "rolled-back" && status["state"] == "serving"
        });
        let last = &status["last_replacement"];
        let reason = last["reason"].as_str().unwrap_or_default();
        let (cause, text) = reason.split_once(": ").unwrap_or_default();
        assert!(cell.expects(cause, text), "{version}: {reason}");
        let all = serde_json::json!({"present": self.cores, "online": self.cores});
        assert_eq!(status["cores"], all, "{version}");
        assert_eq!(status["generation"], 1, "{version}");
        self.machine().assert_serves();
        self.machine().wait_for_traces(&before);
        let trace = last["trace_id"].as_str().unwrap_or_default();
        let spans = self.collector.wait_for_spans(&version, |spans| {
            spans
                .iter()
                .any(|span| span.trace == trace && span.name == "replacement")
        });
        let spans: Vec<_> = spans.into_iter().filter(|span| span.trace == trace).collect();
        assert_eq!(assert_whole(&spans).error.as_deref(), Some(cause), "{version}");
        let name = |name| move |span: &&Span| span.name == name;
        let trial = spans.iter().find(name("probation")).expect("a trial");
        let death = spans.iter().filter(|span| span.generation == 2 && span.failed);
        assert!(
            death.map(|span| span.end_ns).all(|end| end == trial.end_ns),
            "{version}"
        );
        assert_eq!(trial.version, version);
        let recovery = last["recovery_ms"].as_f64().expect("a recovery");
        println!("{} cores, {version}: {recovery:.1} ms, {reason:.100}", self.cores);
        Seen {
            cell,
            cores: self.cores,
            cause: cause.into(),
            recovery,
        }
    }
}

#[test]
fn every_failure_at_every_moment() {
    let mut seen = Vec::new();
    for cores in [1, 4] {
        let mut bench = Bench::boot(&format!("matrix-{cores}"), cores, &[]);
        let own = bench.machine().own_chunks();
        for cell in matrix::cells(cores) {
            seen.push(bench.run(cell));
        }
        bench.machine().assert_bounded(own);
        // And a good one after all that.
        bench.machine().stage(&bench.machine().prepared.new);
        assert_eq!(bench.machine().replace().status["generation"], 2);
    }
    matrix::compare_with_document(&seen);
}

/// What no predecessor survives: a processor that shuts down, and a core that hears nothing any more. The firmware boots the
/// first image again, which says that it is no successor.
#[test]
fn what_resets_the_machine_is_a_cold_boot() {
    for kind in [Shutdown, Dead] {
        let mut bench = Bench::boot("matrix-cold", 4, &["-action", "reboot=reset"]);
        let first = bench.machine().status()["instance_id"].clone();
        let cell = Cell {
            kind,
            phase: Phase::After,
            core: if kind == Dead { 2 } else { 0 },
        };
        bench.order(cell);
        if kind == Dead {
            bench.machine().wait_line("core 2 has not come back to its tasks");
            bench.machine().wait_line("the machine is reset");
        }
        let status = bench.machine().wait_until("a cold boot", |status| {
            status["instance_id"] != first && status["state"] == "serving"
        });
        assert_eq!(status["generation"], 1, "{status}");
        assert_eq!(status["last_replacement"], serde_json::Value::Null, "{status}");
        assert_eq!(status["cores"]["online"], 4, "{status}");
        bench.machine().assert_serves();
    }
}

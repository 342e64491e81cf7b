//! The witness itself under test: a tiny machine of four cores that does what a replacement does, once honestly and
//! once with the defects that it is there to find. No Instar takes part.

use machine_tests::witness::{Violation, Witness, every_core_flushed_before_successor, nobody_flushed};
use std::{fs, path::PathBuf, process::Command, time::Duration};

// A Multiboot 1 kernel, loaded at 1 MiB and entered in 32-bit mode on core 0. It starts the other three cores, waits
// until they have reported, flushes, and executes the mark of an entry. `\report` and `\flush` are what the other
// cores do first and second; `\own` is core 0's flush.
//
// 0x7000 counts reports, 0x7004 finished cores. Writing to port 0xf4 ends the machine.
std::arch::global_asm!(
    ".macro tiny_machine name, first, second, own",
    ".section .rodata.\\name, \"a\"",
    ".globl \\name, \\name\\()_end",
    ".balign 0x100",
    "\\name:",
    // Header: magic, flags (addresses follow), checksum; header, load, end of data, end of zeros, entry.
    ".long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)",
    ".long 0x100000, 0x100000, 0, 0, 0x100020",
    ".code32",
    "cli",
    ".byte 0x0f, 0x1f, 0x80",
    ".ascii \"ENTR\"",
    "mov dword ptr [0x7000], 0",
    "mov dword ptr [0x7004], 0",
    // The other cores start in 16-bit mode, at 0x8000.
    "mov esi, 0x100100",
    "mov edi, 0x8000",
    "mov ecx, 0x100",
    "rep movsb",
    ".byte 0x0f, 0x1f, 0x80",
    ".ascii \"ORDR\"",
    // Interrupt command register: INIT, then start-up with vector 8, both to all but self.
    "mov dword ptr [0xfee00300], 0xc4500",
    "mov ecx, 10000000",
    "2: dec ecx",
    "jnz 2b",
    "mov dword ptr [0xfee00300], 0xc4608",
    "3: pause",
    "cmp dword ptr [0x7000], 3",
    "jne 3b",
    "\\own",
    ".byte 0x0f, 0x1f, 0x80",
    ".ascii \"ENTR\"",
    "4: pause",
    "cmp dword ptr [0x7004], 3",
    "jne 4b",
    "out 0xf4, al",
    "7: hlt",
    "jmp 7b",
    ".balign 0x100",
    ".code16",
    "cli",
    "xor ax, ax",
    "mov ds, ax",
    "\\first",
    "\\second",
    "lock inc dword ptr [0x7004]",
    "8: hlt",
    "jmp 8b",
    ".balign 0x100",
    "\\name\\()_end:",
    ".code64",
    ".previous",
    ".endm",
    "tiny_machine honest, \"wbinvd\", \"lock inc dword ptr [0x7000]\", \"wbinvd\"",
    "tiny_machine hasty, \"lock inc dword ptr [0x7000]\", \"wbinvd\", \"wbinvd\"",
    "tiny_machine selfish, \"wbinvd\", \"lock inc dword ptr [0x7000]\", \"nop\"",
    "tiny_machine lazy, \"nop\", \"lock inc dword ptr [0x7000]\", \"nop\"",
    "tiny_machine sparing, \".byte 0xf3, 0x0f, 0x09\", \"lock inc dword ptr [0x7000]\", \"wbinvd\"",
);

/// The bytes between two labels of the assembly above.
macro_rules! kernel {
    ($start:ident, $end:ident) => {{
        unsafe extern "C" {
            static $start: u8;
            static $end: u8;
        }
        let (start, end) = (&raw const $start, &raw const $end);
        // SAFETY: both labels stand in one read-only section, the second after the first, and all between them is
        // initialised.
        unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
    }};
}

/// Runs a kernel on four cores until it ends the machine, and returns the witness.
fn run(name: &str, kernel: &[u8], slow: Option<u32>) -> Witness {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let image = directory.join(format!("{name}.bin"));
    fs::write(&image, kernel).expect("the kernel is written");
    let mut witness = Witness::new(&directory.join(format!("{name}.log"))).expect("the witness is built");
    if let Some(vcpu) = slow {
        witness = witness.slow(vcpu, Duration::from_millis(200));
    }
    let output = Command::new("timeout")
        .args([
            "60",
            "qemu-system-x86_64",
            "-machine",
            "q35",
            "-m",
            "64",
            "-smp",
            "4",
            "-accel",
            "tcg,thread=multi",
        ])
        .args([
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
            "-device",
            "isa-debug-exit,iobase=0xf4",
        ])
        .arg("-kernel")
        .arg(&image)
        .args(witness.arguments())
        .output()
        .expect("timeout and qemu-system-x86_64 are installed");
    // isa-debug-exit: twice the value written, plus one.
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output
            .status
            .code()
            .is_some_and(|code| code % 2 == 1 && code < 124),
        "{:?} {errors}",
        output.status
    );
    witness
}

#[test]
fn honest_cores_are_believed() {
    for slow in [None, Some(0), Some(3)] {
        let witness = run("honest", kernel!(honest, honest_end), slow);
        let log = witness.log().expect("a log");
        assert_eq!(log.vcpus, 4);
        assert_eq!(every_core_flushed_before_successor(&log, 4), Ok(1), "{log:#?}");
        assert!(nobody_flushed(&log).is_err());
    }
}

#[test]
fn a_core_that_reports_before_its_flush_is_found() {
    let witness = run("hasty", kernel!(hasty, hasty_end), Some(2));
    let log = witness.log().expect("a log");
    let verdict = every_core_flushed_before_successor(&log, 4);
    assert!(
        matches!(
            verdict,
            Err(Violation::NotFlushed {
                core: 2,
                late: Some(_),
                ..
            })
        ),
        "{verdict:?}"
    );
}

#[test]
fn a_replacing_core_that_does_not_flush_is_found() {
    let witness = run("selfish", kernel!(selfish, selfish_end), None);
    let verdict = every_core_flushed_before_successor(&witness.log().expect("a log"), 4);
    assert!(
        matches!(
            verdict,
            Err(Violation::NotFlushed {
                core: 0,
                late: None,
                ..
            })
        ),
        "{verdict:?}"
    );
}

#[test]
fn a_machine_that_does_not_flush_is_found() {
    let log = run("lazy", kernel!(lazy, lazy_end), None).log().expect("a log");
    // The firmware's flushes are in the log, and count for nobody.
    assert!(log.events.len() > 3, "{log:?}");
    assert_eq!(nobody_flushed(&log), Ok(1));
    assert!(every_core_flushed_before_successor(&log, 4).is_err());
}

#[test]
fn keeping_the_lines_is_not_a_flush() {
    let log = run("sparing", kernel!(sparing, sparing_end), None)
        .log()
        .expect("a log");
    let verdict = every_core_flushed_before_successor(&log, 4);
    assert!(
        matches!(
            verdict,
            Err(Violation::NotFlushed {
                core: 1,
                late: None,
                ..
            })
        ),
        "{verdict:?}"
    );
}

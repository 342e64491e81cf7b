//! What is said when the processor refuses to go on.

use core::fmt;

use super::current;
use super::interrupt::Frame;
use super::pen::Cause;
use crate::memory;

const NAMES: [&str; 22] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualization",
    "control protection",
];

/// Reports the exception and ends this instar. Code addresses are given relative to the image, so that they can be looked
/// up in the ELF whatever address it was loaded at.
pub(super) fn report(frame: &Frame) -> ! {
    let told = Told(frame);
    crate::start::panic::last_words(
        Cause::Fault,
        format_args!("{told}"),
        format_args!(
            "{told}\n\
         rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
         rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}\n\
         r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}\n\
         r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}\n\
         rip {:016x} cs {:x} ss {:x} flags {:x} cr2 {:016x}",
            frame.rax,
            frame.rbx,
            frame.rcx,
            frame.rdx,
            frame.rsi,
            frame.rdi,
            frame.rbp,
            frame.rsp,
            frame.r8,
            frame.r9,
            frame.r10,
            frame.r11,
            frame.r12,
            frame.r13,
            frame.r14,
            frame.r15,
            frame.rip,
            frame.cs,
            frame.ss,
            frame.flags,
            x86_64::registers::control::Cr2::read_raw(),
        ),
    )
}

/// What may leave the machine of a fault: what it was and where, and neither addresses nor what registers held.
struct Told<'a>(&'a Frame);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(frame) = self;
        let name = NAMES.get(frame.vector as usize).unwrap_or(&"exception");
        let (vector, error, core) = (frame.vector, frame.error, current::id());
        write!(
            f,
            "fault: {name} (vector {vector}, error {error:#x}) on core {core} "
        )?;
        let image = memory::image();
        if image.contains(&frame.rip) {
            write!(f, "at image+{:#x}", frame.rip - image.start)?;
        } else {
            f.write_str("outside the image")?;
        }
        if frame.vector == 14 {
            write!(f, ": {}", meaning(frame))?;
        }
        Ok(())
    }
}

/// What a page fault's address means.
fn meaning(frame: &Frame) -> &'static str {
    let address = x86_64::registers::control::Cr2::read_raw();
    if memory::stack::is_guard(address) {
        "a stack overflow: this is a stack's guard page"
    } else if address < 4096 {
        "a null pointer"
    } else if frame.error & 1 == 0 {
        "nothing is mapped there"
    } else if frame.error & 16 != 0 {
        "execution of data"
    } else {
        "a write to what is read-only"
    }
}

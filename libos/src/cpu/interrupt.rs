//! From the processor's interrupt to Rust and back.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::replace::probation;

use super::{apic, current, fault, fixup, machine_check, registers, stop, vector};

/// What lies on the interrupt stack when a handler runs: the registers in the order in which the stubs push them, then
/// what the processor pushed (Intel SDM vol. 3, figure 7-9).
#[repr(C)]
pub struct Frame {
    pub(super) r15: u64,
    pub(super) r14: u64,
    pub(super) r13: u64,
    pub(super) r12: u64,
    pub(super) r11: u64,
    pub(super) r10: u64,
    pub(super) r9: u64,
    pub(super) r8: u64,
    pub(super) rdi: u64,
    pub(super) rsi: u64,
    pub(super) rbp: u64,
    pub(super) rbx: u64,
    pub(super) rdx: u64,
    pub(super) rcx: u64,
    pub(super) rax: u64,
    pub(super) vector: u64,
    pub(super) error: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) flags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

// One 16-byte stub a vector. Exceptions 8, 10 to 14, 17, 21, 29 and 30 push an error code; the others get a zero, so that
// all frames look alike. The vector state is saved because the code below uses SSE.
global_asm!(
    ".balign 16",
    "interrupt_stubs:",
    ".set number, 0",
    ".rept {count}",
    ".balign 16",
    ".if !(number == 8 || (number >= 10 && number <= 14) || number == 17 || number == 21 || number == 29 || number == 30)",
    "push 0",
    ".endif",
    "push number",
    "jmp interrupt_common",
    ".set number, number + 1",
    ".endr",
    "interrupt_common:",
    "push rax", "push rcx", "push rdx", "push rbx", "push rbp", "push rsi", "push rdi",
    "push r8", "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
    "cld",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "sub rsp, 512",
    "and rsp, -16",
    "fxsave64 [rsp]",
    "call {dispatch}",
    "fxrstor64 [rsp]",
    "mov rsp, rbx",
    // A machine check that came into an NMI's handler returns without IRET, which would let the next NMI in, onto the same
    // stack (SDM section 7.7.1). `dispatch` says so in the error code. The flags and the address to go on at are put onto the
    // interrupted stack, below the red zone.
    "cmp qword ptr [rsp + 8 * 15], 18",
    "jne 2f",
    "cmp qword ptr [rsp + 8 * 16], 0",
    "je 2f",
    "mov rax, [rsp + 8 * 20]",
    "sub rax, 128 + 16",
    "mov rcx, [rsp + 8 * 19]",
    "mov [rax], rcx",
    "mov rcx, [rsp + 8 * 17]",
    "mov [rax + 8], rcx",
    "mov [rsp + 8 * 20], rax",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop r11", "pop r10", "pop r9", "pop r8",
    "pop rdi", "pop rsi", "pop rbp", "pop rbx", "pop rdx", "pop rcx", "pop rax",
    "mov rsp, [rsp + 8 * 5]",
    "popfq",
    "ret 128",
    "2:",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop r11", "pop r10", "pop r9", "pop r8",
    "pop rdi", "pop rsi", "pop rbp", "pop rbx", "pop rdx", "pop rcx", "pop rax",
    "add rsp, 16",
    "iretq",
    count = const vector::COUNT,
    dispatch = sym dispatch,
);

/// Address of the stub of `vector`.
pub(super) fn stub(vector: usize) -> u64 {
    unsafe extern "C" {
        static interrupt_stubs: u8;
    }
    &raw const interrupt_stubs as u64 + 16 * vector as u64
}

/// Interrupts that nobody expected, such as those that a predecessor left pending.
pub static STRAY: AtomicU64 = AtomicU64::new(0);

extern "C" fn dispatch(frame: &mut Frame) {
    match frame.vector as u8 {
        2 => {
            count_nmi();
            probation::watch();
            stop::leave_if_asked();
        }
        // Of an instruction that was tried on purpose: it goes on elsewhere, with the vector in RAX.
        6 | 13 => match fixup::landing(frame.rip) {
            Some(landing) => (frame.rip, frame.rax) = (landing, frame.vector),
            None => fault::report(frame),
        },
        18 => {
            machine_check::on_exception(frame);
            frame.error = current::came_into_nmi(frame.rsp).into();
        }
        0..32 => fault::report(frame),
        _ => {
            frame.rip = registers::skip_halt(frame.rip);
            interrupt(frame.vector as u8);
        }
    }
}

fn count_nmi() {
    if let Some(pen) = stop::pen() {
        pen.header().nmis.fetch_add(1, Ordering::Relaxed);
    }
}

fn interrupt(number: u8) {
    match number {
        // A timer or wake-up interrupt ends the halt; the executor finds out what there is to do.
        vector::TIMER => {
            apic::end_of_interrupt();
            probation::watch();
        }
        vector::WAKE => apic::end_of_interrupt(),
        vector::NETWORK => {
            crate::device::network::on_interrupt();
            apic::end_of_interrupt();
        }
        vector::STOP => {
            apic::end_of_interrupt();
            stop::leave_if_asked();
        }
        // Not in service, so it must not be acknowledged (SDM section 12.9).
        vector::SPURIOUS => {}
        _ => {
            STRAY.fetch_add(1, Ordering::Relaxed);
            apic::end_of_interrupt();
        }
    }
}

//! The first instructions of an image. Hermit's entry ABI: RDI is the boot information, ESI the core's number, RSP the
//! *lowest* address of a 32 KiB stack; interrupts are off; memory is mapped at its own address.

use core::arch::global_asm;

hermit_entry::define_entry_version!();
hermit_entry::define_abi_tag!();

global_asm!(
    ".section .text.entry, \"ax\"",
    ".global _start",
    "_start:",
    // The mark "an image is entered" for an emulator's instruction trace: nop dword [rax + "ENTR"].
    ".byte 0x0f, 0x1f, 0x80",
    ".ascii \"ENTR\"",
    "cli",
    "cld",
    // SSE before the first line of Rust: not every loader leaves it on (Intel SDM vol. 3, section 14.1.3).
    "mov rax, cr0",
    "and eax, 0xfffffff3", // EM, TS off
    "or eax, 2",           // MP
    "mov cr0, rax",
    "mov rax, cr4",
    // Nothing else of what a loader left on: only what the running page tables need (LA57, PAE) and SSE. Machine
    // checks on: until this image has its own IDT the pen answers them.
    "and eax, 0x1020",
    "or eax, 0x660", // PAE, MCE, OSFXSR, OSXMMEXCPT
    "mov cr4, rax",

    // No-execute: the page tables will use it.
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x800",
    "wrmsr",
    "test esi, esi",
    "jnz 2f",
    "lea rsp, [rsp + {stack}]",
    "fninit",
    "push 0x1f80", // MXCSR as after a reset
    "ldmxcsr [rsp]",
    "pop rax",
    "xor ebp, ebp",
    "call {boot}",
    "2:", // a loader that starts all cores at once: only the first is needed
    "cli",
    "hlt",
    "jmp 2b",
    ".text",
    stack = const loader::load::STACK,
    boot = sym super::boot,
);

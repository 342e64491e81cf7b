//! The pen's code. It is copied to the pen and therefore refers to nothing outside itself; the header lies `CODE_OFFSET` bytes
//! before it. RDI is the core's slot, RSI the header.

use core::arch::global_asm;

use super::{CODE_OFFSET, CODE_SELECTOR, DATA_SELECTOR, FIRST_TSS_SELECTOR, Header, SLOT_BYTES, Slot};

global_asm!(
    ".balign 16",
    "pen_code:",
    // A core arrives: interrupts off, any page tables that map the pen.
    "pen_enter:",
    "cli",
    "mov rax, [rsi + {page_tables}]",
    "mov cr3, rax",
    "lgdt [rsi + {gdt}]",
    "lidt [rsi + {idt}]",
    "lea rsp, [rdi + {slot_bytes}]",
    "push {code_selector}",
    "lea rax, [rip + 2f]",
    "push rax",
    "retfq",
    "2:",
    "mov eax, {data_selector}",
    "mov ss, eax",
    "mov ds, eax",
    "mov es, eax",
    // The core's TSS selector; LTR wants its descriptor not busy.
    "mov eax, [rdi + {core}]",
    "shl eax, 4",
    "add eax, {first_tss}",
    "mov rcx, [rsi + {gdt} + 2]",
    "and byte ptr [rcx + rax + 5], 0xfd",
    "ltr ax",
    "mov eax, 1",
    "xchg [rdi + {present}], eax",
    "pen_wait:",
    "cli",
    "cmp word ptr [rdi], 1",
    "je 3f",
    "sti",
    "pen_halt: hlt",
    "jmp pen_wait",
    // Woken: clear the command to acknowledge it, as the mailbox protocol asks.
    "3:",
    "mov rdx, [rdi + {vector}]",
    "xor eax, eax",
    "xchg [rdi + {present}], eax",
    "mov word ptr [rdi], 0",
    "jmp rdx",
    // Interrupt: acknowledge it and go on waiting. An NMI between STI and HLT lets it come before the halt: then back to
    // the mailbox, or the core would sleep through its call.
    ".balign 16",
    "pen_interrupt:",
    "push rax",
    "push rcx",
    "push rdx",
    "lea rax, [rip + pen_halt]",
    "cmp [rsp + 24], rax",
    "jne 9f",
    "lea rax, [rip + pen_wait]",
    "mov [rsp + 24], rax",
    "9:",
    "lea rcx, [rip + pen_code - {code_offset}]",
    "cmp dword ptr [rcx + {x2apic}], 0",
    "jne 4f",
    "mov rcx, [rcx + {apic_base}]",
    "mov dword ptr [rcx + 0xb0], 0",
    "jmp 5f",
    "4:",
    "mov ecx, 0x80b",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "5:",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "iretq",
    // NMI: count it.
    ".balign 16",
    "pen_nmi:",
    "lock inc qword ptr [rip + pen_code - {code_offset} + {nmis}]",
    "pen_nmi_return: iretq",
    // Machine check: decide as `machine_check::severity` does (SDM section 16.6.2). If the core can go on, what the banks
    // hold stays there for the next instar to find and report. Only MCG_STATUS.MCIP is cleared, or the next machine check
    // shuts the machine down (SDM section 16.3.1.2).
    ".balign 16",
    "pen_machine_check:",
    "push rax",
    "push rcx",
    "push rdx",
    "push rbx",
    "mov ecx, 0x17a", // IA32_MCG_STATUS: bit 0 is RIPV
    "rdmsr",
    "test al, 1",
    "jz pen_lost",
    "mov ecx, 0x179", // IA32_MCG_CAP: bits 7 to 0 are the number of banks, bit 24 is MCG_SER_P
    "rdmsr",
    "mov ebx, eax",
    "mov ecx, 0x401", // IA32_MC0_STATUS; each next one four higher
    "pen_bank:",
    "test bl, bl",
    "jz pen_survived",
    "rdmsr",
    "test edx, edx", // VAL is bit 63
    "jns pen_next_bank",
    "test edx, 1 << 25", // PCC: bit 57
    "jnz pen_lost",
    "test edx, 1 << 29", // UC: bit 61
    "jz pen_next_bank",
    "test ebx, 1 << 24",
    "jz pen_lost",
    "and edx, 3 << 23", // S and AR: bits 56 and 55
    "cmp edx, 3 << 23",
    "je pen_lost",
    "pen_next_bank:",
    "add ecx, 4",
    "dec bl",
    "jmp pen_bank",
    "pen_survived:",
    "mov ecx, 0x17a",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "pop rbx",
    "pop rdx",
    // It came into the NMI's handler, two instructions: one IRET ends both. Two would let the next NMI in, onto the same
    // stack, in between.
    "lea rax, [rip + pen_nmi]",
    "cmp [rsp + 16], rax",
    "je pen_both",
    "lea rax, [rip + pen_nmi_return]",
    "cmp [rsp + 16], rax",
    "je pen_counted",
    "pop rcx",
    "pop rax",
    "iretq",
    "pen_both:",
    "lock inc qword ptr [rip + pen_code - {code_offset} + {nmis}]",
    "pen_counted:",
    "pop rcx",
    "pop rax",
    "mov rsp, [rsp + 24]",
    "iretq",
    // A machine check without a way on: say so, and reset the machine by the register that chipsets since PIIX have.
    "pen_lost:",
    "mov dx, 0x3f8",
    "mov al, 'M'",
    "out dx, al",
    "pen_reset:",
    "mov dx, 0xcf9",
    "mov al, 2",
    "out dx, al",
    "mov al, 6",
    "out dx, al",
    "6:",
    "cli",
    "hlt",
    "jmp 6b",
    // Anything else cannot happen in the pen; say so on the serial line and stay. But core 0 comes by only between two images:
    // it has met a fault in the successor's first instructions, and nobody else would ever know.
    ".balign 16",
    "pen_fault:",
    "mov dx, 0x3f8",
    "mov al, 'X'",
    "out dx, al",
    "mov rax, rsp", // every stack of the pen lies in its core's slot
    "and rax, -{slot_bytes}",
    "cmp dword ptr [rax + {core}], 0",
    "jne 6b",
    "jmp pen_reset",
    "pen_code_end:",
    page_tables = const core::mem::offset_of!(Header, page_tables),
    gdt = const core::mem::offset_of!(Header, gdt),
    idt = const core::mem::offset_of!(Header, idt),
    x2apic = const core::mem::offset_of!(Header, x2apic),
    apic_base = const core::mem::offset_of!(Header, apic_base),
    core = const core::mem::offset_of!(Slot, core),
    present = const core::mem::offset_of!(Slot, present),
    vector = const core::mem::offset_of!(Slot, vector),
    nmis = const core::mem::offset_of!(Header, nmis),
    slot_bytes = const SLOT_BYTES,
    code_selector = const CODE_SELECTOR,
    data_selector = const DATA_SELECTOR,
    first_tss = const FIRST_TSS_SELECTOR,
    code_offset = const CODE_OFFSET,
);

unsafe extern "C" {
    pub(super) static pen_code: u8;
    pub(super) static pen_enter: u8;
    pub(super) static pen_interrupt: u8;
    pub(super) static pen_nmi: u8;
    pub(super) static pen_machine_check: u8;
    pub(super) static pen_fault: u8;
    pub(super) static pen_code_end: u8;
}

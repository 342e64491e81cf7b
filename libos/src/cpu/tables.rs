//! One core's GDT, TSS and interrupt stacks, and the IDT that all cores share.
//!
//! Every exception and interrupt runs on a stack of its own (IST; Intel SDM vol. 3, section 7.14.5): the precompiled `core`
//! uses the red zone below the stack pointer, which an interrupt on the same stack would overwrite; and a stack overflow
//! is only reportable from another stack.

use alloc::boxed::Box;
use core::arch::asm;

use super::vector;
use crate::memory::stack::Stack;

/// 64-bit code.
pub const CODE_SELECTOR: u16 = 0x08;
/// Data.
pub const DATA_SELECTOR: u16 = 0x10;
const TSS_SELECTOR: u16 = 0x18;

const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

/// Interrupt stacks: which exception has which (index into the TSS's IST, from 1).
const IST_DOUBLE_FAULT: usize = 1;
const IST_NMI: usize = 2;
const IST_MACHINE_CHECK: usize = 3;
const IST_PAGE_FAULT: usize = 4;
const IST_FAULT: usize = 5;
const IST_INTERRUPT: usize = 6;
const STACKS: usize = 6;

const INTERRUPT_STACK_BYTES: usize = 8 * 1024;

/// 64-bit task state segment (SDM figure 8-11), as 32-bit words because its 64-bit fields are not aligned.
#[repr(C)]
struct TaskState([u32; 26]);

/// What the processor needs of one core. Never moves and never goes away: the processor holds its address.
pub struct Tables {
    gdt: [u64; 5],
    tss: TaskState,
    stacks: [Stack; STACKS],
}

impl Tables {
    /// Tables and stacks for one core.
    pub fn new() -> &'static mut Self {
        let tables = Box::leak(Box::new(Self {
            gdt: [0, CODE_DESCRIPTOR, DATA_DESCRIPTOR, 0, 0],
            tss: TaskState([0; 26]),
            stacks: core::array::from_fn(|_| Stack::new(INTERRUPT_STACK_BYTES)),
        }));
        for (index, stack) in tables.stacks.iter().enumerate() {
            // IST1 is at byte 36 of the TSS: word 9.
            let word = 9 + 2 * index;
            tables.tss.0[word] = stack.top() as u32;
            tables.tss.0[word + 1] = (stack.top() >> 32) as u32;
        }
        // No I/O permission map: its offset lies beyond the limit.
        tables.tss.0[25] = (size_of::<TaskState>() as u32) << 16;
        let [low, high] = tss_descriptor(&raw const tables.tss as u64, size_of::<TaskState>());
        tables.gdt[3] = low;
        tables.gdt[4] = high;
        tables
    }

    /// The stack that NMIs come on.
    pub fn nmi_stack(&self) -> core::ops::Range<u64> {
        let top = self.stacks[IST_NMI - 1].top();
        top - INTERRUPT_STACK_BYTES as u64..top
    }

    /// Makes this core use these tables and the shared IDT.
    ///
    /// # Safety
    /// Interrupts are off, and no other core uses these tables.
    pub unsafe fn load(&mut self) {
        // LTR refuses a descriptor that is marked busy (bit 41), which it is when a core comes back from the pen.
        self.gdt[3] &= !(1 << 41);
        let gdt = Pointer {
            limit: size_of_val(&self.gdt) as u16 - 1,
            base: self.gdt.as_ptr() as u64,
        };
        let idt = Pointer {
            limit: size_of::<Idt>() as u16 - 1,
            base: IDT.call_once(Idt::new) as *const Idt as u64,
        };
        // The order is for an NMI or a machine check at any moment in between: the IDT comes last, when these stacks are
        // in place. The pen's stacks, for the pen's handlers, are too small for this IDT's.
        // SAFETY: both tables live for ever; the selectors are those of the GDT that has just been loaded, and describe
        // the same flat segments that are in use. FS and GS are not touched: GS's base is the core's data.
        unsafe {
            asm!(
                "lgdt [{gdt}]",
                "push {code}",
                "lea {scratch}, [rip + 2f]",
                "push {scratch}",
                "retfq",
                "2:",
                "mov ss, {data:e}",
                "mov ds, {data:e}",
                "mov es, {data:e}",
                "ltr {tss:x}",
                "lidt [{idt}]",
                gdt = in(reg) &raw const gdt,
                idt = in(reg) &raw const idt,
                code = in(reg) u64::from(CODE_SELECTOR),
                data = in(reg) u64::from(DATA_SELECTOR),
                tss = in(reg) u64::from(TSS_SELECTOR),
                scratch = out(reg) _,
            );
        }
    }
}

/// The two words of a TSS descriptor (SDM figure 8-4), not busy.
pub fn tss_descriptor(base: u64, bytes: usize) -> [u64; 2] {
    const PRESENT_TSS: u64 = 0x89 << 40;
    let limit = bytes as u64 - 1;
    let low = limit & 0xffff
        | (base & 0xff_ffff) << 16
        | PRESENT_TSS
        | (limit >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56;
    [low, base >> 32]
}

/// What LGDT and LIDT take.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

#[repr(C, align(16))]
struct Idt([[u64; 2]; 256]);

static IDT: spin::Once<Idt> = spin::Once::new();

impl Idt {
    fn new() -> Self {
        Self(core::array::from_fn(|number| {
            // Vectors that nobody uses share a stub: an interrupt that a predecessor or the firmware left pending must find one.
            gate(
                super::interrupt::stub(if number < vector::COUNT {
                    number
                } else {
                    vector::STRAY.into()
                }),
                stack_of(number),
                CODE_SELECTOR,
            )
        }))
    }
}

/// The two words of a 64-bit interrupt gate (SDM figure 7-8).
pub fn gate(handler: u64, stack: usize, selector: u16) -> [u64; 2] {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    let low = handler & 0xffff
        | u64::from(selector) << 16
        | (stack as u64) << 32
        | PRESENT_INTERRUPT_GATE
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

fn stack_of(vector: usize) -> usize {
    match vector {
        2 => IST_NMI,
        8 => IST_DOUBLE_FAULT,
        14 => IST_PAGE_FAULT,
        18 => IST_MACHINE_CHECK,
        0..32 => IST_FAULT,
        _ => IST_INTERRUPT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_hold_their_address() {
        let address = 0x1234_5678_9abc_def0;
        let [low, high] = gate(address, 3, CODE_SELECTOR);
        assert_eq!(low & 0xffff | (low >> 48) << 16 | high << 32, address);
        assert_eq!((low >> 32 & 7, low >> 16 & 0xffff), (3, 8));
        let [low, high] = tss_descriptor(address, 104);
        assert_eq!(low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32, address);
        assert_eq!(low & 0xffff, 103);
    }
}

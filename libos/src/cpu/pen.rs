//! The pen: a few low pages that belong to no instar, where cores wait while one image gives the machine to the next.
//!
//! A core in the pen runs on the pen's own page tables, GDT, IDT and stack, so that a late NMI, a machine check or a stray
//! interrupt finds code that nobody overwrites. It halts, and is woken by a wake-up interrupt when its mailbox holds a
//! command: the mailbox has the layout of the ACPI multiprocessor wakeup mailbox (ACPI 6.5, section 5.2.12.19), one a core.
//!
//! The layout of [`Header`] and [`Slot`] is part of the handover between versions: fields are only ever added.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::core_id::{ApicId, CoreId};
use super::{apic, tables, vector};

const MAGIC: u64 = u64::from_le_bytes(*b"INSTRPEN");

const PAGE: u64 = 4096;

/// Pages before the slots: header and code, GDT, IDT, page tables (1 + 1 + 4).
const FIXED_PAGES: u64 = 9;
const CODE_OFFSET: usize = 0x100;

const CODE_SELECTOR: u16 = 0x08;
const FIRST_TSS_SELECTOR: u16 = 0x20;

/// The first words of the pen.
#[repr(C)]
pub struct Header {
    magic: u64,
    version: u32,
    cores: u32,
    page_tables: u64,
    slots: u64,
    slot_bytes: u32,
    x2apic: u32,
    apic_base: u64,
    gdt: [u16; 8],
    idt: [u16; 8],
    entry: u64,
    /// TSC when the predecessor cut itself off from the network.
    pub network_off: AtomicU64,
    /// TSC when the predecessor began to stop the other cores.
    pub stop_start: AtomicU64,
    /// TSC when all of them were in the pen.
    pub stop_end: AtomicU64,
    /// TSC just before the successor's first instruction.
    pub jump: AtomicU64,
}

impl Header {
    pub(super) const X2APIC: usize = core::mem::offset_of!(Self, x2apic);
    pub(super) const APIC_BASE: usize = core::mem::offset_of!(Self, apic_base);
    pub(super) const PAGE_TABLES: usize = core::mem::offset_of!(Self, page_tables);
    pub(super) const CORES: usize = core::mem::offset_of!(Self, cores);
    pub(super) const SLOTS: usize = core::mem::offset_of!(Self, slots);
    pub(super) const ENTRY: usize = core::mem::offset_of!(Self, entry);

    pub(super) fn entry(&self) -> u64 {
        self.entry
    }
}

pub(super) const SLOT_APIC: usize = core::mem::offset_of!(Slot, apic);
pub(super) const SLOT_CORE: usize = core::mem::offset_of!(Slot, core);

/// One core's page of the pen: mailbox at the start, stacks at the end.
#[repr(C)]
pub struct Slot {
    command: AtomicU16,
    _reserved: u16,
    apic: u32,
    vector: AtomicU64,
    core: u32,
    present: AtomicU32,
    _gap: [u64; 5],
    /// TSC before and after this core's last flush; 0 if it did not flush.
    pub flush_start: AtomicU64,
    /// See `flush_start`.
    pub flush_end: AtomicU64,
    _gap2: [u64; 6],
    tss: [u32; 26],
}

const SLOT_BYTES: u64 = PAGE;
/// Tops of the interrupt stacks within a slot (IST 1 to 3): interrupts, NMI, machine check. Each has its own, since they
/// nest. The pen's code itself uses the page's upper half.
const INTERRUPT_STACK_TOPS: [u64; 3] = [2048, 1536, 1024];

// The pen's code. It is copied to the pen and therefore refers to nothing outside itself; the header lies CODE_OFFSET
// bytes before it. RDI is the core's slot, RSI the header.
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
    "hlt",
    "jmp pen_wait",
    // Woken: clear the command to acknowledge it, as the mailbox protocol asks.
    "3:",
    "mov rdx, [rdi + {vector}]",
    "xor eax, eax",
    "xchg [rdi + {present}], eax",
    "mov word ptr [rdi], 0",
    "jmp rdx",
    // Interrupt: acknowledge it and go on waiting.
    ".balign 16",
    "pen_interrupt:",
    "push rax",
    "push rcx",
    "push rdx",
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
    // NMI: nothing to do.
    ".balign 16",
    "pen_nmi:",
    "iretq",
    // Machine check: clear MCG_STATUS.MCIP, or the next one shuts the machine down (SDM section 16.3.1.2).
    ".balign 16",
    "pen_machine_check:",
    "push rax",
    "push rcx",
    "push rdx",
    "mov ecx, 0x17a",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "iretq",
    // Anything else cannot happen; say so on the serial line and stay.
    ".balign 16",
    "pen_fault:",
    "mov dx, 0x3f8",
    "mov al, 'X'",
    "out dx, al",
    "6:",
    "cli",
    "hlt",
    "jmp 6b",
    "pen_code_end:",
    page_tables = const core::mem::offset_of!(Header, page_tables),
    gdt = const core::mem::offset_of!(Header, gdt),
    idt = const core::mem::offset_of!(Header, idt),
    x2apic = const core::mem::offset_of!(Header, x2apic),
    apic_base = const core::mem::offset_of!(Header, apic_base),
    core = const core::mem::offset_of!(Slot, core),
    present = const core::mem::offset_of!(Slot, present),
    vector = const core::mem::offset_of!(Slot, vector),
    slot_bytes = const SLOT_BYTES,
    code_selector = const CODE_SELECTOR,
    data_selector = const 0x10,
    first_tss = const FIRST_TSS_SELECTOR,
    code_offset = const CODE_OFFSET,
);

unsafe extern "C" {
    static pen_code: u8;
    static pen_enter: u8;
    static pen_interrupt: u8;
    static pen_nmi: u8;
    static pen_machine_check: u8;
    static pen_fault: u8;
    static pen_code_end: u8;
}

/// The pen, once it is made or taken over.
#[derive(Clone, Copy)]
pub struct Pen {
    header: *mut Header,
}

// SAFETY: the pen is shared by all cores by design; what changes in it after `create` is atomic.
unsafe impl Send for Pen {}
// SAFETY: as above.
unsafe impl Sync for Pen {}

/// Why a pen that a predecessor left cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PenError {
    /// Not a pen, or one of an unknown layout.
    #[error("no pen of a known layout at {0:#x}")]
    Unknown(u64),
}

impl Pen {
    /// Where a machine's first instar makes the pen.
    pub const ADDRESS: u64 = 0x1_0000;
    /// Version of the layout.
    pub const VERSION: u32 = 1;
    /// The oldest layout that can be taken over: the pen is as old as the machine.
    const OLDEST: u32 = 1;

    /// How many bytes a pen for `cores` takes.
    pub fn bytes(cores: usize) -> u64 {
        (FIXED_PAGES + cores as u64) * PAGE
    }

    /// Makes the pen of this machine. The APIC must have been detected.
    ///
    /// # Safety
    /// The memory from 64 KiB on, [`Pen::bytes`] long, is RAM that nothing else uses, mapped writable; called once in the
    /// machine's life.
    pub unsafe fn create(apics: &[ApicId]) -> Self {
        let code = &raw const pen_code as u64;
        let code_bytes = &raw const pen_code_end as usize - code as usize;
        let moved = |label: *const u8| Pen::ADDRESS + CODE_OFFSET as u64 + (label as u64 - code);
        let page = |index: u64| (Pen::ADDRESS + index * PAGE) as *mut u64;
        let (gdt, idt, level4, level3, level2) = (page(1), page(2), page(3), page(4), page(5));
        let slots = page(FIXED_PAGES) as u64;
        let header = Pen::ADDRESS as *mut Header;
        assert!(CODE_OFFSET + code_bytes <= PAGE as usize && size_of::<Header>() <= CODE_OFFSET);

        // SAFETY: the caller gives the whole range; every write below stays in it.
        unsafe {
            (Pen::ADDRESS as *mut u8).write_bytes(0, Self::bytes(apics.len()) as usize);
            core::ptr::copy_nonoverlapping(
                &raw const pen_code,
                (Pen::ADDRESS as *mut u8).add(CODE_OFFSET),
                code_bytes,
            );

            gdt.add(1).write(0x00af_9b00_0000_ffff);
            gdt.add(2).write(0x00cf_9300_0000_ffff);
            for (core, apic) in apics.iter().enumerate() {
                let slot = (slots + core as u64 * SLOT_BYTES) as *mut Slot;
                (*slot).apic = apic.0;
                (*slot).core = core as u32;
                for (index, top) in INTERRUPT_STACK_TOPS.iter().enumerate() {
                    // IST1 is at byte 36: word 9. The pen lies below 4 GiB: the upper words stay zero.
                    (*slot).tss[9 + 2 * index] = (slot as u64 + top) as u32;
                }
                (*slot).tss[25] = 104 << 16;
                let [low, high] = tables::tss_descriptor(&raw const (*slot).tss as u64, 104);
                gdt.add(usize::from(FIRST_TSS_SELECTOR) / 8 + 2 * core).write(low);
                gdt.add(usize::from(FIRST_TSS_SELECTOR) / 8 + 2 * core + 1)
                    .write(high);
            }
            for number in 0..256_usize {
                let (handler, stack) = match number {
                    2 => (&raw const pen_nmi, 2),
                    18 => (&raw const pen_machine_check, 3),
                    0..32 => (&raw const pen_fault, 1),
                    _ => (&raw const pen_interrupt, 1),
                };
                let [low, high] = tables::gate(moved(handler), stack, CODE_SELECTOR);
                idt.add(2 * number).write(low);
                idt.add(2 * number + 1).write(high);
            }
            map_everything(level4, level3, level2);

            *header = Header {
                magic: MAGIC,
                version: Self::VERSION,
                cores: apics.len() as u32,
                page_tables: level4 as u64,
                slots,
                slot_bytes: SLOT_BYTES as u32,
                x2apic: apic::is_x2().into(),
                apic_base: apic::base(),
                gdt: descriptor_table(gdt as u64, PAGE as u16 - 1),
                idt: descriptor_table(idt as u64, PAGE as u16 - 1),
                entry: moved(&raw const pen_enter),
                network_off: AtomicU64::new(0),
                stop_start: AtomicU64::new(0),
                stop_end: AtomicU64::new(0),
                jump: AtomicU64::new(0),
            };
        }
        Self { header }
    }

    /// Takes over the pen that a predecessor says it left at `address`.
    ///
    /// # Safety
    /// `address` is RAM of the low megabyte, and if the magic number is there then it is the pen that a predecessor made.
    pub unsafe fn inherit(address: u64, cores: usize) -> Result<Self, PenError> {
        if address != Pen::ADDRESS {
            return Err(PenError::Unknown(address));
        }
        let header = address as *mut Header;
        // SAFETY: the caller says that this is RAM.
        let (magic, version, count) = unsafe { ((*header).magic, (*header).version, (*header).cores) };
        if magic != MAGIC || version < Self::OLDEST || count as usize != cores {
            return Err(PenError::Unknown(address));
        }
        Ok(Self { header })
    }

    /// Its address.
    pub fn address(self) -> u64 {
        self.header as u64
    }

    /// The header.
    pub fn header(self) -> &'static Header {
        // SAFETY: the pen is never unmapped, moved or reused, and the fields that change are atomic.
        unsafe { &*self.header }
    }

    /// Page tables that map all memory at its own address, writable and executable, as the boot ABI asks.
    pub fn page_tables(self) -> u64 {
        self.header().page_tables
    }

    /// The page of `core`.
    ///
    /// # Panics
    /// If the machine has no such core.
    pub fn slot(self, core: CoreId) -> &'static Slot {
        let header = self.header();
        assert!((core.index() as u32) < header.cores);
        let address = header.slots + core.index() as u64 * u64::from(header.slot_bytes);
        // SAFETY: as for the header; there is a slot for each core.
        unsafe { &*(address as *const Slot) }
    }

    /// Calls `core` out of the pen to `entry`. It has gone when its slot's command is 0 again.
    pub fn call(self, core: CoreId, entry: u64) {
        let slot = self.slot(core);
        slot.vector.store(entry, Ordering::Relaxed);
        slot.command.store(1, Ordering::SeqCst);
        self.interrupt(core);
    }

    /// Makes `core`, which is in the pen, look at its mailbox.
    pub fn interrupt(self, core: CoreId) {
        apic::send(ApicId(self.slot(core).apic), apic::Delivery::Fixed(vector::WAKE));
    }
}

impl Slot {
    /// Has this slot's core not yet followed the last call?
    pub fn is_called(&self) -> bool {
        self.command.load(Ordering::SeqCst) != 0
    }

    /// Does this slot's core wait in the pen?
    pub fn is_present(&self) -> bool {
        self.present.load(Ordering::SeqCst) == 1
    }
}

/// What LGDT and LIDT read: limit, then address, in 16-bit words.
fn descriptor_table(base: u64, limit: u16) -> [u16; 8] {
    [
        limit,
        base as u16,
        (base >> 16) as u16,
        (base >> 32) as u16,
        (base >> 48) as u16,
        0,
        0,
        0,
    ]
}

/// Identity mapping: the first 4 GiB by 2 MiB pages, the rest of the first 512 GiB by 1 GiB pages where there are such.
///
/// # Safety
/// The tables are zeroed pages, `level2` four of them.
unsafe fn map_everything(level4: *mut u64, level3: *mut u64, level2: *mut u64) {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let gigabyte_pages = raw_cpuid::CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|features| features.has_1gib_pages());
    // SAFETY: the caller gives the pages; every index is below 512 a page.
    unsafe {
        level4.write(level3 as u64 | PRESENT_WRITABLE);
        for index in 0..4 {
            level3
                .add(index)
                .write((level2 as u64 + index as u64 * PAGE) | PRESENT_WRITABLE);
        }
        for index in 0..4 * 512 {
            level2
                .add(index)
                .write((index as u64) << 21 | LARGE | PRESENT_WRITABLE);
        }
        if gigabyte_pages {
            for index in 4..512 {
                level3
                    .add(index)
                    .write((index as u64) << 30 | LARGE | PRESENT_WRITABLE);
            }
        }
    }
}

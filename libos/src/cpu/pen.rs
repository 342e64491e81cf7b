//! The pen: a few low pages that belong to no instar, where cores wait while one image gives the machine to the next.
//!
//! A core in the pen runs on the pen's own page tables, GDT, IDT and stack, so that a late NMI, a machine check or a stray
//! interrupt finds code that nobody overwrites. It halts, and is woken by a wake-up interrupt when its mailbox holds a
//! command: the mailbox has the layout of the ACPI multiprocessor wakeup mailbox (ACPI 6.5, section 5.2.12.19), one a core.
//! The core that replaces uses the pen's tables too, from before the jump until the successor has its own.
//!
//! The layout of [`Header`] and [`Slot`] is part of the handover between versions: fields are only ever added.

mod code;
mod epitaph;
mod moments;

pub use epitaph::{Cause, Epitaph};
pub use moments::Moment;

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use code::{
    pen_back, pen_code, pen_code_end, pen_enter, pen_fault, pen_interrupt, pen_machine_check, pen_nmi,
};

use super::core_id::{ApicId, CoreId};
use super::registers::tsc;
use super::{apic, tables, time, vector, watchdog};

const MAGIC: u64 = u64::from_le_bytes(*b"INSTRPEN");

const PAGE: u64 = 4096;

/// Pages before the slots: header and code, GDT, IDT, page tables (1 + 1 + 4), epitaph.
const FIXED_PAGES: u64 = 10;
const EPITAPH_PAGE: u64 = 9;
const CODE_OFFSET: usize = 0x100;

/// How long a successor may take until it has handlers of its own. On hardware it is a matter of microseconds.
const FIRST_HANDLERS: Duration = Duration::from_secs(2);

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
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
    /// NMIs since the cold boot.
    pub nmis: AtomicU64,
    /// Machine-check errors since the cold boot that were survived, and how many of them somebody has been told of.
    pub(super) machine_checks: AtomicU64,
    pub(super) machine_checks_told: AtomicU64,
    /// The last one: core and bank (in the low byte), and the bank's status.
    pub(super) machine_check_place: AtomicU64,
    pub(super) machine_check_status: AtomicU64,
    /// Where the predecessor goes on if its successor gives the machine back; 0: there is no way back.
    pub(super) way_back: AtomicU64,
    /// 1: core 0 flushes on the way back. The predecessor's decision, made from the right to flush.
    pub(super) flush_on_the_way: AtomicU64,
    /// TSC from which on a successor that has no handlers of its own yet counts as hung.
    pub(super) hung_from: AtomicU64,
    /// The code that takes core 0 back, on whatever page tables map the pen.
    back: u64,
    /// How the watchdog's interrupt reaches core 0: the I/O APIC's address, and its pin plus one in the low bits; 0: unknown.
    pub(super) watchdog: AtomicU64,
    /// The security floor. An older pen has zeros here: the rest of its page up to the code is unused.
    floor: AtomicU64,
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

    /// Images of a lower security version do not run on this machine any more.
    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::SeqCst)
    }

    /// Raises the floor to `version`. It never falls.
    pub fn raise_floor(&self, version: u64) {
        self.floor.fetch_max(version, Ordering::SeqCst);
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
    /// Version of the layout. 2 counts NMIs and machine checks; 3 knows the way back and keeps the floor.
    pub const VERSION: u32 = 3;
    /// The first layout with a way back.
    const WITH_WAY_BACK: u32 = 3;
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
                nmis: AtomicU64::new(0),
                machine_checks: AtomicU64::new(0),
                machine_checks_told: AtomicU64::new(0),
                machine_check_place: AtomicU64::new(0),
                machine_check_status: AtomicU64::new(0),
                way_back: AtomicU64::new(0),
                flush_on_the_way: AtomicU64::new(0),
                hung_from: AtomicU64::new(0),
                back: moved(&raw const pen_back),
                watchdog: AtomicU64::new(0),
                floor: AtomicU64::new(0),
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

    /// The pen that a predecessor left, if it waits there to go on. For a core that cannot go on and knows nothing yet.
    ///
    /// Memory outlives a reset, and a pen that was left by a machine before it must not be taken for one: the jump was just
    /// now, by a clock that a reset sets to 0.
    pub(crate) fn with_way_back() -> Option<Self> {
        let header = Pen::ADDRESS as *mut Header;
        // SAFETY: the low megabyte is mapped by every image's page tables, and is RAM or reads as anything.
        let (magic, version) = unsafe { ((&raw const (*header).magic).read_volatile(), (*header).version) };
        let pen = Self { header };
        if magic != MAGIC || version < Self::WITH_WAY_BACK || !pen.can_go_back() {
            return None;
        }
        let (jump, hung) = (
            pen.header().jump.load(Ordering::Relaxed),
            pen.header().hung_from.load(Ordering::Relaxed),
        );
        let patience = hung.checked_sub(jump)?;
        (jump..hung.saturating_add(patience))
            .contains(&tsc())
            .then_some(pen)
    }

    /// Does a predecessor wait to go on?
    pub(crate) fn can_go_back(self) -> bool {
        self.has_way_back() && self.header().way_back.load(Ordering::SeqCst) != 0
    }

    /// Does this pen, which is as old as the machine, know the way back?
    pub(crate) fn has_way_back(self) -> bool {
        self.header().version >= Self::WITH_WAY_BACK
    }

    /// This instar goes on at `entry` if the successor gives the machine back, and core 0 flushes on its way if `flush`. From
    /// now on the watchdog watches. On the pen's page tables.
    pub(super) fn arm(self, entry: u64, flush: bool) {
        if self.has_way_back() {
            let header = self.header();
            header
                .hung_from
                .store(tsc() + time::ticks(FIRST_HANDLERS), Ordering::SeqCst);
            header.flush_on_the_way.store(flush.into(), Ordering::SeqCst);
            self.forget_lines();
            self.forget_moments();
            header.way_back.store(entry, Ordering::SeqCst);
            watchdog::start(self);
        }
    }

    /// The instar that was to go on goes on. On the pen's page tables.
    pub(super) fn disarm(self) {
        if self.has_way_back() {
            watchdog::stop(self);
            self.header().way_back.store(0, Ordering::SeqCst);
        }
    }

    /// The successor keeps the machine: nobody goes back. On an image's page tables.
    pub(crate) fn forget_way_back(self) {
        if self.can_go_back() {
            // First: from here on no failure leads back.
            self.header().way_back.store(0, Ordering::SeqCst);
            if let Some(registers) = watchdog::registers(self) {
                crate::memory::map_device(registers);
                watchdog::stop(self);
            }
        }
    }

    /// Where core 0 goes, from the pen or from anywhere with interrupts off, to go back.
    pub(crate) fn back(self) -> u64 {
        self.header().back
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

    /// Puts the pen's page tables and descriptor tables in charge of the calling core, `core`, which goes on where it is: from
    /// here on an NMI or a machine check finds neither this instar nor the next.
    ///
    /// # Safety
    /// Interrupts are off, and the core will not use its own tables again.
    pub(crate) unsafe fn take_charge(self, core: CoreId) {
        let header = self.header();
        let tss = usize::from(FIRST_TSS_SELECTOR) + 16 * core.index();
        // SAFETY: the pen maps everything where it lies, this code and its stack too. Its selectors for code and data are
        // those in use. LTR wants its descriptor not busy. The IDT comes before the TSS: the pen's handlers can do with the
        // image's stacks, but not the other way round.
        unsafe {
            let gdt = u64::from(header.gdt[1]) | u64::from(header.gdt[2]) << 16;
            core::arch::asm!(
                "mov cr3, {page_tables}",
                "lgdt [{gdt}]",
                "lidt [{idt}]",
                "and byte ptr [{descriptor} + 5], 0xfd",
                "ltr {tss:x}",
                page_tables = in(reg) header.page_tables,
                gdt = in(reg) &raw const header.gdt,
                idt = in(reg) &raw const header.idt,
                descriptor = in(reg) gdt + tss as u64,
                tss = in(reg) tss,
                options(nostack),
            );
        }
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

#[cfg(test)]
mod tests;

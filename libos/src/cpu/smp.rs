//! All cores: from reset to the pen once in a machine's life, and from the pen into an instar at each start.

use core::arch::{global_asm, naked_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::core_id::{ApicId, CoreId, CoreSet, MAX_CORES};
use super::pen::{Header, Pen};
use super::{apic, current, time};

/// Page that cores start on in real mode: below 1 MiB, a multiple of 4096.
pub(crate) const TRAMPOLINE: u64 = 0x8000;

/// How long a core may take from reset into the pen, and from the pen into the image.
const PATIENCE: Duration = Duration::from_secs(1);

// Real mode to 64-bit mode, and to the pen. Copied to TRAMPOLINE; `trampoline_pen` and `trampoline_tables` are filled in.
global_asm!(
    ".balign 16",
    ".set trampoline_gdtr_offset, trampoline_gdtr - trampoline",
    ".set trampoline_tables_address, {address} + trampoline_tables - trampoline",
    "trampoline:",
    ".code16",
    "cli",
    "cld",
    "mov ax, cs",
    "mov ds, ax",
    "lgdtd [trampoline_gdtr_offset]",
    "mov eax, cr0",
    "or eax, 1",
    "mov cr0, eax",
    ".byte 0x66, 0xea", // ljmp 0x08:trampoline_32, with a 32-bit offset
    ".long {address} + trampoline_32 - trampoline",
    ".word 0x08",
    ".code32",
    "trampoline_32:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov eax, cr4",
    "or eax, 0x660", // PAE, MCE (the pen answers machine checks), OSFXSR, OSXMMEXCPT
    "mov cr4, eax",
    "mov eax, [trampoline_tables_address]",
    "mov cr3, eax",
    "mov ecx, 0xc0000080", // EFER: long mode, no-execute
    "rdmsr",
    "or eax, 0x900",
    "wrmsr",
    "mov eax, cr0",
    "and eax, 0x9ffffffb", // not: cache disable, not write-through, emulation
    "or eax, 0x80010003",  // paging, write protect, monitor coprocessor, protection
    "mov cr0, eax",
    ".byte 0xea", // ljmp 0x18:trampoline_64
    ".long {address} + trampoline_64 - trampoline",
    ".word 0x18",
    ".code64",
    "trampoline_64:",
    "mov esi, [rip + trampoline_pen]",
    // An APIC that is off takes no wake-up interrupt.
    "cmp dword ptr [rsi + {x2apic}], 0",
    "jne 2f",
    "mov rax, [rsi + {apic_base}]",
    "mov dword ptr [rax + 0xf0], 0x12f",
    "jmp 3f",
    "2:",
    "mov ecx, 0x1b",
    "rdmsr",
    "or eax, 0xc00",
    "wrmsr",
    "mov ecx, 0x80f",
    "mov eax, 0x12f",
    "xor edx, edx",
    "wrmsr",
    "3:",
    // This core's APIC id: 32 bits from leaf 0xb where there is one, or 8 bits from leaf 1.
    "xor eax, eax",
    "cpuid",
    "cmp eax, 0xb",
    "jb 4f",
    "mov eax, 0xb",
    "xor ecx, ecx",
    "cpuid",
    "mov eax, edx",
    "test ebx, ebx",
    "jnz 5f",
    "4:",
    "mov eax, 1",
    "cpuid",
    "mov eax, ebx",
    "shr eax, 24",
    "5:",
    "mov ecx, [rsi + {cores}]",
    "mov rdi, [rsi + {slots}]",
    "6:",
    "cmp [rdi + {slot_apic}], eax",
    "je 7f",
    "add rdi, 4096",
    "dec ecx",
    "jnz 6b",
    "8:", // a core that nobody knows stays here
    "cli",
    "hlt",
    "jmp 8b",
    "7:",
    "jmp [rsi + {entry}]",
    ".balign 8",
    "trampoline_gdt:",
    ".quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff",
    "trampoline_gdtr:",
    ".word 31",
    ".long {address} + trampoline_gdt - trampoline",
    ".balign 8",
    "trampoline_pen: .quad 0",
    "trampoline_tables: .quad 0",
    "trampoline_end:",
    address = const TRAMPOLINE,
    x2apic = const Header::X2APIC,
    apic_base = const Header::APIC_BASE,
    cores = const Header::CORES,
    slots = const Header::SLOTS,
    entry = const Header::ENTRY,
    slot_apic = const super::pen::SLOT_APIC,
);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
    static trampoline_pen: u8;
    static trampoline_tables: u8;
}

/// Brings all other cores from reset into the pen: INIT, 10 ms, STARTUP, twice if need be (Intel SDM vol. 3, section
/// 9.4.4.1). Returns the cores that came.
///
/// # Safety
/// The page at 32 KiB is free RAM, mapped writable; called once in the machine's life, by core 0, before any other core runs.
pub unsafe fn cold_start(pen: Pen, apics: &[ApicId]) -> CoreSet {
    let code = &raw const trampoline as usize;
    let bytes = &raw const trampoline_end as usize - code;
    let offset = |label: *const u8| TRAMPOLINE as usize + (label as usize - code);
    // SAFETY: the caller gives the page, and the code is shorter; `pen_enter`'s tables lie below 4 GiB.
    unsafe {
        core::ptr::copy_nonoverlapping(&raw const trampoline, TRAMPOLINE as *mut u8, bytes);
        (offset(&raw const trampoline_pen) as *mut u64).write(pen.address());
        (offset(&raw const trampoline_tables) as *mut u64).write(pen.page_tables());
    }
    let others = || {
        apics
            .iter()
            .enumerate()
            .skip(1)
            .filter_map(|(index, apic)| Some((CoreId::new(index)?, *apic)))
    };
    let came = || others().filter(|(core, _)| pen.slot(*core).is_present());
    for (_, apic) in others() {
        apic::send(apic, apic::Delivery::Init);
    }
    time::spin(Duration::from_millis(10));
    for _ in 0..2 {
        for (core, apic) in others() {
            if !pen.slot(core).is_present() {
                apic::send(apic, apic::Delivery::Startup((TRAMPOLINE >> 12) as u8));
            }
        }
        let deadline = time::now() + PATIENCE;
        while came().count() < others().count() && time::now() < deadline {
            core::hint::spin_loop();
        }
    }
    came().fold(CoreSet::EMPTY, |set, (core, _)| set.with(core))
}

/// The stack of each core that is in the pen, on which lie six saved registers and the address to go on at.
struct Stacks([UnsafeCell<u64>; MAX_CORES]);

// SAFETY: a core's stack is written by the core itself before it enters the pen, or by core 0 while that core is in
// the pen; it is read only by the core itself when it leaves the pen.
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks([const { UnsafeCell::new(0) }; MAX_CORES]);

/// Where a woken core arrives: RDI is its slot, RSI the pen. It stays on the pen's page tables, which map everything, until
/// it has its own descriptor tables: an NMI in between still finds the pen's handlers, which its own page tables would
/// not let it execute.
#[unsafe(naked)]
unsafe extern "C" fn leave_pen() {
    naked_asm!(
        "mov eax, [rdi + {core}]",
        "lea rcx, [rip + {stacks}]",
        "mov rsp, [rcx + 8 * rax]",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp",
        "ret",
        core = const super::pen::SLOT_CORE,
        stacks = sym STACKS,
    )
}

/// Saves where it was called from and goes to the pen. Returns when the core is woken again by this instar.
///
/// # Safety
/// Interrupts are off; `slot` and `header` are this core's slot and the pen, whose entry is `entry`.
#[unsafe(naked)]
unsafe extern "C" fn enter_pen(slot: u64, header: u64, stack: *mut u64, entry: u64) {
    naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "mov [rdx], rsp",
        // In this image's tables the pen is data: nothing there can be executed.
        "mov rax, [rsi + {page_tables}]",
        "mov cr3, rax",
        "jmp rcx",
        page_tables = const Header::PAGE_TABLES,
    )
}

/// The calling core waits in the pen until this instar wakes it.
///
/// # Safety
/// Interrupts are off, on a core other than the one that stops the others.
pub(super) unsafe fn park(pen: Pen) {
    let core = current::this();
    let slot = core::ptr::from_ref(pen.slot(core.id())) as u64;
    // SAFETY: this core's own stack pointer and slot.
    unsafe {
        enter_pen(
            slot,
            pen.address(),
            STACKS.0[core.id().index()].get(),
            pen.header().entry(),
        );
        current::adopt(core);
    }
    crate::memory::activate();
    super::machine_check::collect_from_the_pen();
    apic::enable();
}

/// The calling core, which is core 0, enters an image, and is back when the image's instar gives the machine back: with
/// interrupts off, on the pen's tables.
///
/// # Safety
/// As [`loader::jump::enter`]. The pen's way back is [`back_entry`].
pub(super) unsafe fn visit(entry: u64, boot_info: u64, stack: u64) {
    // SAFETY: as the caller says; core 0's place in `STACKS` is used for nothing else.
    unsafe { visit_image(entry, boot_info, stack, STACKS.0[CoreId::BOOT.index()].get()) }
}

/// Where the pen sends core 0 on its way back to this instar; RDI is core 0's slot.
pub(super) fn back_entry() -> u64 {
    leave_pen as *const () as u64
}

/// Saves where it was called from, as [`enter_pen`] does, and enters the image.
#[unsafe(naked)]
unsafe extern "C" fn visit_image(entry: u64, boot_info: u64, stack: u64, saved: *mut u64) {
    unsafe extern "C" fn enter(entry: u64, boot_info: u64, stack: u64) -> ! {
        // SAFETY: as the caller of `visit` says.
        unsafe { loader::jump::enter(entry, boot_info, stack, CoreId::BOOT.index() as u32) }
    }
    naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "mov [rcx], rsp",
        "jmp {enter}",
        enter = sym enter,
    )
}

/// The calling core waits in the pen for another instar to call it.
///
/// # Safety
/// Interrupts are off, and no instar needs what this core was doing.
pub(super) unsafe fn park_for_good(pen: Pen, core: CoreId) -> ! {
    let slot = core::ptr::from_ref(pen.slot(core)) as u64;
    // SAFETY: this core's own slot. Where it would go on in this instar is written to its own place, and never used.
    unsafe {
        enter_pen(
            slot,
            pen.address(),
            STACKS.0[core.index()].get(),
            pen.header().entry(),
        );
    }
    super::registers::halt_forever()
}

/// Calls `core` out of the pen into this instar: where it parked, or at its first start.
pub(super) fn unpark(pen: Pen, core: CoreId) {
    pen.call(core, leave_pen as *const () as u64);
}

/// Interrupts `core` once more if it has not yet followed its call. An NMI between the pen's STI and HLT lets it take the
/// interrupt before the halt.
pub(super) fn remind(pen: Pen, core: CoreId) {
    if pen.slot(core).is_called() {
        pen.interrupt(core);
    }
}

/// Cores that were called into their executors.
static CALLED: AtomicU64 = AtomicU64::new(0);

/// See [`CALLED`].
pub(super) fn called() -> CoreSet {
    CoreSet::from_bits(CALLED.load(Ordering::SeqCst))
}

/// Calls all other cores out of the pen into their executors, and does not wait for them: they say themselves when they
/// are online.
pub(super) fn start_others(pen: Pen) {
    for core in current::all()
        .iter()
        .skip(1)
        .filter(|core| pen.slot(core.id()).is_present())
    {
        // Six registers of no value, the first function, and an (unused) return address that keeps the stack aligned as
        // if the function had been called.
        let stack = core.stack_top() - 8 * 8;
        // SAFETY: the core is in the pen and its stack unused.
        unsafe {
            (stack as *mut u64).write_bytes(0, 8);
            (stack as *mut u64)
                .add(6)
                .write(first_function as *const () as u64);
            STACKS.0[core.id().index()].get().write(stack);
        }
        CALLED.fetch_or(CoreSet::EMPTY.with(core.id()).bits(), Ordering::SeqCst);
        unpark(pen, core.id());
    }
}

extern "C" fn first_function() -> ! {
    let id = apic::id();
    let Some(core) = current::all().iter().find(|core| core.apic() == id) else {
        super::registers::halt_forever()
    };
    // SAFETY: interrupts are off since the pen, and this core has that APIC id.
    unsafe { current::adopt(core) };
    crate::memory::activate();
    apic::enable();
    super::enable_extensions();
    #[cfg(feature = "trial")]
    crate::trial::point(crate::trial::Phase::BeforeCores);
    current::set_online(core.id());
    crate::task::executor::run()
}

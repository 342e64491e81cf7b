//! The local APIC, memory-mapped (xAPIC) or by MSR (x2APIC): Intel SDM vol. 3, chapter 12.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::core_id::ApicId;
use super::registers::{msr, read_msr, write_msr};
use super::vector;

/// Register offsets of the memory-mapped APIC (SDM table 12-1).
mod register {
    pub const ID: u32 = 0x20;
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const END_OF_INTERRUPT: u32 = 0xb0;
    pub const SPURIOUS: u32 = 0xf0;
    pub const IN_SERVICE: u32 = 0x100;
    pub const COMMAND: u32 = 0x300;
    pub const COMMAND_HIGH: u32 = 0x310;
    pub const TIMER: u32 = 0x320;
    pub const LINT0: u32 = 0x350;
    pub const TIMER_INITIAL: u32 = 0x380;
    pub const TIMER_CURRENT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
}

const ENABLE: u64 = 1 << 11;
const ENABLE_X2: u64 = 1 << 10;
const MASKED: u32 = 1 << 16;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const DIVIDE_BY_1: u32 = 0b1011;
const DELIVERY_PENDING: u32 = 1 << 12;

static X2APIC: AtomicBool = AtomicBool::new(false);
static BASE: AtomicU64 = AtomicU64::new(0);

/// How an interrupt is delivered (SDM section 12.6.1).
#[derive(Clone, Copy)]
pub enum Delivery {
    /// A vector of the IDT.
    Fixed(u8),
    /// Not maskable.
    Nmi,
    /// Resets the core.
    Init,
    /// Starts the core in real mode at page `0`.
    Startup(u8),
}

/// Finds out which kind of APIC there is and turns this core's on. x2APIC is used where the processor has it.
/// Returns the physical address of the memory-mapped registers, which the caller must have mapped uncached before the
/// next call into this module, or `None` with x2APIC.
pub fn detect() -> Option<u64> {
    // SAFETY: every x86-64 processor has IA32_APIC_BASE.
    let base = unsafe { read_msr(msr::APIC_BASE) };
    let has_x2 = raw_cpuid::CpuId::new()
        .get_feature_info()
        .is_some_and(|f| f.has_x2apic());
    X2APIC.store(has_x2, Ordering::Relaxed);
    let address = base & 0xf_ffff_ffff_f000;
    BASE.store(address, Ordering::Relaxed);
    (!has_x2).then_some(address)
}

/// Is the APIC driven by MSRs?
pub fn is_x2() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

/// Physical address of the memory-mapped registers (meaningless with x2APIC).
pub fn base() -> u64 {
    BASE.load(Ordering::Relaxed)
}

/// Turns this core's APIC on, with the timer masked and legacy interrupts off.
pub fn enable() {
    let mode = if is_x2() { ENABLE | ENABLE_X2 } else { ENABLE };
    // SAFETY: the base keeps its address; only the enable bits are set, which `detect` found to exist.
    unsafe { write_msr(msr::APIC_BASE, read_msr(msr::APIC_BASE) | mode) };
    write(register::SPURIOUS, SOFTWARE_ENABLE | u32::from(vector::SPURIOUS));
    write(register::TASK_PRIORITY, 0);
    write(register::LINT0, MASKED);
    write(register::TIMER, MASKED);
    write(register::TIMER_DIVIDE, DIVIDE_BY_1);
}

/// This core's id.
pub fn id() -> ApicId {
    let id = read(register::ID);
    ApicId(if is_x2() { id } else { id >> 24 })
}

/// Tells the APIC that the interrupt in service is done.
pub fn end_of_interrupt() {
    write(register::END_OF_INTERRUPT, 0);
}

/// Tells the APIC that whatever is in service is done.
pub fn end_all_interrupts() {
    let in_service = || (0..8).any(|word| read(register::IN_SERVICE + 16 * word) != 0);
    for _ in 0..256 {
        if !in_service() {
            break;
        }
        end_of_interrupt();
    }
}

/// Sends an interrupt to one core. Before it returns, the APIC has taken the command.
pub fn send(to: ApicId, delivery: Delivery) {
    const LEVEL_ASSERT: u32 = 1 << 14;
    let command = LEVEL_ASSERT
        | match delivery {
            Delivery::Fixed(vector) => u32::from(vector),
            Delivery::Nmi => 0b100 << 8,
            Delivery::Init => 0b101 << 8,
            Delivery::Startup(page) => 0b110 << 8 | u32::from(page),
        };
    if is_x2() {
        // x2APIC register writes are not serialising (SDM section 12.12.3): what was written before must be visible
        // to the core that the interrupt wakes.
        core::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: with x2APIC the command register is this MSR; an IPI changes no memory of ours.
        unsafe {
            core::arch::x86_64::_mm_mfence();
            core::arch::x86_64::_mm_lfence();
            write_msr(
                msr::X2APIC + register::COMMAND / 16,
                u64::from(to.0) << 32 | u64::from(command),
            );
        }
        return;
    }
    while read(register::COMMAND) & DELIVERY_PENDING != 0 {
        core::hint::spin_loop();
    }
    write(register::COMMAND_HIGH, to.0 << 24);
    write(register::COMMAND, command);
    while read(register::COMMAND) & DELIVERY_PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// One interrupt after `ticks` of the APIC's clock.
pub fn arm_timer(ticks: u32) {
    write(register::TIMER, u32::from(vector::TIMER));
    write(register::TIMER_INITIAL, ticks.max(1));
}

/// No timer interrupt any more.
pub fn disarm_timer() {
    write(register::TIMER, MASKED);
    write(register::TIMER_INITIAL, 0);
}

/// Lets the timer count down from its largest value without an interrupt: for calibration.
pub fn start_counting() {
    write(register::TIMER, MASKED);
    write(register::TIMER_INITIAL, u32::MAX);
}

/// How far [`start_counting`] has come, in ticks.
pub fn counted() -> u32 {
    u32::MAX - read(register::TIMER_CURRENT)
}

fn read(register: u32) -> u32 {
    if is_x2() {
        // SAFETY: with x2APIC every register used here exists as an MSR.
        return unsafe { read_msr(msr::X2APIC + register / 16) as u32 };
    }
    // SAFETY: the registers are mapped uncached (see `detect`) and are read as aligned 32-bit words.
    unsafe { ((base() + u64::from(register)) as *const u32).read_volatile() }
}

fn write(register: u32, value: u32) {
    if is_x2() {
        // SAFETY: with x2APIC every register used here exists as an MSR.
        return unsafe { write_msr(msr::X2APIC + register / 16, u64::from(value)) };
    }
    // SAFETY: the registers are mapped uncached (see `detect`) and are written as aligned 32-bit words.
    unsafe { ((base() + u64::from(register)) as *mut u32).write_volatile(value) };
}

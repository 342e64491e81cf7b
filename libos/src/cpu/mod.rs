//! One core (tables, faults, APIC, MSRs, time) and all cores (bring-up, IPIs, stopping).

pub mod apic;
mod core_id;
pub mod current;
mod fault;
mod fixup;
mod interrupt;
pub mod machine_check;
pub mod pen;
pub mod random;
pub mod registers;
mod rtc;
pub mod smp;
pub mod stop;
mod tables;
pub mod time;
pub mod vector;
pub(crate) mod vmx;
pub(crate) mod watchdog;

pub use core_id::{ApicId, CoreId, CoreSet, MAX_CORES};

use x86_64::registers::control::{Cr4, Cr4Flags};

/// What every core of an instar has: the x87 and SSE control words as after a reset, which INIT does not do (Intel SDM
/// vol. 3, table 10-1), and a report instead of a shutdown for machine checks. FSGSBASE and AVX stay off: an interrupt
/// saves SSE state only.
fn enable_extensions() {
    let mxcsr = 0x1f80_u32;
    machine_check::start();
    // SAFETY: the control words are the ABI's; the CR4 bit only changes what happens on a machine check.
    unsafe {
        core::arch::asm!("fninit", "ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack));
        Cr4::update(|cr4| cr4.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION));
    }
}

/// Makes the calling core core 0 of `apics`.
///
/// # Safety
/// Called once, by the core that booted, with interrupts off, after the APIC has been detected and mapped.
pub(crate) unsafe fn init_boot_core(apics: &[ApicId]) {
    current::create(apics);
    if let Some(core) = current::get(CoreId::BOOT) {
        // SAFETY: as the caller says.
        unsafe { current::adopt(core) };
    }
    current::set_online(CoreId::BOOT);
    apic::enable();
    enable_extensions();
}

/// Calls all other cores out of the pen. [`current::online`] shows who has come.
pub(crate) fn start_others(pen: pen::Pen) {
    smp::start_others(pen);
}

/// NMIs since the cold boot, in whatever instar and in the pen: the second calls of a stop, and those that nobody here sent.
#[must_use]
pub fn nmis() -> u64 {
    stop::pen().map_or(0, |pen| {
        pen.header().nmis.load(core::sync::atomic::Ordering::Relaxed)
    })
}

/// Calls those again that have not come.
pub(crate) fn remind_others(pen: pen::Pen) {
    for core in current::all()
        .iter()
        .skip(1)
        .filter(|core| !current::online().contains(core.id()))
    {
        smp::remind(pen, core.id());
    }
}

/// The core that runs this, to be asked what it is. The cores of a machine do not differ in what is asked.
pub(crate) struct ThisCore;

impl crate::confidential::platform::Probe for ThisCore {
    fn cpuid(&self, leaf: u32, sub: u32) -> core::arch::x86_64::CpuidResult {
        core::arch::x86_64::__cpuid_count(leaf, sub)
    }
    fn rdmsr(&self, index: u32) -> Option<u64> {
        registers::try_read_msr(index)
    }
}

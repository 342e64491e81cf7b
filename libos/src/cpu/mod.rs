//! One core (tables, faults, APIC, MSRs, time) and all cores (bring-up, IPIs, stopping).

pub mod apic;
mod core_id;
pub mod current;
mod fault;
mod interrupt;
pub mod pen;
pub mod random;
pub mod registers;
mod rtc;
pub mod smp;
pub mod stop;
mod tables;
pub mod time;
pub mod vector;

pub use core_id::{ApicId, CoreId, CoreSet, MAX_CORES};

use x86_64::registers::control::{Cr4, Cr4Flags};

/// Turns on what every core of an instar has on: no supervisor execution of user pages and global pages are not needed,
/// since there is no user mode; timestamp disable stays off. FSGSBASE and AVX stay off: an interrupt saves SSE state only.
fn enable_extensions() {
    // SAFETY: SSE is already on since the first instruction; the machine check enable bit only changes what happens on a
    // machine check: a report instead of a shutdown.
    unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION)) };
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
    smp::start_others(pen, crate::memory::page_tables());
}

/// What this processor is, for the flush policy.
pub fn platform() -> crate::confidential::platform::Platform {
    struct ThisCore;
    impl crate::confidential::platform::Probe for ThisCore {
        fn cpuid(&self, leaf: u32, sub: u32) -> core::arch::x86_64::CpuidResult {
            core::arch::x86_64::__cpuid_count(leaf, sub)
        }
        fn rdmsr(&self, index: u32) -> Option<u64> {
            registers::try_read_msr(index)
        }
    }
    crate::confidential::platform::Platform::detect(&ThisCore)
}

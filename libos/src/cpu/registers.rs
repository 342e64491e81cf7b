//! Model-specific registers and the few instructions that no crate wraps.

use core::arch::{asm, naked_asm};

/// MSR numbers (Intel SDM vol. 4, table 2-2).
pub mod msr {
    /// Local APIC base, global enable, x2APIC enable.
    pub const APIC_BASE: u32 = 0x1b;
    /// First x2APIC register; register `offset` of the memory-mapped APIC is at `X2APIC + offset / 16`.
    pub const X2APIC: u32 = 0x800;
    /// Base of the GS segment: the current core's data.
    pub const GS_BASE: u32 = 0xc000_0101;
    /// Extended features: long mode, no-execute.
    pub const EFER: u32 = 0xc000_0080;
    /// What the BIOS allows, VMX among it.
    pub const FEATURE_CONTROL: u32 = 0x3a;
    /// VMX: the revision of its regions.
    pub const VMX_BASIC: u32 = 0x480;
    /// Bits of CR0 that must be 1 in VMX operation; the next three: bits that may be 1, and the same of CR4.
    pub const VMX_CR0_FIXED0: u32 = 0x486;
}

/// Reads an MSR that is known to exist.
///
/// # Safety
/// The MSR must exist on this core: a missing one raises #GP.
pub unsafe fn read_msr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading an existing MSR changes nothing but EAX and EDX.
    unsafe {
        asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
///
/// # Safety
/// The MSR must exist, take the value, and the change must be one that the running code survives.
pub unsafe fn write_msr(index: u32, value: u64) {
    // SAFETY: the caller vouches for the effect.
    unsafe {
        asm!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    };
}

/// Reads an MSR that may not exist: `None` if reading it raises #GP.
///
/// The general-protection handler knows this one instruction and continues behind it (see `fixup`).
pub fn try_read_msr(index: u32) -> Option<u64> {
    let mut value = 0_u64;
    // SAFETY: `rdmsr_or_fault` writes to the place it is given and survives a #GP.
    let read = unsafe { rdmsr_or_fault(index, &raw mut value) };
    read.then_some(value)
}

#[unsafe(naked)]
unsafe extern "C" fn rdmsr_or_fault(index: u32, value: *mut u64) -> bool {
    naked_asm!(
        ".global rdmsr_that_may_fault, rdmsr_faulted",
        "mov ecx, edi",
        "rdmsr_that_may_fault: rdmsr",
        "mov [rsi], eax",
        "mov [rsi + 4], edx",
        "mov eax, 1",
        "ret",
        "rdmsr_faulted: xor eax, eax",
        "ret",
    )
}

/// The time-stamp counter, not before any earlier load (RDTSC behind LFENCE; Intel SDM vol. 2, RDTSC).
pub fn tsc() -> u64 {
    // SAFETY: no side effects.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

/// Halts this core for good.
pub fn halt_forever() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

//! A number that is hard to guess, for the image's address.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};

/// RDRAND if the processor has it and it answers, the time stamp counter, mixed, if not.
pub fn number() -> u64 {
    // CPUID.01H:ECX[30] (Intel SDM 2A, "CPUID").
    let has_rdrand = __cpuid(1).ecx & 1 << 30 != 0;
    // Intel SDM 1, 7.3.17.1: ten tries.
    let random = has_rdrand.then(|| (0..10).find_map(|_| rdrand())).flatten();
    // SAFETY: every 64-bit processor has a time stamp counter, and this is ring 0.
    random.unwrap_or_else(|| mix(unsafe { _rdtsc() }))
}

fn rdrand() -> Option<u64> {
    let (value, there): (u64, u8);
    // SAFETY: the caller has found the instruction by CPUID; it changes the two registers and the flags.
    unsafe {
        asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) there, options(nomem, nostack));
    }
    (there != 0).then_some(value)
}

/// Spreads the counter's fast low bits over the number (the finaliser of MurmurHash3, public domain).
fn mix(mut number: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        number = (number ^ number >> 33).wrapping_mul(factor);
    }
    number ^ number >> 33
}

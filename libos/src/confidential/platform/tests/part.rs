//! A processor's answers, as a table. Dumps are from the test data of libcpuid (github.com/anrieff/libcpuid) and from
//! InstLatx64 (github.com/InstLatx64/InstLatx64); each names its file.

use super::super::super::policy::{FlushPolicy, decide};
use super::super::{MSR_KEYID_PARTITIONING, MSR_SEV_STATUS, MSR_SYSCFG, Platform};
use super::{Machine, Missing};
use alloc::vec::Vec;
use core::arch::x86_64::CpuidResult;
use core::cell::RefCell;

/// CPUID of a part, subleaf 0: leaf, then EAX, EBX, ECX, EDX. Leaves that nobody asks for are left out, but for the highest
/// basic leaf, which an Intel part answers with where there is no leaf.
pub(super) struct Part {
    pub name: &'static str,
    pub missing: Missing,
    pub leaves: &'static [(u32, [u32; 4])],
}

impl Part {
    /// This part with these model-specific registers; all others raise #GP.
    pub(super) fn with(&self, msrs: &[(u32, u64)]) -> Machine {
        let leaf =
            |&(leaf, [eax, ebx, ecx, edx]): &(u32, [u32; 4])| (leaf, CpuidResult { eax, ebx, ecx, edx });
        Machine {
            leaves: self.leaves.iter().map(leaf).collect(),
            missing: self.missing,
            msrs: msrs.to_vec(),
            read: RefCell::default(),
        }
    }

    /// This part, but with `changed` in place of its own leaves, or besides.
    pub(super) fn but(&self, changed: &[(u32, [u32; 4])], msrs: &[(u32, u64)]) -> Machine {
        let mut machine = self.with(msrs);
        for &(leaf, [eax, ebx, ecx, edx]) in changed {
            machine.leaves.retain(|(own, _)| *own != leaf);
            machine.leaves.push((leaf, CpuidResult { eax, ebx, ecx, edx }));
        }
        machine
    }
}

/// `IA32_MKTME_KEYID_PARTITIONING` (SDM volume 4; not in any dump: reading it needs ring 0).
pub(super) const fn keyids(mktme: u64, tdx: u64) -> (u32, u64) {
    (MSR_KEYID_PARTITIONING, tdx << 32 | mktme)
}

/// `SYSCFG` with SME off and on (APM volume 2, 7.10.3). Bits 18 to 22 are the MTRR bits that a BIOS leaves set.
pub(super) const SME_OFF: (u32, u64) = (MSR_SYSCFG, 0x74_0000);
pub(super) const SME_ON: (u32, u64) = (MSR_SYSCFG, 0xf4_0000);
/// `SEV_STATUS` of a host: it exists, and nothing is active (APM volume 2, 15.34.10).
pub(super) const NO_GUEST: (u32, u64) = (MSR_SEV_STATUS, 0);

/// What the policies `auto`, `always` and `never` come to.
pub(super) fn flushes(platform: &Platform) -> [bool; 3] {
    [FlushPolicy::Auto, FlushPolicy::Always, FlushPolicy::Never].map(|policy| {
        let decision = decide(policy, platform);
        assert_eq!(decision.permit().is_some(), decision.will_flush());
        decision.will_flush()
    })
}

/// The registers that were read.
pub(super) fn read(machine: &Machine) -> Vec<u32> {
    machine.read.borrow().clone()
}

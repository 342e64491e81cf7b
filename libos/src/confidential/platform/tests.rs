//! Machines played from tables. Those in this file were written from the manuals named in the parent module; the modules
//! below hold real parts, and each says where its registers are from.

mod amd;
mod guests;
mod intel;
mod part;

use alloc::vec::Vec;
use core::cell::RefCell;

use proptest::prelude::*;

use super::super::policy::{FlushPolicy, decide};
use super::*;

/// What a processor answers for a leaf that does not exist.
#[derive(Clone, Copy)]
enum Missing {
    /// Intel: the data of the highest basic leaf.
    HighestBasicLeaf,
    /// AMD: zeros.
    Zeros,
}

struct Machine {
    leaves: Vec<(u32, CpuidResult)>,
    missing: Missing,
    msrs: Vec<(u32, u64)>,
    read: RefCell<Vec<u32>>,
}

impl Probe for Machine {
    fn cpuid(&self, leaf: u32, _sub: u32) -> CpuidResult {
        let find = |wanted| {
            self.leaves
                .iter()
                .find(|(leaf, _)| *leaf == wanted)
                .map(|(_, data)| *data)
        };
        let highest = find(0).map_or(0, |first| first.eax);
        find(leaf).unwrap_or(match self.missing {
            Missing::HighestBasicLeaf => find(highest).unwrap_or(NO_LEAF),
            Missing::Zeros => NO_LEAF,
        })
    }

    fn rdmsr(&self, index: u32) -> Option<u64> {
        self.read.borrow_mut().push(index);
        self.msrs
            .iter()
            .find(|(msr, _)| *msr == index)
            .map(|(_, value)| *value)
    }
}

const fn regs(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidResult {
    CpuidResult { eax, ebx, ecx, edx }
}

fn vendor_leaf(highest: u32, name: [u8; 12]) -> (u32, CpuidResult) {
    let word = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
    (0, regs(highest, word(0), word(8), word(4)))
}

/// An Intel processor; leaf 0x1f, its highest, has bits 0 and 1 of EAX set, as the lottery may have it.
fn intel(version: u32, highest_extended: u32, msrs: &[(u32, u64)]) -> Machine {
    Machine {
        leaves: alloc::vec![
            vendor_leaf(0x1f, *b"GenuineIntel"),
            (1, regs(version, 0, 0, 0)),
            (7, regs(2, 0, 1 << 28, 0)),
            (0x1f, regs(3, 0, 0, 0)),
            (0x8000_0000, regs(highest_extended, 0, 0, 0)),
            (0x8000_0008, regs(0x3934, 1 << 9, 0, 0)),
        ],
        missing: Missing::HighestBasicLeaf,
        msrs: msrs.to_vec(),
        read: RefCell::default(),
    }
}

fn amd(encryption: u32, hypervisor: bool, msrs: &[(u32, u64)]) -> Machine {
    Machine {
        leaves: alloc::vec![
            vendor_leaf(0x10, *b"AuthenticAMD"),
            (1, regs(0x00a0_0f11, 0, u32::from(hypervisor) << 31, 0)),
            (7, regs(0, 0, 0, 0)),
            (0x8000_0000, regs(0x8000_0023, 0, 0, 0)),
            (0x8000_0008, regs(0x3030, 1 << 9, 0, 0)),
            (0x8000_001f, regs(encryption, 0x173, 0x1fd, 1)),
        ],
        missing: Missing::Zeros,
        msrs: msrs.to_vec(),
        read: RefCell::default(),
    }
}

const SAPPHIRE_RAPIDS: u32 = 0x0008_06f8;
const EMERALD_RAPIDS: u32 = 0x000c_06f2;
const GRANITE_RAPIDS: u32 = 0x000a_06d1;
const ALDER_LAKE: u32 = 0x0009_0672;

fn auto_flushes(platform: &Platform) -> bool {
    decide(FlushPolicy::Auto, platform).will_flush()
}

fn partitioning(mktme: u64, tdx: u64) -> (u32, u64) {
    (MSR_KEYID_PARTITIONING, tdx << 32 | mktme)
}

#[test]
fn an_intel_server_with_tdx_on() {
    for version in [SAPPHIRE_RAPIDS, EMERALD_RAPIDS, GRANITE_RAPIDS] {
        let platform = Platform::detect(&intel(version, 0x8000_0008, &[partitioning(63, 64)]));
        assert_eq!(platform.vendor, Vendor::Intel);
        let host = platform.host().expect("a host");
        assert_eq!(host.sme, Sme::Absent);
        let tdx = host.tdx.expect("KeyIDs");
        assert_eq!(
            (tdx.mktme_keyids, tdx.tdx_keyids, tdx.first_tdx_keyid()),
            (63, 64, Some(64))
        );
        assert!(tdx.is_enabled() && platform.movdir64b && platform.wbnoinvd && auto_flushes(&platform));
        assert_eq!(platform.partial_write_erratum, version != GRANITE_RAPIDS);
    }
}

#[test]
fn an_intel_server_with_tdx_off() {
    for split in [partitioning(127, 0), partitioning(126, 1), partitioning(0, 0)] {
        let platform = Platform::detect(&intel(SAPPHIRE_RAPIDS, 0x8000_0008, &[split]));
        let tdx = platform
            .host()
            .and_then(|host| host.tdx)
            .expect("the register exists");
        assert!(!tdx.is_enabled() && !auto_flushes(&platform), "{split:?}");
    }
}

#[test]
fn a_desktop_does_not_win_in_the_cpuid_lottery() {
    // Neither without leaf 0x8000001f, nor where even 0x80000000 brings the highest basic leaf's data.
    let mut old = intel(ALDER_LAKE, 0, &[]);
    old.leaves.retain(|(leaf, _)| *leaf < 0x8000_0000);
    for machine in [intel(ALDER_LAKE, 0x8000_0008, &[]), old] {
        assert_eq!(machine.cpuid(0x8000_001f, 0).eax & 3, 3, "the lottery is on");
        let platform = Platform::detect(&machine);
        assert_eq!(
            platform.role,
            Role::Host(Host {
                tdx: None,
                sme: Sme::Absent
            })
        );
        assert!(!auto_flushes(&platform));
        assert_eq!(*machine.read.borrow(), [MSR_KEYID_PARTITIONING]);
    }
}

#[test]
fn amd_sme() {
    let sme_of = |machine: Machine| Platform::detect(&machine).host().map(|host| host.sme);
    assert_eq!(sme_of(amd(0, false, &[])), Some(Sme::Absent));
    assert_eq!(
        sme_of(amd(3, false, &[(MSR_SYSCFG, 0), (MSR_SEV_STATUS, 0)])),
        Some(Sme::Present)
    );
    assert_eq!(sme_of(amd(1, false, &[])), Some(Sme::Present));
    let on = amd(3, false, &[(MSR_SYSCFG, 1 << 23), (MSR_SEV_STATUS, 0)]);
    assert!(auto_flushes(&Platform::detect(&on)));
    assert_eq!(sme_of(on), Some(Sme::Active));
}

#[test]
fn an_sev_guest() {
    for (status, encrypted_state, nested_paging) in [(1, false, false), (3, true, false), (7, true, true)] {
        let platform = Platform::detect(&amd(2, true, &[(MSR_SEV_STATUS, status)]));
        assert_eq!(
            platform.role,
            Role::SevGuest(SevGuest {
                encrypted_state,
                nested_paging
            })
        );
        assert!(platform.hypervisor && platform.host().is_none());
    }
}

#[test]
fn a_td_guest_reads_no_msr() {
    let mut machine = intel(SAPPHIRE_RAPIDS, 0x8000_0008, &[partitioning(63, 64)]);
    let (_, letters) = vendor_leaf(0, *b"IntelTDX    ");
    machine.leaves.push((0x21, letters));
    let platform = Platform::detect(&machine);
    assert_eq!(platform.role, Role::TdxGuest);
    assert!(!decide(FlushPolicy::Always, &platform).will_flush());
    assert_eq!(*machine.read.borrow(), [] as [u32; 0]);
}

#[test]
fn qemu_tcg_max_has_nothing() {
    // TCG answers an unknown MSR with 0, and has leaf 0x8000001f with nothing in it.
    let zeros = [(MSR_KEYID_PARTITIONING, 0), (MSR_SYSCFG, 0), (MSR_SEV_STATUS, 0)];
    let platform = Platform::detect(&amd(0, true, &zeros));
    let host = platform.host().expect("a host");
    assert_eq!(
        host.tdx.map(|tdx| (tdx.is_enabled(), tdx.first_tdx_keyid())),
        Some((false, None))
    );
    assert!(!auto_flushes(&platform));
}

proptest! {
    #[test]
    fn any_machine_is_read(
        leaves in proptest::collection::vec((0_u32..0x30, any::<[u32; 4]>()), 0..12),
        extended in any::<u32>(), msr in any::<Option<u64>>(),
    ) {
        let mut leaves: Vec<_> = leaves.into_iter().map(|(leaf, r)| (leaf, regs(r[0], r[1], r[2], r[3]))).collect();
        leaves.push((0x8000_0000, regs(extended, 0, 0, 0)));
        let msrs = msr.map(|value| (MSR_KEYID_PARTITIONING, value)).into_iter().collect();
        let machine = Machine { leaves, missing: Missing::HighestBasicLeaf, msrs, read: RefCell::default() };
        let platform = Platform::detect(&machine);
        for policy in [FlushPolicy::Auto, FlushPolicy::Always, FlushPolicy::Never] {
            let flushes = decide(policy, &platform).will_flush();
            prop_assert!(!flushes || platform.host().is_some());
        }
    }
}

//! Confidential guests. Nobody in a guest flushes, whatever the command line says.

use super::super::{MSR_SEV_STATUS, Platform, Role, SevGuest};
use super::amd::MILAN;
use super::intel::SAPPHIRE_RAPIDS;
use super::part::{SME_ON, flushes, keyids, read};
use alloc::string::ToString;

/// Leaf 0x21 of a TD: "IntelTDX    ". Written from the TDX Module Base Specification; what `cpuid -1 -l 0x21` prints in a TD.
const TDX_LEAF: (u32, [u32; 4]) = (0x21, [0, 0x6574_6e49, 0x2020_2020, 0x5844_546c]);
/// Leaf 1 of a Sapphire Rapids with the hypervisor bit, which a TD always has (TDX Module Base Specification, "CPUID
/// virtualization"). Written from the manual.
const IN_A_TD: (u32, [u32; 4]) = (0x1, [0x0008_06f8, 0x0080_0800, 0xfffe_fbff, 0x178b_fbff]);
/// The same for a Milan.
const IN_AN_SEV_GUEST: (u32, [u32; 4]) = (0x1, [0x00a0_0f11, 0x0080_0800, 0xfeda_320b, 0x178b_fbff]);
/// Leaf 0x8000001f as a guest gets it: SEV, SEV-ES and SEV-SNP, no SME (APM volume 3, appendix E.4.17). Written from the
/// manual.
const SEV_LEAF: (u32, [u32; 4]) = (0x8000_001f, [0x0000_001a, 0x0000_0173, 0, 0]);

#[test]
fn in_a_td_the_flush_is_out_of_reach() {
    // A host's registers are there for the taking: a TD must not even ask, since most of them raise #VE.
    for highest in [0x20, 0x21, 0x23] {
        let highest = (0, [highest, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]);
        let machine = SAPPHIRE_RAPIDS.but(&[highest, IN_A_TD, TDX_LEAF], &[keyids(31, 32), SME_ON]);
        let platform = Platform::detect(&machine);
        assert_eq!(platform.role, Role::TdxGuest);
        assert!(platform.hypervisor && platform.host().is_none());
        assert_eq!(flushes(&platform), [false; 3]);
        assert_eq!(read(&machine), [0_u32; 0]);
        assert!(platform.to_string().starts_with("intel tdx-guest, "));
    }
}

#[test]
fn in_an_sev_guest_the_flush_is_out_of_reach() {
    for (status, encrypted_state, nested_paging, line) in [
        (0b001, false, false, "amd sev-guest, WBNOINVD"),
        (0b011, true, false, "amd sev-guest, SEV-ES, WBNOINVD"),
        (0b111, true, true, "amd sev-guest, SEV-ES, SEV-SNP, WBNOINVD"),
    ] {
        let machine = MILAN.but(&[IN_AN_SEV_GUEST, SEV_LEAF], &[(MSR_SEV_STATUS, status), SME_ON]);
        let platform = Platform::detect(&machine);
        let guest = SevGuest {
            encrypted_state,
            nested_paging,
        };
        assert_eq!(platform.role, Role::SevGuest(guest));
        assert!(platform.hypervisor && platform.host().is_none());
        assert_eq!(flushes(&platform), [false; 3]);
        assert_eq!(read(&machine), [MSR_SEV_STATUS]);
        assert_eq!(platform.to_string(), line);
    }
}

#[test]
fn a_plain_guest_on_either_is_a_host() {
    for (machine, tdx) in [
        (SAPPHIRE_RAPIDS.but(&[IN_A_TD], &[]), None),
        (MILAN.but(&[IN_AN_SEV_GUEST, (0x8000_001f, [0; 4])], &[]), None),
    ] {
        let platform = Platform::detect(&machine);
        assert_eq!(platform.host().map(|host| host.tdx), Some(tdx));
        assert_eq!(flushes(&platform), [false, true, false]);
    }
}

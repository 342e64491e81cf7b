//! Intel parts, as hosts.

use super::super::{MSR_KEYID_PARTITIONING, Platform, Role, Sme, Vendor};
use super::Missing::HighestBasicLeaf;
use super::part::{Part, flushes, keyids, read};
use super::{Machine, Probe};
use alloc::string::ToString;

const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
const fn vendor(highest: u32) -> [u32; 4] {
    [highest, INTEL[0], INTEL[1], INTEL[2]]
}

/// Dump of a Xeon w7-2475X: libcpuid, `tests/intel/x86-64/golden-cove/sapphire-rapids-ws-xeon-w7.test`.
pub(super) const SAPPHIRE_RAPIDS: Part = Part {
    name: "Sapphire Rapids",
    missing: HighestBasicLeaf,
    leaves: &[
        (0x0, vendor(0x20)),
        (0x1, [0x0008_06f8, 0x0080_0800, 0x7ffe_fbff, 0xbfeb_fbff]),
        (0x7, [0x0000_0002, 0xf3bf_bffb, 0xbb41_7fee, 0xffdd_4430]),
        (0x20, [0, 0, 0, 0]),
        (0x8000_0000, [0x8000_0008, 0, 0, 0]),
        (0x8000_0008, [0x0000_3934, 0x0000_0200, 0, 0]),
    ],
};

/// Dump of a Xeon Platinum 8570: libcpuid, `tests/intel/x86-64/raptor-cove/emerald-rapids-sp-xeon-platinum.test`. Six bits
/// of its physical address are KeyIDs (leaf 0x80000008: 46 of 52 are left).
const EMERALD_RAPIDS: Part = Part {
    name: "Emerald Rapids",
    missing: HighestBasicLeaf,
    leaves: &[
        (0x0, vendor(0x20)),
        (0x1, [0x000c_06f2, 0x0080_0800, 0x7ffe_fbff, 0xbfeb_fbff]),
        (0x7, [0x0000_0002, 0xf3bf_bfff, 0xfb41_7fee, 0xffdd_4432]),
        (0x20, [0, 0, 0, 0]),
        (0x8000_0000, [0x8000_0008, 0, 0, 0]),
        (0x8000_0008, [0x0000_392e, 0x0000_0200, 0, 0]),
    ],
};

/// Not a dump: Emerald Rapids with the version of Granite Rapids (SDM volume 4, table 2-1: family 6, model 0xad), which has
/// the same features as far as this module asks for them.
const GRANITE_RAPIDS: Part = Part {
    name: "Granite Rapids",
    missing: HighestBasicLeaf,
    leaves: &[
        (0x0, vendor(0x20)),
        (0x1, [0x000a_06d1, 0x0080_0800, 0x7ffe_fbff, 0xbfeb_fbff]),
        (0x7, [0x0000_0002, 0xf3bf_bfff, 0xfb41_7fee, 0xffdd_4432]),
        (0x20, [0, 0, 0, 0]),
        (0x8000_0000, [0x8000_0008, 0, 0, 0]),
        (0x8000_0008, [0x0000_392e, 0x0000_0200, 0, 0]),
    ],
};

/// Dump of a Core i9-12900K: libcpuid, `tests/intel/x86-64/golden-cove/alder-lake-s-core-i9.test`. Its highest basic leaf has
/// bit 0 of EBX set.
const ALDER_LAKE: Part = Part {
    name: "Alder Lake",
    missing: HighestBasicLeaf,
    leaves: &[
        (0x0, vendor(0x20)),
        (0x1, [0x0009_0672, 0x0080_0800, 0x7ffa_fbff, 0xbfeb_fbff]),
        (0x7, [0x0000_0001, 0x239c_a7eb, 0x98c0_27ac, 0xfc1c_c410]),
        (0x20, [0, 1, 0, 0]),
        (0x8000_0000, [0x8000_0008, 0, 0, 0]),
        (0x8000_0008, [0x0000_302e, 0, 0, 0]),
    ],
};

/// Dump of a Core 2 Duo E4500: libcpuid, `tests/intel/x86-64/core/allendale-core-2-duo.test`. The dump shows leaf
/// 0x8000001f, which the part does not have: it is leaf 0xa, the highest, with the bit that means SEV.
const CORE_2: Part = Part {
    name: "Core 2",
    missing: HighestBasicLeaf,
    leaves: &[
        (0x0, vendor(0xa)),
        (0x1, [0x0000_06fd, 0x0102_0800, 0x0000_e39d, 0xbfeb_fbff]),
        (0x7, [0, 0, 0, 0]),
        (0xa, [0x0728_0202, 0, 0, 0x0000_0503]),
        (0x8000_0000, [0x8000_0008, 0, 0, 0]),
        (0x8000_0008, [0x0000_3024, 0, 0, 0]),
    ],
};

fn detect(machine: &Machine) -> Platform {
    let platform = Platform::detect(machine);
    assert_eq!(platform.vendor, Vendor::Intel);
    assert!(!platform.hypervisor);
    assert_eq!(platform.host().map(|host| host.sme), Some(Sme::Absent));
    assert_eq!(read(machine), [MSR_KEYID_PARTITIONING]);
    platform
}

#[test]
fn servers_with_tdx_on() {
    for (part, erratum) in [
        (SAPPHIRE_RAPIDS, true),
        (EMERALD_RAPIDS, true),
        (GRANITE_RAPIDS, false),
    ] {
        // 6 bits of KeyID, half of the keys for TDX.
        let platform = detect(&part.with(&[keyids(31, 32)]));
        let tdx = platform.host().and_then(|host| host.tdx).expect("KeyIDs");
        assert_eq!(
            (tdx.is_enabled(), tdx.first_tdx_keyid()),
            (true, Some(32)),
            "{}",
            part.name
        );
        assert!(platform.movdir64b && platform.wbnoinvd, "{}", part.name);
        assert_eq!(platform.partial_write_erratum, erratum, "{}", part.name);
        assert_eq!(flushes(&platform), [true, true, false], "{}", part.name);
    }
}

#[test]
fn servers_with_tdx_off() {
    for part in [SAPPHIRE_RAPIDS, EMERALD_RAPIDS, GRANITE_RAPIDS] {
        // No keys at all; all keys for MKTME; one TDX key, which is not enough; no such register.
        for msrs in [&[keyids(0, 0)][..], &[keyids(63, 0)], &[keyids(62, 1)], &[]] {
            let platform = detect(&part.with(msrs));
            let tdx = platform.host().and_then(|host| host.tdx);
            assert_eq!(tdx.is_some(), !msrs.is_empty(), "{}", part.name);
            assert!(tdx.is_none_or(|tdx| !tdx.is_enabled()), "{}", part.name);
            assert_eq!(flushes(&platform), [false, true, false], "{} {msrs:?}", part.name);
        }
    }
}

#[test]
fn desktops() {
    for (part, movdir64b) in [(ALDER_LAKE, true), (CORE_2, false)] {
        let platform = detect(&part.with(&[]));
        assert_eq!(platform.host().and_then(|host| host.tdx), None, "{}", part.name);
        assert_eq!(platform.movdir64b, movdir64b, "{}", part.name);
        assert!(
            !platform.wbnoinvd && !platform.partial_write_erratum,
            "{}",
            part.name
        );
        assert_eq!(flushes(&platform), [false, true, false], "{}", part.name);
    }
}

#[test]
fn a_leaf_that_does_not_exist_is_not_believed() {
    let machine = CORE_2.with(&[]);
    assert_eq!(machine.cpuid(0x8000_001f, 0).eax & 3, 2, "the lottery says SEV");
    assert!(matches!(detect(&machine).role, Role::Host(_)));
}

#[test]
fn a_line_says_it() {
    assert_eq!(
        detect(&SAPPHIRE_RAPIDS.with(&[keyids(31, 32)])).to_string(),
        "intel host, TDX enabled by the BIOS (31 MKTME and 32 TDX KeyIDs, the first is 32), SME absent, MOVDIR64B, WBNOINVD, \
         the partial-write erratum"
    );
    assert_eq!(
        detect(&EMERALD_RAPIDS.with(&[keyids(63, 0)])).to_string(),
        "intel host, TDX not enabled by the BIOS (63 MKTME and 0 TDX KeyIDs), SME absent, MOVDIR64B, WBNOINVD, the \
         partial-write erratum"
    );
    assert_eq!(
        detect(&CORE_2.with(&[])).to_string(),
        "intel host, no KeyIDs, SME absent"
    );
}

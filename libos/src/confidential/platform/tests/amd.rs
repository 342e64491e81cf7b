//! AMD parts, as hosts.

use super::super::{MSR_KEYID_PARTITIONING, MSR_SEV_STATUS, MSR_SYSCFG, Platform, Sme, Vendor};
use super::Missing::Zeros;
use super::part::{NO_GUEST, Part, SME_OFF, SME_ON, flushes, read};
use alloc::string::ToString;

const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];
const fn vendor(highest: u32) -> [u32; 4] {
    [highest, AMD[0], AMD[1], AMD[2]]
}

/// Dump of an EPYC 7713: libcpuid, `tests/amd/zen3/epyc-milan.test`.
pub(super) const MILAN: Part = Part {
    name: "Milan",
    missing: Zeros,
    leaves: &[
        (0x0, vendor(0x10)),
        (0x1, [0x00a0_0f11, 0x0080_0800, 0x7eda_320b, 0x178b_fbff]),
        (0x7, [0, 0x219c_97a9, 0x0040_068c, 0x0000_0010]),
        (0x8000_0000, vendor(0x8000_0023)),
        (0x8000_0008, [0x0000_3030, 0x91be_f75f, 0x0000_707f, 0x0001_0007]),
        (0x8000_001f, [0x0001_fc3f, 0x0000_4173, 0x0000_01fd, 0x0000_0001]),
    ],
};

/// Dump of an EPYC 9124: libcpuid, `tests/amd/zen4/epyc-genoa.test`.
const GENOA: Part = Part {
    name: "Genoa",
    missing: Zeros,
    leaves: &[
        (0x0, vendor(0x10)),
        (0x1, [0x00a1_0f11, 0x0020_0800, 0x7efa_320b, 0x178b_fbff]),
        (0x7, [0x0000_0001, 0xf1bf_97a9, 0x0041_5fce, 0x1000_0010]),
        (0x8000_0000, vendor(0x8000_0028)),
        (0x8000_0008, [0x0000_3934, 0x79be_f25f, 0x0000_601f, 0x0001_0007]),
        (0x8000_001f, [0x030f_fffb, 0x0000_41b3, 0x0000_03ee, 0x0000_0001]),
    ],
};

/// Dump of a Ryzen 9 5950X: libcpuid, `tests/amd/zen3/ryzen9-vermeer.test`. A desktop part with SME and SEV.
const VERMEER: Part = Part {
    name: "Vermeer",
    missing: Zeros,
    leaves: &[
        (0x0, vendor(0x10)),
        (0x1, [0x00a2_0f10, 0x0020_0800, 0x7ed8_320b, 0x178b_fbff]),
        (0x7, [0, 0x219c_97a9, 0x0040_068c, 0x0000_0010]),
        (0x8000_0000, vendor(0x8000_0023)),
        (0x8000_0008, [0x0000_3030, 0x111e_f657, 0x0000_501f, 0x0001_0000]),
        (0x8000_001f, [0x0001_780f, 0x0000_0173, 0x0000_01fd, 0x0000_0001]),
    ],
};

/// Dump of an Opteron 248: InstLatx64, `AuthenticAMD/AuthenticAMD0000F5A_K8_Sledgehammer_CPUID.txt`. No leaf 0x8000001f, no
/// leaf 7; the one register of ours that it has is `SYSCFG`.
const SLEDGEHAMMER: Part = Part {
    name: "Sledgehammer",
    missing: Zeros,
    leaves: &[
        (0x0, vendor(0x1)),
        (0x1, [0x0000_0f5a, 0x0000_0800, 0, 0x078b_fbff]),
        (0x8000_0000, vendor(0x8000_0018)),
        (0x8000_0008, [0x0000_3028, 0, 0, 0]),
    ],
};

fn sme(part: &Part, msrs: &[(u32, u64)]) -> (Sme, [bool; 3]) {
    let platform = Platform::detect(&part.with(msrs));
    assert_eq!(platform.vendor, Vendor::Amd);
    assert!(!platform.movdir64b && !platform.partial_write_erratum && !platform.hypervisor);
    let host = platform.host().expect("a host");
    assert_eq!(host.tdx, None, "AMD has no such register");
    (host.sme, flushes(&platform))
}

#[test]
fn parts_with_sme_off_and_on() {
    for part in [MILAN, GENOA, VERMEER] {
        assert_eq!(
            sme(&part, &[SME_OFF, NO_GUEST]),
            (Sme::Present, [true, true, false]),
            "{}",
            part.name
        );
        assert_eq!(
            sme(&part, &[SME_ON, NO_GUEST]),
            (Sme::Active, [true, true, false]),
            "{}",
            part.name
        );
        assert!(Platform::detect(&part.with(&[])).wbnoinvd, "{}", part.name);
    }
}

#[test]
fn a_part_before_sme_is_asked_nothing_about_it() {
    assert_eq!(sme(&SLEDGEHAMMER, &[SME_ON]), (Sme::Absent, [false, true, false]));
    let machine = SLEDGEHAMMER.with(&[]);
    let _ = Platform::detect(&machine);
    assert_eq!(read(&machine), [MSR_KEYID_PARTITIONING]);
    let machine = MILAN.with(&[]);
    let _ = Platform::detect(&machine);
    assert_eq!(
        read(&machine),
        [MSR_SEV_STATUS, MSR_SYSCFG, MSR_KEYID_PARTITIONING]
    );
}

#[test]
fn a_line_says_it() {
    let line = |part: &Part, msr| Platform::detect(&part.with(&[msr, NO_GUEST])).to_string();
    assert_eq!(line(&GENOA, SME_ON), "amd host, no KeyIDs, SME active, WBNOINVD");
    assert_eq!(line(&SLEDGEHAMMER, SME_OFF), "amd host, no KeyIDs, SME absent");
}

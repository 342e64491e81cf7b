//! What memory encryption this machine has, and on which side of it we stand.
//!
//! Nobody outside this crate makes a [`Platform`]: it comes from [`super::platform()`], which has asked the processor. So the
//! right to flush ([`super::policy::HostFlush`]), for which a [`Host`] is needed, is out of a guest's reach:
//!
//! ```
//! use libos::confidential::platform::{Host, Platform};
//! fn tell(platform: &Platform) -> Option<&Host> {
//!     platform.host()
//! }
//! ```
//! ```compile_fail,E0639
//! use libos::confidential::platform::{Host, Sme};
//! let forged = Host { tdx: None, sme: Sme::Absent };
//! ```
//! ```compile_fail,E0603
//! use libos::confidential::platform::Probe; // a processor that lies
//! ```
//!
//! Reads CPUID and model-specific registers through `Probe`, so that the tests can play any machine.
//! Sources: Intel SDM volume 2A (CPUID) and volume 4 (MSRs); Intel TDX Module Base Specification ("CPUID
//! virtualization"); AMD64 Architecture Programmer's Manual (APM), volume 2, 7.10 (SME) and 15.34 to 15.36 (SEV), and
//! volume 3, appendix E (CPUID).

use core::arch::x86_64::CpuidResult;
use core::fmt;

/// `IA32_MKTME_KEYID_PARTITIONING`: bits 31:0 number of MKTME KeyIDs, bits 63:32 number of TDX KeyIDs.
pub(crate) const MSR_KEYID_PARTITIONING: u32 = 0x87;
/// AMD `SYSCFG`: bit 23 switches memory encryption on.
pub(crate) const MSR_SYSCFG: u32 = 0xc001_0010;
/// AMD `SEV_STATUS`: bit 0 SEV, bit 1 SEV-ES, bit 2 SEV-SNP, as the guest that reads it has them.
pub(crate) const MSR_SEV_STATUS: u32 = 0xc001_0131;

/// How to ask the processor.
pub(crate) trait Probe {
    /// Executes CPUID with `leaf` in EAX and `sub` in ECX.
    fn cpuid(&self, leaf: u32, sub: u32) -> CpuidResult;
    /// Reads a model-specific register; `None` where the read raises #GP.
    fn rdmsr(&self, index: u32) -> Option<u64>;
}

/// Whose processor this is, or is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD` or `HygonGenuine`, which share the encryption leaf.
    Amd,
    /// Any other.
    Other,
}

/// How the BIOS divided the memory encryption keys of an Intel host. KeyID 0 is the TME key; then come the MKTME KeyIDs,
/// then the TDX KeyIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxHost {
    /// Number of MKTME KeyIDs.
    pub mktme_keyids: u32,
    /// Number of TDX private KeyIDs.
    pub tdx_keyids: u32,
}

impl TdxHost {
    const fn new(partitioning: u64) -> Self {
        Self {
            mktme_keyids: partitioning as u32,
            tdx_keyids: (partitioning >> 32) as u32,
        }
    }

    /// The first TDX KeyID; `None` where there are no TDX KeyIDs.
    #[must_use]
    pub const fn first_tdx_keyid(&self) -> Option<u32> {
        if self.tdx_keyids == 0 {
            None
        } else {
            self.mktme_keyids.checked_add(1)
        }
    }

    /// Whether the BIOS enabled TDX: the module needs one KeyID for itself and one for a guest. It does not say that a
    /// module is loaded, or has been used.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.tdx_keyids >= 2
    }
}

/// AMD's secure memory encryption, as a host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sme {
    /// The processor does not have it.
    Absent,
    /// The processor has it, and it is not switched on now.
    Present,
    /// It is switched on.
    Active,
}

/// A machine that is not a confidential guest: bare metal, or a plain virtual machine. Here WBINVD may be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Host {
    /// How KeyIDs are divided; `None` where the register does not exist.
    pub tdx: Option<TdxHost>,
    /// AMD's SME.
    pub sme: Sme,
}

/// An AMD SEV guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SevGuest {
    /// SEV-ES: the guest's registers are encrypted, and intercepted instructions raise #VC.
    pub encrypted_state: bool,
    /// SEV-SNP.
    pub nested_paging: bool,
}

/// On which side of the memory encryption we stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not in a confidential guest.
    Host(Host),
    /// In a TDX guest ("TD").
    TdxGuest,
    /// In an SEV guest.
    SevGuest(SevGuest),
}

/// What this machine is. Made by asking the processor, never by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Platform {
    /// The processor's vendor.
    pub vendor: Vendor,
    /// A hypervisor says that it is there (CPUID 1, ECX bit 31).
    pub hypervisor: bool,
    /// Host or confidential guest.
    pub role: Role,
    /// MOVDIR64B: a write of 64 bytes that replaces a whole cache line.
    pub movdir64b: bool,
    /// WBNOINVD: writes caches back without invalidating them.
    pub wbnoinvd: bool,
    /// An Intel part on which a write smaller than a cache line to a TDX private page poisons that line (Sapphire and
    /// Emerald Rapids; Intel TDX Module Base Specification, "partial write" erratum).
    pub partial_write_erratum: bool,
}

impl Platform {
    /// Asks the processor. In a TDX guest no model-specific register is read: most of them raise #VE there.
    #[must_use]
    pub(crate) fn detect<P: Probe>(probe: &P) -> Self {
        let leaves = Leaves::of(probe);
        let vendor = leaves.vendor;
        let basic = leaves.get(probe, 1);
        let features = leaves.get(probe, 7);
        let role = if is_tdx_guest(probe) {
            Role::TdxGuest
        } else {
            host_or_sev_guest(probe, &leaves)
        };
        Self {
            vendor,
            hypervisor: bit(basic.ecx, 31),
            role,
            movdir64b: bit(features.ecx, 28),
            wbnoinvd: bit(leaves.get(probe, 0x8000_0008).ebx, 9),
            partial_write_erratum: vendor == Vendor::Intel && has_partial_write_erratum(basic.eax),
        }
    }

    /// The host, if we are not in a confidential guest.
    #[must_use]
    pub const fn host(&self) -> Option<&Host> {
        match &self.role {
            Role::Host(host) => Some(host),
            Role::TdxGuest | Role::SevGuest(_) => None,
        }
    }
}

/// Which CPUID leaves exist. Intel answers a question for a leaf that does not exist with the data of the highest basic
/// leaf (SDM volume 2A, CPUID), so that its bits mean something else: no leaf is read unless it is there.
struct Leaves {
    vendor: Vendor,
    basic: u32,
    extended: u32,
}

const NO_LEAF: CpuidResult = CpuidResult {
    eax: 0,
    ebx: 0,
    ecx: 0,
    edx: 0,
};

impl Leaves {
    fn of(probe: &impl Probe) -> Self {
        let first = probe.cpuid(0, 0);
        let vendor = match &text(first.ebx, first.edx, first.ecx) {
            b"GenuineIntel" => Vendor::Intel,
            b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
            _ => Vendor::Other,
        };
        // A processor without extended leaves answers this one, too, with other data.
        let extended = match probe.cpuid(0x8000_0000, 0).eax {
            highest @ 0x8000_0000..=0x8000_ffff => highest,
            _ => 0,
        };
        Self {
            vendor,
            basic: first.eax,
            extended,
        }
    }

    fn get(&self, probe: &impl Probe, leaf: u32) -> CpuidResult {
        let highest = if leaf < 0x8000_0000 {
            self.basic
        } else {
            self.extended
        };
        if leaf <= highest {
            probe.cpuid(leaf, 0)
        } else {
            NO_LEAF
        }
    }
}

/// Leaf 0x21 is asked for without a look at the highest leaf: other data cannot be taken for these twelve letters,
/// while to overlook a TD would be fatal.
fn is_tdx_guest(probe: &impl Probe) -> bool {
    let leaf = probe.cpuid(0x21, 0);
    &text(leaf.ebx, leaf.edx, leaf.ecx) == b"IntelTDX    "
}

fn host_or_sev_guest(probe: &impl Probe, leaves: &Leaves) -> Role {
    let encryption = leaves.get(probe, 0x8000_001f).eax;
    if bit(encryption, 1)
        && let Some(status) = probe.rdmsr(MSR_SEV_STATUS)
        && status & 1 != 0
    {
        return Role::SevGuest(SevGuest {
            encrypted_state: status & 2 != 0,
            nested_paging: status & 4 != 0,
        });
    }
    let sme = if !bit(encryption, 0) {
        Sme::Absent
    } else if probe
        .rdmsr(MSR_SYSCFG)
        .is_some_and(|syscfg| syscfg & (1 << 23) != 0)
    {
        Sme::Active
    } else {
        Sme::Present
    };
    // Asked of every vendor: #GP is an answer, and one flush too many costs less than one too few.
    Role::Host(Host {
        tdx: probe.rdmsr(MSR_KEYID_PARTITIONING).map(TdxHost::new),
        sme,
    })
}

/// Family 6, models 0x8f (Sapphire Rapids) and 0xcf (Emerald Rapids). CPUID 1 EAX: bits 11:8 family, 7:4 model, 19:16
/// extended model (SDM volume 2A, figure "Version Information Returned by CPUID in EAX").
const fn has_partial_write_erratum(version: u32) -> bool {
    let family = (version >> 8) & 0xf;
    let model = ((version >> 4) & 0xf) | ((version >> 12) & 0xf0);
    family == 6 && matches!(model, 0x8f | 0xcf)
}

const fn bit(word: u32, index: u32) -> bool {
    word & (1 << index) != 0
}

impl Vendor {
    /// The name in `/v1/status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intel => "intel",
            Self::Amd => "amd",
            Self::Other => "other",
        }
    }
}

impl Sme {
    /// The name in `/v1/status` and in telemetry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Present => "present",
            Self::Active => "active",
        }
    }
}

impl Role {
    /// The name in `/v1/status` and in telemetry.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::TdxGuest => "tdx-guest",
            Self::SevGuest(_) => "sev-guest",
        }
    }
}

/// One line for a person.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.vendor.name(), self.role.name())?;
        match &self.role {
            Role::TdxGuest => {}
            Role::SevGuest(guest) => {
                let encrypted = if guest.encrypted_state { ", SEV-ES" } else { "" };
                let nested = if guest.nested_paging { ", SEV-SNP" } else { "" };
                write!(f, "{encrypted}{nested}")?;
            }
            Role::Host(host) => {
                if self.hypervisor {
                    f.write_str(" under a hypervisor")?;
                }
                match &host.tdx {
                    None => f.write_str(", no KeyIDs")?,
                    Some(tdx) => {
                        let on = if tdx.is_enabled() {
                            "enabled"
                        } else {
                            "not enabled"
                        };
                        let (mktme, keyids) = (tdx.mktme_keyids, tdx.tdx_keyids);
                        write!(f, ", TDX {on} by the BIOS ({mktme} MKTME and {keyids} TDX KeyIDs")?;
                        if let Some(first) = tdx.first_tdx_keyid() {
                            write!(f, ", the first is {first}")?;
                        }
                        f.write_str(")")?;
                    }
                }
                write!(f, ", SME {}", host.sme.name())?;
            }
        }
        for (has, name) in [
            (self.movdir64b, "MOVDIR64B"),
            (self.wbnoinvd, "WBNOINVD"),
            (self.partial_write_erratum, "the partial-write erratum"),
        ] {
            if has {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

/// The twelve letters that three registers spell.
fn text(first: u32, second: u32, third: u32) -> [u8; 12] {
    let mut letters = [0; 12];
    for (four, word) in letters.chunks_exact_mut(4).zip([first, second, third]) {
        four.copy_from_slice(&word.to_le_bytes());
    }
    letters
}

#[cfg(test)]
mod tests;

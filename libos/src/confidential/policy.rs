//! Whether caches are flushed before a jump.
//!
//! Hardware keeps no coherency between the same line under two encryption keys: a dirty line of a private key that is
//! written back after the jump silently corrupts the next image. Where memory encryption is there, every core therefore
//! writes back and invalidates its caches (WBINVD) before it reports that it has stopped.

use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicBool, Ordering};

use super::platform::{Host, Platform, Role, Sme};

/// `instar.flush`: when caches are flushed before a jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushPolicy {
    /// When TDX is enabled by the BIOS or SME is present.
    #[default]
    Auto,
    /// On every host; never in a confidential guest, where it cannot be done.
    Always,
    /// Not even where it is needed: for measurements.
    Never,
}

impl FlushPolicy {
    /// The policy of this name on the command line.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "auto" => Self::Auto,
            "always" => Self::Always,
            "never" => Self::Never,
            _ => return None,
        })
    }

    /// The name on the command line and in `/v1/status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// The right to execute WBINVD: only a [`Host`] gives it away, and [`decide`] only for a host.
///
/// What flushes asks for one. In a TD, WBINVD raises #VE (Intel TDX Module Base Specification, "Instructions that cause
/// a #VE"); in an SEV-ES guest, #VC (AMD64 Architecture Programmer's Manual, volume 2, 15.35). Neither has a handler
/// on the stop path, so that path must be out of a guest's reach. Nobody else can make one:
///
/// ```
/// use libos::confidential::policy::{FlushDecision, HostFlush};
/// fn permit(decision: &FlushDecision) -> Option<HostFlush> {
///     decision.permit()
/// }
/// ```
/// ```compile_fail,E0423
/// use libos::confidential::policy::HostFlush;
/// let forged: HostFlush = HostFlush(());
/// ```
/// ```compile_fail,E0624
/// use libos::confidential::policy::HostFlush;
/// let forged = HostFlush::on;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFlush(());

impl HostFlush {
    const fn on(_: &Host) -> Self {
        Self(())
    }
}

/// Where a core leaves the right to flush for the others, which run in an interrupt and may take no lock.
#[derive(Debug)]
pub struct PermitCell(AtomicBool);

impl PermitCell {
    /// Holds no right.
    #[must_use]
    pub const fn none() -> Self {
        Self(AtomicBool::new(false))
    }

    /// What the others find from now on.
    pub fn set(&self, permit: Option<HostFlush>) {
        self.0.store(permit.is_some(), Ordering::SeqCst);
    }

    /// What was left here.
    pub fn get(&self) -> Option<HostFlush> {
        self.0.load(Ordering::SeqCst).then_some(HostFlush(()))
    }
}

/// What [`decide`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlushDecision {
    /// Every core flushes.
    Flush {
        /// What the flush itself asks for.
        permit: HostFlush,
        /// The reason, for a person.
        why: String,
    },
    /// No core flushes.
    Skip {
        /// The reason, for a person.
        why: String,
    },
}

impl FlushDecision {
    /// The right to flush; `None`: nobody flushes.
    #[must_use]
    pub const fn permit(&self) -> Option<HostFlush> {
        match self {
            Self::Flush { permit, .. } => Some(*permit),
            Self::Skip { .. } => None,
        }
    }

    /// Whether caches will be flushed.
    #[must_use]
    pub const fn will_flush(&self) -> bool {
        self.permit().is_some()
    }

    /// The reason, for a person.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Flush { why, .. } | Self::Skip { why } => why,
        }
    }
}

/// Decides once, long before a jump: whether caches are flushed on this machine, and why.
#[must_use]
pub fn decide(policy: FlushPolicy, platform: &Platform) -> FlushDecision {
    let host = match &platform.role {
        Role::Host(host) => host,
        Role::TdxGuest => return skip("a TDX guest cannot flush (WBINVD raises #VE): the host must"),
        Role::SevGuest(_) => return skip("an SEV guest does not flush: the host must"),
    };
    let needed = need(host);
    match policy {
        FlushPolicy::Never => match needed {
            Some(reason) => skip_owned("never, by the command line, in spite of: ".to_string() + &reason),
            None => skip("never, by the command line"),
        },
        FlushPolicy::Always => match needed {
            Some(reason) => flush(host, reason),
            None => flush(host, "always, by the command line".to_string()),
        },
        FlushPolicy::Auto => match needed {
            Some(reason) => flush(host, reason),
            None => skip("no TDX KeyIDs and no SME"),
        },
    }
}

/// Why this host has to flush, if it has to.
fn need(host: &Host) -> Option<String> {
    if let Some(tdx) = host.tdx.filter(|tdx| tdx.is_enabled()) {
        return Some(
            "TDX is enabled by the BIOS: ".to_string() + &tdx.tdx_keyids.to_string() + " TDX KeyIDs",
        );
    }
    // Present is enough: the image before us may have used it.
    match host.sme {
        Sme::Absent => None,
        Sme::Present => Some("SME is present".to_string()),
        Sme::Active => Some("SME is active".to_string()),
    }
}

const fn flush(host: &Host, why: String) -> FlushDecision {
    FlushDecision::Flush {
        permit: HostFlush::on(host),
        why,
    }
}

fn skip(why: &str) -> FlushDecision {
    skip_owned(why.to_string())
}

const fn skip_owned(why: String) -> FlushDecision {
    FlushDecision::Skip { why }
}

#[cfg(test)]
mod tests {
    use super::super::platform::{SevGuest, TdxHost, Vendor};
    use super::*;

    const POLICIES: [FlushPolicy; 3] = [FlushPolicy::Auto, FlushPolicy::Always, FlushPolicy::Never];

    fn platform(role: Role) -> Platform {
        Platform {
            vendor: Vendor::Intel,
            hypervisor: false,
            role,
            movdir64b: false,
            wbnoinvd: false,
            partial_write_erratum: false,
        }
    }

    fn host(tdx_keyids: u32, sme: Sme) -> Platform {
        platform(Role::Host(Host {
            tdx: Some(TdxHost {
                mktme_keyids: 31,
                tdx_keyids,
            }),
            sme,
        }))
    }

    fn flushes(platform: &Platform) -> [bool; 3] {
        POLICIES.map(|policy| decide(policy, platform).will_flush())
    }

    #[test]
    fn a_host_flushes_where_it_must_or_is_told_to() {
        assert_eq!(flushes(&host(32, Sme::Absent)), [true, true, false]);
        assert_eq!(flushes(&host(0, Sme::Present)), [true, true, false]);
        assert_eq!(flushes(&host(0, Sme::Active)), [true, true, false]);
        assert_eq!(flushes(&host(0, Sme::Absent)), [false, true, false]);
        assert_eq!(
            flushes(&platform(Role::Host(Host {
                tdx: None,
                sme: Sme::Absent
            }))),
            [false, true, false]
        );
    }

    #[test]
    fn one_tdx_keyid_is_not_enabled() {
        assert_eq!(flushes(&host(1, Sme::Absent)), [false, true, false]);
        assert_eq!(flushes(&host(2, Sme::Absent)), [true, true, false]);
    }

    #[test]
    fn a_guest_never_flushes_whatever_the_policy() {
        let sev = SevGuest {
            encrypted_state: true,
            nested_paging: true,
        };
        for role in [Role::TdxGuest, Role::SevGuest(sev)] {
            assert_eq!(flushes(&platform(role)), [false; 3]);
        }
    }

    #[test]
    fn the_reasons_are_the_documented_ones() {
        assert_eq!(
            decide(FlushPolicy::Auto, &host(0, Sme::Absent)).why(),
            "no TDX KeyIDs and no SME"
        );
        assert_eq!(
            decide(FlushPolicy::Auto, &host(32, Sme::Absent)).why(),
            "TDX is enabled by the BIOS: 32 TDX KeyIDs"
        );
        assert_eq!(
            decide(FlushPolicy::Never, &host(0, Sme::Active)).why(),
            "never, by the command line, in spite of: SME is active"
        );
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for policy in POLICIES {
            assert_eq!(FlushPolicy::from_name(policy.name()), Some(policy));
        }
        assert_eq!(FlushPolicy::from_name("Auto"), None);
    }
}

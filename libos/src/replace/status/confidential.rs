//! What the machine encrypts, in the status.

use alloc::string::{String, ToString};

use serde::Serialize;

use crate::confidential::module::Module;
use crate::confidential::platform::{Platform, Role};

/// What this machine is: host or confidential guest.
#[derive(Clone, Debug, Serialize)]
pub struct Confidential<'a> {
    role: &'static str,
    vendor: &'static str,
    hypervisor: bool,
    tdx: Option<Tdx>,
    sme: Option<&'static str>,
    sev: Option<Sev>,
    movdir64b: bool,
    wbnoinvd: bool,
    partial_write_erratum: bool,
    tdx_module: TdxModule<'a>,
}

#[derive(Clone, Debug, Serialize)]
struct TdxModule<'a> {
    present: bool,
    version: Option<String>,
    why: &'a str,
}

#[derive(Clone, Debug, Serialize)]
struct Tdx {
    enabled: bool,
    mktme_keyids: u32,
    tdx_keyids: u32,
    first_tdx_keyid: Option<u32>,
}

#[derive(Clone, Debug, Serialize)]
struct Sev {
    es: bool,
    snp: bool,
}

impl<'a> Confidential<'a> {
    /// From what was found.
    #[must_use]
    pub fn new(platform: &Platform, module: &'a Module) -> Self {
        let host = platform.host();
        Self {
            role: platform.role.name(),
            vendor: platform.vendor.name(),
            hypervisor: platform.hypervisor,
            tdx: host.and_then(|host| host.tdx).map(|tdx| Tdx {
                enabled: tdx.is_enabled(),
                mktme_keyids: tdx.mktme_keyids,
                tdx_keyids: tdx.tdx_keyids,
                first_tdx_keyid: tdx.first_tdx_keyid(),
            }),
            sme: host.map(|host| host.sme.name()),
            sev: match &platform.role {
                Role::SevGuest(guest) => Some(Sev {
                    es: guest.encrypted_state,
                    snp: guest.nested_paging,
                }),
                Role::Host(_) | Role::TdxGuest => None,
            },
            movdir64b: platform.movdir64b,
            wbnoinvd: platform.wbnoinvd,
            partial_write_erratum: platform.partial_write_erratum,
            tdx_module: TdxModule {
                present: module.present,
                version: module.version.map(|version| version.to_string()),
                why: &module.why,
            },
        }
    }
}

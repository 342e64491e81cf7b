//! What a machine tells of itself: the JSON of docs/interfaces.md as types.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /v1/status`. What a machine does not tell is empty or `None`, never made up.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Status {
    /// The running image.
    pub image: ImageStatus,
    /// Counted from 1 at cold boot.
    pub generation: u64,
    /// Images of a lower security version are refused; `None` from one that does not tell.
    #[serde(default)]
    pub floor: Option<u64>,
    /// Whom orders are for.
    pub host_id: String,
    /// Of this instar.
    #[serde(default)]
    pub instance_id: String,
    /// `serving`, `receiving`, `staged` or `replacing`.
    pub state: String,
    /// For the next order.
    pub nonce: String,
    /// Since this instar was entered.
    #[serde(default)]
    pub uptime_ns: u64,
    /// Since the cold boot.
    #[serde(default)]
    pub machine_ns: u64,
    /// The cores.
    #[serde(default)]
    pub cores: Cores,
    /// Chunks and heap.
    #[serde(default)]
    pub memory: Memory,
    /// Memory of the TDX module and of TDs.
    #[serde(default)]
    pub private_memory: PrivateMemory,
    /// What will be flushed, and why.
    #[serde(default)]
    pub flush: FlushStatus,
    /// What the machine encrypts; `None` from one that does not tell.
    #[serde(default)]
    pub confidential: Option<Confidential>,
    /// The chain of what it has run; `None` from one that does not tell.
    #[serde(default)]
    pub measurement: Option<Measurement>,
    /// Addresses.
    #[serde(default)]
    pub network: Network,
    /// What was told to the collector.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The image that is ready to be entered.
    #[serde(default)]
    pub staged: Option<Staged>,
    /// How the last replacement went.
    #[serde(default)]
    pub last_replacement: Option<Replacement>,
    /// How the last replacements ended, the newest last.
    #[serde(default)]
    pub history: Vec<Past>,
}

/// The running image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ImageStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its source's revision.
    #[serde(default)]
    pub revision: String,
    /// Its security version.
    #[serde(default)]
    pub security_version: u64,
    /// Its ELF's digest.
    #[serde(default)]
    pub sha256: String,
}

/// The cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Cores {
    /// That the machine has.
    pub present: u32,
    /// That run.
    pub online: u32,
}

/// The memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Memory {
    /// The size of a chunk.
    pub chunk_bytes: u64,
    /// Whose the chunks are.
    pub chunks: Chunks,
    /// The heap.
    pub heap: Heap,
}

/// Whose the chunks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Chunks {
    /// All.
    pub total: u64,
    /// Nobody's.
    pub free: u64,
    /// The running instar's.
    pub own: u64,
    /// The staged image's.
    pub staged: u64,
    /// The predecessor's.
    pub predecessor: u64,
    /// The TDX module's and TDs'.
    pub private: u64,
    /// What the application keeps for its successor too.
    pub preserved: u64,
}

/// Memory of the TDX module and of TDs, in pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct PrivateMemory {
    /// Pieces of it.
    pub records: u64,
    /// All pages.
    pub pages: u64,
    /// Those of them that a successor gets as they are.
    pub to_hand_over: u64,
}

/// The heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Heap {
    /// Its size.
    pub bytes: u64,
    /// What of it is in use.
    pub used: u64,
}

/// What will be flushed, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct FlushStatus {
    /// `auto`, `always` or `never`.
    pub policy: String,
    /// What that means on this machine.
    pub will_flush: bool,
    /// Why.
    pub why: String,
}

/// What the machine encrypts, and on which side of it it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Confidential {
    /// `host`, `tdx-guest` or `sev-guest`.
    pub role: String,
    /// `intel`, `amd` or `other`.
    pub vendor: String,
    /// A hypervisor says that it is there.
    pub hypervisor: bool,
    /// How the BIOS divided the KeyIDs, on a host that has them.
    pub tdx: Option<Tdx>,
    /// `absent`, `present` or `active`, on a host.
    pub sme: Option<String>,
    /// In an SEV guest.
    pub sev: Option<Sev>,
    /// The processor has MOVDIR64B.
    pub movdir64b: bool,
    /// The processor has WBNOINVD.
    pub wbnoinvd: bool,
    /// A partial write to a TDX private page poisons it.
    pub partial_write_erratum: bool,
    /// What is known of the TDX module.
    pub tdx_module: TdxModule,
}

/// What is known of the TDX module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct TdxModule {
    /// One answered.
    pub present: bool,
    /// Which, if it told.
    pub version: Option<String>,
    /// How this is known.
    pub why: String,
}

/// How the BIOS divided the KeyIDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Tdx {
    /// There are at least two TDX KeyIDs.
    pub enabled: bool,
    /// Number of MKTME KeyIDs.
    pub mktme_keyids: u32,
    /// Number of TDX KeyIDs.
    pub tdx_keyids: u32,
    /// The first TDX KeyID.
    pub first_tdx_keyid: Option<u32>,
}

/// What an SEV guest has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Sev {
    /// SEV-ES.
    pub es: bool,
    /// SEV-SNP.
    pub snp: bool,
}

/// Addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Network {
    /// The network device's.
    pub mac: Option<String>,
    /// With the prefix's length.
    pub address: Option<String>,
    /// Of the router.
    pub gateway: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// `dhcp`, `static` or `handover`.
    pub origin: Option<String>,
}

/// What was told to the collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Telemetry {
    /// The collector; nothing is told if there is none.
    pub endpoint: Option<String>,
    /// Waiting.
    pub queued: u64,
    /// Taken by the collector.
    pub delivered: u64,
    /// Given up.
    pub dropped: u64,
}

/// An image that is ready to be entered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Staged {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its security version.
    #[serde(default)]
    pub security_version: u64,
    /// Its ELF's size.
    #[serde(default)]
    pub elf_bytes: u64,
    /// Its ELF's digest.
    pub sha256: String,
}

/// The chain of what a machine has run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Measurement {
    /// Its value: 96 hex digits.
    pub chain: String,
    /// Images in it.
    pub count: u64,
    /// It begins with the cold boot.
    pub whole: bool,
}

impl Measurement {
    /// For people.
    pub fn describe(&self) -> String {
        let since = if self.whole {
            "since the cold boot"
        } else {
            "since the first instar that knew of it"
        };
        format!("{} images {since}, chain {}", self.count, self.chain)
    }
}

/// `GET /v1/measurements`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Measurements {
    /// The chain's value: 96 hex digits.
    pub chain: String,
    /// Images in it.
    pub count: u64,
    /// It begins with the cold boot.
    pub whole: bool,
    /// Its value before the first of `events`.
    pub base: String,
    /// The newest images.
    pub events: Vec<Measured>,
}

/// An image that a machine has run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The instar that it was to be.
    pub generation: u64,
    /// The digest of its manifest: 96 hex digits.
    pub sha384: String,
}

/// A replacement that has ended.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Past {
    /// The predecessor's version.
    pub from: String,
    /// The successor's version.
    pub to: String,
    /// `committed`, `rolled-back` or `failed`.
    pub outcome: String,
    /// Why it was not committed.
    pub reason: Option<String>,
    /// The trace of its spans.
    pub trace_id: String,
    /// The root's span id.
    pub span_id: String,
    /// How long nobody answered.
    pub blackout_ms: Option<f64>,
}

/// How a replacement went.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Replacement {
    /// The trace that both instars' spans belong to.
    pub trace_id: String,
    /// The root's span id: with it the trace tells one replacement from another.
    pub span_id: String,
    /// The predecessor's version.
    pub from: String,
    /// The successor's version.
    pub to: String,
    /// `committed` when the successor stayed.
    pub outcome: String,
    /// How long each phase took; `None` until it is known.
    pub phases_ms: BTreeMap<String, Option<f64>>,
    /// From the last answer to the first, as the machine itself sees it.
    pub blackout_ms: Option<f64>,
    /// Private pages that were reset before the jump.
    pub private_pages_reset: u64,
    /// Each core's flush; empty if nothing was flushed.
    pub flush: Vec<CoreFlush>,
    /// The same while the predecessor still served.
    pub early_flush: Vec<CoreFlush>,
    /// The phases on the machine's clock.
    pub spans: Vec<Span>,
}

/// One core's flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct CoreFlush {
    /// Which core.
    pub core: u32,
    /// By its time-stamp counter.
    pub cycles: u64,
    /// The same in nanoseconds.
    pub ns: u64,
}

/// One phase on the machine's clock, which starts at the cold boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Span {
    /// The phase.
    pub name: String,
    /// The instar that saw it.
    pub generation: u64,
    /// Its start.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
}

/// What the machine says when an order is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Accepted {
    /// The order's action.
    pub action: String,
    /// The generation that was asked.
    pub generation: u64,
    /// The trace of what follows.
    pub trace_id: String,
}

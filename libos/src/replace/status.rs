//! The bodies of the control plane's answers (`docs/interfaces.md`, "Control plane").
//!
//! Plain data that borrows: whoever answers fills it in and drops it. The order of the fields is the order in the answer.

mod confidential;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

pub use confidential::Confidential;

use super::history::PastView;
use super::measured::{self, Measurements};
use super::timeline::LastReplacement;
use super::{hex, order::Action};
use crate::confidential::policy::{FlushDecision, FlushPolicy};
use crate::memory::chunks::{CHUNK_BYTES, Counts};

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status<'a> {
    /// The running image.
    pub image: Image<'a>,
    /// Number of the running instar, from 1.
    pub generation: u32,
    /// Images of a lower security version are refused.
    pub floor: u64,
    /// What orders call this machine.
    pub host_id: &'a str,
    /// The instar's UUID, as text.
    pub instance_id: &'a str,
    /// What the machine is at.
    pub state: State,
    /// The present nonce, 32 hex digits.
    pub nonce: &'a str,
    /// Time since this instar's first instruction.
    pub uptime_ns: u64,
    /// Time since the cold boot.
    pub machine_ns: u64,
    /// The cores.
    pub cores: Cores,
    /// The memory.
    pub memory: Memory,
    /// Memory of the TDX module and of TDs.
    pub private_memory: PrivateMemory,
    /// What happens to the caches before a jump.
    pub flush: Flush<'a>,
    /// What the machine encrypts.
    pub confidential: Confidential<'a>,
    /// What this machine has run since its cold boot.
    pub measurement: Measurement,
    /// The network configuration; `None`: a lease ran out and there is no new one yet.
    pub network: Option<Network<'a>>,
    /// How the exporter gets on.
    pub telemetry: Telemetry<'a>,
    /// The image that an order can have entered.
    pub staged: Option<Staged<'a>>,
    /// The replacement that brought this instar here, or one that failed since.
    pub last_replacement: Option<LastReplacement<'a>>,
    /// How the last replacements ended, the newest last.
    pub history: Vec<PastView<'a>>,
}

/// What the machine is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing besides serving.
    Serving,
    /// An image comes in.
    Receiving,
    /// An image waits for an order.
    Staged,
    /// An order is being carried out.
    Replacing,
}

/// The running image.
#[derive(Clone, Debug, Serialize)]
pub struct Image<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its source revision; may be empty.
    pub revision: &'a str,
    /// Its security version.
    pub security_version: u64,
    /// SHA-256 of its ELF.
    #[serde(serialize_with = "as_hex")]
    pub sha256: &'a [u8; 32],
}

/// Number of cores.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cores {
    /// That the machine has.
    pub present: usize,
    /// That run this instar.
    pub online: usize,
}

/// The memory.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    chunk_bytes: u64,
    chunks: Chunks,
    heap: Heap,
}

impl Memory {
    /// From the chunk map's counts and the heap's: bytes that it manages, bytes that are in use.
    #[must_use]
    pub const fn new(counts: Counts, heap_bytes: u64, heap_used: u64) -> Self {
        let Counts {
            total,
            free,
            own,
            staged,
            predecessor,
            private,
            preserved,
        } = counts;
        let chunks = Chunks {
            total,
            free,
            own,
            staged,
            predecessor,
            private,
            preserved,
        };
        Self {
            chunk_bytes: CHUNK_BYTES,
            chunks,
            heap: Heap {
                bytes: heap_bytes,
                used: heap_used,
            },
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Chunks {
    total: u64,
    free: u64,
    own: u64,
    staged: u64,
    predecessor: u64,
    private: u64,
    preserved: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Heap {
    bytes: u64,
    used: u64,
}

/// Memory of the TDX module and of TDs, in pages of 4 KiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PrivateMemory {
    /// Pieces of it.
    pub records: usize,
    /// All pages.
    pub pages: u64,
    /// Those of them that a successor gets as they are; the others are reset before it comes.
    pub to_hand_over: u64,
}

/// The chain of what this machine has run.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    chain: String,
    count: u64,
    whole: bool,
}

impl Measurement {
    /// In short.
    #[must_use]
    pub fn new(measurements: &Measurements) -> Self {
        Self {
            chain: hex(&measurements.chain().0),
            count: measurements.count(),
            whole: measurements.is_whole(),
        }
    }
}

/// `GET /v1/measurements`: the chain, and the newest of the images behind it.
#[derive(Clone, Debug, Serialize)]
pub struct MeasurementsAnswer<'a> {
    chain: String,
    count: u64,
    whole: bool,
    base: String,
    events: Vec<EventView<'a>>,
}

#[derive(Clone, Debug, Serialize)]
struct EventView<'a> {
    name: &'a str,
    version: &'a str,
    generation: u32,
    sha384: String,
}

impl<'a> MeasurementsAnswer<'a> {
    /// In full.
    #[must_use]
    pub fn new(measurements: &'a Measurements) -> Self {
        let Measurement { chain, count, whole } = Measurement::new(measurements);
        let event = |event: &'a measured::Event| EventView {
            name: &event.name,
            version: &event.version,
            generation: event.generation,
            sha384: hex(&event.manifest),
        };
        Self {
            chain,
            count,
            whole,
            base: hex(&measurements.base().0),
            events: measurements.events().iter().map(event).collect(),
        }
    }
}

/// What happens to the caches before a jump.
#[derive(Clone, Debug, Serialize)]
pub struct Flush<'a> {
    policy: &'static str,
    will_flush: bool,
    why: &'a str,
}

impl<'a> Flush<'a> {
    /// From the policy and what came of it.
    #[must_use]
    pub fn new(policy: FlushPolicy, decision: &'a FlushDecision) -> Self {
        Self {
            policy: policy.name(),
            will_flush: decision.will_flush(),
            why: decision.why(),
        }
    }
}

/// The network configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Network<'a> {
    /// Own Ethernet address.
    #[serde(serialize_with = "as_mac")]
    pub mac: [u8; 6],
    /// Own IPv4 address and the length of the network's prefix.
    #[serde(serialize_with = "as_cidr")]
    pub address: (Ipv4Addr, u8),
    /// The router, if there is one.
    #[serde(serialize_with = "as_optional_text")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    #[serde(serialize_with = "as_texts")]
    pub dns: &'a [Ipv4Addr],
    /// Where this instar has it from.
    pub origin: Origin,
}

/// Where an instar has its network configuration from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A DHCP server.
    Dhcp,
    /// The command line.
    Static,
    /// The predecessor.
    Handover,
}

/// How the exporters get on.
#[derive(Clone, Debug, Serialize)]
pub struct Telemetry<'a> {
    /// Where telemetry goes; `None`: nowhere.
    pub endpoint: Option<&'a str>,
    /// Requests that wait.
    pub queued: u64,
    /// Requests that the collector took.
    pub delivered: u64,
    /// Requests that were given up.
    pub dropped: u64,
    /// How sending to a syslog server gets on; `None`: there is none.
    pub syslog: Option<Syslog>,
}

/// How sending to a syslog server gets on.
#[derive(Clone, Debug, Serialize)]
pub struct Syslog {
    /// `HOST:PORT`.
    pub server: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Messages that wait.
    pub queued: u64,
    /// Messages that the server's end of the connection has taken.
    pub sent: u64,
    /// Log records that were lost for want of room.
    pub dropped: u64,
}

/// An image that has been received.
#[derive(Clone, Debug, Serialize)]
pub struct Staged<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its security version.
    pub security_version: u64,
    /// Size of its ELF.
    pub elf_bytes: u64,
    /// SHA-256 of its ELF.
    #[serde(serialize_with = "as_hex")]
    pub sha256: &'a [u8; 32],
}

/// The answer 201 to `PUT /v1/image`.
#[derive(Clone, Debug, Serialize)]
pub struct StagedAnswer<'a> {
    /// What was received.
    pub staged: Staged<'a>,
}

/// The answer 202 to `POST /v1/orders`.
#[derive(Clone, Debug, Serialize)]
pub struct AcceptedAnswer {
    accepted: Accepted,
}

#[derive(Clone, Debug, Serialize)]
struct Accepted {
    action: &'static str,
    generation: u32,
    trace_id: String,
}

impl AcceptedAnswer {
    /// `generation` is the one that took the order.
    #[must_use]
    pub fn new(action: Action, generation: u32, trace_id: &[u8; 16]) -> Self {
        Self {
            accepted: Accepted {
                action: action.name(),
                generation,
                trace_id: hex(trace_id),
            },
        }
    }
}

/// The text of an answer.
#[must_use]
pub fn json(answer: &impl Serialize) -> String {
    // Structs of numbers and texts cannot fail to serialise.
    serde_json::to_string(answer).unwrap_or_default()
}

/// A MAC address as text: `52:54:00:12:34:56`.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for byte in mac {
        if !text.is_empty() {
            text.push(':');
        }
        text += &hex(&[byte]);
    }
    text
}

fn as_hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(bytes))
}

fn as_mac<S: Serializer>(mac: &[u8; 6], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&mac_text(*mac))
}

fn as_cidr<S: Serializer>(network: &(Ipv4Addr, u8), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&(network.0.to_string() + "/" + &network.1.to_string()))
}

fn as_optional_text<S: Serializer>(address: &Option<Ipv4Addr>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.serialize_str(&address.to_string()),
        None => serializer.serialize_none(),
    }
}

/// serde's own form of an address is the text only with its `std` feature.
fn as_texts<S: Serializer>(addresses: &[Ipv4Addr], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(addresses.len()))?;
    for address in addresses {
        list.serialize_element(&address.to_string())?;
    }
    list.end()
}

#[cfg(test)]
mod tests;

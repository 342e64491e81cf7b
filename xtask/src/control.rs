//! The control plane of a machine, as a client sees it (docs/interfaces.md, "Control plane").

use crate::exit::{Exit, Failure};
use crate::http::{self, HttpError, Limits, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use thiserror::Error;

/// The control plane's port.
pub const PORT: u16 = 7700;

/// `GET /v1/status`. What a machine does not tell is empty or `None`, never made up.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Status {
    /// The running image.
    pub image: ImageStatus,
    /// Counted from 1 at cold boot.
    pub generation: u64,
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
    /// What will be flushed, and why.
    #[serde(default)]
    pub flush: FlushStatus,
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

/// How a replacement went.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Replacement {
    /// The trace that both instars' spans belong to.
    pub trace_id: String,
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
    /// Each core's flush; empty if nothing was flushed.
    pub flush: Vec<CoreFlush>,
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

/// A machine's no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Error, Deserialize, Serialize)]
#[error("the machine refused ({status} {code}): {message}")]
#[serde(default)]
pub struct Refusal {
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// What scripts go by.
    pub code: String,
    /// What happened and what it means.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Why something did not happen.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The machine said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The machine said nothing.
    #[error("{0}")]
    NoAnswer(#[from] HttpError),
    /// What the machine said is not what docs/interfaces.md says.
    #[error("the machine's answer (status {status}) is not understood: {why}; it begins with `{start}`")]
    Garbled {
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        why: String,
        /// Its first characters.
        start: String,
    },
}

impl ControlError {
    /// The same as an error of the command line: `doing` says what was tried, and where.
    pub fn during(self, doing: &str) -> Failure {
        match self {
            Self::Refused(refusal) => {
                let hint = refusal.hint.clone();
                Failure::new(Exit::Refused, format!("{doing}: {refusal}")).hint(hint)
            }
            Self::NoAnswer(why) => Failure::new(Exit::NoAnswer, format!("{doing}: {why}"))
                .hint("is the machine running, and is this its control address (port 7700 of the machine)?"),
            Self::Garbled { .. } => Failure::new(Exit::Failed, format!("{doing}: {self}"))
                .hint("is this the control address of an Instar machine?"),
        }
    }
}

/// Reads an address: `HOST`, `HOST:PORT`, with or without `http://`.
///
/// # Errors
/// If it is none, or its name is not known.
pub fn parse_address(text: &str) -> Result<SocketAddr, Failure> {
    let bad = |why: &str| {
        Failure::new(Exit::Usage, format!("`{text}` is no address of a machine: {why}"))
            .hint("give the control plane's address as HOST or HOST:PORT; `cargo xtask run` prints it")
    };
    let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    if rest.is_empty() || rest.contains(['/', ' ', '@']) {
        return Err(bad("it should be HOST:PORT"));
    }
    let with_port = if rest.rsplit(']').next().unwrap_or(rest).contains(':') {
        rest.to_owned()
    } else {
        format!("{rest}:{PORT}")
    };
    let mut addresses = with_port.to_socket_addrs().map_err(|e| bad(&e.to_string()))?;
    addresses.next().ok_or_else(|| bad("the name has no address"))
}

/// `GET /v1/status`.
///
/// # Errors
/// If the machine does not answer, refuses, or says something else.
pub fn status(address: SocketAddr, limits: Limits) -> Result<Status, ControlError> {
    decode(&http::get(address, "/v1/status", limits)?, 200)
}

/// `GET /v1/status` as the machine wrote it, with whatever a newer machine tells besides.
///
/// # Errors
/// If the machine does not answer, refuses, or says something else.
pub fn raw_status(address: SocketAddr, limits: Limits) -> Result<Value, ControlError> {
    decode(&http::get(address, "/v1/status", limits)?, 200)
}

/// `PUT /v1/image`; `progress` is told how many bytes went out.
///
/// # Errors
/// If the machine does not answer, refuses, or says something else.
pub fn push(
    address: SocketAddr,
    image: &[u8],
    limits: Limits,
    progress: impl FnMut(usize),
) -> Result<Staged, ControlError> {
    #[derive(Deserialize)]
    struct Answer {
        staged: Staged,
    }
    let response = http::send(
        address,
        "PUT",
        "/v1/image",
        "application/x-tar",
        image,
        limits,
        progress,
    )?;
    decode::<Answer>(&response, 201).map(|answer| answer.staged)
}

/// `POST /v1/orders`.
///
/// # Errors
/// If the machine does not answer, refuses, or says something else.
pub fn order(address: SocketAddr, order: &[u8], limits: Limits) -> Result<Accepted, ControlError> {
    #[derive(Deserialize)]
    struct Answer {
        accepted: Accepted,
    }
    let response = http::send(
        address,
        "POST",
        "/v1/orders",
        "application/x-tar",
        order,
        limits,
        |_| {},
    )?;
    decode::<Answer>(&response, 202).map(|answer| answer.accepted)
}

fn decode<T: for<'a> Deserialize<'a>>(response: &Response, expected: u16) -> Result<T, ControlError> {
    #[derive(Deserialize)]
    struct Error {
        error: Refusal,
    }
    if response.status >= 400
        && let Ok(Error { error }) = serde_json::from_slice(&response.body)
    {
        return Err(Refusal {
            status: response.status,
            ..error
        }
        .into());
    }
    let garbled = |why: String| ControlError::Garbled {
        status: response.status,
        why,
        start: response.text().chars().take(80).collect(),
    };
    if response.status != expected {
        return Err(garbled(format!("status {expected} was expected")));
    }
    serde_json::from_slice(&response.body).map_err(|e| garbled(e.to_string()))
}

#[cfg(test)]
mod tests;

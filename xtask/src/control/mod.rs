//! The control plane of a machine, as a client sees it (docs/interfaces.md, "Control plane").

mod status;

pub use status::{
    Accepted, Chunks, Confidential, CoreFlush, Cores, FlushStatus, Heap, ImageStatus, Measured, Measurement,
    Measurements, Memory, Network, Past, Replacement, Sev, Span, Staged, Status, Tdx, TdxModule, Telemetry,
};

use crate::exit::{Exit, Failure};
use crate::http::{self, HttpError, Limits, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::{SocketAddr, ToSocketAddrs};
use thiserror::Error;

/// The control plane's port.
pub const PORT: u16 = 7700;

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

/// `GET /v1/measurements`.
///
/// # Errors
/// If the machine does not answer, refuses, or says something else.
pub fn measurements(address: SocketAddr, limits: Limits) -> Result<Measurements, ControlError> {
    decode(&http::get(address, "/v1/measurements", limits)?, 200)
}

/// The headers of an archive, which may come with the span that it is sent in.
fn headers(traceparent: Option<&str>) -> Vec<(&str, &str)> {
    let mut headers = vec![("Content-Type", "application/x-tar")];
    headers.extend(traceparent.map(|traceparent| ("traceparent", traceparent)));
    headers
}

/// `PUT /v1/image`; `progress` is told how many bytes went out.
///
/// # Errors
/// If the machine does not answer, refuses, or says something else.
pub fn push(
    address: SocketAddr,
    image: &[u8],
    traceparent: Option<&str>,
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
        &headers(traceparent),
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
pub fn order(
    address: SocketAddr,
    order: &[u8],
    traceparent: Option<&str>,
    limits: Limits,
) -> Result<Accepted, ControlError> {
    #[derive(Deserialize)]
    struct Answer {
        accepted: Accepted,
    }
    let response = http::send(
        address,
        "POST",
        "/v1/orders",
        &headers(traceparent),
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

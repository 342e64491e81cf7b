//! The handover record: what an instar tells its successor.
//!
//! ```text
//! offset  bytes  what
//! 0       8      "INSTARHO"
//! 8       4      length of the body, little-endian
//! 12      8      CRC-64/XZ over length and body, little-endian
//! 20      …      body: CBOR (RFC 8949), a map of numbered fields
//! ```
//!
//! Any released version hands over to any other, up and down. So a field's number and meaning never change; a new field
//! gets a new number and a default; a reader skips what it does not know. The sum finds accidents (a stray write, a
//! record that was cut off), not attacks: whoever can write here owns the machine already.
//!
//! The reader still believes nothing: every length, count and address has limits, and [`encode`] checks the same limits,
//! since a record that its reader refuses must be found out before the jump.

mod check;
mod parts;

pub use parts::{
    ChunkRange, HandedCore, KeptRecord, NeighbourRecord, NetworkRecord, PenPlace, Predecessor,
    PreservedRange, PrivateRange, Trial,
};

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};
use thiserror::Error;

use super::bounded;
use super::envelope::{self, EnvelopeError, HEADER};
use super::history::{MAX_PAST, Past};
use super::measured::Measurements;
use super::timeline::{MAX_FLUSHES, MAX_VERSION, Timeline};
use crate::command_line::MAX_HOST_ID;
use crate::confidential::ledger::MAX_RECORDS;
use crate::net::MAX_KEPT;
use crate::state::{self, preserved::MAX_PRESERVED, records::Stashed};

/// Room for everything that a successor is told, in bytes: the record in the upper half, the device tree in the lower, and at
/// the lower half's end the predecessor's memory as it is at the jump.
pub const PARAMETER_BYTES: u64 = 256 * 1024;
/// Room for that list.
pub const CHUNK_LIST_BYTES: u64 = 8 * (1 + 2 * MAX_RANGES as u64);
/// Largest record, in bytes.
pub const MAX_RECORD: usize = PARAMETER_BYTES as usize / 2;
/// Most bytes of undelivered telemetry that fit beside everything else.
pub const MAX_UNDELIVERED_BYTES: usize = 64 * 1024;
/// Most requests of undelivered telemetry.
pub const MAX_UNDELIVERED: usize = 256;
/// Most cores.
pub const MAX_CORES: usize = MAX_FLUSHES;
/// Most ranges of the predecessor's memory.
pub const MAX_RANGES: usize = 1024;
/// Most name servers.
pub const MAX_DNS: usize = 8;
/// Most neighbours.
pub const MAX_NEIGHBOURS: usize = 64;

const MAGIC: [u8; 8] = *b"INSTARHO";
/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Why a record cannot be read, or must not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandoverError {
    /// Shorter than its header says, or than a header.
    #[error("the handover record is cut off")]
    Truncated,
    /// It does not begin like a record.
    #[error("there is no handover record")]
    Magic,
    /// Larger than [`MAX_RECORD`]; the number of bytes.
    #[error("a handover record of {0} bytes is too large")]
    TooLarge(usize),
    /// The sum does not fit the body.
    #[error("the handover record's checksum is wrong")]
    Checksum,
    /// The body is not CBOR with the fields that are needed; the offset in the body, where it is known.
    #[error("the handover record cannot be read at offset {0:?}")]
    Malformed(Option<usize>),
    /// Written in a format that this version must not guess at.
    #[error("handover format {0} is unknown")]
    Format(u32),
    /// A value that cannot be; which.
    #[error("the handover record has an impossible {0}")]
    Impossible(&'static str),
}

/// What an instar tells its successor.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Handover {
    /// Format of this record: 1. It rises only when a reader must not guess.
    #[n(0)]
    pub format: u32,
    /// Number of the instar that writes. The successor's is one more.
    #[n(1)]
    pub generation: u32,
    /// Who that is.
    #[n(2)]
    pub predecessor: Predecessor,
    /// Wall-clock time at the cold boot, nanoseconds since 1970.
    #[n(3)]
    pub unix_at_boot: u64,
    /// TSC at the cold boot, where machine time is 0.
    #[n(4)]
    pub tsc_at_boot: u64,
    /// Ticks of the TSC a second.
    #[n(5)]
    pub tsc_hz: u64,
    /// Ticks of the local APIC's timer a second.
    #[n(6)]
    pub apic_hz: u64,
    /// Images of a lower security version are refused.
    #[n(7)]
    pub floor: u64,
    /// What orders call this machine.
    #[cbor(
        n(8),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_HOST_ID>"
    )]
    pub host_id: String,
    /// The network configuration; `None`: there was none yet.
    #[n(9)]
    pub network: Option<NetworkRecord>,
    /// Where the pen is.
    #[n(10)]
    pub pen: PenPlace,
    /// All cores, in the order of their numbers, the one that jumps first.
    #[cbor(
        n(11),
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_CORES>"
    )]
    pub cores: Vec<HandedCore>,
    /// The writer's memory, which stays reserved until commit.
    #[cbor(
        n(12),
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_RANGES>"
    )]
    pub predecessor_chunks: Vec<ChunkRange>,
    /// The replacement's story so far.
    #[n(13)]
    pub timeline: Timeline,
    /// Machine time at which quiesce began, in nanoseconds: its end is known only after this record is written.
    #[cbor(n(14), default)]
    pub quiesce_ns: u64,
    /// Telemetry that the collector has not taken: number of the signal, request body.
    #[cbor(
        n(15),
        default,
        encode_with = "encode_undelivered",
        decode_with = "decode_undelivered"
    )]
    pub undelivered: Vec<(u8, Vec<u8>)>,
    /// Replacements since the cold boot that reached a commit.
    #[cbor(n(16), default)]
    pub replacements: u64,
    /// Private memory that the successor takes over, in ascending order.
    #[cbor(
        n(17),
        default,
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_RECORDS>"
    )]
    pub private: Vec<PrivateRange>,
    /// How the successor is on trial; `None`: it commits itself, and there is no way back.
    #[n(18)]
    pub trial: Option<Trial>,
    /// TCP connections that the writer keeps.
    #[cbor(
        n(19),
        default,
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_KEPT>"
    )]
    pub kept: Vec<KeptRecord>,
    /// What the application has stashed.
    #[cbor(
        n(20),
        default,
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, {state::MAX_RECORDS}>"
    )]
    pub state: Vec<Stashed>,
    /// The application's memory that the successor takes over, in ascending order.
    #[cbor(
        n(21),
        default,
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_PRESERVED>"
    )]
    pub preserved: Vec<PreservedRange>,
    /// The chain of what this machine has run, with the successor.
    #[cbor(n(22), default)]
    pub measurements: Measurements,
    /// How the last replacements ended, the newest last.
    #[cbor(
        n(23),
        default,
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_PAST>"
    )]
    pub history: Vec<Past>,
    /// Telemetry requests that found no room in `undelivered`: metrics, logs, traces.
    #[cbor(n(24), default)]
    pub left_behind: [u64; 3],
}

fn encode_undelivered<C, W: Write>(
    undelivered: &[(u8, Vec<u8>)],
    encoder: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    encoder.array(undelivered.len() as u64)?;
    for (signal, body) in undelivered {
        encoder.array(2)?.u8(*signal)?.bytes(body)?;
    }
    Ok(())
}

fn decode_undelivered<C>(
    decoder: &mut Decoder<'_>,
    context: &mut C,
) -> Result<Vec<(u8, Vec<u8>)>, DecodeError> {
    let requests = bounded::list::<C, Request, MAX_UNDELIVERED>(decoder, context)?;
    Ok(requests
        .into_iter()
        .map(|Request(signal, body)| (signal, body))
        .collect())
}

/// An item of [`Handover::undelivered`].
#[derive(Decode)]
struct Request(
    #[n(0)] u8,
    #[cbor(n(1), decode_with = "bounded::bytes::<_, MAX_UNDELIVERED_BYTES>")] Vec<u8>,
);

/// Writes a record.
///
/// # Errors
/// [`HandoverError::TooLarge`], [`HandoverError::Impossible`] and [`HandoverError::Malformed`] (a list or a text above its
/// limit): what [`decode`] would refuse.
pub fn encode(handover: &Handover) -> Result<Vec<u8>, HandoverError> {
    let mut record = alloc::vec![0; HEADER];
    // Writing into memory cannot fail, but the encoder's type does not say so.
    minicbor::encode(handover, bounded::Memory(&mut record)).map_err(|_| HandoverError::Malformed(None))?;
    envelope::seal(MAGIC, &mut record)?;
    // The reader's own judgement, while there is still time to listen to it.
    decode(&record)?;
    Ok(record)
}

impl From<EnvelopeError> for HandoverError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Truncated => Self::Truncated,
            EnvelopeError::Magic => Self::Magic,
            EnvelopeError::TooLarge(bytes) => Self::TooLarge(bytes),
            EnvelopeError::Checksum => Self::Checksum,
        }
    }
}

/// What of a record a successor needs before it can serve; the same fields as in [`Handover`]. All the rest is skipped,
/// which is quick, and read when there is time.
#[derive(Clone, Debug, PartialEq, Eq, Decode)]
#[cbor(map)]
#[expect(missing_docs, reason = "each field is that of Handover with its name")]
pub struct Essentials {
    #[n(1)]
    pub generation: u32,
    #[n(3)]
    pub unix_at_boot: u64,
    #[n(4)]
    pub tsc_at_boot: u64,
    #[n(5)]
    pub tsc_hz: u64,
    #[n(6)]
    pub apic_hz: u64,
    #[n(7)]
    pub floor: u64,
    #[n(9)]
    pub network: Option<NetworkRecord>,
    #[n(10)]
    pub pen: PenPlace,
    #[cbor(n(11), decode_with = "bounded::list::<_, _, MAX_CORES>")]
    pub cores: Vec<HandedCore>,
    #[cbor(n(12), decode_with = "bounded::list::<_, _, MAX_RANGES>")]
    pub predecessor_chunks: Vec<ChunkRange>,
    #[cbor(n(17), default, decode_with = "bounded::list::<_, _, MAX_RECORDS>")]
    pub private: Vec<PrivateRange>,
    #[n(18)]
    pub trial: Option<Trial>,
    #[cbor(n(19), default, decode_with = "bounded::list::<_, _, MAX_KEPT>")]
    pub kept: Vec<KeptRecord>,
    #[cbor(n(20), default, decode_with = "bounded::list::<_, _, {state::MAX_RECORDS}>")]
    pub state: Vec<Stashed>,
    #[cbor(n(21), default, decode_with = "bounded::list::<_, _, MAX_PRESERVED>")]
    pub preserved: Vec<PreservedRange>,
}

/// Reads what a successor needs at once. Bytes behind the record are not looked at.
///
/// # Errors
/// See [`HandoverError`]; the bytes may be anything.
pub fn essentials(bytes: &[u8]) -> Result<Essentials, HandoverError> {
    let essentials: Essentials = Decoder::new(body(bytes)?).decode().map_err(malformed)?;
    check::check(&essentials).map_err(HandoverError::Impossible)?;
    Ok(essentials)
}

/// Reads a record. Bytes behind it are not looked at.
///
/// # Errors
/// See [`HandoverError`]; the bytes may be anything.
pub fn decode(bytes: &[u8]) -> Result<Handover, HandoverError> {
    essentials(bytes)?;
    let body = body(bytes)?;
    let mut decoder = Decoder::new(body);
    let handover: Handover = decoder.decode().map_err(malformed)?;
    if decoder.position() != body.len() {
        return Err(HandoverError::Malformed(Some(decoder.position())));
    }
    Ok(handover)
}

fn malformed(error: DecodeError) -> HandoverError {
    HandoverError::Malformed(error.position())
}

/// The body of a record whose header, sum and format are right.
fn body(bytes: &[u8]) -> Result<&[u8], HandoverError> {
    let body = envelope::open(MAGIC, MAX_RECORD, bytes)?;
    match minicbor::decode::<FormatOnly>(body).map_err(malformed)?.format {
        FORMAT => Ok(body),
        other => Err(HandoverError::Format(other)),
    }
}

/// Read first: another format may lack the fields of this one.
#[derive(Decode)]
#[cbor(map)]
struct FormatOnly {
    #[n(0)]
    format: u32,
}

#[cfg(test)]
mod tests;

//! stub
use alloc::string::String;
use alloc::vec::Vec;
use super::timeline::Timeline;
/// x
#[derive(Clone, Debug)]
pub struct Predecessor { /// x
 pub name: String, /// x
 pub version: String, /// x
 pub instance_id: [u8;16] }
/// x
#[derive(Clone, Debug)]
pub struct PenPlace { /// x
 pub base: u64, /// x
 pub bytes: u64, /// x
 pub version: u32 }
/// x
#[derive(Clone, Debug)]
pub struct HandedCore { /// x
 pub apic_id: u32, /// x
 pub online: bool }
/// x
#[derive(Clone, Debug)]
pub struct ChunkRange { /// x
 pub start: u64, /// x
 pub end: u64 }
/// x
#[derive(Clone, Debug)]
pub struct Handover { /// x
 pub generation: u32, /// x
 pub predecessor: Predecessor, /// x
 pub timeline: Timeline, /// x
 pub floor: u64, /// x
 pub replacements: u64, /// x
 pub cores: Vec<HandedCore>, /// x
 pub pen: PenPlace, /// x
 pub predecessor_chunks: Vec<ChunkRange>, /// x
 pub undelivered: Vec<(u8, Vec<u8>)> }
/// x
#[derive(Debug, thiserror::Error)]
#[error("no")]
pub struct HandoverError;
/// x
pub fn decode(_: &[u8]) -> Result<Handover, HandoverError> { Err(HandoverError) }
/// x
pub fn encode(_: &Handover) -> Vec<u8> { Vec::new() }
/// Room for everything that the successor is told.
pub const PARAMETER_BYTES: u64 = 256 * 1024;

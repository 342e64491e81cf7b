//! What the handover record consists of.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use minicbor::{Decode, Encode};

use super::{MAX_DNS, MAX_NEIGHBOURS, MAX_VERSION, bounded};
use crate::state;

/// Who wrote the record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Predecessor {
    /// The image's name.
    #[cbor(
        n(0),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_VERSION>"
    )]
    pub name: String,
    /// The image's version.
    #[cbor(
        n(1),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_VERSION>"
    )]
    pub version: String,
    /// The instar's UUID.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub instance_id: [u8; 16],
}

/// A host on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NeighbourRecord {
    /// Its IPv4 address.
    #[n(0)]
    pub address: Ipv4Addr,
    /// Its Ethernet address.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub mac: [u8; 6],
}

/// The network configuration in use.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NetworkRecord {
    /// Own Ethernet address.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub mac: [u8; 6],
    /// Own IPv4 address.
    #[n(1)]
    pub address: Ipv4Addr,
    /// Length of the network's prefix, 0 to 32.
    #[n(2)]
    pub prefix: u8,
    /// The router, if there is one.
    #[n(3)]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    #[cbor(
        n(4),
        default,
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_DNS>"
    )]
    pub dns: Vec<Ipv4Addr>,
    /// Whether the address is a DHCP lease, whoever asked for it; otherwise the command line names it.
    #[n(5)]
    pub leased: bool,
    /// Hosts that a successor answers without ARP.
    #[cbor(
        n(6),
        default,
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_NEIGHBOURS>"
    )]
    pub neighbours: Vec<NeighbourRecord>,
}

/// Where the pen is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PenPlace {
    /// Physical address, a multiple of 4096.
    #[n(0)]
    pub base: u64,
    /// Size in bytes.
    #[n(1)]
    pub bytes: u64,
    /// Version of its layout.
    #[n(2)]
    pub version: u32,
}

/// One core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HandedCore {
    /// Its local APIC's id.
    #[n(0)]
    pub apic_id: u32,
    /// Whether it waits in the pen, or is the one that jumps.
    #[n(1)]
    pub online: bool,
}

/// Physical memory in bytes; both ends are multiples of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChunkRange {
    /// The first byte.
    #[n(0)]
    pub start: u64,
    /// The first byte behind it.
    #[n(1)]
    pub end: u64,
}

/// Private memory that the successor takes over as it is: whole chunks, not in the memory map that it is given, so that
/// one which does not know this field cannot touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PrivateRange {
    /// The first byte.
    #[n(0)]
    pub start: u64,
    /// The first byte behind it.
    #[n(1)]
    pub end: u64,
    /// The KeyID it is private under.
    #[n(2)]
    pub key_id: u32,
    /// Whom it is for: 0 the TDX module, 1 a TD.
    #[n(3)]
    pub purpose: u8,
}

/// An application's memory that the successor takes over as it is: whole chunks, not in the memory map that it is given,
/// so that one which does not know this field cannot touch it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PreservedRange {
    /// The first byte.
    #[n(0)]
    pub start: u64,
    /// The first byte behind it.
    #[n(1)]
    pub end: u64,
    /// The application's name for it.
    #[cbor(
        n(2),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, {state::MAX_NAME}>"
    )]
    pub name: String,
    /// The application's version of what is in it.
    #[n(3)]
    pub version: u32,
}

/// A TCP connection that the writer keeps, in case that it has to go on. Until its commit a successor drops what comes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeptRecord {
    /// The other end's address.
    #[n(0)]
    pub address: Ipv4Addr,
    /// The other end's port.
    #[n(1)]
    pub remote_port: u16,
    /// The port at this end.
    #[n(2)]
    pub local_port: u16,
}

/// How a successor is on trial: until when the predecessor takes the machine back, and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Trial {
    /// Machine time at which it ends without a commit, in nanoseconds.
    #[n(0)]
    pub ends_ns: u64,
    /// How long a core may be kept from its tasks before it counts as hung, in nanoseconds.
    #[n(1)]
    pub hang_ns: u64,
    /// Whether the successor waits for an order to commit. Otherwise it commits itself when it is well.
    #[cbor(n(2), default)]
    pub by_order: bool,
    /// Address of the predecessor's memory as it is at the jump: a number of ranges, then first byte and first byte behind of
    /// each, 64 bits all. It is written when nobody allocates any more, and holds instead of the record's list.
    #[n(3)]
    pub chunks_at: u64,
}

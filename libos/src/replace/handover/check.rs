//! What must hold of a record besides its form.

use core::net::Ipv4Addr;
use core::ops::Range;

use super::{ChunkRange, Essentials, HandedCore, NeighbourRecord, NetworkRecord, PrivateRange};
use crate::memory::chunks::CHUNK_BYTES;
use crate::state::records;

/// What a CBOR reader cannot see. Each of these would be a panic, a hang or a wild write somewhere.
pub(super) fn check(essentials: &Essentials) -> Result<(), &'static str> {
    let Essentials {
        generation,
        tsc_hz,
        apic_hz,
        pen,
        cores,
        ..
    } = essentials;
    ok((1..u32::MAX).contains(generation), "generation")?;
    ok(*tsc_hz > 0 && *apic_hz > 0, "clock frequency")?;
    let pen_end = pen.base.checked_add(pen.bytes);
    ok(
        pen.base > 0 && pen.base.is_multiple_of(4096) && pen.bytes > 0 && pen_end.is_some(),
        "pen",
    )?;
    // Few enough to compare each with all before it.
    let twice = |(index, core): (usize, &HandedCore)| {
        cores[..index].iter().any(|other| other.apic_id == core.apic_id)
    };
    ok(
        !cores.is_empty() && !cores.iter().enumerate().any(twice),
        "list of cores",
    )?;
    for ChunkRange { start, end } in &essentials.predecessor_chunks {
        ok(
            start < end && start.is_multiple_of(CHUNK_BYTES) && end.is_multiple_of(CHUNK_BYTES),
            "chunk",
        )?;
    }
    // From below: whole chunks, under a key, one behind the other, and none of them the predecessor's own.
    let mut free_from = 0;
    for private in &essentials.private {
        ok(
            private.key_id != 0 && from_below(private.start..private.end, &mut free_from, essentials),
            "private memory",
        )?;
    }
    let mut free_from = 0;
    for preserved in &essentials.preserved {
        let overlaps = |it: &PrivateRange| preserved.start < it.end && it.start < preserved.end;
        ok(
            from_below(preserved.start..preserved.end, &mut free_from, essentials)
                && !essentials.private.iter().any(overlaps),
            "preserved memory",
        )?;
    }
    ok(records::within_bounds(&essentials.state), "state")?;
    essentials.network.as_ref().map_or(Ok(()), check_network)
}

/// Whole chunks, none below `free_from`, which rises, and none of them the predecessor's own.
fn from_below(range: Range<u64>, free_from: &mut u64, essentials: &Essentials) -> bool {
    let whole = range.start.is_multiple_of(CHUNK_BYTES) && range.end.is_multiple_of(CHUNK_BYTES);
    let mut own = essentials.predecessor_chunks.iter();
    let overlaps = own.any(|own| range.start < own.end && own.start < range.end);
    let behind = *free_from <= range.start && range.start < range.end;
    *free_from = range.end;
    whole && behind && !overlaps
}

fn check_network(network: &NetworkRecord) -> Result<(), &'static str> {
    ok(is_host_mac(network.mac), "hardware address")?;
    ok(
        is_host(network.address) && network.prefix <= 32,
        "network address",
    )?;
    ok(network.gateway.is_none_or(is_host), "gateway")?;
    let of_a_host = |neighbour: &NeighbourRecord| is_host(neighbour.address) && is_host_mac(neighbour.mac);
    ok(network.dns.iter().all(|server| is_host(*server)), "name server")?;
    ok(network.neighbours.iter().all(of_a_host), "neighbour")
}

const fn ok(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

const fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
}

/// Bit 0 of the first byte marks a group (IEEE 802.3, 3.2.3).
fn is_host_mac(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

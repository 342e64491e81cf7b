//! What must hold of a record besides its form.

use core::net::Ipv4Addr;

use super::{ChunkRange, Essentials, HandedCore, NeighbourRecord, NetworkRecord};
use crate::memory::chunks::CHUNK_BYTES;

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
        let whole = private.start.is_multiple_of(CHUNK_BYTES) && private.end.is_multiple_of(CHUNK_BYTES);
        let overlaps = |own: &ChunkRange| private.start < own.end && own.start < private.end;
        ok(
            whole
                && private.key_id != 0
                && free_from <= private.start
                && private.start < private.end
                && !essentials.predecessor_chunks.iter().any(overlaps),
            "private memory",
        )?;
        free_from = private.end;
    }
    essentials.network.as_ref().map_or(Ok(()), check_network)
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

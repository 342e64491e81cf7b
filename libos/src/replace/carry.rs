//! Between the handover record and the running instar.

use alloc::vec::Vec;
use core::net::SocketAddrV4;

use super::handover::{
    self, ChunkRange, Essentials, HandedCore, Handover, KeptRecord, NeighbourRecord, NetworkRecord, PenPlace,
    Predecessor, Trial,
};
use super::machine::Machine;
use super::measured::Measurements;
use super::timeline::Timeline;
use crate::confidential::private;
use crate::cpu::pen::Pen;
use crate::cpu::time::{self, Calibration, Instant};
use crate::cpu::{current, stop};
use crate::memory::{self, chunks::Owner};
use crate::net::{Configuration, Kept, Neighbour, Origin};
use crate::start::identity;
use crate::state;
use crate::telemetry;

impl Essentials {
    /// The clock that all instars of the machine share.
    pub fn clock(&self) -> Calibration {
        Calibration {
            tsc_at_boot: self.tsc_at_boot,
            tsc_hz: self.tsc_hz,
            apic_hz: self.apic_hz,
            unix_at_boot: self.unix_at_boot,
        }
    }

    /// The network as the predecessor had it.
    pub fn network_configuration(&self) -> Option<Configuration> {
        let network = self.network.as_ref()?;
        let neighbours = network.neighbours.iter();
        Some(Configuration {
            mac: network.mac,
            address: network.address,
            prefix: network.prefix,
            gateway: network.gateway,
            dns: network.dns.clone(),
            origin: Origin::Handover,
            leased: network.leased,
            neighbours: neighbours
                .map(|near| Neighbour {
                    address: near.address,
                    mac: near.mac,
                })
                .collect(),
        })
    }

    /// The connections that the predecessor may come back to.
    pub fn kept(&self) -> Vec<Kept> {
        let kept = self.kept.iter().map(|record| Kept {
            peer: SocketAddrV4::new(record.address, record.remote_port),
            port: record.local_port,
        });
        kept.collect()
    }
}

impl Handover {
    /// What this instar tells its successor. `quiesce` is when it began to; the end is noted in the pen. `measurements` are
    /// those with the successor, `kept` the connections that are still open.
    pub(super) fn compose(
        machine: &Machine,
        timeline: &Timeline,
        quiesce: Instant,
        trial: Option<Trial>,
        measurements: &Measurements,
        kept: &[Kept],
    ) -> Self {
        let me = identity();
        let clock = time::calibration();
        let online = current::online();
        let core = |core: &current::Core| HandedCore {
            apic_id: core.apic().0,
            online: online.contains(core.id()),
        };
        let range = |range: core::ops::Range<u64>| ChunkRange {
            start: range.start,
            end: range.end,
        };
        let state = state::records();
        // What the application keeps comes first; undelivered telemetry takes what is left.
        let for_telemetry = handover::MAX_UNDELIVERED_BYTES - state::records::size(&state);
        let (undelivered, left_behind) = telemetry::undelivered(for_telemetry);
        let (replacements, history) =
            machine.with(|state| (state.replacements, state.history.past().to_vec()));
        Self {
            format: handover::FORMAT,
            generation: me.generation,
            predecessor: Predecessor {
                name: me.manifest().name.clone(),
                version: me.manifest().version.clone(),
                instance_id: me.instance_id,
            },
            unix_at_boot: clock.unix_at_boot,
            tsc_at_boot: clock.tsc_at_boot,
            tsc_hz: clock.tsc_hz,
            apic_hz: clock.apic_hz,
            floor: machine.floor(),
            host_id: machine.host_id().into(),
            network: machine.network.configuration().map(network),
            pen: PenPlace {
                base: stop::pen().map_or(0, Pen::address),
                bytes: Pen::bytes(current::all().len()),
                version: Pen::VERSION,
            },
            cores: current::all().iter().map(core).collect(),
            predecessor_chunks: memory::ranges_of(Owner::Own).into_iter().map(range).collect(),
            timeline: timeline.clone(),
            quiesce_ns: quiesce.0,
            undelivered,
            left_behind,
            replacements,
            trial,
            private: private::to_hand_over(),
            state,
            preserved: state::preserved::to_hand_over(),
            measurements: measurements.clone(),
            history,
            kept: kept.iter().map(connection).collect(),
        }
    }
}

fn connection(kept: &Kept) -> KeptRecord {
    KeptRecord {
        address: *kept.peer.ip(),
        remote_port: kept.peer.port(),
        local_port: kept.port,
    }
}

fn network(configuration: Configuration) -> NetworkRecord {
    let near = configuration.neighbours.iter();
    NetworkRecord {
        mac: configuration.mac,
        address: configuration.address,
        prefix: configuration.prefix,
        gateway: configuration.gateway,
        neighbours: near
            .map(|near| NeighbourRecord {
                address: near.address,
                mac: near.mac,
            })
            .collect(),
        dns: configuration.dns,
        leased: configuration.leased,
    }
}

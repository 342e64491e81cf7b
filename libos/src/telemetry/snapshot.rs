//! The machine in numbers: gathers them for [`metrics`], and sends them or hands them to whoever asks.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use log::warn;

use super::counters::Counters;
use super::model::Family;
#[cfg(feature = "otlp")]
use super::{
    Signal, otlp,
    percent::hex,
    resource::set_measurement,
    sink::{self, Sink},
};
use super::{flushes, instruments, metrics};
use crate::confidential::{self, private};
use crate::cpu::{self, current, machine_check, time};
use crate::device::network;
use crate::memory;
use crate::replace::machine::Machine;

/// Queues the machine's numbers.
#[cfg(feature = "otlp")]
pub(super) fn queue_metrics(machine: &Machine) {
    sink::with(|sink| queue(machine, sink));
}

#[cfg(feature = "otlp")]
fn queue(machine: &Machine, sink: &mut Sink) {
    set_measurement(&mut sink.resource, &hex(&machine.measurement().0));
    let now = time::now();
    let (own, applications) = gather(machine, sink.exporter.counters());
    let scopes: [(&str, &[Family]); 2] = [("instar", &own), ("application", &applications)];
    let body = otlp::body(&sink.resource, time::unix(now), &scopes);
    sink.exporter.push(Signal::Metrics, body);
}

/// The library OS's metrics and the application's. `counters` are the exporter's.
pub fn gather(machine: &Machine, counters: Counters) -> (Vec<Family>, Vec<Family>) {
    let snapshot = snapshot(machine, counters);
    let applications = instruments::APPLICATION.families(snapshot.start_unix_ns);
    if let Some(refused) = instruments::APPLICATION.newly_refused() {
        warn!(
            "{refused} metrics of the application are not told: there are more than {}, or two have one name",
            instruments::MAX_INSTRUMENTS
        );
    }
    (metrics::families(&snapshot), applications)
}

fn snapshot(machine: &Machine, telemetry: Counters) -> metrics::Snapshot {
    let now = time::now();
    let entered = machine.entered();
    let counts = memory::counts();
    let (heap_bytes, heap_used) = memory::heap::usage();
    let stats = machine.network().stats();
    let frames = stats.frames;
    let (committed, failed, rolled_back) = machine.replacements();
    let private = private::summary();
    let tdx = confidential::platform().host().and_then(|host| host.tdx);
    metrics::Snapshot {
        start_unix_ns: time::unix(entered),
        boot_unix_ns: time::unix(time::Instant(0)),
        uptime_ns: (now - entered).as_nanos() as u64,
        chunk_bytes: memory::CHUNK,
        chunks: metrics::Chunks {
            free: counts.free,
            own: counts.own,
            staged: counts.staged,
            predecessor: counts.predecessor,
            private: counts.private,
            preserved: counts.preserved,
        },
        private_pages: metrics::PrivatePages {
            module: private.module,
            td: private.td,
        },
        heap_bytes,
        heap_used,
        cores: cores(),
        network: metrics::Network {
            rx_bytes: frames.rx_bytes,
            tx_bytes: frames.tx_bytes,
            rx_packets: frames.rx_frames,
            tx_packets: frames.tx_frames,
            rx_drops: frames.rx_dropped,
            tx_drops: frames.tx_dropped,
            rx_errors: network::ERRORS.received.load(Ordering::Relaxed),
            tx_errors: network::ERRORS.transmitted.load(Ordering::Relaxed),
        },
        tcp_states: stats.tcp_states,
        keyids: tdx.map(|tdx| metrics::KeyIds {
            mktme: tdx.mktme_keyids.into(),
            tdx: tdx.tdx_keyids.into(),
        }),
        replacements: metrics::Replacements {
            committed,
            rolled_back,
            failed,
        },
        security_floor: machine.floor(),
        machine_checks: machine_check::count(),
        nmis: cpu::nmis(),
        blackout_ns: machine.last_blackout_ns(),
        flushes: flushes::read(),
        dropped_records: super::sink::dropped_records(),
        telemetry,
    }
}

fn cores() -> Vec<metrics::Core> {
    let cores = current::online();
    let cores = cores.iter().filter_map(current::get).map(|core| {
        let load = &core.queue.load;
        let times = load.times(cpu::registers::tsc);
        metrics::Core {
            number: core.id().index() as u64,
            busy_ns: time::span(times.busy).as_nanos() as u64,
            idle_ns: time::span(times.idle).as_nanos() as u64,
            tasks: load.tasks(),
        }
    });
    cores.collect()
}

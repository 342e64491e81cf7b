//! The machine in numbers: gathers them for [`metrics`].

use super::percent::hex;
use super::resource::set_measurement;
use super::sink::{self, Sink};
use super::{Signal, metrics};
use crate::confidential::private;
use crate::cpu::{self, current, machine_check, time};
use crate::memory;
use crate::replace::machine::Machine;

/// Queues the machine's numbers.
pub(super) fn queue_metrics(machine: &Machine) {
    sink::with(|sink| queue(machine, sink));
}

fn queue(machine: &Machine, sink: &mut Sink) {
    let now = time::now();
    let counts = memory::counts();
    let (heap_bytes, heap_used) = memory::heap::usage();
    let frames = machine.network().stats().frames;
    let (committed, failed, rolled_back) = machine.replacements();
    set_measurement(&mut sink.resource, &hex(&machine.measurement().0));
    let private = private::summary();
    let snapshot = metrics::Snapshot {
        now_unix_ns: time::unix(now),
        start_unix_ns: time::unix(sink.entered),
        boot_unix_ns: time::unix(time::Instant(0)),
        uptime_ns: (now - sink.entered).as_nanos() as u64,
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
        cores_online: current::online().len() as u64,
        network: metrics::Network {
            rx_bytes: frames.rx_bytes,
            tx_bytes: frames.tx_bytes,
            rx_packets: frames.rx_frames,
            tx_packets: frames.tx_frames,
            rx_drops: frames.rx_dropped,
            tx_drops: frames.tx_dropped,
        },
        replacements: metrics::Replacements {
            committed,
            rolled_back,
            failed,
        },
        security_floor: machine.floor(),
        machine_checks: machine_check::count(),
        nmis: cpu::nmis(),
        dropped_records: sink::dropped_records(),
        telemetry: sink.exporter.counters(),
    };
    let body = metrics::body(&sink.resource, &snapshot);
    sink.exporter.push(Signal::Metrics, body);
}

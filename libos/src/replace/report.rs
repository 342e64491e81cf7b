//! Fills in what `/v1/status` says.

use alloc::string::String;

use super::machine::{Activity, Machine};
use super::stage::Staged;
use super::status::{
    self, Confidential, Cores, Flush, Image, Measurement, MeasurementsAnswer, Memory, Network, Origin,
    PrivateMemory, State, Status, Telemetry,
};
use crate::confidential::{self, private};
use crate::cpu::{current, time};
use crate::memory;
use crate::net::{self, Configuration};
use crate::start::identity;
use crate::telemetry::{self, resource, sink};

pub(super) fn staged(staged: &Staged) -> status::Staged<'_> {
    status::Staged {
        name: &staged.manifest.name,
        version: &staged.manifest.version,
        security_version: staged.manifest.security_version,
        elf_bytes: staged.manifest.elf.size,
        sha256: &staged.manifest.elf.sha256,
    }
}

/// The text of `GET /v1/status`.
pub(super) fn status(machine: &Machine) -> String {
    let me = identity();
    let now = time::now();
    let (heap_bytes, heap_used) = memory::heap::usage();
    let (endpoint, counters) = (sink::endpoint(), sink::counters());
    let syslog = telemetry::syslog_status();
    let configuration = machine.network.configuration();
    let private = private::summary();
    machine.with(|state| {
        status::json(&Status {
            image: Image {
                name: &me.manifest().name,
                version: &me.manifest().version,
                revision: &me.manifest().revision,
                security_version: me.manifest().security_version,
                sha256: &me.manifest().elf.sha256,
            },
            generation: me.generation,
            floor: machine.floor(),
            host_id: machine.host_id(),
            instance_id: &resource::uuid_text(&me.instance_id),
            state: match (state.activity, &state.staged) {
                (Activity::Serving, None) => State::Serving,
                (Activity::Serving, Some(_)) => State::Staged,
                (Activity::Receiving, _) => State::Receiving,
                (Activity::Replacing, _) => State::Replacing,
            },
            nonce: &state.nonce.hex(),
            uptime_ns: (now - machine.entered).as_nanos() as u64,
            machine_ns: now.0,
            cores: Cores {
                present: current::all().len(),
                online: current::online().len(),
            },
            memory: Memory::new(memory::counts(), heap_bytes, heap_used),
            private_memory: PrivateMemory {
                records: private.records,
                pages: private.pages,
                to_hand_over: private.to_hand_over,
            },
            flush: Flush::new(machine.options.flush, machine.flush_decision()),
            confidential: Confidential::new(confidential::platform(), confidential::tdx_module()),
            measurement: Measurement::new(&state.measurements),
            network: configuration.as_ref().map(network),
            telemetry: Telemetry {
                endpoint: endpoint.as_deref(),
                queued: counters.queued,
                delivered: counters.delivered.iter().sum(),
                dropped: counters.dropped.iter().sum::<u64>() + counters.rejected.iter().sum::<u64>(),
                syslog,
            },
            staged: state.staged.as_ref().map(staged),
            last_replacement: state.last.as_ref().map(|timeline| timeline.last_replacement()),
            history: state.history.view(),
        })
    })
}

/// The text of `GET /v1/measurements`.
pub(super) fn measurements(machine: &Machine) -> String {
    machine.with(|state| status::json(&MeasurementsAnswer::new(&state.measurements)))
}

fn network(configuration: &Configuration) -> Network<'_> {
    Network {
        mac: configuration.mac,
        address: (configuration.address, configuration.prefix),
        gateway: configuration.gateway,
        dns: &configuration.dns,
        origin: match configuration.origin {
            net::Origin::Dhcp => Origin::Dhcp,
            net::Origin::Static => Origin::Static,
            net::Origin::Handover => Origin::Handover,
        },
    }
}

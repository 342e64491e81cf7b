//! The trace of a replacement is told by the instar that is left at its end; while it is under way, log records carry its ids.

use alloc::string::String;
use alloc::vec::Vec;

use spin::Mutex;

use super::percent::hex;
use super::resource::{Identity, resource, uuid_v4};
use super::sink::{self, Sink, WORK};
use super::snapshot::queue_metrics;
use super::span::{self, Context};
use super::story::{self, Facts};
use super::{Resource, Signal};
use crate::confidential;
use crate::cpu::time::{self, Instant};
use crate::cpu::{current, random, stop};
use crate::replace::handover::{Handover, Predecessor};
use crate::replace::machine::Machine;
use crate::replace::successor::record_first_answer;
use crate::replace::timeline::Timeline;
use crate::start::identity;

/// The root span of the replacement that is under way.
static UNDER_WAY: Mutex<Option<Context>> = Mutex::new(None);

/// A commit whose story has not been told: it may wait for the first answer.
static UNTOLD: Mutex<Option<Committed>> = Mutex::new(None);

struct Committed {
    predecessor: Predecessor,
    generation: u32,
    timeline: Timeline,
    network_up: Instant,
}

/// What is known of an image that gave the machine back, besides its story.
pub(crate) struct Successor {
    pub name: String,
    pub version: String,
    pub elf_bytes: u64,
}

/// The replacement that a log record belongs to which is made now.
pub(crate) fn under_way() -> Option<Context> {
    *UNDER_WAY.lock()
}

/// Log records belong to this replacement from now on.
pub(crate) fn begins(timeline: &Timeline) {
    *UNDER_WAY.lock() = Some(timeline.root());
}

/// A replacement ended; unless another has begun since, log records belong to none any more.
fn ended(timeline: &Timeline) {
    let mut under_way = UNDER_WAY.lock();
    if *under_way == Some(timeline.root()) {
        *under_way = None;
    }
}

/// An order was accepted. What is untold goes to the successor with all that the collector has not taken; and the collector
/// hears of the order before the blackout, by log records, in case that nobody is left to tell more.
pub(crate) fn replacement_begins(machine: &Machine) {
    tell_committed(machine);
    sink::queue_logs();
    queue_metrics(machine);
    WORK.notify();
}

/// A replacement ended before the jump, or the successor gave the machine back: why is in the timeline, and `kind` names it.
pub(crate) fn replacement_failed(
    machine: &Machine,
    timeline: &Timeline,
    successor: &Successor,
    kind: &'static str,
) {
    let facts = facts(machine, successor.elf_bytes, Some(kind));
    let me = identity().generation;
    queue(|sink| {
        let mut ours = story::parts(timeline, me, &facts);
        ours.push(story::root(timeline, &facts));
        let theirs = story::parts(timeline, me + 1, &facts);
        let its = Instar {
            name: &successor.name,
            version: &successor.version,
            // One that ended before it had an id never used another.
            instance_id: stop::pen()
                .and_then(|pen| pen.instance())
                .unwrap_or_else(|| uuid_v4(random::bytes())),
            generation: me + 1,
            measurement: &hex(&machine.measurement().0),
        };
        body(&[(&of(sink, &its), &theirs), (&sink.resource, &ours)])
    });
    ended(timeline);
    queue_metrics(machine);
}

/// A replacement was committed. Its story is told when somebody has been answered, or is not waited for any more, or when the
/// next one begins: [`tell_committed`].
pub(crate) fn committed(predecessor: &Handover, timeline: &Timeline, network_up: Instant) {
    *UNTOLD.lock() = Some(Committed {
        predecessor: predecessor.predecessor.clone(),
        generation: predecessor.generation,
        timeline: timeline.clone(),
        network_up,
    });
}

/// Tells of the commit that has not been told of.
pub(crate) fn tell_committed(machine: &Machine) {
    let Some(mut committed) = UNTOLD.lock().take() else {
        return;
    };
    record_first_answer(&mut committed.timeline, machine, committed.network_up);
    let Committed {
        predecessor,
        generation,
        timeline,
        ..
    } = committed;
    let facts = facts(machine, identity().manifest().elf.size, None);
    queue(|sink| {
        let its = Instar {
            name: &predecessor.name,
            version: &predecessor.version,
            instance_id: predecessor.instance_id,
            generation,
            measurement: "",
        };
        let theirs = story::parts(&timeline, generation, &facts);
        let mut ours = story::parts(&timeline, identity().generation, &facts);
        ours.push(story::root(&timeline, &facts));
        body(&[(&of(sink, &its), &theirs), (&sink.resource, &ours)])
    });
    ended(&timeline);
    queue_metrics(machine);
}

fn facts<'a>(machine: &Machine, elf_bytes: u64, error: Option<&'a str>) -> Facts<'a> {
    Facts {
        flush_policy: machine.options().flush.name(),
        cores: current::all().len() as u64,
        elf_bytes,
        error,
    }
}

/// An instar that cannot tell itself.
struct Instar<'a> {
    name: &'a str,
    version: &'a str,
    instance_id: [u8; 16],
    generation: u32,
    measurement: &'a str,
}

fn of(sink: &Sink, instar: &Instar) -> Resource {
    resource(&Identity {
        service_name: &sink.service_name,
        image_name: instar.name,
        image_version: instar.version,
        revision: "",
        instance_id: instar.instance_id,
        generation: instar.generation.into(),
        host_id: &sink.host_id,
        measurement: instar.measurement,
        platform: confidential::platform(),
        tdx_module: confidential::tdx_module(),
        attributes: &sink.attributes,
    })
}

fn body(instars: &[(&Resource, &[span::Span])]) -> Vec<u8> {
    span::body(time::unix(Instant(0)), instars)
}

fn queue(encode: impl FnOnce(&Sink) -> Vec<u8>) {
    sink::with(|sink| {
        let body = encode(sink);
        sink.exporter.push(Signal::Traces, body);
    });
    WORK.notify();
}

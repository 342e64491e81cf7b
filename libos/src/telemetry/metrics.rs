//! The library OS's metrics: from one plain snapshot of numbers to families of points.
//!
//! Sums are cumulative. Their start is the moment the instar was entered, so that a receiver sees the counters begin
//! again after a replacement (OpenTelemetry, metrics data model, "Resets and gaps"); a predecessor that gets the machine back
//! counts on, from the start that it had. What is kept for the machine, and not for an instar, starts with the cold boot.

use alloc::vec::Vec;

use super::Signal;
use super::counters::Counters;
use super::model::{Distribution, Family, Label, Point, Value};
use super::names::{self, Attribute, Metric};
use crate::net::TCP_STATES;

/// Chunks of memory by what they are used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chunks {
    /// Usable for anything.
    pub free: u64,
    /// This instar's.
    pub own: u64,
    /// A staged successor's.
    pub staged: u64,
    /// The predecessor's, until commit.
    pub predecessor: u64,
    /// The TDX module's and TDs'.
    pub private: u64,
    /// What the application keeps for its successor too.
    pub preserved: u64,
}

/// Private pages by whom they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PrivatePages {
    /// The TDX module's.
    pub module: u64,
    /// TDs'.
    pub td: u64,
}

/// What the network device moved since this instar was entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Network {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes transmitted.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Received packets dropped for want of room.
    pub rx_drops: u64,
    /// Packets that could not be transmitted for want of room.
    pub tx_drops: u64,
    /// Frames that came damaged or too long.
    pub rx_errors: u64,
    /// Frames that the card did not take.
    pub tx_errors: u64,
}

/// What a core has done since it came to this instar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Core {
    /// Its number.
    pub number: u64,
    /// Nanoseconds at work.
    pub busy_ns: u64,
    /// Nanoseconds halted.
    pub idle_ns: u64,
    /// Tasks on it.
    pub tasks: u64,
}

/// KeyIDs, as the BIOS has divided them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyIds {
    /// For the host and ordinary guests.
    pub mktme: u64,
    /// For TDX.
    pub tdx: u64,
}

/// Replacements by how they ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replacements {
    /// The successor took over: since the cold boot.
    pub committed: u64,
    /// This instar got the machine back.
    pub rolled_back: u64,
    /// Failed before the jump, in this instar.
    pub failed: u64,
}

/// The machine in numbers, at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// When this instar was entered, in Unix nanoseconds.
    pub start_unix_ns: u64,
    /// When the machine booted cold, in Unix nanoseconds: since then replacements are counted.
    pub boot_unix_ns: u64,
    /// Nanoseconds since this instar was entered.
    pub uptime_ns: u64,
    /// Size of a chunk in bytes.
    pub chunk_bytes: u64,
    /// Chunks by state.
    pub chunks: Chunks,
    /// Private pages.
    pub private_pages: PrivatePages,
    /// The heap's size in bytes.
    pub heap_bytes: u64,
    /// What of the heap is used, in bytes.
    pub heap_used: u64,
    /// Cores that run.
    pub cores: Vec<Core>,
    /// The network device.
    pub network: Network,
    /// TCP sockets by state, in the order of [`TCP_STATES`].
    pub tcp_states: [u64; TCP_STATES.len()],
    /// KeyIDs, where there is such a register.
    pub keyids: Option<KeyIds>,
    /// Replacements by outcome.
    pub replacements: Replacements,
    /// Images of a lower security version are refused.
    pub security_floor: u64,
    /// Machine-check errors since cold boot.
    pub machine_checks: u64,
    /// NMIs since cold boot.
    pub nmis: u64,
    /// Log records dropped before they became part of a request.
    pub dropped_records: u64,
    /// How long nobody answered in the newest committed replacement, in nanoseconds; `None`: there was none, or it is not
    /// known yet.
    pub blackout_ns: Option<u64>,
    /// Durations of flushes in seconds: in a stop, and before one.
    pub flushes: [Distribution; 2],
    /// The exporter's own.
    pub telemetry: Counters,
}

/// The metrics of [`names::METRICS`], as far as there are values.
pub fn families(snapshot: &Snapshot) -> Vec<Family> {
    let mut builder = Builder {
        snapshot,
        families: Vec::with_capacity(names::METRICS.len()),
    };
    builder.uptime();
    builder.cores();
    builder.memory();
    builder.network();
    builder.number(names::SECURITY_FLOOR, snapshot.security_floor);
    builder.replacements();
    builder.since_cold_boot(names::MACHINE_CHECKS, snapshot.machine_checks);
    builder.since_cold_boot(names::NMIS, snapshot.nmis);
    builder.telemetry();
    builder.families
}

struct Builder<'a> {
    snapshot: &'a Snapshot,
    families: Vec<Family>,
}

impl Builder<'_> {
    fn uptime(&mut self) {
        let uptime = seconds(self.snapshot.uptime_ns);
        self.family(names::UPTIME, [([None, None], uptime)]);
    }

    fn cores(&mut self) {
        let snapshot = self.snapshot;
        let cores = || snapshot.cores.iter();
        let of = |core: &Core| Some((names::CORE, Label::Number(core.number)));
        let in_mode = |mode| Some((names::CPU_MODE, Label::Text(mode)));
        let times = cores().flat_map(|core| {
            [("system", core.busy_ns), ("idle", core.idle_ns)]
                .map(|(mode, ns)| ([of(core), in_mode(mode)], seconds(ns)))
        });
        self.family(names::CPU_TIME, times);
        self.number(names::CPU_COUNT, snapshot.cores.len() as u64);
        self.family(
            names::TASKS,
            cores().map(|core| ([of(core), None], core.tasks.into())),
        );
    }

    fn memory(&mut self) {
        let Snapshot {
            chunks, chunk_bytes, ..
        } = *self.snapshot;
        let Chunks {
            free,
            own,
            staged,
            predecessor,
            private,
            preserved,
        } = chunks;
        let used = own + staged + predecessor + private + preserved;
        let bytes = |chunks: u64| chunks.saturating_mul(chunk_bytes);
        let state = names::MEMORY_STATE;
        self.by(
            names::MEMORY_USAGE,
            state,
            &[("free", bytes(free)), ("used", bytes(used))],
        );
        self.number(names::MEMORY_LIMIT, bytes(free + used));
        let states = [
            ("free", free),
            ("own", own),
            ("staged", staged),
            ("predecessor", predecessor),
            ("private", private),
            ("preserved", preserved),
        ];
        self.by(names::CHUNKS, names::CHUNK_STATE, &states);
        let PrivatePages { module, td } = self.snapshot.private_pages;
        let purposes = [("module", module), ("td", td)];
        self.by(names::PRIVATE_PAGES, names::PRIVATE_PURPOSE, &purposes);
        if let Some(KeyIds { mktme, tdx }) = self.snapshot.keyids {
            self.by(
                names::KEYIDS,
                names::KEYID_KIND,
                &[("mktme", mktme), ("tdx", tdx)],
            );
        }
        self.number(names::HEAP_SIZE, self.snapshot.heap_bytes);
        self.number(names::HEAP_USAGE, self.snapshot.heap_used);
    }

    fn network(&mut self) {
        let network = self.snapshot.network;
        for (metric, receive, transmit) in [
            (names::NETWORK_IO, network.rx_bytes, network.tx_bytes),
            (names::NETWORK_PACKETS, network.rx_packets, network.tx_packets),
            (names::NETWORK_DROPS, network.rx_drops, network.tx_drops),
            (names::NETWORK_ERRORS, network.rx_errors, network.tx_errors),
        ] {
            self.by(
                metric,
                names::DIRECTION,
                &[("receive", receive), ("transmit", transmit)],
            );
        }
        let tcp = Some((names::TRANSPORT, Label::Text("tcp")));
        let states = TCP_STATES.iter().zip(self.snapshot.tcp_states);
        let states = states.map(|(state, count)| {
            let state = Some((names::CONNECTION_STATE, Label::Text(state)));
            ([tcp, state], count.into())
        });
        self.family(names::CONNECTIONS, states);
    }

    fn replacements(&mut self) {
        let Replacements {
            committed,
            rolled_back,
            failed,
        } = self.snapshot.replacements;
        let outcomes = [
            ("committed", committed),
            ("rolled-back", rolled_back),
            ("failed", failed),
        ];
        self.by(names::REPLACEMENTS, names::OUTCOME, &outcomes);
        // Only the committed ones are handed on: the first of the points.
        self.began_with_the_machine(1);
        if let Some(ns) = self.snapshot.blackout_ns {
            self.family(names::BLACKOUT, [([None, None], seconds(ns))]);
        }
        let moments = ["stop", "early"].iter().zip(&self.snapshot.flushes);
        let moments = moments.map(|(moment, durations)| {
            let moment = Some((names::FLUSH_MOMENT, Label::Text(moment)));
            ([moment, None], Value::Histogram(durations.clone()))
        });
        self.family(names::FLUSH_DURATION, moments);
    }

    fn since_cold_boot(&mut self, metric: Metric, number: u64) {
        self.number(metric, number);
        self.began_with_the_machine(1);
    }

    /// The first points of the last metric cross the jump: their start is the cold boot, not the instar's entry.
    fn began_with_the_machine(&mut self, points: usize) {
        let last = self.families.iter_mut().next_back();
        for point in last
            .into_iter()
            .flat_map(|family| &mut family.points)
            .take(points)
        {
            point.start_unix_ns = self.snapshot.boot_unix_ns;
        }
    }

    fn telemetry(&mut self) {
        let counters = self.snapshot.telemetry;
        let requests = [
            ("delivered", counters.delivered),
            ("rejected", counters.rejected),
            ("dropped", counters.dropped),
        ];
        self.by_signal(names::EXPORTS, names::RESULT, &requests);
        self.number(names::EXPORT_RETRIES, counters.retries);
        self.number(names::REJECTED_ITEMS, counters.rejected_items);
        self.number(names::DROPPED_RECORDS, self.snapshot.dropped_records);
        self.number(names::EXPORT_QUEUE, counters.queued_bytes);
        let cycles = [("encode", counters.encode_cycles), ("send", counters.send_cycles)];
        self.by_signal(names::EXPORT_CYCLES, names::STEP, &cycles);
    }

    /// Numbers by signal, and by one thing more.
    fn by_signal(&mut self, metric: Metric, attribute: Attribute, numbers: &[(&'static str, [u64; 3])]) {
        let points = Signal::ALL.into_iter().flat_map(|signal| {
            numbers.iter().map(move |(value, numbers)| {
                let signal_name = Some((names::SIGNAL, Label::Text(signal.name())));
                let value = Some((attribute, Label::Text(value)));
                ([signal_name, value], numbers[signal.index()].into())
            })
        });
        self.family(metric, points);
    }

    fn number(&mut self, metric: Metric, number: u64) {
        self.family(metric, [([None, None], number.into())]);
    }

    fn by(&mut self, metric: Metric, attribute: Attribute, numbers: &[(&'static str, u64)]) {
        let points = numbers
            .iter()
            .map(|(value, number)| ([Some((attribute, Label::Text(value))), None], (*number).into()));
        self.family(metric, points);
    }

    fn family(&mut self, metric: Metric, points: impl IntoIterator<Item = (Attributes, Value)>) {
        let points = points.into_iter().map(|(attributes, value)| Point {
            attributes,
            start_unix_ns: self.snapshot.start_unix_ns,
            value,
        });
        let points = points.collect();
        self.families.push(Family { metric, points });
    }
}

type Attributes = [Option<(Attribute, Label)>; 2];

fn seconds(ns: u64) -> Value {
    Value::Double(ns as f64 / 1e9)
}

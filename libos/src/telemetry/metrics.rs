//! Metrics (OTLP, `metrics.v1`): one request from one plain snapshot of numbers.
//!
//! Sums are cumulative. Their start is the moment the instar was entered, so that a receiver sees the counters begin
//! again after a replacement (metrics data model, "Resets and gaps").

use alloc::vec::Vec;
use prost::Message;

use super::Signal;
use super::exporter::Counters;
use super::names::{self, Attribute, Kind};
use super::proto::{self, Data, Gauge, KeyValue, Number, NumberDataPoint, Resource, Sum, signed};

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
}

/// Replacements since cold boot, by how they ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replacements {
    /// The successor took over.
    pub committed: u64,
    /// The predecessor got the machine back.
    pub rolled_back: u64,
    /// Failed before the jump.
    pub failed: u64,
}

/// The machine in numbers, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Now, in Unix nanoseconds.
    pub now_unix_ns: u64,
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
    pub cores_online: u64,
    /// The network device.
    pub network: Network,
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
    /// The exporter's own.
    pub telemetry: Counters,
}

/// The body of a metrics request: an `ExportMetricsServiceRequest` with the metrics of [`names::METRICS`].
pub fn body(resource: &Resource, snapshot: &Snapshot) -> Vec<u8> {
    let mut builder = Builder {
        snapshot,
        metrics: Vec::with_capacity(names::METRICS.len()),
    };
    builder.uptime();
    builder.memory();
    builder.network();
    builder.number(names::SECURITY_FLOOR, snapshot.security_floor);
    builder.replacements();
    builder.since_cold_boot(names::MACHINE_CHECKS, snapshot.machine_checks);
    builder.since_cold_boot(names::NMIS, snapshot.nmis);
    builder.telemetry();
    let scope_metrics = alloc::vec![proto::ScopeMetrics {
        scope: Some(proto::InstrumentationScope {
            name: "instar".into()
        }),
        metrics: builder.metrics,
    }];
    let resource_metrics = alloc::vec![proto::ResourceMetrics {
        resource: Some(resource.clone()),
        scope_metrics
    }];
    proto::MetricsRequest { resource_metrics }.encode_to_vec()
}

struct Builder<'a> {
    snapshot: &'a Snapshot,
    metrics: Vec<proto::Metric>,
}

impl Builder<'_> {
    fn uptime(&mut self) {
        let seconds = self.snapshot.uptime_ns as f64 / 1e9;
        let points = alloc::vec![self.point(Number::Double(seconds), &[])];
        self.metric(names::UPTIME, points);
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
        self.number(names::HEAP_SIZE, self.snapshot.heap_bytes);
        self.number(names::HEAP_USAGE, self.snapshot.heap_used);
        self.number(names::CPU_COUNT, self.snapshot.cores_online);
    }

    fn network(&mut self) {
        let network = self.snapshot.network;
        for (metric, receive, transmit) in [
            (names::NETWORK_IO, network.rx_bytes, network.tx_bytes),
            (names::NETWORK_PACKETS, network.rx_packets, network.tx_packets),
            (names::NETWORK_DROPS, network.rx_drops, network.tx_drops),
        ] {
            self.by(
                metric,
                names::DIRECTION,
                &[("receive", receive), ("transmit", transmit)],
            );
        }
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
        self.began_with_the_machine();
    }

    fn since_cold_boot(&mut self, metric: names::Metric, number: u64) {
        self.number(metric, number);
        self.began_with_the_machine();
    }

    /// The last metric crosses the jump: its start is the cold boot, not the instar's entry.
    fn began_with_the_machine(&mut self) {
        if let Some(proto::Metric {
            data: Some(Data::Sum(sum)),
            ..
        }) = self.metrics.last_mut()
        {
            for point in &mut sum.data_points {
                point.start_time_unix_nano = self.snapshot.boot_unix_ns;
            }
        }
    }

    fn telemetry(&mut self) {
        let counters = self.snapshot.telemetry;
        let mut points = Vec::with_capacity(9);
        for signal in Signal::ALL {
            for (result, counts) in [
                ("delivered", counters.delivered),
                ("rejected", counters.rejected),
                ("dropped", counters.dropped),
            ] {
                let attributes = [(names::SIGNAL, signal.name()), (names::RESULT, result)];
                points.push(self.point(Number::Int(signed(counts[signal.index()])), &attributes));
            }
        }
        self.metric(names::EXPORTS, points);
        self.number(names::EXPORT_RETRIES, counters.retries);
        self.number(names::REJECTED_ITEMS, counters.rejected_items);
        self.number(names::DROPPED_RECORDS, self.snapshot.dropped_records);
        self.number(names::EXPORT_QUEUE, counters.queued_bytes);
        let mut cycles = Vec::with_capacity(6);
        for signal in Signal::ALL {
            for (step, counts) in [("encode", counters.encode_cycles), ("send", counters.send_cycles)] {
                let attributes = [(names::SIGNAL, signal.name()), (names::STEP, step)];
                cycles.push(self.point(Number::Int(signed(counts[signal.index()])), &attributes));
            }
        }
        self.metric(names::EXPORT_CYCLES, cycles);
    }

    fn number(&mut self, metric: names::Metric, number: u64) {
        let points = alloc::vec![self.point(Number::Int(signed(number)), &[])];
        self.metric(metric, points);
    }

    fn by(&mut self, metric: names::Metric, attribute: Attribute, numbers: &[(&str, u64)]) {
        let point =
            |(value, number): &(&str, u64)| self.point(Number::Int(signed(*number)), &[(attribute, value)]);
        let points = numbers.iter().map(point).collect();
        self.metric(metric, points);
    }

    fn point(&self, number: Number, attributes: &[(Attribute, &str)]) -> NumberDataPoint {
        NumberDataPoint {
            start_time_unix_nano: self.snapshot.start_unix_ns,
            time_unix_nano: self.snapshot.now_unix_ns,
            value: Some(number),
            attributes: attributes
                .iter()
                .map(|(name, value)| KeyValue::new(*name, (*value).into()))
                .collect(),
        }
    }

    fn metric(&mut self, metric: names::Metric, data_points: Vec<NumberDataPoint>) {
        let sum = |data_points, is_monotonic| {
            Data::Sum(Sum {
                data_points,
                aggregation_temporality: proto::CUMULATIVE,
                is_monotonic,
            })
        };
        let data = Some(match metric.kind {
            Kind::Gauge => Data::Gauge(Gauge { data_points }),
            Kind::Counter => sum(data_points, true),
            Kind::UpDownCounter => sum(data_points, false),
        });
        self.metrics.push(proto::Metric {
            name: metric.name.into(),
            unit: metric.unit.into(),
            data,
        });
    }
}

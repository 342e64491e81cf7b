//! What the page and the terminal view show: machines and their upgrades, put together as items come in.
//!
//! Everything is a copy cut to size, with bounds of its own: what is shown does not go when metrics push older items out of
//! [`super::Received`], and a hostile sender costs no more than some dozen megabytes.

use super::received::{Item, Log, Point, Source, Span};
use super::upgrade::{Bar, Upgrade};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Most machines; the one not heard of for longest goes first.
pub(super) const MAX_MACHINES: usize = 128;
/// Most instars remembered of one machine.
pub(super) const MAX_GENERATIONS: usize = 32;
/// Most log records remembered of one machine.
pub(super) const MAX_LOGS: usize = 100;
/// Most traces; the oldest goes first.
pub(super) const MAX_TRACES: usize = 256;
/// Most spans of one trace: two flushes of a thousand cores, and the phases. What is beyond is left out.
pub(super) const MAX_BARS_OF_ONE: usize = 4096;
/// Most spans of all traces.
pub(super) const MAX_BARS: usize = 32 << 10;
/// The longest text kept, in bytes.
const MAX_TEXT: usize = 1024;
/// The longest name kept, in bytes.
const MAX_NAME: usize = 128;

/// Attributes of the resource that say what a machine is.
const FACTS: &[&str] = &[
    "instar.platform.role",
    "instar.tdx.keyids",
    "instar.tdx.first_keyid",
    "instar.tdx.module",
    "instar.mktme.keyids",
    "instar.sme",
    "instar.platform.partial_write_erratum",
    "vcs.ref.head.revision",
];

/// The metrics that are shown, by the beginning of their names.
const NUMBERS: &[&str] = &[
    "system.uptime",
    "system.memory.",
    "system.cpu.logical.count",
    "system.network.packet.dropped",
    "instar.telemetry.",
    "instar.replacements",
    "instar.private.pages",
    "instar.machine_checks",
    "instar.security_floor",
];

/// Most streams of numbers remembered of one machine.
const MAX_NUMBERS: usize = 64;

/// All that is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    /// One more with each change.
    pub revision: u64,
    pub machines: Vec<Arc<Machine>>,
    traces: VecDeque<Arc<Bag>>,
    /// Spans in all of them.
    bars: usize,
    next_key: u32,
}

/// A machine, by its `host.id`.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    /// Names it in addresses; never used again for another.
    pub key: u32,
    pub host: String,
    /// Of its instars the one that runs, as far as it has told: see [`Machine::heard_at`].
    pub running: Generation,
    /// When it was last heard of, in Unix milliseconds of this computer.
    pub last_seen_ms: u64,
    pub facts: BTreeMap<&'static str, String>,
    /// Oldest first.
    pub generations: VecDeque<Generation>,
    pub logs: VecDeque<Line>,
    /// By metric and attributes.
    pub numbers: BTreeMap<String, Number>,
    /// The machine's own time of the newest log record or point. What waited in a queue, also a predecessor's, comes
    /// late, and says nothing about who runs now.
    heard_at: u64,
}

/// An instar.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Generation {
    pub instance: String,
    pub service: String,
    pub version: String,
    pub generation: Option<u64>,
    /// The measured chain, in hexadecimal digits, if it was told.
    pub measurement: String,
    pub first_seen_ms: u64,
}

/// A log record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    pub time_ms: u64,
    pub generation: Option<u64>,
    pub severity: String,
    pub target: String,
    pub message: String,
}

/// The newest point of a metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Number {
    pub metric: String,
    pub unit: String,
    /// The attributes' values, with commas between.
    pub of: String,
    pub value: f64,
}

/// The spans of one machine in one trace.
#[derive(Clone, Debug)]
struct Bag {
    trace_id: String,
    host: String,
    service: String,
    bars: BTreeMap<u64, Bar>,
}

impl Fleet {
    /// Takes an item in that came at `now_ms`.
    pub fn take(&mut self, item: &Item, now_ms: u64) {
        self.revision += 1;
        let source = item.source();
        let machine = self.machine(source, now_ms);
        machine.meet(source, now_ms);
        match item {
            Item::Log(log) => {
                machine.hear(source, log.time_ns);
                machine.log(log);
            }
            Item::Point(point) => {
                machine.hear(source, point.time_ns);
                machine.number(point);
            }
            Item::Span(span) => {
                let host = machine.host.clone();
                self.span(host, span);
            }
        }
    }

    /// All upgrades, oldest first.
    pub fn upgrades(&self) -> Vec<Upgrade> {
        let mut upgrades: Vec<Upgrade> = self
            .traces
            .iter()
            .flat_map(|bag| Upgrade::all(&bag.trace_id, &bag.host, &bag.service, &bag.bars))
            .collect();
        upgrades.sort_by(|a, b| a.start_ms.cmp(&b.start_ms).then_with(|| a.id.cmp(&b.id)));
        upgrades
    }

    /// The upgrade with this id.
    pub fn upgrade(&self, id: &str) -> Option<Upgrade> {
        let bags = self.traces.iter().filter(|bag| id.starts_with(&bag.trace_id));
        bags.flat_map(|bag| Upgrade::all(&bag.trace_id, &bag.host, &bag.service, &bag.bars))
            .find(|upgrade| upgrade.id == id)
    }

    fn machine(&mut self, source: &Source, now_ms: u64) -> &mut Machine {
        let host = cut(
            [&source.host, &source.instance, &source.service]
                .into_iter()
                .find(|name| !name.is_empty())
                .map_or("unnamed", |name| name),
            MAX_NAME,
        );
        let index = match self.machines.iter().position(|machine| machine.host == host) {
            Some(index) => index,
            None => {
                if self.machines.len() >= MAX_MACHINES {
                    let oldest =
                        (0..self.machines.len()).min_by_key(|index| self.machines[*index].last_seen_ms);
                    self.machines.remove(oldest.unwrap_or(0));
                }
                self.next_key += 1;
                self.machines.push(Arc::new(Machine {
                    key: self.next_key,
                    host,
                    ..Machine::default()
                }));
                self.machines.len() - 1
            }
        };
        let machine = Arc::make_mut(&mut self.machines[index]);
        machine.last_seen_ms = now_ms;
        machine
    }

    fn span(&mut self, host: String, span: &Span) {
        // Only what an instar says is an upgrade's part.
        if span.source.generation.is_none() {
            return;
        }
        let Some(bar) = Bar::of(span) else { return };
        let of_this = |bag: &Arc<Bag>| bag.trace_id == span.trace_id && bag.host == host;
        let bag = match self.traces.iter().rposition(of_this) {
            Some(index) => &mut self.traces[index],
            None => {
                self.traces.push_back(Arc::new(Bag {
                    trace_id: span.trace_id.clone(),
                    host,
                    service: String::new(),
                    bars: BTreeMap::new(),
                }));
                let last = self.traces.len() - 1;
                &mut self.traces[last]
            }
        };
        let bag = Arc::make_mut(bag);
        // The service is named by the instar that is replaced, whoever reports first.
        if bag.bars.values().all(|known| known.generation > bar.generation) {
            bag.service = cut(&span.source.service, MAX_NAME);
        }
        if bag.bars.len() < MAX_BARS_OF_ONE && bag.bars.insert(bar.id, bar).is_none() {
            self.bars += 1;
        }
        while (self.traces.len() > MAX_TRACES || self.bars > MAX_BARS)
            && let Some(oldest) = self.traces.pop_front()
        {
            self.bars -= oldest.bars.len();
        }
    }
}

impl Machine {
    /// Remembers who spoke.
    fn meet(&mut self, source: &Source, now_ms: u64) {
        let told = source
            .attributes
            .get("instar.measurement")
            .and_then(Value::as_str);
        let measurement = cut(told.unwrap_or_default(), MAX_NAME);
        let instance = instance(source);
        let known = self
            .generations
            .iter_mut()
            .find(|known| known.instance == instance);
        if let Some(known) = known {
            if !measurement.is_empty() && known.measurement != measurement {
                known.measurement.clone_from(&measurement);
                if self.running.instance == known.instance {
                    self.running.measurement = measurement;
                }
            }
            return;
        }
        let generation = Generation {
            instance,
            service: cut(&source.service, MAX_NAME),
            version: cut(&source.version, MAX_NAME),
            generation: source.generation,
            measurement,
            first_seen_ms: now_ms,
        };
        // After a cold boot the machine's clock may have been set back.
        if source.generation == Some(1) {
            self.heard_at = 0;
        }
        if self.generations.is_empty() {
            self.running = generation.clone();
        }
        self.generations.push_back(generation);
        if self.generations.len() > MAX_GENERATIONS {
            self.generations.pop_front();
        }
    }

    /// Whoever speaks of the latest moment is the one that runs.
    fn hear(&mut self, source: &Source, time_ns: u64) {
        if time_ns < self.heard_at {
            return;
        }
        self.heard_at = time_ns;
        let instance = instance(source);
        if self.running.instance != instance
            && let Some(known) = self.generations.iter().find(|known| known.instance == instance)
        {
            self.running = known.clone();
        }
        for name in FACTS {
            if let Some(value) = source.attributes.get(*name) {
                self.facts.insert(name, text_of(value, MAX_NAME));
            }
        }
    }

    fn log(&mut self, log: &Log) {
        let line = Line {
            time_ms: log.time_ns / 1_000_000,
            generation: log.source.generation,
            severity: cut(&log.severity, 16),
            target: cut(&log.target, MAX_NAME),
            message: cut(&log.message, MAX_TEXT),
        };
        // Delivered at least once: the same line may come again.
        if self.logs.contains(&line) {
            return;
        }
        let behind = self.logs.iter().rposition(|other| other.time_ms <= line.time_ms);
        self.logs.insert(behind.map_or(0, |index| index + 1), line);
        if self.logs.len() > MAX_LOGS {
            self.logs.pop_front();
        }
    }

    fn number(&mut self, point: &Point) {
        let shown = NUMBERS.iter().any(|name| point.metric.starts_with(name));
        let (Some(value), true) = (point.value.as_f64(), shown) else {
            return;
        };
        let values: Vec<_> = point
            .attributes
            .values()
            .take(4)
            .map(|value| text_of(value, 64))
            .collect();
        let number = Number {
            metric: cut(&point.metric, MAX_NAME),
            unit: cut(&point.unit, 32),
            of: values.join(", "),
            value,
        };
        let key = format!("{} {}", number.metric, number.of);
        if self.numbers.len() < MAX_NUMBERS || self.numbers.contains_key(&key) {
            self.numbers.insert(key, number);
        }
    }
}

/// Which instar speaks. One that never spoke itself is told of by another, perhaps without its id.
pub(super) fn instance(source: &Source) -> String {
    match source.instance.as_str() {
        "" => cut(&format!("{} {:?}", source.version, source.generation), MAX_NAME),
        instance => cut(instance, MAX_NAME),
    }
}

/// The text, or as much of its beginning as fits, with an ellipsis.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or(0)])
}

/// A value as text, cut.
pub(super) fn text_of(value: &Value, bytes: usize) -> String {
    match value {
        Value::String(text) => cut(text, bytes),
        other => cut(&other.to_string(), bytes),
    }
}

//! The witness's log, and what it proves.
//!
//! The log comes from the TCG plugin in `tests/witness`: one line for each WBINVD, and for the three marks of
//! `docs/interfaces.md`. A replacement is what lies between the last order mark and the enter mark that follows it; the
//! flushes that count come after the stop mark, if there is one.
//! Flushes of the firmware come before the first order, and are nobody's business.

use std::fmt;

mod plugin;

pub use plugin::Witness;

/// What an instruction was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A core wrote back and invalidated its caches.
    Wbinvd,
    /// A core wrote back its caches but kept the lines: not a flush.
    Wbnoinvd,
    /// An order was accepted.
    Order,
    /// An image began to stop its cores.
    Stop,
    /// An image's first instruction.
    Enter,
}

/// One executed instruction. Its place in [`Log::events`] is its place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts from 0 over all cores.
    pub sequence: u64,
    /// What it was.
    pub kind: Kind,
    /// The core that executed it.
    pub vcpu: u32,
    /// Where it stands.
    pub address: u64,
}

/// A whole log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How many cores the machine had.
    pub vcpus: u32,
    /// In the order of execution.
    pub events: Vec<Event>,
}

/// Why a log is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// The first line is not the plugin's.
    Header(String),
    /// A line that the plugin does not write.
    Line {
        /// Counts from 1.
        number: usize,
        /// What it says.
        text: String,
    },
    /// A line is missing, or two are swapped: the numbers do not count up from 0.
    Gap {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
}

impl Log {
    /// Reads a log. Its last line may be cut short by a machine that was stopped, every other must be whole.
    ///
    /// # Errors
    /// [`LogError`] when the text is not what the plugin writes.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines();
        let header = lines.next().unwrap_or_default();
        let vcpus = header
            .strip_prefix("# witness vcpus=")
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| LogError::Header(header.into()))?;
        let mut events = Vec::new();
        for (index, line) in lines.enumerate() {
            let event = event(line).ok_or_else(|| LogError::Line {
                number: index + 2,
                text: line.into(),
            })?;
            let expected = events.len() as u64;
            if event.sequence != expected {
                return Err(LogError::Gap {
                    expected,
                    found: event.sequence,
                });
            }
            events.push(event);
        }
        Ok(Self { vcpus, events })
    }

    /// The replacements, each from its order to the successor's entry.
    fn replacements(&self) -> Result<Vec<Replacement<'_>>, Violation> {
        let mut found = Vec::new();
        let mut order = None;
        let mut stop = None;
        let mut booted = false;
        for (index, event) in self.events.iter().enumerate() {
            match (event.kind, order) {
                (Kind::Order, _) => (order, stop) = (Some(index), None),
                (Kind::Stop, _) => stop = Some(index),
                (Kind::Enter, Some(start)) => {
                    let rest = &self.events[index + 1..];
                    let until = rest
                        .iter()
                        .position(|event| event.kind == Kind::Order)
                        .unwrap_or(rest.len());
                    found.push(Replacement {
                        serving: &self.events[start..stop.unwrap_or(start)],
                        between: &self.events[stop.unwrap_or(start)..index],
                        enter: *event,
                        after: &rest[..until],
                    });
                    order = None;
                }
                (Kind::Enter, None) if booted => {
                    return Err(Violation::EnteredWithoutOrder {
                        enter: event.sequence,
                    });
                }
                _ => {}
            }
            booted |= event.kind == Kind::Enter;
        }
        match order {
            Some(index) => Err(Violation::NeverEntered {
                order: self.events[index].sequence,
            }),
            None if found.is_empty() => Err(Violation::NoReplacement),
            None => Ok(found),
        }
    }
}

fn event(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let sequence = words.next()?.parse().ok()?;
    let kind = match words.next()? {
        "wbinvd" => Kind::Wbinvd,
        "wbnoinvd" => Kind::Wbnoinvd,
        "order" => Kind::Order,
        "stop" => Kind::Stop,
        "enter" => Kind::Enter,
        _ => return None,
    };
    let vcpu = words.next()?.strip_prefix("vcpu=")?.parse().ok()?;
    let address = u64::from_str_radix(words.next()?.strip_prefix("addr=0x")?, 16).ok()?;
    words.next().is_none().then_some(Event {
        sequence,
        kind,
        vcpu,
        address,
    })
}

struct Replacement<'a> {
    /// From the order mark to the stop mark; nothing without one.
    serving: &'a [Event],
    /// From the stop mark, or without one from the order mark, to the enter mark.
    between: &'a [Event],
    enter: Event,
    /// Up to the next order.
    after: &'a [Event],
}

fn flush_of(events: &[Event], core: u32) -> Option<&Event> {
    events
        .iter()
        .rfind(|event| event.kind == Kind::Wbinvd && event.vcpu == core)
}

/// How a machine broke its promise. The numbers are the log's sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The log has no order that was followed by an entry: it proves nothing.
    NoReplacement,
    /// The last order led nowhere.
    NeverEntered {
        /// The order.
        order: u64,
    },
    /// An image was entered that nobody asked for: the machine was reset, or jumped astray.
    EnteredWithoutOrder {
        /// The entry.
        enter: u64,
    },
    /// A core did not flush between the order and the entry.
    NotFlushed {
        /// The core.
        core: u32,
        /// The successor's entry.
        enter: u64,
        /// The core's flush after the entry, if there was one: it reported before it flushed.
        late: Option<u64>,
    },
    /// After the flush of the core that jumped, another one flushed: what that core wrote back came too late to
    /// be seen, or it was not waited for.
    NotLast {
        /// The core that entered the successor.
        jumper: u32,
        /// Its last flush.
        flush: u64,
        /// The core that flushed after it.
        core: u32,
        /// That core's flush.
        later: u64,
    },
    /// A core flushed where nobody should.
    Flushed {
        /// The core.
        core: u32,
        /// The flush.
        flush: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoReplacement => write!(f, "no order was followed by an entry"),
            Self::NeverEntered { order } => write!(f, "the order of event {order} led to no entry"),
            Self::EnteredWithoutOrder { enter } => {
                write!(f, "event {enter} entered an image without an order")
            }
            Self::NotFlushed {
                core,
                enter,
                late: None,
            } => {
                write!(f, "core {core} did not flush before the entry of event {enter}")
            }
            Self::NotFlushed {
                core,
                enter,
                late: Some(late),
            } => {
                write!(
                    f,
                    "core {core} flushed at event {late}, after the entry of event {enter}"
                )
            }
            Self::NotLast {
                jumper,
                flush,
                core,
                later,
            } => write!(
                f,
                "core {jumper} jumped, but its flush of event {flush} was not the last: core {core}, event {later}"
            ),
            Self::Flushed { core, flush } => write!(f, "core {core} flushed at event {flush}"),
        }
    }
}

impl std::error::Error for Violation {}

/// Each core of `0..cores` executed WBINVD between each order and the entry that followed it, and the core that
/// entered the successor did so last. Returns how many replacements were judged.
///
/// # Errors
/// The first [`Violation`].
pub fn every_core_flushed_before_successor(log: &Log, cores: u32) -> Result<usize, Violation> {
    let replacements = log.replacements()?;
    for Replacement {
        between,
        enter,
        after,
        ..
    } in &replacements
    {
        for core in 0..cores {
            if flush_of(between, core).is_none() {
                let late = after
                    .iter()
                    .find(|event| event.kind == Kind::Wbinvd && event.vcpu == core);
                return Err(Violation::NotFlushed {
                    core,
                    enter: enter.sequence,
                    late: late.map(|event| event.sequence),
                });
            }
        }
        let flush = flush_of(between, enter.vcpu).map_or(0, |event| event.sequence);
        let later = between
            .iter()
            .find(|event| event.kind == Kind::Wbinvd && event.sequence > flush);
        if let Some(later) = later {
            return Err(Violation::NotLast {
                jumper: enter.vcpu,
                flush,
                core: later.vcpu,
                later: later.sequence,
            });
        }
    }
    Ok(replacements.len())
}

/// Each core of `0..cores` executed WBINVD between each order and the stop that followed it, while the image still served.
/// Returns how many replacements were judged.
///
/// # Errors
/// The first [`Violation`].
pub fn every_core_flushed_early(log: &Log, cores: u32) -> Result<usize, Violation> {
    let replacements = log.replacements()?;
    for Replacement { serving, enter, .. } in &replacements {
        for core in 0..cores {
            flush_of(serving, core).ok_or(Violation::NotFlushed {
                core,
                enter: enter.sequence,
                late: None,
            })?;
        }
    }
    Ok(replacements.len())
}

/// No core executed WBINVD or WBNOINVD from the first order on. Returns how many replacements were judged.
///
/// # Errors
/// The first [`Violation`].
pub fn nobody_flushed(log: &Log) -> Result<usize, Violation> {
    let replacements = log.replacements()?;
    let ordered = log.events.iter().skip_while(|event| event.kind != Kind::Order);
    match ordered
        .into_iter()
        .find(|event| matches!(event.kind, Kind::Wbinvd | Kind::Wbnoinvd))
    {
        Some(event) => Err(Violation::Flushed {
            core: event.vcpu,
            flush: event.sequence,
        }),
        None => Ok(replacements.len()),
    }
}

#[cfg(test)]
mod tests;

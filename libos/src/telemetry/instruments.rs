//! Metrics of an application's own: a counter, a gauge or a histogram is a `static`, and using it is an atomic addition.
//!
//! ```
//! use libos::telemetry::{Counter, Gauge, Histogram};
//!
//! static REQUESTS: Counter = Counter::new("shop.requests", "{request}", "Requests answered.");
//! static BASKETS: Gauge = Gauge::new("shop.baskets", "{basket}", "Baskets that are open.");
//! static DURATION: Histogram = Histogram::new(
//!     "shop.request.duration",
//!     "s",
//!     "From a request to its answer.",
//!     &[0.001, 0.01, 0.1],
//! );
//!
//! REQUESTS.add(1);
//! BASKETS.set(17);
//! DURATION.record(0.0042);
//! ```
//!
//! A metric is told from its first use on, or from a call of `register` on; from then on it goes wherever the library OS's
//! own go. Units are UCUM's as OpenTelemetry writes them: `s`, `By`, `{request}` and what else [`Counter::new`] names. A counter and
//! a histogram begin at zero in each instar, which receivers know how to read; one that gets the machine back counts on.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use spin::Once;

use super::histogram::Buckets;
use super::model::{Family, Point, Value};
use super::names::{Kind, Metric};
use super::units;

/// Most metrics of an application; those beyond are counted, and told of in the log.
pub const MAX_INSTRUMENTS: usize = 64;
/// Longest name, in bytes.
const MAX_NAME: usize = 63;

/// First words of a name that are not an application's: the library OS's, and those that receivers give a meaning of their own.
const RESERVED: [&str; 6] = ["instar", "system", "target", "otel", "scrape", "up"];
/// Last words of a name that a histogram's samples, or an information's, have in Prometheus.
const ENDINGS: [&str; 4] = ["bucket", "sum", "info", "created"];

/// The application's.
pub(super) static APPLICATION: Registry = Registry::new();

/// Something that can be read.
pub(super) trait Instrument: Sync {
    fn read(&self) -> Value;
}

struct Told {
    metric: Metric,
    instrument: &'static dyn Instrument,
}

/// The instruments that have come.
pub(super) struct Registry {
    places: [Once<Told>; MAX_INSTRUMENTS],
    /// How many have come, those that found no room included.
    came: AtomicUsize,
    /// How many have a name that was there already.
    twice: AtomicUsize,
    /// Of how many that are not told the log has told.
    warned: AtomicUsize,
}

impl Registry {
    pub const fn new() -> Self {
        Self {
            places: [const { Once::new() }; MAX_INSTRUMENTS],
            came: AtomicUsize::new(0),
            twice: AtomicUsize::new(0),
            warned: AtomicUsize::new(0),
        }
    }

    /// Each place is one instrument's: nobody ever waits.
    pub fn add(&self, metric: Metric, instrument: &'static dyn Instrument) {
        if let Some(place) = self.places.get(self.came.fetch_add(1, Ordering::Relaxed)) {
            place.call_once(|| Told { metric, instrument });
        }
    }

    /// What they say; of two with one name, the first that came.
    pub fn families(&self, start_unix_ns: u64) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        let mut twice = 0;
        for told in self.places.iter().filter_map(Once::get) {
            if families
                .iter()
                .any(|family| family.metric.name == told.metric.name)
            {
                twice += 1;
                continue;
            }
            let point = Point {
                attributes: [None, None],
                start_unix_ns,
                value: told.instrument.read(),
            };
            families.push(Family {
                metric: told.metric,
                points: alloc::vec![point],
            });
        }
        self.twice.store(twice, Ordering::Relaxed);
        families
    }

    /// How many are not told, if it has become more since this was asked last.
    pub fn newly_refused(&self) -> Option<usize> {
        let beyond = self.came.load(Ordering::Relaxed).saturating_sub(MAX_INSTRUMENTS);
        let refused = beyond + self.twice.load(Ordering::Relaxed);
        (self.warned.fetch_max(refused, Ordering::Relaxed) < refused).then_some(refused)
    }
}

/// What every instrument has.
#[derive(Debug)]
struct Common {
    metric: Metric,
    /// Whether it has come, to be told or refused.
    came: AtomicU8,
}

impl Common {
    const fn new(name: &'static str, unit: &'static str, kind: Kind, description: &'static str) -> Self {
        check_name(name.as_bytes());
        assert!(
            units::word(unit).is_some(),
            "a unit is s, ms, us, ns, min, h, d, By, KiBy, MiBy, GiBy, Hz, %, 1 or a word in braces"
        );
        assert!(!description.is_empty(), "a metric has a description");
        Self {
            metric: Metric {
                name,
                unit,
                kind,
                description,
            },
            came: AtomicU8::new(0),
        }
    }

    fn come(&self, instrument: &'static dyn Instrument) {
        if self.came.load(Ordering::Relaxed) == 0 {
            self.come_once(instrument);
        }
    }

    #[cold]
    fn come_once(&self, instrument: &'static dyn Instrument) {
        if self.came.swap(1, Ordering::Relaxed) != 0 {
            return;
        }
        APPLICATION.add(self.metric, instrument);
    }
}

/// # Panics
/// If this is no name for an application's metric: at compile time, for a `static`.
const fn check_name(name: &[u8]) {
    assert!(
        !name.is_empty() && name.len() <= MAX_NAME,
        "a metric's name has 1 to 63 characters"
    );
    assert!(
        name[0].is_ascii_lowercase(),
        "a metric's name begins with a lower-case letter"
    );
    // Where the first word ends, and where the last one begins.
    let (mut first, mut last) = (0, 0);
    let mut index = 0;
    while index < name.len() {
        let byte = name[index];
        let separates = byte == b'.' || byte == b'_';
        assert!(
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || separates,
            "a metric's name has lower-case letters, digits, dots and underscores only"
        );
        if separates {
            assert!(
                index > last && index + 1 < name.len(),
                "a metric's name has a letter or a digit on both sides of a dot or an underscore"
            );
            if first == 0 {
                first = index;
            }
            last = index + 1;
        }
        index += 1;
    }
    if first == 0 {
        first = name.len();
    }
    let mut index = 0;
    while index < RESERVED.len() {
        assert!(
            !same(name, 0, first, RESERVED[index].as_bytes()),
            "a metric's name does not begin with instar, system, target, otel, scrape or up: those are not an application's"
        );
        index += 1;
    }
    let mut index = 0;
    while index < ENDINGS.len() {
        assert!(
            !same(name, last, name.len(), ENDINGS[index].as_bytes()),
            "a metric's name does not end with bucket, sum, info or created: Prometheus gives these a meaning"
        );
        index += 1;
    }
}

/// Whether `name[start..end]` is `word`.
const fn same(name: &[u8], start: usize, end: usize, word: &[u8]) -> bool {
    if end - start != word.len() {
        return false;
    }
    let mut index = 0;
    while index < word.len() {
        if name[start + index] != word[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Only ever grows.
#[derive(Debug)]
pub struct Counter {
    common: Common,
    count: AtomicU64,
}

impl Counter {
    /// A counter at zero.
    ///
    /// `name`: words of lower-case letters and digits with dots or underscores between them, at most 63 characters, the first
    /// word the application's, like `kv.requests`. `unit`: `s`, `ms`, `us`, `ns`, `min`, `h`, `d`, `By`, `KiBy`, `MiBy`, `GiBy`,
    /// `Hz`, `%`, `1`, or what is counted in braces, like `{request}`. `description`: a sentence.
    ///
    /// # Panics
    /// If name or unit are not so, or the name is one of the library OS's or of a receiver's: at compile time, for a `static`.
    pub const fn new(name: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self {
            common: Common::new(name, unit, Kind::Counter, description),
            count: AtomicU64::new(0),
        }
    }

    /// Adds `count`.
    pub fn add(&'static self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.register();
    }

    /// Has it told from now on, though it is still zero.
    pub fn register(&'static self) {
        self.common.come(self);
    }
}

impl Instrument for Counter {
    fn read(&self) -> Value {
        self.count.load(Ordering::Relaxed).into()
    }
}

/// Goes up and down, or is set.
#[derive(Debug)]
pub struct Gauge {
    common: Common,
    value: AtomicI64,
}

impl Gauge {
    /// A gauge at zero. For the arguments see [`Counter::new`].
    ///
    /// # Panics
    /// As [`Counter::new`].
    pub const fn new(name: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self {
            common: Common::new(name, unit, Kind::Gauge, description),
            value: AtomicI64::new(0),
        }
    }

    /// It is `value` now.
    pub fn set(&'static self, value: i64) {
        self.value.store(value, Ordering::Relaxed);
        self.register();
    }

    /// It is `change` more now, or less.
    pub fn add(&'static self, change: i64) {
        self.value.fetch_add(change, Ordering::Relaxed);
        self.register();
    }

    /// Has it told from now on, though it is still zero.
    pub fn register(&'static self) {
        self.common.come(self);
    }
}

impl Instrument for Gauge {
    fn read(&self) -> Value {
        Value::Int(self.value.load(Ordering::Relaxed))
    }
}

/// How often something was how large.
#[derive(Debug)]
pub struct Histogram {
    common: Common,
    buckets: Buckets,
}

impl Histogram {
    /// An empty histogram with these upper bounds: at most 16, ascending. For the other arguments see [`Counter::new`].
    ///
    /// # Panics
    /// As [`Counter::new`], and for bounds that are not so.
    pub const fn new(
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        bounds: &'static [f64],
    ) -> Self {
        Self {
            common: Common::new(name, unit, Kind::Histogram, description),
            buckets: Buckets::new(bounds),
        }
    }

    /// Counts `value`; what is infinite or no number is not counted.
    pub fn record(&'static self, value: f64) {
        self.buckets.record(value);
        self.register();
    }

    /// Has it told from now on, though it is still empty.
    pub fn register(&'static self) {
        self.common.come(self);
    }
}

impl Instrument for Histogram {
    fn read(&self) -> Value {
        Value::Histogram(self.buckets.read())
    }
}

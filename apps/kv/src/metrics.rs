//! What the store tells of itself, beside the machine's numbers.

use kv_store::store::Store;
use libos::telemetry::{Gauge, Histogram};

use crate::memory::Regions;

pub static CLIENTS: Gauge = Gauge::new("kv.clients", "{client}", "Clients that are connected.");
pub static DURATION: Histogram = Histogram::new(
    "kv.request.duration",
    "s",
    "From a request that is there to its reply; their number is that of the requests.",
    &[
        0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.1, 1.0,
    ],
);
static KEYS: Gauge = Gauge::new(
    "kv.keys",
    "{key}",
    "Keys that are there, expired ones that nobody has asked for included.",
);
static USED: Gauge = Gauge::new(
    "kv.memory.usage",
    "By",
    "Preserved memory that holds keys and values.",
);

/// How full the store is now.
pub fn tell(store: &Store<Regions>) {
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    KEYS.set(signed(store.keys()));
    USED.set(signed(store.used().0));
}

//! The machine's clock and tasks, as the network stack and the HTTP server want them.

use core::future::Future;

use smoltcp::time::Instant;

use crate::cpu::time;
use crate::task;

/// The machine's monotonic clock for [`crate::net`], in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

impl crate::net::Timer for Clock {
    fn now(&self) -> Instant {
        Instant::from_micros((time::now().0 / 1000) as i64)
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        task::sleep_until(machine_time(at))
    }
}

/// A moment of the network stack on the machine's time line.
pub fn machine_time(at: Instant) -> time::Instant {
    time::Instant(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000))
}

/// Tasks of the core that asks.
#[derive(Clone, Copy, Debug)]
pub struct SpawnHere;

impl crate::net::http::Spawn for SpawnHere {
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        task::spawn(work).detach();
    }
}

//! Time: monotonic since the machine's cold boot, and of the wall clock.
//!
//! Both rest on the TSC. Its frequency is measured once in a machine's life against the PIT and handed from instar to
//! instar with the TSC's value at the cold boot, so that no instar measures again and all of them share one time line.

use core::ops::{Add, Sub};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use x86_64::instructions::port::Port;

use super::{apic, registers::tsc};

/// A moment, in nanoseconds since the machine's cold boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Instant(pub u64);

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;
    /// Zero if `earlier` is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What must be known to tell the time: crosses from instar to instar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Calibration {
    /// TSC at the cold boot.
    pub tsc_at_boot: u64,
    /// Ticks of the TSC a second.
    pub tsc_hz: u64,
    /// Ticks of the APIC timer a second.
    pub apic_hz: u64,
    /// Wall-clock time at the cold boot, nanoseconds since 1970.
    pub unix_at_boot: u64,
}

static TSC_AT_BOOT: AtomicU64 = AtomicU64::new(0);
static TSC_HZ: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds a tick, as a binary fraction with 32 digits: makes a conversion one multiplication.
static TICK: AtomicU64 = AtomicU64::new(0);
static APIC_HZ: AtomicU64 = AtomicU64::new(0);
static UNIX_AT_BOOT: AtomicU64 = AtomicU64::new(0);

/// Uses what was measured.
pub fn set(calibration: Calibration) {
    TSC_AT_BOOT.store(calibration.tsc_at_boot, Ordering::Relaxed);
    TSC_HZ.store(calibration.tsc_hz, Ordering::Relaxed);
    TICK.store(tick(calibration.tsc_hz), Ordering::Relaxed);
    APIC_HZ.store(calibration.apic_hz, Ordering::Relaxed);
    UNIX_AT_BOOT.store(calibration.unix_at_boot, Ordering::Relaxed);
}

/// What is in use, for the successor.
pub fn calibration() -> Calibration {
    Calibration {
        tsc_at_boot: TSC_AT_BOOT.load(Ordering::Relaxed),
        tsc_hz: TSC_HZ.load(Ordering::Relaxed),
        apic_hz: APIC_HZ.load(Ordering::Relaxed),
        unix_at_boot: UNIX_AT_BOOT.load(Ordering::Relaxed),
    }
}

fn tick(hz: u64) -> u64 {
    ((1_000_000_000_u128 << 32) / u128::from(hz.max(1))) as u64
}

fn scale(ticks: u64, tick: u64) -> u64 {
    ((u128::from(ticks) * u128::from(tick)) >> 32) as u64
}

/// Now.
pub fn now() -> Instant {
    at(tsc())
}

/// The moment at which the TSC showed `value`.
pub fn at(value: u64) -> Instant {
    Instant(scale(
        value.saturating_sub(TSC_AT_BOOT.load(Ordering::Relaxed)),
        TICK.load(Ordering::Relaxed),
    ))
}

/// How long so many ticks of the TSC are.
pub fn span(ticks: u64) -> Duration {
    Duration::from_nanos(scale(ticks, TICK.load(Ordering::Relaxed)))
}

/// How many ticks of the TSC `span` is.
pub fn ticks(span: Duration) -> u64 {
    (span.as_nanos() * u128::from(TSC_HZ.load(Ordering::Relaxed)) / 1_000_000_000) as u64
}

/// `moment` as nanoseconds since 1970.
pub fn unix(moment: Instant) -> u64 {
    UNIX_AT_BOOT.load(Ordering::Relaxed) + moment.0
}

/// Makes the APIC timer interrupt this core at `deadline` at the latest; it may come early, never late by more than a
/// few ticks.
pub fn wake_at(deadline: Instant) {
    let span = (deadline - now()).as_nanos().min(1_000_000_000) as u64;
    let ticks = u128::from(span) * u128::from(APIC_HZ.load(Ordering::Relaxed)) / 1_000_000_000;
    apic::arm_timer(u32::try_from(ticks).unwrap_or(u32::MAX));
}

/// Waits, busily. For the few milliseconds that hardware asks for before there is an executor.
pub fn spin(span: Duration) {
    let deadline = now() + span;
    while now() < deadline {
        core::hint::spin_loop();
    }
}

/// Measures the TSC's and the APIC timer's frequencies over 10 ms of the PIT's channel 2 (8254, 1.193182 MHz), three
/// times, and takes the run that took the fewest ticks: anything that disturbs a run makes it longer.
pub fn calibrate(tsc_at_boot: u64) -> Calibration {
    const PIT_HZ: u64 = 1_193_182;
    const PIT_TICKS: u64 = PIT_HZ / 100;
    let (ticks, apic_ticks) = (0..3).map(|_| one_run(PIT_TICKS as u16)).min().unwrap_or((1, 1));
    let calibration = Calibration {
        tsc_at_boot,
        tsc_hz: ticks * PIT_HZ / PIT_TICKS,
        apic_hz: u64::from(apic_ticks) * PIT_HZ / PIT_TICKS,
        unix_at_boot: 0,
    };
    let since_boot = scale(tsc() - tsc_at_boot, tick(calibration.tsc_hz));
    Calibration {
        unix_at_boot: super::rtc::unix_seconds() * 1_000_000_000 - since_boot,
        ..calibration
    }
}

fn one_run(pit_ticks: u16) -> (u64, u32) {
    let mut gate = Port::<u8>::new(0x61);
    let mut command = Port::<u8>::new(0x43);
    let mut channel2 = Port::<u8>::new(0x42);
    // SAFETY: the PIT's channel 2 and its gate serve nothing but the PC speaker, which is kept off. Port 0x61: bit 0
    // gate, bit 1 speaker, bit 5 output of channel 2.
    unsafe {
        let before = gate.read();
        gate.write(before & !0b11);
        command.write(0b1011_0000); // channel 2, both bytes, mode 0: output goes high at zero
        channel2.write(pit_ticks as u8);
        channel2.write((pit_ticks >> 8) as u8);
        apic::start_counting();
        gate.write(before & !0b10 | 1);
        let start = tsc();
        let apic_start = apic::counted();
        while gate.read() & 1 << 5 == 0 {}
        let (ticks, apic_ticks) = (tsc() - start, apic::counted().wrapping_sub(apic_start));
        apic::disarm_timer();
        gate.write(before & !0b11);
        (ticks, apic_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_ticks_is_a_second() {
        for hz in [1_000_000_000, 2_100_000_000, 3_417_912_345] {
            let error = scale(hz, tick(hz)).abs_diff(1_000_000_000);
            assert!(error <= 1, "{hz} Hz: off by {error} ns");
        }
    }

    #[test]
    fn years_of_ticks_do_not_overflow() {
        let hz = 4_000_000_000_u64;
        let year = 365 * 24 * 3600;
        assert!(scale(hz * year, tick(hz)).abs_diff(1_000_000_000 * year) < 10_000_000);
    }
}

//! The watchdog of a successor on trial: an NMI on core 0, some eighteen times a second, that nothing can switch off by
//! accident: no interrupt flag, no task that never ends.
//!
//! The PIT's channel 0 (8254) counts, and the I/O APIC sends its interrupt as an NMI (82093AA datasheet, section 3.2.4, delivery
//! mode). Where ACPI names no I/O APIC, or the PIT has no pin, there is no watchdog: then only cores with interrupts on watch.

use core::ops::Range;
use core::sync::atomic::Ordering;

use x86_64::instructions::port::Port;

use super::core_id::CoreId;
use super::current;
use super::pen::Pen;
use crate::device::acpi::PitRoute;

/// Register offsets of the I/O APIC (82093AA, section 3.1): which register, and its contents.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
/// First register of the redirection table: two for each pin, the lower word first.
const REDIRECTION: u32 = 0x10;
const NMI: u32 = 0b100 << 8;
const MASKED: u32 = 1 << 16;

/// Remembers in the pen how the PIT reaches core 0.
pub(crate) fn remember(pen: Pen, route: Option<PitRoute>) {
    // The address is a multiple of 4096, so that the pin has room below.
    let word = route.map_or(0, |route| (route.io_apic & !0xfff) | (u64::from(route.pin) + 1));
    pen.header().watchdog.store(word, Ordering::Relaxed);
}

fn route(pen: Pen) -> Option<(u64, u32)> {
    let word = pen.header().watchdog.load(Ordering::Relaxed);
    let pin = (word & 0xfff).checked_sub(1)?;
    Some((word & !0xfff, pin as u32))
}

/// Where the registers are that [`stop`] writes to, if there is a watchdog.
pub(super) fn registers(pen: Pen) -> Option<Range<u64>> {
    route(pen).map(|(base, _)| base..base + 4096)
}

/// Starts it. The I/O APIC's registers are mapped: by the pen's page tables, for one.
pub(super) fn start(pen: Pen) {
    let Some(core) = current::get(CoreId::BOOT) else {
        return;
    };
    // SAFETY: channel 0 is nobody else's. Mode 2, both bytes; 0 stands for 65536 ticks of 1.193182 MHz: 55 ms.
    unsafe {
        Port::<u8>::new(0x43).write(0b0011_0100);
        Port::<u8>::new(0x40).write(0);
        Port::<u8>::new(0x40).write(0);
    }
    redirect(pen, core.apic().0 << 24, NMI);
}

/// Stops it. As for [`start`]. One NMI more may be on its way; nobody minds.
pub(super) fn stop(pen: Pen) {
    redirect(pen, 0, MASKED);
}

fn redirect(pen: Pen, high: u32, low: u32) {
    let Some((base, pin)) = route(pen) else { return };
    let write = |register: u32, value: u32| {
        // SAFETY: registers of the I/O APIC, which the caller has mapped; nobody else writes to this pin's entry.
        unsafe {
            ((base + SELECT) as *mut u32).write_volatile(register);
            ((base + WINDOW) as *mut u32).write_volatile(value);
        }
    };
    // Masked while its halves do not fit.
    write(REDIRECTION + 2 * pin, MASKED);
    write(REDIRECTION + 2 * pin + 1, high);
    write(REDIRECTION + 2 * pin, low);
}

//! The last words of an instar.

use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use x86_64::instructions::port::Port;

use crate::cpu::pen::Cause;
use crate::cpu::{current, registers, stop, time};
use crate::device::serial;
#[cfg(metal)]
use crate::memory;
use crate::replace::probation;
#[cfg(metal)]
use crate::telemetry::allowed::OnlyConstants;

#[cfg(metal)]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let (core, message) = (current::id(), info.message());
    // It may print any value.
    let constants = OnlyConstants::new(&message, memory::constants());
    match info.location() {
        Some(place) => last_words(
            Cause::Panic,
            format_args!("panic on core {core} at {place}: {constants}"),
            format_args!("panic on core {core} at {place}: {message}"),
        ),
        None => last_words(
            Cause::Panic,
            format_args!("panic on core {core}: {constants}"),
            format_args!("panic on core {core}: {message}"),
        ),
    }
}

/// This instar cannot go on, and says why: `told` to its predecessor, if that can, and from there to whoever reads telemetry;
/// `said`, which may hold what must not leave the machine, on the serial line.
pub(crate) fn last_words(cause: Cause, told: fmt::Arguments<'_>, said: fmt::Arguments<'_>) -> ! {
    // The cores that have come here, one bit each: one that fails while it speaks does not speak again.
    static SPEAKING: AtomicU64 = AtomicU64::new(0);
    let noticed = registers::tsc();
    x86_64::instructions::interrupts::disable();
    let me = 1 << current::id().index();
    if SPEAKING.fetch_or(me, Ordering::SeqCst) & me == 0 {
        console(said);
    }
    let told = if cfg!(feature = "export-addresses") {
        said
    } else {
        told
    };
    probation::give_back(noticed, cause, told);
    end_of_instar(noticed)
}

/// Writes to the serial line whatever else is going on.
fn console(text: fmt::Arguments<'_>) {
    x86_64::instructions::interrupts::disable();
    serial::write_anyway(text);
}

/// There is no going on. Resets the machine, so that the firmware boots the first image again and the machine serves.
/// `since` is the TSC when it became clear.
fn end_of_instar(since: u64) -> ! {
    // The core that ends it, plus one.
    static ENDING: AtomicUsize = AtomicUsize::new(0);
    // If this machine is being replaced anyway, the successor makes more of it than a reset does.
    stop::give_way();
    let me = current::id().index() + 1;
    match ENDING.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {}
        // This core failed once more while it reported.
        Err(other) if other == me => reset(),
        // Another core is at it already.
        Err(_) => registers::halt_forever(),
    }
    let lived = time::at(since).0 / 1_000_000;
    console(format_args!(
        "instar: ended after {lived} ms of machine time; the machine is reset and boots its first image"
    ));
    reset()
}

fn reset() -> ! {
    // SAFETY: resetting is the point. First the reset control register that chipsets since PIIX have, then the keyboard
    // controller's reset line.
    unsafe {
        Port::<u8>::new(0xcf9).write(0x02);
        Port::<u8>::new(0xcf9).write(0x06);
        time::spin(Duration::from_millis(50));
        Port::<u8>::new(0x64).write(0xfe);
    }
    registers::halt_forever()
}

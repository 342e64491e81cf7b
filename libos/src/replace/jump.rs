//! The last steps of an instar, on core 0: it neither allocates nor decides any more. And the first ones, when its successor has
//! given the machine back.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

use log::error;
use x86_64::instructions::interrupts;

use super::error::{Code, Refusal};
use super::handover::MAX_RANGES;
use super::machine::Machine;
use super::measured::Measurements;
use crate::clock::Clock;
use crate::confidential::policy::HostFlush;
use crate::cpu::pen::Epitaph;
use crate::cpu::stop::FlushTime;
use crate::cpu::{MAX_CORES, registers::tsc, stop};
use crate::device::{network, serial};
use crate::memory::{Held, chunks::Owner};
use crate::net::{Shared, Timer};
use crate::state::preserved;

/// Why this instar goes on.
pub(super) enum Ended {
    /// It never jumped.
    Refused(Refusal),
    /// The successor gave the machine back.
    GivenBack(Box<GivenBack>),
}

/// What is known when a successor has given the machine back.
pub(super) struct GivenBack {
    /// Its last words.
    pub epitaph: Epitaph,
    /// Each core's flush before the jump.
    pub flushes: [FlushTime; MAX_CORES],
}

/// All that the last steps need: nothing is looked up any more.
pub(super) struct Jump {
    pub machine: &'static Machine,
    /// With the successor.
    pub measurements: Measurements,
    pub flush: Option<HostFlush>,
    pub entry: u64,
    pub boot_info: u64,
    pub chunk_list: u64,
    pub stack: u64,
    pub network: &'static Shared,
}

impl Jump {
    /// From here on every microsecond is one in which nobody answers. Runs on core 0, and returns if this instar goes on.
    pub fn now(self) -> Ended {
        let failed = |message| Ended::Refused(Refusal::new(Code::StopFailed, message));
        let Some(pen) = stop::pen() else {
            return failed(String::from("there is no pen to stop the cores in"));
        };
        // Measured before it runs: whatever becomes of it, it has run. Not later, when a core may have been stopped that was
        // looking at the state.
        let measured = |measurements| {
            self.machine
                .with(|state| core::mem::replace(&mut state.measurements, measurements))
        };
        let before = measured(self.measurements);
        let (marks, relaxed) = (pen.header(), Ordering::Relaxed);
        marks.network_off.store(tsc(), relaxed);
        // The peers of connections that are kept cannot be heard any more: their silence must not be counted.
        self.network.stand_still(Clock.now());
        network::shut_down();
        interrupts::disable();
        marks.stop_start.store(tsc(), relaxed);
        // From here on nobody takes a chunk: what the successor is told to leave alone is all that there is.
        let mut chunks = Held::new();
        let ended = match stop::stop_others(pen, self.flush) {
            Ok(stopped) => {
                write_list(self.chunk_list, &chunks);
                marks.stop_end.store(tsc(), relaxed);
                serial::stage(b'J');
                // SAFETY: interrupts are off, the devices are cut off, and the image was loaded for this place.
                let flushes = unsafe { stopped.jump(self.entry, self.boot_info, self.stack) };
                // As if the jump had been refused; but the successor had the machine in between. What it has made for the
                // application is not free any more.
                chunks.change(preserved::reserve);
                drop(chunks);
                serial::stage(b'B');
                stopped.resume();
                let epitaph = pen.epitaph();
                Ended::GivenBack(Box::new(GivenBack { epitaph, flushes }))
            }
            Err(problem) => {
                drop(chunks);
                measured(before);
                failed(format!("{problem}"))
            }
        };
        interrupts::enable();
        if let Err(card) = network::init() {
            error!("the network did not come back: {card}");
        }
        self.network.go_on(Clock.now());
        ended
    }
}

/// Writes the list of this instar's memory for the successor.
fn write_list(address: u64, chunks: &Held) {
    let write = |index: u64, word: u64| {
        // SAFETY: the list's place in the successor's parameters, which belong to the staged image; `prepare` left room.
        unsafe { ((address + 8 * index) as *mut u64).write(word) };
    };
    let mut count = 0;
    for range in chunks.ranges_of(Owner::Own).take(MAX_RANGES) {
        write(1 + 2 * count, range.start);
        write(2 + 2 * count, range.end);
        count += 1;
    }
    write(0, count);
}

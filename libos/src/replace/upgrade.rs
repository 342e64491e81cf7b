//! An order is carried out: quiesce → stop → jump. Until the jump every failure leaves this instar serving.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use loader::boot::{self, Parameters, Region};
use log::{error, info};
use x86_64::instructions::interrupts;

use super::early_flush;
use super::error::{Code, Refusal};
use super::handover::{self, CHUNK_LIST_BYTES, Handover, MAX_RANGES, PARAMETER_BYTES, PrivateRange};
use super::machine::Machine;
use super::measured::{Event, Measurements};
use super::order::{CommitBy, Trial};
use super::probation;
use super::stage::Staged;
use super::timeline::{MAX_REASON, Outcome, Phase, Timeline};
use crate::clock::Clock;
use crate::confidential::module::Left;
use crate::confidential::{self, policy::HostFlush, private};
use crate::cpu::pen::{Cause, Epitaph};
use crate::cpu::{CoreId, registers::tsc, stop, time};
use crate::device::{network, serial};
use crate::memory::{self, CHUNK, Held, chunks::Owner, regions};
use crate::net::{Kept, Shared, Timer};
use crate::start::identity;
use crate::task::{sleep, spawn_on};
use crate::telemetry::sink;

/// How long requests under way may take to be answered.
const DRAIN: Duration = Duration::from_millis(100);
/// How long a connection may stay open that has nothing left to say.
const LINGER: Duration = Duration::from_millis(5);

/// Why this instar goes on.
enum Ended {
    /// It never jumped.
    Refused(Refusal),
    /// The successor gave the machine back.
    GivenBack(Box<Epitaph>),
}

/// Replaces this instar by `staged`. Returns only if this instar goes on: the replacement failed before the jump, or the
/// successor gave the machine back.
///
/// All the work is done on the core that it is called on, while core 0 serves; only the last steps are core 0's.
pub(super) async fn replace(
    machine: &'static Machine,
    mut staged: Staged,
    mut timeline: Timeline,
    trial: Trial,
) {
    info!(
        "replacing {} by {}, on trial for {} ms, committed by {}",
        timeline.from,
        timeline.to,
        trial.deadline_ns / 1_000_000,
        match trial.commit {
            CommitBy::Auto => "itself",
            CommitBy::Order => "an order",
        }
    );
    sink::replacement_begins(machine, &timeline);
    let me = &identity().manifest();
    match attempt(machine, &mut staged, &mut timeline, trial).await {
        Ended::Refused(problem) => {
            let message = &problem.message;
            error!(
                "the replacement failed, {} {} serves on: {message}",
                me.name, me.version
            );
            timeline.outcome = Outcome::Failed;
            timeline.reason = cut(&format!("{}: {}", problem.code, problem.message));
            sink::replacement_failed(machine, &timeline, problem.code);
            machine.take_back(Some(staged), timeline);
        }
        Ended::GivenBack(epitaph) => {
            let cause = epitaph.cause.map_or("unknown", Cause::name);
            // What was staged has run, and is not what was verified any more.
            drop(staged);
            error!(
                "{} gave the machine back, {} {} serves on: {cause}: {}",
                timeline.to,
                me.name,
                me.version,
                epitaph.text()
            );
            timeline.outcome = Outcome::RolledBack;
            timeline.reason = cut(&format!("{cause}: {}", epitaph.text()));
            sink::replacement_failed(machine, &timeline, cause);
            machine.take_back(None, timeline);
        }
    }
}

/// As much of a reason as a record keeps.
fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON)].into()
}

/// All from the order to the jump, and from the way back on.
async fn attempt(
    machine: &'static Machine,
    staged: &mut Staged,
    timeline: &mut Timeline,
    trial: Trial,
) -> Ended {
    // While clients are still served this may take what time it needs. Until the jump, or until this returns, nobody takes or
    // releases private memory.
    let _private = match leave_private(machine, timeline).await {
        Ok(all) => all,
        Err(problem) => return Ended::Refused(problem),
    };
    let quiesce = time::now();
    machine.network.stop_accepting();
    let kept = drain(machine).await;
    let generation = identity().generation;
    let ended = match prepare(machine, staged, timeline, quiesce, (trial, &kept)) {
        Ok(prepared) => {
            network::cut_off_others();
            let jump = Jump {
                machine,
                measurements: prepared.measurements,
                flush: machine.flush_decision().permit(),
                entry: staged.loaded.entry,
                boot_info: prepared.boot_info,
                chunk_list: prepared.chunk_list,
                stack: staged.layout.stack.start,
                network: machine.network,
            };
            spawn_on(CoreId::BOOT, async move { jump.now() }).await
        }
        Err(problem) => Ended::Refused(problem),
    };
    machine.network.resume_accepting();
    let now = time::now();
    match (&ended, stop::pen()) {
        (Ended::GivenBack(epitaph), Some(pen)) => {
            let at = |mark: &AtomicU64| time::at(mark.load(Ordering::Relaxed)).0;
            let marks = pen.header();
            let (off, jump) = (at(&marks.network_off), at(&marks.jump));
            let noticed = time::at(epitaph.tsc).0.max(jump);
            timeline.record(Phase::Quiesce, generation, quiesce.0, off);
            timeline.record(
                Phase::Stop,
                generation,
                at(&marks.stop_start),
                at(&marks.stop_end),
            );
            timeline.record(Phase::Probation, generation + 1, jump, noticed);
            timeline.record(Phase::Rollback, generation, noticed, now.0);
        }
        _ => timeline.record(Phase::Quiesce, generation, quiesce.0, now.0),
    }
    ended
}

/// Nothing stays under a private key but what the successor takes over: the TDX module is left, caches are written back, and
/// the pages that the module and TDs had become ordinary memory.
async fn leave_private(machine: &Machine, timeline: &mut Timeline) -> Result<private::AllReset, Refusal> {
    // A module that is disabled takes the keys away, also from what is to be handed over.
    let left = match private::summary().to_hand_over {
        0 => confidential::leave_module(),
        _ => Left::Kept,
    };
    if let Some(permit) = machine.flush_decision().permit() {
        let start = time::now();
        timeline.early_flushes = early_flush::run(machine.options.early_flush, permit).await;
        if !timeline.early_flushes.is_empty() {
            timeline.record(Phase::EarlyFlush, identity().generation, start.0, time::now().0);
        }
    }
    let start = time::now();
    let all = private::reset_all(left)
        .await
        .map_err(|error| Refusal::new(Code::PrivatePages, format!("{error}")))?;
    if all.pages > 0 {
        info!("{} private pages reset", all.pages);
    }
    timeline.private_pages_reset = all.pages;
    timeline.record(Phase::Reset, identity().generation, start.0, time::now().0);
    Ok(all)
}

/// Lets requests under way be answered, then resets what is not to be kept, so that no peer waits for a connection that is
/// gone. Returns what is kept.
async fn drain(machine: &Machine) -> Vec<Kept> {
    let deadline = time::now() + DRAIN;
    // Not before something was unsent: the answer to the order itself may not have been written yet.
    let mut silent_since = None;
    let kept = loop {
        if let Some(kept) = machine.network.cut_if_quiet() {
            break kept;
        }
        let now = time::now();
        if machine.network.stats().unsent > 0 {
            silent_since = Some(now);
        }
        if now >= deadline || silent_since.is_some_and(|since| now - since >= LINGER) {
            break machine.network.cut();
        }
        sleep(Duration::from_micros(500)).await;
    };
    // The network's task sends the resets.
    sleep(Duration::from_millis(1)).await;
    kept
}

/// What the successor is told, written.
struct Prepared {
    /// Address of its boot information.
    boot_info: u64,
    /// Where the list of this instar's memory goes, in the last moment.
    chunk_list: u64,
    /// What this machine has run, with the successor.
    measurements: Measurements,
}

/// Writes everything that the successor is told into its memory, but for the list of this instar's.
fn prepare(
    machine: &Machine,
    staged: &mut Staged,
    timeline: &Timeline,
    quiesce: time::Instant,
    (trial, kept): (Trial, &[Kept]),
) -> Result<Prepared, Refusal> {
    let failed = |message| Refusal::new(Code::StopFailed, message);
    let event = Event::new(&staged.manifest, &staged.manifest_text, identity().generation + 1);
    let measurements = machine.with(|state| state.measurements.extended(event));
    let area = staged.layout.parameters.clone();
    let chunk_list = area.start + PARAMETER_BYTES / 2 - CHUNK_LIST_BYTES;
    let ranges = memory::ranges_of(Owner::Own).len();
    // A few more may come until the jump.
    if ranges + 16 > MAX_RANGES {
        return Err(failed(format!(
            "this instar's memory lies in {ranges} pieces, and a successor reads {MAX_RANGES}"
        )));
    }
    let trial = stop::pen()
        .filter(|pen| pen.has_way_back())
        .map(|_| handover::Trial {
            ends_ns: time::now().0.saturating_add(trial.deadline_ns),
            hang_ns: probation::HANG.as_nanos() as u64,
            by_order: trial.commit == CommitBy::Order,
            chunks_at: chunk_list,
        });
    let handover = Handover::compose(machine, timeline, quiesce, trial, &measurements, kept);
    let record = handover::encode(&handover).map_err(|error| failed(format!("{error}")))?;
    let base = staged.chunks.range().start;
    let area_bytes = &mut staged.chunks.bytes()[(area.start - base) as usize..(area.end - base) as usize];
    // `encode` sees to it that the record fits.
    // The record lies in the upper half of the area, the device tree in the lower.
    let (tree_part, record_part) = area_bytes.split_at_mut((PARAMETER_BYTES / 2) as usize);
    let (tree_part, _list) = tree_part.split_at_mut((PARAMETER_BYTES / 2 - CHUNK_LIST_BYTES) as usize);
    record_part[..record.len()].copy_from_slice(&record);
    let record_start = area.start + PARAMETER_BYTES / 2;
    let own = machine_region(&staged.layout.own);
    let memory = memory_for_successor(&machine.parameters.memory, &handover.private)?;
    let parameters = Parameters {
        memory: &memory,
        // A copy that the first stage made lies in the first instar's memory, which is wiped.
        rsdp: machine.parameters.rsdp.filter(|rsdp| *rsdp < CHUNK),
        command_line: &machine.parameters.command_line,
        own,
        manifest: &staged.manifest_text,
        release_key: &machine.parameters.release_key,
        operator_key: &machine.parameters.operator_key,
        handover: Some(Region {
            start: record_start,
            end: record_start + record.len() as u64,
        }),
        measurement: Some(measurements.chain()),
    };
    boot::write(&parameters, &staged.loaded, tree_part, area.start)
        .map(|written| Prepared {
            boot_info: written.boot_info_address,
            chunk_list,
            measurements,
        })
        .map_err(|error| failed(format!("{error}")))
}

/// All memory but the private memory that is handed over: a successor that does not know of that must not know of it as
/// memory either.
fn memory_for_successor(memory: &[Region], private: &[PrivateRange]) -> Result<Vec<Region>, Refusal> {
    let private: Vec<_> = private.iter().map(|range| range.start..range.end).collect();
    let left = regions::carve(memory, &private);
    if left.len() > boot::MAX_REGIONS {
        let message = format!(
            "the private memory that is handed over leaves the rest in {} pieces, and a successor reads {}",
            left.len(),
            boot::MAX_REGIONS
        );
        return Err(Refusal::new(Code::PrivatePages, message));
    }
    Ok(left)
}

fn machine_region(range: &core::ops::Range<u64>) -> Region {
    Region {
        start: range.start,
        end: range.end,
    }
}

/// All that the last steps need: nothing is looked up any more.
struct Jump {
    machine: &'static Machine,
    /// With the successor.
    measurements: Measurements,
    flush: Option<HostFlush>,
    entry: u64,
    boot_info: u64,
    chunk_list: u64,
    stack: u64,
    network: &'static Shared,
}

impl Jump {
    /// From here on every microsecond is one in which nobody answers. Runs on core 0, and returns if this instar goes on.
    fn now(self) -> Ended {
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
        let chunks = Held::new();
        let ended = match stop::stop_others(pen, self.flush) {
            Ok(stopped) => {
                write_list(self.chunk_list, &chunks);
                marks.stop_end.store(tsc(), relaxed);
                serial::stage(b'J');
                // SAFETY: interrupts are off, the devices are cut off, and the image was loaded for this place.
                unsafe { stopped.jump(self.entry, self.boot_info, self.stack) };
                // As if the jump had been refused; but the successor had the machine in between.
                drop(chunks);
                serial::stage(b'B');
                stopped.resume();
                Ended::GivenBack(Box::new(pen.epitaph()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn private(start: u64, end: u64) -> PrivateRange {
        PrivateRange {
            start: start * CHUNK,
            end: end * CHUNK,
            key_id: 40,
            purpose: 1,
        }
    }

    #[test]
    fn a_successor_is_not_given_what_is_handed_over_as_memory() {
        let region = |start, end| Region { start, end };
        let memory = [region(0, 0x9f000), region(0x10_0000, 20 * CHUNK)];
        let left = memory_for_successor(&memory, &[private(5, 7), private(19, 20)]);
        let expected = [
            region(0, 0x9f000),
            region(0x10_0000, 5 * CHUNK),
            region(7 * CHUNK, 19 * CHUNK),
        ];
        assert_eq!(left.as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn more_pieces_than_a_successor_reads_are_refused_before_the_jump() {
        let memory = [Region {
            start: 0,
            end: 4096 * CHUNK,
        }];
        let holes =
            |count: usize| -> Vec<_> { (1..=count as u64).map(|at| private(2 * at, 2 * at + 1)).collect() };
        let most = boot::MAX_REGIONS - 1;
        assert!(memory_for_successor(&memory, &holes(most)).is_ok());
        let refused = memory_for_successor(&memory, &holes(most + 1)).expect_err("too many");
        assert_eq!(refused.code, "private-pages");
    }
}

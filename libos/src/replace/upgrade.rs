//! An order is carried out: quiesce → stop → jump. Until the jump every failure leaves this instar serving.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use loader::boot::{self, Parameters, Region};
use log::{error, info};
use x86_64::instructions::interrupts;

use super::early_flush;
use super::error::{Code, Refusal};
use super::handover::{self, Handover, PARAMETER_BYTES};
use super::machine::Machine;
use super::stage::Staged;
use super::timeline::{Outcome, Phase, Timeline};
use crate::confidential::module::Left;
use crate::confidential::{self, policy::HostFlush, private};
use crate::cpu::{CoreId, registers::tsc, stop, time};
use crate::device::{network, serial};
use crate::memory::{CHUNK, regions};
use crate::start::identity;
use crate::state::{self, Return};
use crate::task::{sleep, spawn_on};
use crate::telemetry::sink;

/// How long requests under way may take to be answered.
const DRAIN: Duration = Duration::from_millis(100);
/// How long a connection may stay open that has nothing left to say.
const LINGER: Duration = Duration::from_millis(5);

/// Replaces this instar by `staged`. Returns only if the replacement failed.
///
/// All the work is done on the core that it is called on, while core 0 serves; only the last steps are core 0's.
pub(super) async fn replace(machine: &'static Machine, mut staged: Staged, mut timeline: Timeline) {
    info!("replacing {} by {}", timeline.from, timeline.to);
    sink::replacement_begins(machine, &timeline);
    let problem = attempt(machine, &mut staged, &mut timeline).await;
    error!(
        "the replacement failed, {} {} serves on: {}",
        identity().manifest().name,
        identity().manifest().version,
        problem.message
    );
    timeline.outcome = Outcome::Failed;
    sink::replacement_failed(&timeline, &problem);
    machine.take_back(staged, timeline);
}

/// All from the order to the jump. Returns only if there was none, and why.
async fn attempt(machine: &'static Machine, staged: &mut Staged, timeline: &mut Timeline) -> Refusal {
    // While clients are still served this may take what time it needs. Until the jump, or until this returns, nobody takes or
    // releases private memory.
    let _private = match leave_private(machine, timeline).await {
        Ok(all) => all,
        Err(problem) => return problem,
    };
    let quiesce = time::now();
    machine.network.stop_accepting();
    drain(machine).await;
    let prepared = match state::save().await {
        Ok(()) => prepare(machine, staged, timeline, quiesce),
        Err(problem) => Err(problem),
    };
    let problem = match prepared {
        Ok(boot_info) => {
            network::cut_off_others();
            let jump = Jump {
                flush: machine.flush_decision().permit(),
                entry: staged.loaded.entry,
                boot_info,
                stack: staged.layout.stack.start,
            };
            spawn_on(CoreId::BOOT, async move { jump.now() }).await
        }
        Err(problem) => problem,
    };
    state::goes_on(Return::NotReplaced).await;
    machine.network.resume_accepting();
    timeline.record(Phase::Quiesce, identity().generation, quiesce.0, time::now().0);
    problem
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
        timeline.record(Phase::EarlyFlush, identity().generation, start.0, time::now().0);
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

/// Lets requests under way be answered, then resets what is left, so that no peer waits for a connection that is gone.
async fn drain(machine: &Machine) {
    let deadline = time::now() + DRAIN;
    // Not before something was unsent: the answer to the order itself may not have been written yet.
    let mut silent_since = None;
    loop {
        let (now, stats) = (time::now(), machine.network.stats());
        if stats.unsent > 0 {
            silent_since = Some(now);
        }
        if stats.connections == 0
            || now >= deadline
            || silent_since.is_some_and(|since| now - since >= LINGER)
        {
            break;
        }
        sleep(Duration::from_micros(500)).await;
    }
    machine.network.abort_all();
    // The network's task sends the resets.
    sleep(Duration::from_millis(1)).await;
}

/// Writes everything that the successor is told into its memory. Returns the address of its boot information.
fn prepare(
    machine: &Machine,
    staged: &mut Staged,
    timeline: &Timeline,
    quiesce: time::Instant,
) -> Result<u64, Refusal> {
    let failed = |message| Refusal::new(Code::StopFailed, message);
    let handover = Handover::compose(machine, timeline, quiesce);
    let record = handover::encode(&handover).map_err(|error| failed(format!("{error}")))?;
    let area = staged.layout.parameters.clone();
    let base = staged.chunks.range().start;
    let area_bytes = &mut staged.chunks.bytes()[(area.start - base) as usize..(area.end - base) as usize];
    // `encode` sees to it that the record fits.
    // The record lies in the upper half of the area, the device tree in the lower.
    let (tree_part, record_part) = area_bytes.split_at_mut((PARAMETER_BYTES / 2) as usize);
    record_part[..record.len()].copy_from_slice(&record);
    let record_start = area.start + PARAMETER_BYTES / 2;
    let own = machine_region(&staged.layout.own);
    let memory = memory_for_successor(&machine.parameters.memory, &handover)?;
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
    };
    boot::write(&parameters, &staged.loaded, tree_part, area.start)
        .map(|written| written.boot_info_address)
        .map_err(|error| failed(format!("{error}")))
}

/// All memory but what is handed over: a successor that does not know of that must not know of it as memory either.
fn memory_for_successor(memory: &[Region], handover: &Handover) -> Result<Vec<Region>, Refusal> {
    let private = handover.private.iter().map(|it| it.start..it.end);
    let preserved = handover.preserved.iter().map(|it| it.start..it.end);
    carved(memory, &private.chain(preserved).collect::<Vec<_>>())
}

fn carved(memory: &[Region], handed: &[core::ops::Range<u64>]) -> Result<Vec<Region>, Refusal> {
    let left = regions::carve(memory, handed);
    if left.len() > boot::MAX_REGIONS {
        let message = format!(
            "the memory that is handed over leaves the rest in {} pieces, and a successor reads {}",
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
    flush: Option<HostFlush>,
    entry: u64,
    boot_info: u64,
    stack: u64,
}

impl Jump {
    /// From here on every microsecond is one in which nobody answers. Runs on core 0, and returns only if it failed.
    fn now(self) -> Refusal {
        let failed = |message| Refusal::new(Code::StopFailed, message);
        let Some(pen) = stop::pen() else {
            return failed(String::from("there is no pen to stop the cores in"));
        };
        let (marks, relaxed) = (pen.header(), core::sync::atomic::Ordering::Relaxed);
        marks.network_off.store(tsc(), relaxed);
        network::shut_down();
        interrupts::disable();
        marks.stop_start.store(tsc(), relaxed);
        match stop::stop_others(pen, self.flush) {
            Ok(stopped) => {
                marks.stop_end.store(tsc(), relaxed);
                serial::stage(b'J');
                // SAFETY: interrupts are off, the devices are cut off, and the image was loaded for this place.
                unsafe { stopped.jump(self.entry, self.boot_info, self.stack) }
            }
            Err(problem) => {
                interrupts::enable();
                if let Err(card) = network::init() {
                    error!("the network did not come back: {card}");
                }
                failed(format!("{problem}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(start: u64, end: u64) -> core::ops::Range<u64> {
        start * CHUNK..end * CHUNK
    }

    #[test]
    fn a_successor_is_not_given_what_is_handed_over_as_memory() {
        let region = |start, end| Region { start, end };
        let memory = [region(0, 0x9f000), region(0x10_0000, 20 * CHUNK)];
        let left = carved(&memory, &[handed(5, 7), handed(19, 20)]);
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
            |count: usize| -> Vec<_> { (1..=count as u64).map(|at| handed(2 * at, 2 * at + 1)).collect() };
        let most = boot::MAX_REGIONS - 1;
        assert!(carved(&memory, &holes(most)).is_ok());
        let refused = carved(&memory, &holes(most + 1)).expect_err("too many");
        assert_eq!(refused.code, "private-pages");
    }
}

//! An order is carried out: quiesce → stop → jump. Until the jump every failure leaves this instar serving.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use loader::boot::Region;
use log::{error, info, warn};

use super::early_flush;
use super::error::{Code, Refusal};
use super::jump::{Ended, GivenBack, Jump};
use super::machine::Machine;
use super::order::{CommitBy, Trial};
use super::prepare::prepare;
use super::stage::Staged;
use super::successor::core_flushes;
use super::timeline::{MAX_REASON, Moments, Outcome, Phase, Timeline};
use crate::confidential::module::Left;
use crate::confidential::{self, private};
use crate::cpu::pen::{Cause, Moment, Pen};
use crate::cpu::time::{self, Instant};
use crate::cpu::{CoreId, stop};
use crate::device::network;
use crate::net::Kept;
use crate::start::identity;
use crate::state::{self, Return};
use crate::task::{sleep, spawn_on};
use crate::telemetry;
use crate::telemetry::allowed;
use crate::telemetry::upgrade::Successor;

/// How long requests under way may take to be answered.
const DRAIN: Duration = Duration::from_millis(100);
/// How long a connection may stay open that has nothing left to say.
const LINGER: Duration = Duration::from_millis(5);

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
    telemetry::upgrade::replacement_begins(machine);
    let me = &identity().manifest();
    let successor = Successor {
        name: staged.manifest.name.clone(),
        version: staged.manifest.version.clone(),
        elf_bytes: staged.manifest.elf.size,
    };
    match attempt(machine, &mut staged, &mut timeline, trial).await {
        Ended::Refused(problem) => {
            let message = &problem.message;
            error!(
                "the replacement failed, {} {} serves on: {message}",
                me.name, me.version
            );
            timeline.outcome = Outcome::Failed;
            timeline.reason = cut(&format!("{}: {}", problem.code, problem.message));
            telemetry::upgrade::replacement_failed(machine, &timeline, &successor, problem.code);
            machine.take_back(Some(staged), timeline);
        }
        Ended::GivenBack(given_back) => {
            let epitaph = &given_back.epitaph;
            let cause = epitaph.cause.map_or("unknown", Cause::name);
            // What was staged has run, and is not what was verified any more.
            drop(staged);
            let recovery = timeline.phase_ns(Phase::Rollback).unwrap_or_default() / 1000;
            error!(
                "{} gave the machine back, {} {} serves on after {recovery} us: {cause}: {}",
                timeline.to,
                me.name,
                me.version,
                epitaph.text()
            );
            timeline.outcome = Outcome::RolledBack;
            for line in stop::pen().map_or_else(Vec::new, Pen::last_lines) {
                warn!("it had said: {line}");
            }
            timeline.reason = cut(&format!("{cause}: {}", epitaph.text()));
            telemetry::upgrade::replacement_failed(machine, &timeline, &successor, cause);
            machine.take_back(None, timeline);
        }
    }
}

/// As much of a reason as a record keeps, and as may leave the machine.
fn cut(reason: &str) -> String {
    let mut reason = allowed::text(reason);
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    reason
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
    let saved = state::save().await;
    if machine.network.cut_late() {
        // The network's task sends the resets.
        sleep(Duration::from_millis(1)).await;
    }
    let prepared = match saved {
        Ok(()) => prepare(machine, staged, timeline, quiesce, (trial, &kept)),
        Err(problem) => Err(problem),
    };
    let mut returned = None;
    let ended = match prepared {
        Ok(prepared) => {
            returned = prepared.returned;
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
    if let Ended::GivenBack(given_back) = &ended
        && given_back.epitaph.cause == Some(Cause::Order)
        && let Some(place) = returned
    {
        accept_returned(staged, place);
    }
    state::goes_on(match ended {
        Ended::Refused(_) => Return::NotReplaced,
        Ended::GivenBack(_) => Return::RolledBack,
    })
    .await;
    machine.network.resume_accepting();
    let now = time::now();
    match (&ended, stop::pen()) {
        (Ended::GivenBack(given_back), Some(pen)) => {
            tell_of_successor(timeline, pen, given_back, (quiesce, now));
        }
        (Ended::Refused(_), Some(pen)) => {
            let stop = time::at(pen.header().stop_start.load(Ordering::Relaxed));
            timeline.record(Phase::Quiesce, generation, quiesce.0, now.0);
            // Otherwise it is an earlier replacement's.
            if stop > quiesce {
                timeline.record_cut_off(Phase::Stop, generation, stop.0, now.0);
            }
        }
        (_, None) => timeline.record(Phase::Quiesce, generation, quiesce.0, now.0),
    }
    ended
}

/// Adds what the pen tells: how this instar stopped, what its successor reached, and the way back. `served`: until when this
/// instar served, and from when on it does again.
fn tell_of_successor(timeline: &mut Timeline, pen: Pen, given_back: &GivenBack, served: (Instant, Instant)) {
    let generation = identity().generation;
    let marks = pen.header();
    let at = |mark: &AtomicU64| time::at(mark.load(Ordering::Relaxed)).0;
    let (until, again) = served;
    timeline.record(Phase::Quiesce, generation, until.0, at(&marks.network_off));
    timeline.record(
        Phase::Stop,
        generation,
        at(&marks.stop_start),
        at(&marks.stop_end),
    );
    timeline.record_flushes(generation, core_flushes(&given_back.flushes));
    let jump = at(&marks.jump);
    let moments = Moments {
        entered: pen.moment(Moment::Entered),
        network_start: pen.moment(Moment::NetworkStart),
        network_up: pen.moment(Moment::NetworkUp),
        cores_called: pen.moment(Moment::CoresCalled),
        cores_online: pen.moment(Moment::CoresOnline),
        first_answer: pen.moment(Moment::FirstAnswer),
    };
    let noticed = time::at(given_back.epitaph.tsc).0.max(jump);
    let early = [Some(Cause::FaultBeforeHandlers), Some(Cause::HangBeforeHandlers)];
    if moments.entered.is_none() && !early.contains(&given_back.epitaph.cause) {
        // It came further, and is of a version that does not tell how far. The jump is all that is known to have ended.
        timeline.record(Phase::Jump, generation, jump, jump);
        timeline.record_cut_off(Phase::Probation, generation + 1, jump, noticed);
    } else {
        timeline.record_successor(generation, jump, &moments, Some(noticed));
    }
    timeline.record(Phase::Rollback, generation, noticed, again.0);
}

/// What a successor that was ordered to give the machine back has left of the application's state.
fn accept_returned(staged: &mut Staged, place: Region) {
    let base = staged.chunks.range().start;
    let bytes = &staged.chunks.bytes()[(place.start - base) as usize..(place.end - base) as usize];
    match state::accept_returned(bytes) {
        Ok(()) => info!("the application's state is as the successor left it"),
        Err(problem) => warn!("the application's state is as it was before: {problem}"),
    }
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

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
use super::jump::{Ended, Jump};
use super::machine::Machine;
use super::order::{CommitBy, Trial};
use super::prepare::prepare;
use super::stage::Staged;
use super::timeline::{MAX_REASON, Outcome, Phase, Timeline};
use crate::confidential::module::Left;
use crate::confidential::{self, private};
use crate::cpu::pen::{Cause, Pen};
use crate::cpu::{CoreId, stop, time};
use crate::device::network;
use crate::net::Kept;
use crate::start::identity;
use crate::state::{self, Return};
use crate::task::{sleep, spawn_on};
use crate::telemetry;

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
    telemetry::upgrade::replacement_begins(machine, &timeline);
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
            telemetry::upgrade::replacement_failed(machine, &timeline, problem.code);
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
            for line in stop::pen().map_or_else(Vec::new, Pen::last_lines) {
                warn!("it had said: {line}");
            }
            timeline.reason = cut(&format!("{cause}: {}", epitaph.text()));
            telemetry::upgrade::replacement_failed(machine, &timeline, cause);
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
    if let Ended::GivenBack(epitaph) = &ended
        && epitaph.cause == Some(Cause::Order)
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

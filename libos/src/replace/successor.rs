//! The other end of a replacement: the successor completes the timeline, takes the predecessor's memory over, and reports.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use core::time::Duration;

use log::{info, warn};

use super::handover::Handover;
use super::machine::{Activity, Machine};
use super::timeline::{self, CoreFlush, Outcome, Phase, Timeline};
use super::{health, probation};
use crate::clock::machine_time;
use crate::cpu::pen::{Cause, Moment};
use crate::cpu::stop::{FlushTime, flush_times};
use crate::cpu::time::{self, Instant};
use crate::cpu::{current, stop};
use crate::memory::{self, chunks::Owner};
use crate::start::{identity, panic::last_words};
use crate::state::preserved;
use crate::task::{sleep, spawn_on, yield_now};
use crate::telemetry::{self, flushes, sink};

/// When the successor did what.
pub(crate) struct Moments {
    /// Its first instruction.
    pub entered: Instant,
    /// It called the other cores; the last one was online.
    pub cores: (Instant, Instant),
    /// It began to set the network up; the network was up.
    pub network: (Instant, Instant),
}

/// How long the first answer is waited for before the predecessor's memory is wiped, which takes time that it would need.
const FIRST_ANSWER: Duration = Duration::from_millis(200);
/// How long a first answer is worth being part of the report.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Ends the replacement: commit, whatever is known of its story, and the story told.
pub(crate) async fn finish(machine: &'static Machine, handover: Option<Handover>, moments: &Moments) {
    let mut timeline = handover.as_ref().map(|handover| complete(handover, moments));
    machine.with(|state| state.last = timeline.clone());
    if let Some(timeline) = &timeline {
        flushes::count(timeline);
    }
    let up = moments.network.1;
    let mut first_answer = wait_for_first_answer(machine, up + FIRST_ANSWER).await;

    #[cfg(feature = "trial")]
    crate::trial::point_on_any_core(crate::trial::Phase::After);
    if let Err(reason) = well(machine).await {
        if probation::is_on_trial() {
            let text = format_args!("{reason}");
            last_words(Cause::Unhealthy, text, text);
        }
        warn!("this successor is not well, and there is no way back: {reason}");
    }
    let by_order = handover
        .as_ref()
        .and_then(|handover| handover.trial)
        .is_some_and(|trial| trial.by_order);
    while by_order && !probation::commit_is_ordered() {
        sleep(Duration::from_millis(5)).await;
        first_answer = first_answer.or_else(|| noticed_answer(machine));
    }
    #[cfg(feature = "trial")]
    crate::trial::point_on_any_core(crate::trial::Phase::BeforeCommit);
    // A core that hangs by now never answers, and the trial ends by that.
    for core in current::online().iter() {
        spawn_on(core, async {}).await;
    }
    let commit = time::now();
    let was_on_trial = probation::is_on_trial();
    probation::commit().await;
    if let Some(handover) = handover.as_ref().filter(|_| was_on_trial) {
        telemetry::inherit(handover);
    }
    // The predecessor does not come back to the connections that it kept.
    machine.network.forget_kept();
    take_over(memory::ranges_of(Owner::Predecessor)).await;
    preserved::settle().await;
    if let (Some(timeline), Some(handover)) = (&mut timeline, &handover) {
        let me = identity().generation;
        timeline.outcome = Outcome::Committed;
        if let (Some(pen), true) = (stop::pen(), handover.trial.is_some()) {
            let jump = time::at(pen.header().jump.load(Ordering::Relaxed));
            timeline.record(Phase::Probation, me, jump.0, commit.0);
        }
        timeline.record(Phase::Commit, me, commit.0, time::now().0);
        telemetry::upgrade::committed(handover, timeline, up);
    }
    // Not before: an image that gives the machine back has not raised it.
    if let Some(pen) = stop::pen() {
        pen.header().raise_floor(identity().manifest().security_version);
    }
    machine.with(|state| {
        state.replacements += 1;
        if let Some(timeline) = &timeline {
            state.history.note(timeline, "");
        }
        state.last = timeline.clone();
        state.activity = Activity::Serving;
    });
    let Some(mut timeline) = timeline else { return };
    if first_answer.is_none() {
        first_answer = wait_for_first_answer(machine, up + LONGEST_WAIT).await;
    }
    if first_answer.is_none() {
        warn!(
            "nobody has asked this successor anything for {} s",
            LONGEST_WAIT.as_secs()
        );
    }
    record_first_answer(&mut timeline, machine, up);
    machine.with(|state| {
        state.history.note(&timeline, "");
        // A failed replacement since the commit is the newer story.
        if state.last.as_ref().is_some_and(|last| last.is_of(&timeline)) {
            state.last = Some(timeline.clone());
        }
    });
    let blackout = timeline
        .blackout_ns()
        .map_or_else(|| "unknown".into(), |ns| format!("{} us", ns / 1000));
    info!(
        "replacement of {} by {} committed, blackout {blackout}",
        timeline.from, timeline.to
    );
    telemetry::upgrade::tell_committed(machine);
}

/// Adds the first answer, if there has been one. The network has been up since `up`.
pub(crate) fn record_first_answer(timeline: &mut Timeline, machine: &Machine, up: Instant) {
    if let Some(answer) = machine.network.first_answer() {
        let answer = machine_time(answer).0;
        timeline.record(Phase::FirstAnswer, identity().generation, up.0, answer);
    }
}

/// Whether this instar can do its work: its cores, and what the application says.
async fn well(machine: &Machine) -> Result<(), String> {
    let (online, all) = (current::online().len(), current::all().len());
    if online < all {
        return Err(format!("{online} of {all} cores came"));
    }
    health::ask().await?;
    if machine.options.commit_needs_telemetry {
        // The trial's end is what limits it.
        while sink::delivered() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

async fn wait_for_first_answer(machine: &Machine, until: Instant) -> Option<Instant> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = noticed_answer(machine) {
            return Some(answer);
        }
        if time::now() >= until {
            return None;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn noticed_answer(machine: &Machine) -> Option<Instant> {
    let answer = machine_time(machine.network.first_answer()?);
    mark(Moment::FirstAnswer, answer);
    Some(answer)
}

/// Adds what only the successor can know: what the predecessor left in the pen after it had written its record, and what
/// the successor itself did.
fn complete(predecessor: &Handover, moments: &Moments) -> Timeline {
    let mut timeline = predecessor.timeline.clone();
    if let Some(pen) = stop::pen() {
        let marks = pen.header();
        let at = |mark: &core::sync::atomic::AtomicU64| time::at(mark.load(Ordering::Relaxed)).0;
        let (off, stop_start, stop_end, jump) = (
            at(&marks.network_off),
            at(&marks.stop_start),
            at(&marks.stop_end),
            at(&marks.jump),
        );
        timeline.record(
            Phase::Quiesce,
            predecessor.generation,
            predecessor.quiesce_ns,
            off,
        );
        timeline.record(Phase::Stop, predecessor.generation, stop_start, stop_end);
        timeline.record_flushes(predecessor.generation, core_flushes(&flush_times(pen)));
        let told = timeline::Moments {
            entered: Some(moments.entered.0),
            network_start: Some(moments.network.0.0),
            network_up: Some(moments.network.1.0),
            cores_called: Some(moments.cores.0.0),
            cores_online: Some(moments.cores.1.0),
            first_answer: None,
        };
        timeline.record_successor(predecessor.generation, jump, &told, None);
    }
    timeline
}

/// The flushes of the cores that flushed, from the time-stamp counter to machine time.
pub(super) fn core_flushes(times: &[FlushTime]) -> Vec<CoreFlush> {
    let flush = |(core, flush): (u32, &FlushTime)| {
        (flush.start != 0).then(|| CoreFlush {
            core,
            start_ns: time::at(flush.start).0,
            end_ns: time::at(flush.end).0,
            cycles: flush.end.saturating_sub(flush.start),
        })
    };
    (0..).zip(times).filter_map(flush).collect()
}

/// Leaves in the pen what this successor has reached, while its predecessor may come back and tell of it.
pub(crate) fn mark(moment: Moment, at: Instant) {
    if let Some(pen) = stop::pen().filter(|_| probation::is_on_trial()) {
        pen.mark(moment, at);
    }
}

/// Wipes the predecessor's chunks and frees them.
async fn take_over(ranges: Vec<Range<u64>>) {
    for range in ranges {
        for start in range.clone().step_by(memory::CHUNK as usize) {
            // SAFETY: the predecessor's memory: it has jumped, its cores run this image, and nobody goes back.
            unsafe { (start as *mut u8).write_bytes(0, memory::CHUNK as usize) };
            yield_now().await;
        }
        // Marked as the predecessor's at the start, so it is known to the map.
        let _ = memory::with_chunks(|map| map.release(&range));
    }
}

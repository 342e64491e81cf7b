//! A successor on trial: until its commit every failure gives the machine back to the predecessor, which waits in memory.
//!
//! Who notices what: a panic or an exception is noticed by the core that has it; a core that does not come back to its tasks, and
//! a deadline that has passed, by [`watch`], which the watchdog's NMI calls on core 0, and each core's timer besides; that the
//! application is not well, by the task that waits for the commit (`replace/successor.rs`).

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use super::error::{Code, Refusal};
use super::handover::Trial;
use super::machine::Machine;
use crate::confidential::policy::{FlushPolicy, decide};
use crate::cpu::pen::{Cause, Pen};
use crate::cpu::registers::tsc;
use crate::cpu::time::{self, Instant};
use crate::cpu::{CoreId, MAX_CORES, current, stop};
use crate::task::{sleep, spawn};

/// How long a core may be kept from its tasks before it counts as hung.
pub const HANG: Duration = Duration::from_secs(2);

/// How long the answer to an order to go back may take to leave.
const ANSWER: Duration = Duration::from_millis(20);

static ON_TRIAL: AtomicBool = AtomicBool::new(false);
/// Machine time, in nanoseconds.
static ENDS: AtomicU64 = AtomicU64::new(u64::MAX);
static HANG_NS: AtomicU64 = AtomicU64::new(u64::MAX);

/// What each core's executor had done when it was looked at last, and when it did something.
static SEEN: [(AtomicU64, AtomicU64); MAX_CORES] =
    [const { (AtomicU64::new(0), AtomicU64::new(0)) }; MAX_CORES];
/// Somebody looks.
static LOOKING: AtomicBool = AtomicBool::new(false);

/// This instar is on trial from now on. Called as soon as it has handlers of its own.
pub(crate) fn begin(trial: &Trial, policy: FlushPolicy) {
    stop::set_trial_permit(decide(policy, crate::confidential::platform()).permit());
    ENDS.store(trial.ends_ns, Ordering::Relaxed);
    HANG_NS.store(trial.hang_ns, Ordering::Relaxed);
    ON_TRIAL.store(true, Ordering::SeqCst);
}

/// Whether this instar can still be taken back.
pub(crate) fn is_on_trial() -> bool {
    ON_TRIAL.load(Ordering::SeqCst)
}

/// The trial is over: this instar keeps the machine.
pub(crate) fn commit() {
    if ON_TRIAL.swap(false, Ordering::SeqCst)
        && let Some(pen) = stop::pen()
    {
        pen.forget_way_back();
    }
}

/// Gives the machine back if the trial has lasted too long, or a core has not come back to its tasks. Takes no lock; from
/// interrupts and NMIs.
pub(crate) fn watch() {
    if !is_on_trial() || LOOKING.swap(true, Ordering::Acquire) {
        return;
    }
    let now = time::now();
    if now.0 >= ENDS.load(Ordering::Relaxed) {
        give_back(Cause::Deadline, format_args!("it was not committed in time"));
    }
    if let Some((core, since)) = current::online().iter().find_map(|core| hung(core, now)) {
        let span = (now - since).as_millis();
        give_back(
            Cause::Hang,
            format_args!("core {core} has not come back to its tasks for {span} ms"),
        );
    }
    LOOKING.store(false, Ordering::Release);
}

/// When this core did something for the last time, if that is too long ago.
fn hung(core: CoreId, now: Instant) -> Option<(CoreId, Instant)> {
    let queue = &current::get(core)?.queue;
    let (beats, moment) = &SEEN[core.index()];
    let beat = queue.beats();
    // One more than was counted, so that a core that has not begun has been seen at zero.
    if queue.is_halted() || beats.swap(beat + 1, Ordering::Relaxed) != beat + 1 {
        moment.store(now.0, Ordering::Relaxed);
        return None;
    }
    let since = Instant(moment.load(Ordering::Relaxed));
    ((now - since).as_nanos() as u64 >= HANG_NS.load(Ordering::Relaxed)).then_some((core, since))
}

/// Gives the machine back to the predecessor, with these last words. Returns only if there is none, or if a core that does not
/// stop is in the way. Takes no lock and allocates nothing.
pub(crate) fn give_back(cause: Cause, text: fmt::Arguments<'_>) {
    let noticed = tsc();
    x86_64::instructions::interrupts::disable();
    // Whoever fails before it knows anything finds the pen where it always is.
    let Some(pen) = stop::pen()
        .or_else(Pen::with_way_back)
        .filter(|pen| pen.can_go_back())
    else {
        return;
    };
    // Only the first one's words count.
    static SPOKEN: AtomicBool = AtomicBool::new(false);
    if !SPOKEN.swap(true, Ordering::SeqCst) {
        pen.write_epitaph(noticed, cause, current::id(), text);
    }
    stop::give_back(pen);
}

/// Whether an order to commit has come.
static COMMIT_ORDERED: AtomicBool = AtomicBool::new(false);

/// Ends the trial: this instar stays.
///
/// # Errors
/// `not-on-trial`.
pub(super) fn order_commit(_: &Machine) -> Result<(), Refusal> {
    if !is_on_trial() {
        return Err(not_on_trial());
    }
    COMMIT_ORDERED.store(true, Ordering::SeqCst);
    Ok(())
}

/// Has [`order_commit`] been called?
pub(super) fn commit_is_ordered() -> bool {
    COMMIT_ORDERED.load(Ordering::SeqCst)
}

/// Ends the trial: the predecessor gets the machine back, when the order has been answered.
///
/// # Errors
/// `not-on-trial`.
pub(super) fn order_rollback(_: &Machine) -> Result<(), Refusal> {
    if !is_on_trial() {
        return Err(not_on_trial());
    }
    spawn(async {
        sleep(ANSWER).await;
        give_back(Cause::Order, format_args!("an order"));
    })
    .detach();
    Ok(())
}

fn not_on_trial() -> Refusal {
    Refusal::new(
        Code::NotOnTrial,
        "the running image is not on trial: there is nothing to commit, and nobody to give the machine back to",
    )
}

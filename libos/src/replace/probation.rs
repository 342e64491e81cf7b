//! A successor on trial: until its commit every failure gives the machine back to the predecessor, which waits in memory.
//!
//! Who notices what: a panic or an exception is noticed by the core that has it; a core that does not come back to its tasks, and
//! a deadline that has passed, by [`watch`], which the watchdog's NMI calls on core 0, and each core's timer besides; that the
//! application is not well, by the task that waits for the commit (`replace/successor.rs`).

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use core::time::Duration;

use loader::boot::Region;
use log::warn;

use super::error::{Code, Refusal};
use super::handover::{PARAMETER_BYTES, Trial};
use super::machine::Machine;
use crate::clock::machine_time;
use crate::confidential::policy::{FlushPolicy, decide};
use crate::cpu::pen::{Cause, Moment, Pen};
use crate::cpu::registers::tsc;
use crate::cpu::time::{self, Instant};
use crate::cpu::{CoreId, MAX_CORES, current, stop};
use crate::net;
use crate::start::panic::last_words;
use crate::state::{self, returned::MAX_RETURNED};
use crate::task::{sleep, spawn};

/// How long a core may be kept from its tasks before it counts as hung.
pub const HANG: Duration = Duration::from_secs(2);

/// How often is looked for the first answer at the end: some tens of microseconds, if somebody works on the network.
const LOOKS: u32 = 1000;

/// How long the answer to an order to go back may take to leave.
const ANSWER: Duration = Duration::from_millis(20);

/// Whose the machine is: decided once, however many cores want to decide it.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Fate {
    /// There is no trial, or it has not begun.
    NoTrial,
    /// Nothing is decided.
    OnTrial,
    /// The predecessor is to have it back, as soon as the order has been answered.
    Leaving,
    /// This instar keeps the machine.
    Kept,
    /// The predecessor has it back.
    GivenBack,
}

static FATE: AtomicU8 = AtomicU8::new(Fate::NoTrial as u8);

impl Fate {
    fn is(self) -> bool {
        FATE.load(Ordering::SeqCst) == self as u8
    }
}

/// Makes it so, unless it has been decided otherwise.
fn decide_for(fate: Fate) -> bool {
    let decided = FATE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
        let open = now == Fate::OnTrial as u8
            || now == Fate::Leaving as u8 && matches!(fate, Fate::GivenBack)
            || now == fate as u8;
        open.then_some(fate as u8)
    });
    decided.is_ok()
}

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
    FATE.store(Fate::OnTrial as u8, Ordering::SeqCst);
}

/// Whether this instar can still be taken back.
pub(crate) fn is_on_trial() -> bool {
    Fate::OnTrial.is() || Fate::Leaving.is()
}

/// The trial is over: this instar keeps the machine. Does not end if it is being given back.
pub(crate) async fn commit() {
    if decide_for(Fate::Kept) {
        if let Some(pen) = stop::pen() {
            pen.forget_way_back();
        }
        return;
    }
    while !Fate::NoTrial.is() {
        sleep(ANSWER).await;
    }
}

/// Gives the machine back if the trial has lasted too long, or a core has not come back to its tasks; if that cannot be done,
/// ends this instar. Takes no lock; from interrupts and NMIs.
pub(crate) fn watch() {
    if !is_on_trial() || LOOKING.swap(true, Ordering::Acquire) {
        return;
    }
    let now = time::now();
    if now.0 >= ENDS.load(Ordering::Relaxed) {
        give_back_or_end(Cause::Deadline, format_args!("it was not committed in time"));
    }
    if let Some((core, since)) = current::online().iter().find_map(|core| hung(core, now)) {
        let span = (now - since).as_millis();
        give_back_or_end(
            Cause::Hang,
            format_args!("core {core} has not come back to its tasks for {span} ms"),
        );
    }
    LOOKING.store(false, Ordering::Release);
}

/// Returns if this instar keeps the machine after all, with interrupts off.
fn give_back_or_end(cause: Cause, text: fmt::Arguments<'_>) {
    give_back(tsc(), cause, text);
    if Fate::GivenBack.is() {
        last_words(cause, text, text);
    }
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

/// Gives the machine back to the predecessor, with these last words; `noticed` is the TSC when it became clear that it must. Returns only if there is none, or if a core that does not
/// stop is in the way: then there is no going on at all. Takes no lock and allocates nothing.
pub(crate) fn give_back(noticed: u64, cause: Cause, text: fmt::Arguments<'_>) {
    x86_64::instructions::interrupts::disable();
    // Whoever fails before it knows anything finds the pen where it always is.
    let Some(pen) = stop::pen()
        .or_else(Pen::with_way_back)
        .filter(|pen| pen.can_go_back())
    else {
        return;
    };
    // Before the trial begins only this core runs.
    if !decide_for(Fate::GivenBack) && Fate::Kept.is() {
        return;
    }
    // Only the first one's words count.
    static SPOKEN: AtomicBool = AtomicBool::new(false);
    if !SPOKEN.swap(true, Ordering::SeqCst) {
        // It may not have been noticed yet.
        let answer = net::default_network().and_then(|network| network.try_first_answer(LOOKS));
        if let Some(answer) = answer {
            pen.mark(Moment::FirstAnswer, machine_time(answer));
        }
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
    if !Fate::OnTrial.is() {
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
pub(super) fn order_rollback(machine: &Machine) -> Result<(), Refusal> {
    // From here on it is not committed any more.
    if !decide_for(Fate::Leaving) {
        return Err(not_on_trial());
    }
    let record = machine.parameters.handover;
    spawn(async move {
        sleep(ANSWER).await;
        // The application's state goes back too: nothing has failed here.
        match (state::collect_for_return().await, record) {
            (Ok(returned), Some(record)) => leave_for_predecessor(record, &returned),
            (Ok(_), None) => {}
            (Err(problem), _) => warn!(
                "the predecessor goes on with the state that it had: {}",
                problem.message
            ),
        }
        give_back_or_end(Cause::Order, format_args!("an order"));
    })
    .detach();
    Ok(())
}

/// Where a successor leaves what it hands back: behind the record that it was handed, as far as the parameters reach.
///
/// `None`: the record is so long that nothing fits.
pub(super) fn return_place(record: Region) -> Option<Region> {
    let start = record.end.next_multiple_of(8);
    let end = record.start + PARAMETER_BYTES / 2;
    (start + MAX_RETURNED as u64 <= end).then_some(Region { start, end })
}

fn leave_for_predecessor(record: Region, returned: &[u8]) {
    let Some(place) = return_place(record) else {
        return warn!("there is no room for the application's state: the predecessor has what it had");
    };
    // SAFETY: memory of this image's parameters that nobody reads; the record before it is only read. What is returned is
    // at most `MAX_RETURNED` bytes long.
    unsafe { (place.start as *mut u8).copy_from_nonoverlapping(returned.as_ptr(), returned.len()) };
}

fn not_on_trial() -> Refusal {
    Refusal::new(
        Code::NotOnTrial,
        "the running image is not on trial: there is nothing to commit, and nobody to give the machine back to",
    )
}

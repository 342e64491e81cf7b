//! All cores but one into the pen, each with its caches written back where the platform demands it.
//!
//! The order of things is the point: the set of cores is written down before the interrupt goes out; a core reports only
//! after its flush has finished; whoever stops the others flushes last, just before the jump.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use super::core_id::{CoreId, CoreSet};
use super::pen::Pen;
use super::registers::tsc;
use super::{apic, current, smp, time, vector};
use crate::confidential::policy::HostFlush;

static PEN: spin::Once<Pen> = spin::Once::new();

/// Held by the one core that stops the others.
static STOPPER: AtomicBool = AtomicBool::new(false);
/// Cores that were told to stop and have not begun to.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// Cores that have not yet reported.
static AWAITED: AtomicU64 = AtomicU64::new(0);
static FLUSH: AtomicBool = AtomicBool::new(false);

/// How long the cores have, first to answer the interrupt, then to answer an NMI.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the cores were not stopped. Those that had stopped run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// Another core is stopping this one.
    #[error("another replacement is stopping the cores")]
    AlreadyStopping,
    /// These did not answer, neither the interrupt nor the NMI.
    #[error("cores {:#b} did not stop", .0.bits())]
    NoAnswer(CoreSet),
}

/// The proof that every other core waits in the pen, its flush done.
#[derive(Debug)]
pub struct Stopped {
    cores: CoreSet,
}

/// Uses `pen` from now on.
pub(crate) fn set_pen(pen: Pen) {
    PEN.call_once(|| pen);
}

/// The pen.
pub fn pen() -> Option<Pen> {
    PEN.get().copied()
}

/// Sends all other cores into the pen, each flushing before it reports if `flush` is given. Allocates nothing.
pub fn stop_others(flush: Option<HostFlush>) -> Result<Stopped, StopError> {
    if STOPPER.swap(true, Ordering::SeqCst) {
        return Err(StopError::AlreadyStopping);
    }
    let Some(pen) = pen() else {
        return Ok(Stopped {
            cores: CoreSet::EMPTY,
        });
    };
    let me = current::id();
    let missing = wait_for_called(pen);
    if !missing.is_empty() {
        STOPPER.store(false, Ordering::SeqCst);
        return Err(StopError::NoAnswer(missing));
    }
    let others = current::online().without(me);
    FLUSH.store(flush.is_some(), Ordering::SeqCst);
    for core in current::all() {
        let slot = pen.slot(core.id());
        slot.flush_start.store(0, Ordering::Relaxed);
        slot.flush_end.store(0, Ordering::Relaxed);
    }
    AWAITED.store(others.bits(), Ordering::SeqCst);
    ASKED.store(others.bits(), Ordering::SeqCst);
    for core in others.iter().filter_map(current::get) {
        apic::send(core.apic(), apic::Delivery::Fixed(vector::STOP));
    }
    if !wait_for(pen, others) {
        for core in CoreSet::from_bits(ASKED.load(Ordering::SeqCst))
            .iter()
            .filter_map(current::get)
        {
            apic::send(core.apic(), apic::Delivery::Nmi);
        }
        if !wait_for(pen, others) {
            return Err(call_off(pen, others));
        }
    }
    Ok(Stopped { cores: others })
}

/// A core that was called out of the pen and has not come online would run this image beside the next one. Returns those
/// that do not come even now.
fn wait_for_called(pen: Pen) -> CoreSet {
    let deadline = time::now() + PATIENCE;
    loop {
        let missing = CoreSet::from_bits(smp::called().bits() & !current::online().bits());
        if missing.is_empty() || time::now() >= deadline {
            return missing;
        }
        for core in missing.iter() {
            smp::remind(pen, core);
        }
        time::spin(Duration::from_micros(100));
    }
}

/// Until all `cores` have reported and are in the pen; false if they took too long.
fn wait_for(pen: Pen, cores: CoreSet) -> bool {
    let deadline = time::now() + PATIENCE;
    while AWAITED.load(Ordering::SeqCst) != 0 || !cores.iter().all(|core| pen.slot(core).is_present()) {
        if time::now() >= deadline {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

fn call_off(pen: Pen, others: CoreSet) -> StopError {
    // From here on no core begins to stop; those that have begun will be in the pen in a moment.
    let silent = CoreSet::from_bits(ASKED.swap(0, Ordering::SeqCst));
    resume(pen, CoreSet::from_bits(others.bits() & !silent.bits()));
    STOPPER.store(false, Ordering::SeqCst);
    StopError::NoAnswer(silent)
}

/// Lets `cores` run on, and waits for each to be online again: whoever stops the cores next must not miss one.
fn resume(pen: Pen, cores: CoreSet) {
    let deadline = time::now() + PATIENCE;
    for core in cores.iter() {
        while !pen.slot(core).is_present() && time::now() < deadline {
            core::hint::spin_loop();
        }
        smp::unpark(pen, core);
    }
    for core in cores.iter() {
        while !current::online().contains(core) && time::now() < deadline {
            smp::remind(pen, core);
            time::spin(Duration::from_micros(100));
        }
    }
    let missing = cores.bits() & !current::online().bits();
    if missing != 0 {
        log::error!("cores {missing:#b} did not come back from the pen");
    }
}

impl Stopped {
    /// Lets them run on: the replacement is called off.
    pub fn undo(self) {
        if let Some(pen) = pen() {
            resume(pen, self.cores);
        }
        STOPPER.store(false, Ordering::SeqCst);
    }
}

/// The stop interrupt.
pub(super) fn on_interrupt() {
    leave_if_asked();
}

/// An NMI: the second call to a core that did not hear the stop interrupt, or somebody else's, which means nothing here.
///
/// It may have interrupted a handler that had not yet told the APIC that it was done. The pen needs an APIC that delivers.
pub(super) fn on_nmi() {
    leave_if_asked();
}

fn leave_if_asked() {
    let core = current::id();
    let bit = CoreSet::EMPTY.with(core).bits();
    if ASKED.fetch_and(!bit, Ordering::SeqCst) & bit == 0 {
        return;
    }
    let Some(pen) = pen() else { return };
    if FLUSH.load(Ordering::SeqCst) {
        flush_into(pen, core);
    }
    current::set_offline(core);
    // The report: not before the flush has finished.
    AWAITED.fetch_and(!bit, Ordering::SeqCst);
    apic::end_all_interrupts();
    // SAFETY: interrupts are off in a handler; this core is not the stopper, which does not ask itself.
    unsafe { smp::park(pen) };
    // The timer was lost; if the executor was about to halt, this wakes it.
    time::wake_at(time::now() + Duration::from_millis(1));
    current::set_online(core);
}

/// Writes back and invalidates this core's caches and notes the time that it took.
pub(super) fn flush_into(pen: Pen, core: CoreId) {
    let slot = pen.slot(core);
    let start = tsc();
    write_back_caches();
    slot.flush_start.store(start, Ordering::Relaxed);
    slot.flush_end.store(tsc(), Ordering::Relaxed);
}

/// Writes back and invalidates this core's caches while it goes on serving.
pub(crate) fn flush_here(_: HostFlush) {
    write_back_caches();
}

/// WBINVD. Not inside a TDX guest, where it raises #VE: whoever calls holds a [`HostFlush`] or a flag made from one.
fn write_back_caches() {
    // SAFETY: writes back and invalidates caches; memory stays as the program sees it (Intel SDM vol. 2, WBINVD). It is
    // serialising: what follows does not begin before it has ended.
    unsafe { core::arch::asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Everything is ready: the last steps of an instar. This core flushes last, and jumps.
///
/// # Safety
/// Interrupts are off. `entry`, `boot_info` and `stack` are those of an image that was loaded for these addresses, and
/// the devices are cut off from memory.
pub unsafe fn jump(_all: Stopped, flush: Option<HostFlush>, entry: u64, boot_info: u64, stack: u64) -> ! {
    if let Some(pen) = pen() {
        apic::disarm_timer();
        // SAFETY: the pen maps everything at its own address, this code and its stack too.
        unsafe {
            core::arch::asm!("mov cr3, {}", in(reg) pen.page_tables(), options(nostack, preserves_flags))
        };
        if flush.is_some() {
            flush_into(pen, current::id());
        }
        pen.header().jump.store(tsc(), Ordering::Relaxed);
    }
    // SAFETY: as the caller says.
    unsafe { loader::jump::enter(entry, boot_info, stack, current::id().index() as u32) }
}

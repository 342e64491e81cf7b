//! All cores but one into the pen, each with its caches written back where the platform demands it.
//!
//! The order of things is the point: the set of cores is written down before the interrupt goes out; a core reports only
//! after its flush has finished; whoever stops the others flushes last, just before the jump.

mod protocol;
mod sync;

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use protocol::{NotStopped, Protocol, Stopper};

use super::core_id::{CoreId, CoreSet, MAX_CORES};
use super::pen::Pen;
use super::registers::tsc;
use super::{apic, current, smp, time, vector, vmx};
use crate::confidential::policy::{HostFlush, PermitCell};

static PEN: spin::Once<Pen> = spin::Once::new();
static PROTOCOL: Protocol = Protocol::new(AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
/// Whether the stop under way flushes. Written by the stopper before it asks anybody.
static PERMIT: PermitCell = PermitCell::none();

/// How long the cores have, first to answer the interrupt, then to answer an NMI.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long they have to answer the interrupt where nobody serves until they have: when a successor gives the machine back.
const HASTE: Duration = Duration::from_millis(10);

/// Why the cores were not stopped. Those that had stopped run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// Another core is stopping this one.
    #[error("core {0} is stopping the cores already")]
    AlreadyStopping(CoreId),
    /// These were called out of the pen and never came online.
    #[error("cores {:#b} never came up", .0.bits())]
    NeverCame(CoreSet),
    /// These did not stop: neither by the interrupt nor by NMI, or not in time.
    #[error("cores {:#b} did not stop", .0.bits())]
    NoAnswer(CoreSet),
}

/// The proof that every other core waits in the pen, its flush done.
pub struct Stopped {
    stopper: Stopper<'static>,
    pen: Pen,
    cores: CoreSet,
    flush: Option<HostFlush>,
}

/// Uses `pen` from now on.
pub(crate) fn set_pen(pen: Pen) {
    PEN.call_once(|| pen);
}

/// The pen.
pub fn pen() -> Option<Pen> {
    PEN.get().copied()
}

/// This machine's cores, as the protocol sees them.
struct ThisMachine {
    pen: Pen,
    /// How long is waited the next time; after that it is [`PATIENCE`].
    patience: Cell<Duration>,
}

impl ThisMachine {
    fn new(pen: Pen) -> Self {
        Self::with_patience(pen, PATIENCE)
    }

    fn with_patience(pen: Pen, first: Duration) -> Self {
        let patience = Cell::new(first);
        Self { pen, patience }
    }
}

impl protocol::Cores for ThisMachine {
    fn interrupt(&self, core: CoreId) {
        send(core, apic::Delivery::Fixed(vector::STOP));
    }

    fn nmi(&self, core: CoreId) {
        send(core, apic::Delivery::Nmi);
    }

    fn flush(&self, me: CoreId) {
        // Before the report, so that whoever lets the cores run again can wait for them to be online.
        current::set_offline(me);
        if let Some(permit) = PERMIT.get() {
            let slot = self.pen.slot(me);
            let flush = flush_here(permit);
            slot.flush_start.store(flush.start, Ordering::Relaxed);
            slot.flush_end.store(flush.end, Ordering::Relaxed);
        }
        // The next image may not find a core in VMX operation whose region it knows nothing of.
        vmx::leave_if_on();
    }

    fn is_parked(&self, core: CoreId) -> bool {
        self.pen.slot(core).is_present()
    }

    fn wait(&self, done: impl Fn() -> bool) -> bool {
        wait_until(self.patience.replace(PATIENCE), done)
    }
}

fn send(core: CoreId, delivery: apic::Delivery) {
    if let Some(core) = current::get(core) {
        apic::send(core.apic(), delivery);
    }
}

fn wait_until(patience: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = time::now() + patience;
    loop {
        if done() {
            return true;
        }
        if time::now() >= deadline {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Sends all other cores into the pen, each flushing before it reports if `flush` is given. Allocates nothing.
///
/// # Errors
/// See [`StopError`]. Every core that can run runs on.
pub fn stop_others(pen: Pen, flush: Option<HostFlush>) -> Result<Stopped, StopError> {
    mark_stop();
    let me = current::id();
    let stopper = PROTOCOL.elect(me).map_err(StopError::AlreadyStopping)?;
    let missing = wait_for_called(pen, PATIENCE);
    if !missing.is_empty() {
        stopper.step_down();
        return Err(StopError::NeverCame(missing));
    }
    let cores = current::online().without(me);
    PERMIT.set(flush);
    for core in current::all() {
        let slot = pen.slot(core.id());
        slot.flush_start.store(0, Ordering::Relaxed);
        slot.flush_end.store(0, Ordering::Relaxed);
    }
    match stopper.stop(&ThisMachine::new(pen), cores) {
        Ok(()) => Ok(Stopped {
            stopper,
            pen,
            cores,
            flush,
        }),
        Err(NotStopped { deaf, slow }) => {
            let missing = resume(pen, CoreSet::from_bits(cores.bits() & !deaf.bits()));
            stopper.step_down();
            let silent = deaf.bits() | slow.bits() | missing.bits();
            Err(StopError::NoAnswer(CoreSet::from_bits(silent)))
        }
    }
}

/// The mark "an image begins to stop its cores" for an emulator's instruction trace (`docs/interfaces.md`).
fn mark_stop() {
    #[cfg(metal)]
    // SAFETY: an instruction without effect: nop dword [rax + "STOP"].
    unsafe {
        core::arch::asm!(
            ".byte 0x0f, 0x1f, 0x80",
            ".ascii \"STOP\"",
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// A core that was called out of the pen and has not come online would run this image beside the next one. Returns those
/// that do not come even now: those that have left the pen already have `patience`.
fn wait_for_called(pen: Pen, patience: Duration) -> CoreSet {
    let (begin, mut longest) = (time::now(), patience);
    loop {
        let missing = CoreSet::from_bits(smp::called().bits() & !current::online().bits());
        let missing = missing.without(current::id());
        if missing.iter().any(|core| pen.slot(core).is_called()) {
            // An NMI would be lost on it.
            longest = PATIENCE;
        }
        if missing.is_empty() || time::now() >= begin + longest {
            return missing;
        }
        for core in missing.iter() {
            smp::remind(pen, core);
        }
        time::spin(Duration::from_micros(100));
    }
}

/// Lets `cores` run on, and waits for each to be online again: whoever stops the cores next must not miss one. Returns those
/// that do not come. Allocates nothing.
fn resume(pen: Pen, cores: CoreSet) -> CoreSet {
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
    CoreSet::from_bits(cores.bits() & !current::online().bits())
}

/// The stop interrupt, or an NMI: the second call to a core that did not hear the interrupt, or somebody else's, which means
/// nothing here.
///
/// It may have interrupted a handler that had not yet told the APIC that it was done. The pen needs an APIC that delivers.
pub(super) fn leave_if_asked() {
    let Some(pen) = pen() else { return };
    let core = current::id();
    if !PROTOCOL.answer(&ThisMachine::new(pen), core) {
        return;
    }
    apic::end_all_interrupts();
    let left = tsc();
    // SAFETY: interrupts are off in a handler; this core is not the stopper, which does not ask itself.
    unsafe { smp::park(pen) };
    current::this().queue.load.was_away(tsc() - left);
    // The timer was lost; if the executor was about to halt, this wakes it.
    time::wake_at(time::now() + Duration::from_millis(1));
    current::set_online(core);
}

/// For a core that cannot go on: if another core is stopping this one, it stops like any other, and the successor has the
/// machine. Returns if nobody is, or if the replacement was called off. Interrupts are off.
pub(crate) fn give_way() {
    let me = current::id();
    while PROTOCOL.stopper().is_some_and(|stopper| stopper != me) {
        leave_if_asked();
        core::hint::spin_loop();
    }
}

/// When a core flushed: TSC before and after; zeros if it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushTime {
    /// Before.
    pub start: u64,
    /// After.
    pub end: u64,
}

/// Writes back and invalidates the calling core's caches.
///
/// The permit is the proof that this is not a TDX or SEV guest, where WBINVD faults.
pub fn flush_here(_permit: HostFlush) -> FlushTime {
    let start = tsc();
    // SAFETY: writes back and invalidates caches; memory stays as the program sees it (Intel SDM vol. 2, WBINVD). It is
    // serialising: what follows does not begin before it has ended.
    unsafe { core::arch::asm!("wbinvd", options(nostack, preserves_flags)) };
    FlushTime { start, end: tsc() }
}

/// When each core flushed in the last stop, by the cores' numbers.
pub fn flush_times(pen: Pen) -> [FlushTime; MAX_CORES] {
    let mut times = [FlushTime::default(); MAX_CORES];
    for (core, time) in current::all().iter().zip(&mut times) {
        let slot = pen.slot(core.id());
        time.start = slot.flush_start.load(Ordering::Relaxed);
        time.end = slot.flush_end.load(Ordering::Relaxed);
    }
    times
}

impl Stopped {
    /// Everything is ready: the last steps of an instar. This core flushes last, and jumps. Returns when the successor has
    /// given the machine back, with the flushes before the jump: the other cores are in the pen, or on their way to it.
    ///
    /// # Safety
    /// Called on core 0 with interrupts off. `entry`, `boot_info` and `stack` are those of an image that was loaded for these
    /// addresses, and the devices are cut off from memory.
    pub unsafe fn jump(&self, entry: u64, boot_info: u64, stack: u64) -> [FlushTime; MAX_CORES] {
        let (pen, me) = (self.pen, current::id());
        apic::disarm_timer();
        // While a fault in it still has this image's handler.
        vmx::leave_if_on();
        // SAFETY: interrupts are off, and nothing that needs this image's tables comes before `adopt` below.
        unsafe { pen.take_charge(me) };
        pen.arm(smp::back_entry(), self.flush.is_some());
        self.stopper.flush_last(&ThisMachine::new(pen));
        // The cores flush again when the machine is given back, and note it in the same place.
        let flushes = flush_times(pen);
        let left = tsc();
        pen.header().jump.store(left, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { smp::visit(entry, boot_info, stack) };
        pen.disarm();
        if let Some(core) = current::get(me) {
            // SAFETY: interrupts are off, and this is that core.
            unsafe { current::adopt(core) };
            core.queue.load.was_away(tsc() - left);
        }
        crate::memory::activate();
        super::enable_extensions();
        apic::enable();
        current::set_online(me);
        flushes
    }

    /// Lets the other cores run on.
    pub fn resume(self) {
        let missing = resume(self.pen, self.cores);
        self.stopper.step_down();
        if !missing.is_empty() {
            log::error!("cores {:#b} did not come back from the pen", missing.bits());
        }
    }
}

/// How this instar's cores flush when it gives the machine back.
static TRIAL_PERMIT: PermitCell = PermitCell::none();

/// On a way back the cores flush as in any stop, if `permit` is given.
pub(crate) fn set_trial_permit(permit: Option<HostFlush>) {
    TRIAL_PERMIT.set(permit);
}

/// Gives the machine back to the predecessor, from whatever went wrong, on whatever core. The epitaph has been written.
/// Returns if it cannot be done: a core does not stop. Takes no lock, allocates nothing. Interrupts are off.
pub(crate) fn give_back(pen: Pen) {
    /// All other cores are in the pen.
    static STOPPED: AtomicBool = AtomicBool::new(false);
    let me = current::id();
    match PROTOCOL.elect(me) {
        Ok(stopper) => {
            PERMIT.set(TRIAL_PERMIT.get());
            // A core that never came online may hang on its way, but has handlers by now; this one may have failed on it.
            let missing = wait_for_called(pen, HASTE);
            let others = CoreSet::from_bits(current::online().bits() | missing.bits()).without(me);
            let machine = ThisMachine::with_patience(pen, HASTE);
            if stopper.stop(&machine, others).is_err() {
                return;
            }
            STOPPED.store(true, Ordering::SeqCst);
        }
        // Another core is giving the machine back.
        Err(other) if other != me => return give_way(),
        // This core failed once more on its way.
        Err(_) if STOPPED.load(Ordering::SeqCst) => {}
        Err(_) => return,
    }
    crate::device::network::cut_off_now();
    apic::disarm_timer();
    apic::end_all_interrupts();
    vmx::leave_if_on();
    if me == CoreId::BOOT {
        // SAFETY: interrupts are off, and nobody needs this instar any more. The pen is mapped by its own tables.
        unsafe {
            core::arch::asm!(
                "mov cr3, {tables}",
                "jmp {back}",
                tables = in(reg) pen.page_tables(),
                back = in(reg) pen.back(),
                options(noreturn),
            )
        }
    }
    protocol::Cores::flush(&ThisMachine::new(pen), me);
    // Core 0 flushes last, on its way.
    pen.call(CoreId::BOOT, pen.back());
    // SAFETY: interrupts are off, and nobody needs this instar any more.
    unsafe { smp::park_for_good(pen, me) }
}

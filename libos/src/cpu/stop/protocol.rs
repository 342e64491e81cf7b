//! The stop protocol: who asks whom, and who may say when that it has stopped. Pure: hardware is behind [`Cores`].
//!
//! Every interleaving of it is tried by the model in `tests/stop-model`, which is made from this very file.

use crate::cpu::core_id::{CoreId, CoreSet};
use crate::cpu::stop::sync::{AtomicU64, Ordering};

/// What the protocol needs of the machine.
pub trait Cores {
    /// Sends the stop interrupt. What was written before is visible to the core that takes it.
    fn interrupt(&self, core: CoreId);
    /// Sends an NMI.
    fn nmi(&self, core: CoreId);
    /// Writes back and invalidates the caches of `me`, which is the core that calls, if this machine flushes.
    fn flush(&self, me: CoreId);
    /// Does `core` wait in the pen?
    fn is_parked(&self, core: CoreId) -> bool;
    /// Waits until `done`, or for as long as a core may take to answer. What `done` said last.
    fn wait(&self, done: impl Fn() -> bool) -> bool;
}

/// What all cores know of a stop.
pub struct Protocol {
    /// Number of the core that stops the others, plus one; 0: none does.
    stopper: AtomicU64,
    /// Cores that were told to stop and have not begun to.
    asked: AtomicU64,
    /// Cores that have not yet reported.
    awaited: AtomicU64,
}

/// Not all cores stopped in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStopped {
    /// These heard neither the interrupt nor the NMI, and are not asked any more.
    pub deaf: CoreSet,
    /// These began to stop and have not finished. They will.
    pub slow: CoreSet,
}

impl Protocol {
    /// Nobody stops anybody: all three are 0.
    pub const fn new(stopper: AtomicU64, asked: AtomicU64, awaited: AtomicU64) -> Self {
        Self {
            stopper,
            asked,
            awaited,
        }
    }

    /// Makes `me` the one core that may stop the others.
    ///
    /// # Errors
    /// Which core it is already; it may be `me`.
    pub fn elect(&self, me: CoreId) -> Result<Stopper<'_>, CoreId> {
        let number = me.index() as u64 + 1;
        match self
            .stopper
            .compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => Ok(Stopper { protocol: self, me }),
            Err(other) => Err(core_of(other).unwrap_or(me)),
        }
    }

    /// The core that stops the others, if one does.
    pub fn stopper(&self) -> Option<CoreId> {
        core_of(self.stopper.load(Ordering::SeqCst))
    }

    /// What `me` does when it is interrupted, for whatever reason. If it was asked to stop, it flushes, and then reports;
    /// `true`: it has reported, and goes to the pen.
    pub fn answer(&self, cores: &impl Cores, me: CoreId) -> bool {
        let bit = CoreSet::EMPTY.with(me).bits();
        // A core that was not asked only looks. Whoever takes the bit out answers: a second call, by NMI, finds nothing to do.
        if self.asked.load(Ordering::SeqCst) & bit == 0
            || self.asked.fetch_and(!bit, Ordering::SeqCst) & bit == 0
        {
            return false;
        }
        cores.flush(me);
        // The report: not before the flush has finished.
        self.awaited.fetch_and(!bit, Ordering::SeqCst);
        true
    }
}

fn core_of(number: u64) -> Option<CoreId> {
    CoreId::new(usize::try_from(number.checked_sub(1)?).ok()?)
}

/// The right to stop the other cores. Only one core has it at a time.
pub struct Stopper<'a> {
    protocol: &'a Protocol,
    me: CoreId,
}

impl Stopper<'_> {
    /// Stops `others`: by an interrupt, and those that do not hear it by NMI. Allocates nothing.
    ///
    /// # Errors
    /// The cores that did not stop. All others have stopped, or will.
    pub fn stop(&self, cores: &impl Cores, others: CoreSet) -> Result<(), NotStopped> {
        let Protocol { asked, awaited, .. } = self.protocol;
        // Both sets stand before the first core can answer.
        awaited.store(others.bits(), Ordering::SeqCst);
        asked.store(others.bits(), Ordering::SeqCst);
        for core in others.iter() {
            cores.interrupt(core);
        }
        let all_stopped =
            || awaited.load(Ordering::SeqCst) == 0 && others.iter().all(|core| cores.is_parked(core));
        if cores.wait(all_stopped) {
            return Ok(());
        }
        for core in CoreSet::from_bits(asked.load(Ordering::SeqCst)).iter() {
            cores.nmi(core);
        }
        if cores.wait(all_stopped) {
            return Ok(());
        }
        // From here on no core begins to stop. One that did begin at the last moment is as good as any other.
        let deaf = asked.swap(0, Ordering::SeqCst);
        if deaf == 0 && cores.wait(all_stopped) {
            return Ok(());
        }
        Err(NotStopped {
            deaf: CoreSet::from_bits(deaf),
            slow: CoreSet::from_bits(awaited.load(Ordering::SeqCst) & !deaf),
        })
    }

    /// The last thing before the jump: this core flushes after all others have reported.
    pub fn flush_last(&self, cores: &impl Cores) {
        // Each report left this line dirty in the cache of the core that wrote it: take it over.
        self.protocol.awaited.store(0, Ordering::SeqCst);
        cores.flush(self.me);
    }

    /// Gives the right back: the cores that stopped run again, or will.
    pub fn step_down(self) {
        self.protocol.stopper.store(0, Ordering::SeqCst);
    }
}

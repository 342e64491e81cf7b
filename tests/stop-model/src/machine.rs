// A machine of a few cores, included once for each variant of the protocol.

use std::cell::{Cell, RefCell};

use crate::cpu::core_id::{CoreId, CoreSet};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread::JoinHandle;
use protocol::{Cores, Protocol};

/// What a core hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    Everything,
    /// Its interrupts are off.
    NmiOnly,
    Nothing,
}

/// How long the stopper waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until nothing happens any more.
    Long,
    /// It may run out at any moment.
    Short,
}

/// What the cores share.
pub struct Shared {
    pub protocol: Protocol,
    /// Lines of a private key in a core's cache that are not in memory.
    dirty: Vec<UnsafeCell<bool>>,
    parked: AtomicU64,
}

/// The machine, as one core has it that may become the stopper.
pub struct Machine {
    pub shared: Arc<Shared>,
    hears: Vec<Hears>,
    /// Of the first time that it waits, and of all others.
    patience: RefCell<[Patience; 2]>,
    /// Every interrupt that was sent has been taken, and somebody has not stopped.
    waited_in_vain: Cell<bool>,
    /// Whether the stopper looks into the pen. If it does not, the report alone must be enough.
    pen_is_seen: bool,
    /// Interrupts under way. Each is a thread: it may be taken at any moment after it was sent, and an NMI within it.
    interrupts: RefCell<Vec<JoinHandle<()>>>,
}

impl Shared {
    pub fn new(cores: usize) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            protocol: Protocol::new(zero(), zero(), zero()),
            dirty: (0..cores).map(|_| UnsafeCell::new(true)).collect(),
            parked: zero(),
        })
    }

    pub fn parked(&self) -> CoreSet {
        CoreSet::from_bits(self.parked.load(Ordering::SeqCst))
    }

    /// All cores run again.
    pub fn run_on(&self) {
        self.parked.store(0, Ordering::SeqCst);
    }

    /// The next image is entered: what is still in a cache will be written over it.
    pub fn jump(&self) {
        for (core, dirty) in self.dirty.iter().enumerate() {
            // SAFETY: loom sees to it that nobody writes at the same time.
            let dirty = dirty.with(|dirty| unsafe { *dirty });
            assert!(!dirty, "core {core} has not flushed");
        }
    }
}

/// What core `me` does when it is interrupted.
pub fn take_interrupt(shared: &Arc<Shared>, me: CoreId) {
    let machine = Machine::new(shared, &[], [Patience::Short; 2], false);
    if shared.protocol.answer(&machine, me) {
        let before = shared.parked.fetch_or(CoreSet::EMPTY.with(me).bits(), Ordering::SeqCst);
        assert!(!CoreSet::from_bits(before).contains(me), "core {me} parks twice");
    }
}

impl Machine {
    pub fn new(shared: &Arc<Shared>, hears: &[Hears], patience: [Patience; 2], pen_is_seen: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            hears: hears.to_vec(),
            patience: RefCell::new(patience),
            waited_in_vain: Cell::new(false),
            pen_is_seen,
            interrupts: RefCell::default(),
        }
    }

    pub fn others(&self, me: CoreId) -> CoreSet {
        CoreSet::from_bits((1 << self.hears.len()) - 1).without(me)
    }

    /// Until every interrupt that was sent has been taken.
    pub fn rest(&self) {
        for interrupt in self.interrupts.take() {
            interrupt.join().expect("no panic");
        }
    }

    fn send(&self, core: CoreId) {
        let shared = Arc::clone(&self.shared);
        let interrupt = loom::thread::spawn(move || take_interrupt(&shared, core));
        self.interrupts.borrow_mut().push(interrupt);
    }
}

impl Cores for Machine {
    fn interrupt(&self, core: CoreId) {
        if self.hears[core.index()] == Hears::Everything {
            self.send(core);
        }
    }

    fn nmi(&self, core: CoreId) {
        let heard = self.waited_in_vain.get() && self.hears[core.index()] == Hears::Everything;
        assert!(!heard, "core {core} took the interrupt and did not stop");
        if self.hears[core.index()] != Hears::Nothing {
            self.send(core);
        }
    }

    fn flush(&self, me: CoreId) {
        // SAFETY: loom sees to it that nobody reads or writes at the same time.
        self.shared.dirty[me.index()].with_mut(|dirty| unsafe { *dirty = false });
    }

    fn is_parked(&self, core: CoreId) -> bool {
        !self.pen_is_seen || self.shared.parked().contains(core)
    }

    // To look changes nothing. So to look once, at any moment, finds whatever looking all the time would.
    fn wait(&self, done: impl Fn() -> bool) -> bool {
        let [now, next] = *self.patience.borrow();
        *self.patience.borrow_mut() = [next; 2];
        if done() {
            return true;
        }
        if now == Patience::Short {
            return false;
        }
        self.rest();
        self.waited_in_vain.set(!done());
        !self.waited_in_vain.get()
    }
}

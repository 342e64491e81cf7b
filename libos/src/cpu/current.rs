//! The data of each core, and the one that runs.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::core_id::{ApicId, CoreId, CoreSet};
use super::registers::{msr, write_msr};
use super::tables::Tables;
use super::time::{self, Instant};
use crate::memory::stack::Stack;
use crate::task::executor::Queue;

/// What one core has of its own. `GS:0` points to it.
#[repr(C)]
pub struct Core {
    this: AtomicPtr<Core>,
    id: CoreId,
    apic: ApicId,
    /// The core's tables; only the core itself uses them.
    tables: *mut Tables,
    stack: Stack,
    /// Tasks and timers.
    pub queue: Queue,
}

// SAFETY: `tables` is used only by the core itself; all the rest is `Sync`.
unsafe impl Sync for Core {}
// SAFETY: as above.
unsafe impl Send for Core {}

static CORES: spin::Once<Vec<Core>> = spin::Once::new();
static ONLINE: AtomicU64 = AtomicU64::new(0);
static LAST_ONLINE: AtomicU64 = AtomicU64::new(0);

const STACK_BYTES: usize = 64 * 1024;

/// Makes the data of all cores. The index into `apics` is the core's number.
pub(super) fn create(apics: &[ApicId]) {
    CORES.call_once(|| {
        apics
            .iter()
            .enumerate()
            .filter_map(|(index, apic)| {
                Some(Core {
                    this: AtomicPtr::new(core::ptr::null_mut()),
                    id: CoreId::new(index)?,
                    apic: *apic,
                    tables: Tables::new(),
                    stack: Stack::new(STACK_BYTES),
                    queue: Queue::new(),
                })
            })
            .collect()
    });
    for core in CORES.get().into_iter().flatten() {
        core.this
            .store(core::ptr::from_ref(core).cast_mut(), Ordering::Relaxed);
    }
}

/// Makes the calling core be `core`: tables, GS, online.
///
/// # Safety
/// Interrupts are off; the caller runs on that core; [`create`] has been called.
pub(super) unsafe fn adopt(core: &'static Core) {
    // First, for an NMI: this instar's handlers, which `load` puts in charge, look up the core by GS, and the pen's do not.
    // SAFETY: GS is not otherwise used; `Core` lives for ever.
    unsafe { write_msr(msr::GS_BASE, core as *const Core as u64) };
    // SAFETY: only the core itself uses its tables; interrupts are off.
    unsafe { (*core.tables).load() };
}

pub(super) fn set_online(core: CoreId) {
    LAST_ONLINE.fetch_max(time::now().0, Ordering::Relaxed);
    ONLINE.fetch_or(CoreSet::EMPTY.with(core).bits(), Ordering::SeqCst);
}

pub(super) fn set_offline(core: CoreId) {
    ONLINE.fetch_and(!CoreSet::EMPTY.with(core).bits(), Ordering::SeqCst);
}

/// When the last core came online.
pub fn last_online() -> Instant {
    Instant(LAST_ONLINE.load(Ordering::Relaxed))
}

/// The cores that run tasks.
pub fn online() -> CoreSet {
    CoreSet::from_bits(ONLINE.load(Ordering::SeqCst))
}

/// All cores of the machine, by number.
pub fn all() -> &'static [Core] {
    CORES.get().map_or(&[], Vec::as_slice)
}

/// The core of that number.
pub fn get(id: CoreId) -> Option<&'static Core> {
    all().get(id.index())
}

/// The core that runs this.
pub fn this() -> &'static Core {
    let core: *const Core;
    // SAFETY: GS points to this core's data from `adopt` on, which is before the first task and the first interrupt.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) core, options(nostack, preserves_flags, pure, readonly));
        &*core
    }
}

/// Is `rsp` on the calling core's stack for NMIs?
pub(super) fn came_into_nmi(rsp: u64) -> bool {
    // SAFETY: the tables live for ever, and only the core itself uses them.
    !online().is_empty() && unsafe { (*this().tables).nmi_stack().contains(&rsp) }
}

/// The number of the core that runs this; core 0 before the cores are set up.
pub fn id() -> CoreId {
    if online().is_empty() {
        CoreId::BOOT
    } else {
        this().id
    }
}

impl Core {
    /// Its number.
    pub fn id(&self) -> CoreId {
        self.id
    }

    /// What interrupts are addressed to.
    pub fn apic(&self) -> ApicId {
        self.apic
    }

    /// Highest address of its stack.
    pub(crate) fn stack_top(&self) -> u64 {
        self.stack.top()
    }
}

//! Stacks with a guard: the page below is not mapped, so that an overflow faults instead of writing elsewhere.

use alloc::alloc::{Layout, alloc, handle_alloc_error};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::paging::Access;

const PAGE: usize = 4096;

/// A stack. It is never freed: the processor may run on it at any time.
#[derive(Debug)]
pub struct Stack {
    guard: u64,
    bytes: u64,
}

/// The guard pages' addresses, so that a page fault can be told from a stack overflow without taking a lock.
static GUARDS: [AtomicU64; MAX_GUARDS] = [const { AtomicU64::new(0) }; MAX_GUARDS];
static GUARD_COUNT: AtomicUsize = AtomicUsize::new(0);
const MAX_GUARDS: usize = 8 * crate::cpu::MAX_CORES;

impl Stack {
    /// A stack of `bytes`, a multiple of the page size, with its guard below.
    pub fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes + PAGE, PAGE).unwrap_or(Layout::new::<[u8; PAGE]>());
        // SAFETY: the layout is not of size zero.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        let guard = memory as u64;
        super::protect(guard..guard + PAGE as u64, Access::None);
        let index = GUARD_COUNT.fetch_add(1, Ordering::Relaxed);
        if let Some(entry) = GUARDS.get(index) {
            entry.store(guard, Ordering::Relaxed);
        }
        Self {
            guard,
            bytes: bytes as u64,
        }
    }

    /// The address just above it, a multiple of 16: what the stack pointer starts with.
    pub fn top(&self) -> u64 {
        self.guard + PAGE as u64 + self.bytes
    }
}

/// Does `address` lie in a stack's guard page?
pub fn is_guard(address: u64) -> bool {
    let page = address & !(PAGE as u64 - 1);
    page != 0 && GUARDS.iter().any(|guard| guard.load(Ordering::Relaxed) == page)
}

//! One executor a core. A task stays on the core that it was spawned on; waking it from elsewhere puts it into that
//! core's queue and, if the core is halted, sends it a wake-up interrupt.
//!
//! Interrupt handlers never touch a queue: they set a flag, and the executor that they woke looks at it. So no lock here is
//! ever taken with interrupts off, and a core that is stopped in the middle of anything blocks nobody who must not allocate.

use alloc::collections::{BinaryHeap, VecDeque};
use core::cmp::Reverse;
use core::future::Future;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::Waker;

use async_task::{Runnable, Task};
use spin::Mutex;
use x86_64::instructions::interrupts;

use super::load::{Living, Load};
use crate::cpu::registers::tsc;
use crate::cpu::time::{self, Instant};
use crate::cpu::{CoreId, apic, current, registers, vector};

/// A core's tasks that can run, and its timers.
pub struct Queue {
    ready: Mutex<VecDeque<Runnable>>,
    timers: Mutex<Timers>,
    halted: AtomicBool,
    beats: AtomicU64,
    /// What the core does with its time.
    pub(crate) load: Load,
}

struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
    next: u64,
}

struct Timer {
    due: Instant,
    number: u64,
    waker: Waker,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Timer {}
impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timer {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

impl Queue {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            ready: Mutex::new(VecDeque::new()),
            timers: Mutex::new(Timers {
                heap: BinaryHeap::new(),
                next: 0,
            }),
            halted: AtomicBool::new(false),
            beats: AtomicU64::new(0),
            load: Load::default(),
        }
    }

    /// How often the executor has looked for work.
    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Does the core wait for an interrupt, with nothing to do?
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    /// Wakes `waker` at `due`. Returns a number that stands for the timer.
    pub fn add_timer(&self, due: Instant, waker: Waker) -> u64 {
        let mut timers = self.timers.lock();
        timers.next += 1;
        let number = timers.next;
        timers.heap.push(Reverse(Timer { due, number, waker }));
        number
    }

    /// Forgets a timer that is no longer wanted.
    pub fn cancel_timer(&self, number: u64) {
        self.timers.lock().heap.retain(|timer| timer.0.number != number);
    }

    /// Wakes what is due. Returns when the next timer is.
    fn run_timers(&self) -> Option<Instant> {
        loop {
            let waker = {
                let mut timers = self.timers.lock();
                let due = timers.heap.peek()?.0.due;
                if due > time::now() {
                    return Some(due);
                }
                timers.heap.pop()?.0.waker
            };
            waker.wake();
        }
    }
}

/// Runs `future` on `core`.
pub fn spawn_on<F>(core: CoreId, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let living = Living::new(current::get(core).map(|core| &core.queue.load));
    let (runnable, task) = async_task::spawn(future, move |runnable| {
        // Dropped with the task, and, unlike the future, of one kind for all tasks: each costs code.
        let _ = &living;
        schedule(core, runnable);
    });
    runnable.schedule();
    task
}

fn schedule(core: CoreId, runnable: Runnable) {
    let Some(target) = current::get(core) else { return };
    target.queue.ready.lock().push_back(runnable);
    // Pairs with the executor, which announces that it halts before it looks into the queue for the last time.
    if target.queue.halted.load(Ordering::SeqCst) && core != current::id() {
        apic::send(target.apic(), apic::Delivery::Fixed(vector::WAKE));
    }
}

/// Runs this core's tasks, for ever. With nothing to do the core halts until an interrupt.
pub(crate) fn run() -> ! {
    let core = current::this();
    let queue = &core.queue;
    queue.load.begin(tsc());
    interrupts::enable();
    loop {
        queue.beats.fetch_add(1, Ordering::Relaxed);
        crate::device::network::deliver_interrupt();
        let next_timer = queue.run_timers();
        // A batch: what the tasks make ready in turn waits until timers and devices have been looked at again.
        let batch = queue.ready.lock().len();
        for _ in 0..batch {
            let runnable = queue.ready.lock().pop_front();
            if let Some(runnable) = runnable {
                runnable.run();
            }
        }
        if batch > 0 {
            continue;
        }
        queue.halted.store(true, Ordering::SeqCst);
        interrupts::disable();
        // Not a waiting lock: its holder might be a core that has been stopped, and this one must stay stoppable.
        let nothing_ready = queue.ready.try_lock().is_some_and(|ready| ready.is_empty());
        if nothing_ready && !crate::device::network::interrupt_pending() {
            match next_timer {
                Some(due) => time::wake_at(due),
                None => apic::disarm_timer(),
            }
            queue.load.halt(tsc());
            registers::enable_and_halt();
            // So that no stop comes in between, which takes the core away.
            interrupts::without_interrupts(|| queue.load.wake(tsc()));
        } else {
            interrupts::enable();
        }
        queue.halted.store(false, Ordering::SeqCst);
    }
}

//! The stack behind a lock, and the task that drives it.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use alloc::vec::Vec;

use smoltcp::phy::Device;
use smoltcp::time::{Duration, Instant};
use spin::{Mutex, Once};

use super::across::Kept;
use super::configuration::Configuration;
use super::stack::{Stack, Stats};

static DEFAULT: Once<&'static Shared> = Once::new();

/// A network device that can be waited for.
pub trait Nic: Device {
    /// Ready when a frame may have arrived, or room for frames to send may have become free, since the stack last
    /// found none. Registers the waker *before* it looks; a false alarm costs one poll.
    fn poll_interrupt(&self, context: &mut Context<'_>) -> Poll<()>;
}

/// The clock that the network runs on: monotonic, in microseconds.
pub trait Timer: Clone + Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Instant;
    /// Ends when the time has come; dropping it forgets the appointment.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send;
}

/// Wakes the one task that waits, or the next one that will.
#[derive(Default)]
pub struct Notify {
    set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Notify {
    /// Nothing has happened yet.
    pub const fn new() -> Self {
        Notify {
            set: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    /// Something has happened. Takes a spin lock: not for interrupt handlers.
    pub fn notify(&self) {
        self.set.store(true, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready once after each time that something has happened; several times in between count as one.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.set.swap(false, Ordering::Acquire) {
            return Poll::Ready(());
        }
        *self.waker.lock() = Some(context.waker().clone());
        // It may have happened between the two lines above.
        if self.set.swap(false, Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// A stack for tasks on any core.
pub struct Shared {
    stack: Mutex<Stack>,
    activity: Notify,
}

impl Shared {
    /// To be made `'static` with `Box::leak`: a machine has it until it ends.
    pub fn new(stack: Stack) -> Self {
        Shared {
            stack: Mutex::new(stack),
            activity: Notify::new(),
        }
    }

    /// Works on the stack without touching what has to be sent.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Stack) -> R) -> R {
        work(&mut self.stack.lock())
    }

    /// Works on the stack, then has it polled.
    pub(super) fn act<R>(&self, work: impl FnOnce(&mut Stack) -> R) -> R {
        let result = self.with(work);
        self.activity.notify();
        result
    }

    /// The address in use and all that a successor needs; `None` until DHCP has answered.
    pub fn configuration(&self) -> Option<Configuration> {
        self.with(|stack| stack.configuration())
    }

    /// Waits for an address.
    pub async fn configured(&self) -> Configuration {
        poll_fn(|context| {
            self.with(|stack| match stack.configuration() {
                Some(configuration) => Poll::Ready(configuration),
                None => {
                    stack.configured.retain(|waker| !waker.will_wake(context.waker()));
                    stack.configured.push(context.waker().clone());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// What the network did and has.
    pub fn stats(&self) -> Stats {
        self.with(|stack| stack.stats())
    }

    /// When the first answer of an application was given to the device: a datagram from a port that a UDP socket is
    /// bound to, or TCP data from a port that is listened on with `answers`.
    pub fn first_answer(&self) -> Option<Instant> {
        self.with(|stack| stack.first_answer())
    }

    /// The same for who must not wait: whoever works on the stack may never end. Looks so many times whether nobody does.
    pub fn try_first_answer(&self, times: u32) -> Option<Instant> {
        for _ in 0..times {
            if let Some(stack) = self.stack.try_lock() {
                return stack.first_answer();
            }
            core::hint::spin_loop();
        }
        None
    }

    /// From now on requests for connections are dropped without an answer: the peers ask again, and a successor
    /// answers. Only listeners with `to_the_end` go on, until [`Shared::cut_late`]. Open connections and those waiting to be accepted go on; HTTP connections are closed when the request under
    /// way has been answered, those without one at once.
    pub fn stop_accepting(&self) {
        self.act(|stack| stack.backlog.set_accepting(false));
    }

    /// Whether requests for connections are answered: not since [`Shared::stop_accepting`].
    pub fn accepts(&self) -> bool {
        self.with(|stack| stack.backlog.accepts())
    }

    /// Takes [`Shared::stop_accepting`] back: the replacement failed or was rolled back.
    pub fn resume_accepting(&self) {
        self.act(|stack| stack.backlog.set_accepting(true));
    }

    /// [`Shared::cut`], if nobody has anything unsent and it would reset no client's connection.
    pub fn cut_if_quiet(&self) -> Option<Vec<Kept>> {
        self.act(|stack| {
            let quiet = stack.backlog.is_quiet(&stack.sockets);
            quiet.then(|| stack.backlog.cut(&mut stack.sockets))
        })
    }

    /// Resets every connection that is being opened or not to be kept ([`Across`](super::Across)): each peer is sent one
    /// reset by the next polls, each stream gives [`TcpError::Reset`](super::TcpError::Reset). Returns those that are kept:
    /// at most [`MAX_KEPT`](super::MAX_KEPT).
    pub fn cut(&self) -> Vec<Kept> {
        self.act(|stack| stack.backlog.cut(&mut stack.sockets))
    }

    /// The very end of accepting: what is not to be kept and has come since [`Shared::cut`] is reset by the next polls. Whether
    /// there was any.
    pub fn cut_late(&self) -> bool {
        self.act(|stack| stack.backlog.cut_late(&mut stack.sockets))
    }

    /// From now on nobody polls, and no time passes for connections. Takes the stack's lock.
    pub fn stand_still(&self, now: Instant) {
        self.with(|stack| stack.stand_still(now));
    }

    /// The end of [`Shared::stand_still`]: connections go on, and all their timers have as long to go as they had then.
    pub fn go_on(&self, now: Instant) {
        self.act(|stack| stack.go_on(now));
    }

    /// Drops without an answer what comes for these connections, which the predecessor kept and may come back to. To be
    /// called before the first poll.
    pub fn leave_alone(&self, kept: Vec<Kept>) {
        self.with(|stack| stack.leave_alone(kept));
    }

    /// The predecessor does not come back: the connections that it kept are over. Each peer is asked whether it is there,
    /// and its answer is answered with a reset.
    pub fn forget_kept(&self) {
        self.act(Stack::forget_kept);
    }

    /// One poll by hand, for who has stopped [`run`] and still wants resets and last answers sent.
    ///
    /// True if there is more to do at once.
    pub fn poll_once<D: Device>(&self, now: Instant, device: &mut D) -> bool {
        self.with(|stack| stack.poll(now, device))
    }
}

/// Makes this network the one that `TcpListener::bind` and the like use. The first call wins.
pub fn install(shared: &'static Shared) {
    DEFAULT.call_once(|| shared);
}

/// The installed network.
pub fn default_network() -> Option<&'static Shared> {
    DEFAULT.get().copied()
}

/// Drives the network for ever: polls when a socket was used, when the device says so and when a timer is due; a batch
/// at a time, so that other tasks of the core get their turn.
pub async fn run<D: Nic, T: Timer>(shared: &'static Shared, mut device: D, timer: T) {
    loop {
        let now = timer.now();
        let (more, at) = shared.with(|stack| (stack.poll(now, &mut device), stack.poll_at(now)));
        if more {
            crate::task::yield_now().await;
            continue;
        }
        let due = async {
            match at {
                // Due at once, yet the poll found nothing more to do: not without a pause.
                Some(at) => timer.sleep_until(at.max(now + Duration::from_micros(50))).await,
                None => core::future::pending().await,
            }
        };
        let mut due = pin!(due);
        poll_fn(|context| {
            // All three are asked, so that each has the waker.
            let activity = shared.activity.poll(context).is_ready();
            let interrupt = device.poll_interrupt(context).is_ready();
            let time = due.as_mut().poll(context).is_ready();
            if activity || interrupt || time {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// What `work` gives, or `None` if it takes longer than until `at`; it is dropped then.
pub async fn within<T: Timer, F: Future>(timer: &T, at: Instant, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut sleep = pin!(timer.sleep_until(at));
    poll_fn(|context| {
        if let Poll::Ready(result) = Pin::as_mut(&mut work).poll(context) {
            return Poll::Ready(Some(result));
        }
        Pin::as_mut(&mut sleep).poll(context).map(|()| None)
    })
    .await
}

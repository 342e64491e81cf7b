//! Tasks, timers, one executor a core.

pub mod executor;
pub(crate) mod load;

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

pub use async_task::Task;
pub use executor::spawn_on;

use crate::cpu::time::{self, Instant};
use crate::cpu::{CoreId, current};

/// Runs `future` as a task of its own on this core. Dropping the [`Task`] cancels it; `detach` lets it run on.
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn_on(current::id(), future)
}

/// Resolves `span` from now.
pub fn sleep(span: Duration) -> Sleep {
    sleep_until(time::now() + span)
}

/// Resolves at `due`.
pub fn sleep_until(due: Instant) -> Sleep {
    Sleep { due, timer: None }
}

/// A wait for a moment.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    due: Instant,
    timer: Option<(CoreId, u64, Waker)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if time::now() >= self.due {
            return Poll::Ready(());
        }
        if self
            .timer
            .as_ref()
            .is_none_or(|(_, _, waker)| !waker.will_wake(cx.waker()))
        {
            self.forget();
            let core = current::this();
            let number = core.queue.add_timer(self.due, cx.waker().clone());
            self.timer = Some((core.id(), number, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Sleep {
    fn forget(&mut self) {
        if let Some((core, number, _)) = self.timer.take()
            && let Some(core) = current::get(core)
        {
            core.queue.cancel_timer(number);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The time ran out first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

/// `future`'s result, unless `span` passes first.
pub async fn timeout<F: Future>(span: Duration, future: F) -> Result<F::Output, TimedOut> {
    let mut future = pin!(future);
    let mut sleep = sleep(span);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(TimedOut)),
    })
    .await
}

/// Lets the core's other tasks run once.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

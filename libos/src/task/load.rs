//! How much of its time a core works, and how many tasks it has. Pure: the time-stamp counter's values are arguments.

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// One core's. Written by that core only, but for the tasks; read by any.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// While the core works: how long it has been halted. While it is halted: the same, less the moment at which it halted,
    /// which makes it negative. One word, so that a reader never sees the one without the other.
    idle: AtomicI64,
    /// When the core came, and all the time since in which it was not this instar's.
    began: AtomicU64,
    tasks: AtomicU64,
}

/// What a core did with its time, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// It worked.
    pub busy: u64,
    /// It was halted.
    pub idle: u64,
}

impl Load {
    /// From now on the core is this instar's.
    pub fn begin(&self, now: u64) {
        self.began.store(now, Ordering::Relaxed);
    }

    /// The core halts.
    pub fn halt(&self, now: u64) {
        let idle = self.idle.load(Ordering::Relaxed);
        self.idle
            .store(idle.wrapping_sub_unsigned(now), Ordering::Relaxed);
    }

    /// The core works again.
    pub fn wake(&self, now: u64) {
        let idle = self.idle.load(Ordering::Relaxed);
        self.idle
            .store(idle.wrapping_add_unsigned(now), Ordering::Relaxed);
    }

    /// The core was in the pen, or another instar's, for so long: that is no time of this instar's.
    pub fn was_away(&self, ticks: u64) {
        self.began.fetch_add(ticks, Ordering::Relaxed);
        let idle = self.idle.load(Ordering::Relaxed);
        if idle < 0 {
            self.idle
                .store(idle.wrapping_sub_unsigned(ticks), Ordering::Relaxed);
        }
    }

    /// Until now. Neither number is ever smaller than it was, whatever the core does meanwhile: a counter that shrinks is taken
    /// for one that began again.
    pub fn times(&self, now: impl Fn() -> u64) -> Times {
        let began = self.began.load(Ordering::Relaxed);
        if began == 0 {
            return Times::default();
        }
        let mut word = self.idle.load(Ordering::Acquire);
        loop {
            let now = now();
            let again = self.idle.load(Ordering::Acquire);
            if again == word {
                let idle = if word < 0 {
                    word.wrapping_add_unsigned(now)
                } else {
                    word
                };
                let idle = u64::try_from(idle).unwrap_or(0);
                let busy = now.saturating_sub(began).saturating_sub(idle);
                return Times { busy, idle };
            }
            word = again;
        }
    }

    /// Tasks that have not ended, or that somebody still refers to.
    pub fn tasks(&self) -> u64 {
        self.tasks.load(Ordering::Relaxed)
    }
}

/// A task that is there.
pub(super) struct Living(Option<&'static Load>);

impl Living {
    pub fn new(load: Option<&'static Load>) -> Self {
        if let Some(load) = load {
            load.tasks.fetch_add(1, Ordering::Relaxed);
        }
        Self(load)
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        if let Some(load) = self.0 {
            load.tasks.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(load: &Load, now: u64) -> (u64, u64) {
        let times = load.times(|| now);
        (times.busy, times.idle)
    }

    #[test]
    fn time_is_divided_without_a_rest() {
        let load = Load::default();
        assert_eq!(at(&load, 50), (0, 0), "it has not come");
        load.begin(100);
        assert_eq!(at(&load, 130), (30, 0));
        load.halt(130);
        assert_eq!(at(&load, 150), (30, 20), "while it is halted, too");
        load.wake(170);
        assert_eq!(at(&load, 170), (30, 40));
        load.halt(175);
        load.wake(180);
        assert_eq!(at(&load, 200), (55, 45));
    }

    #[test]
    fn what_is_spent_away_is_nobodys() {
        let load = Load::default();
        load.begin(100);
        load.was_away(1000);
        assert_eq!(at(&load, 1110), (10, 0));
        load.halt(1110);
        load.was_away(5000);
        assert_eq!(at(&load, 6130), (10, 20), "halted when it went");
        load.wake(6130);
        assert_eq!(at(&load, 6135), (15, 20));
    }

    /// Read while it changes, neither number shrinks.
    #[test]
    fn nothing_shrinks() {
        use std::sync::atomic::AtomicBool;
        let load = Load::default();
        let clock = AtomicU64::new(1);
        let over = AtomicBool::new(false);
        let tick = || clock.fetch_add(1, Ordering::SeqCst) + 1;
        load.begin(tick());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    load.halt(tick());
                    load.wake(tick());
                }
                over.store(true, Ordering::SeqCst);
            });
            let mut last = Times::default();
            while !over.load(Ordering::SeqCst) {
                let times = load.times(tick);
                assert!(
                    times.busy >= last.busy && times.idle >= last.idle,
                    "{last:?}, then {times:?}"
                );
                last = times;
            }
        });
    }

    #[test]
    fn tasks_are_counted() {
        let load: &'static Load = Box::leak(Box::default());
        let (one, two) = (Living::new(Some(load)), Living::new(Some(load)));
        assert_eq!(load.tasks(), 2);
        drop(one);
        drop(two);
        assert_eq!(load.tasks(), 0);
    }
}

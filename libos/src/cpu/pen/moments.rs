//! What a successor has reached: words of the pen's last-words page, so that the predecessor can tell even of one that died
//! early. An older pen has zeros there, an older successor leaves the zeros that it found.

use core::sync::atomic::{AtomicU64, Ordering};

use super::Pen;
use crate::cpu::time::Instant;

/// A moment of a successor's life. The numbers are part of the pen's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Moment {
    /// Its first instruction.
    Entered = 0,
    /// It began to set the network up.
    NetworkStart = 1,
    /// The network was up.
    NetworkUp = 2,
    /// It called the other cores.
    CoresCalled = 3,
    /// The last one was online.
    CoresOnline = 4,
    /// The first answer left.
    FirstAnswer = 5,
}

const MOMENTS: usize = 6;

/// Machine time of each moment in nanoseconds, 0: not reached; and the instar's UUID, 0: not told.
#[repr(C)]
pub(super) struct Marks {
    moments: [AtomicU64; MOMENTS],
    instance: [AtomicU64; 2],
}

impl Marks {
    fn mark(&self, moment: Moment, at: Instant) {
        self.moments[moment as usize].store(at.0, Ordering::Relaxed);
    }

    fn moment(&self, moment: Moment) -> Option<u64> {
        Some(self.moments[moment as usize].load(Ordering::Relaxed)).filter(|ns| *ns != 0)
    }

    fn name(&self, uuid: u128) {
        self.instance[0].store(uuid as u64, Ordering::Relaxed);
        self.instance[1].store((uuid >> 64) as u64, Ordering::Relaxed);
    }

    #[cfg(any(test, feature = "otlp"))]
    fn named(&self) -> u128 {
        let [low, high] = [0, 1].map(|half: usize| self.instance[half].load(Ordering::Relaxed));
        u128::from(low) | u128::from(high) << 64
    }

    fn clear(&self) {
        for word in self.moments.iter().chain(&self.instance) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

impl Pen {
    fn marks(self) -> Option<&'static Marks> {
        // SAFETY: the page is there where there is a way back, as the pen never moved; the words are atomic.
        self.has_way_back()
            .then(|| unsafe { &(*self.epitaph_page()).marks })
    }

    /// This successor reached `moment`. Takes no lock.
    pub(crate) fn mark(self, moment: Moment, at: Instant) {
        if let Some(marks) = self.marks() {
            marks.mark(moment, at);
        }
    }

    /// This successor has this UUID.
    pub(crate) fn name_instance(self, uuid: [u8; 16]) {
        if let Some(marks) = self.marks() {
            marks.name(u128::from_le_bytes(uuid));
        }
    }

    /// When the successor reached `moment`, in nanoseconds of machine time.
    pub(crate) fn moment(self, moment: Moment) -> Option<u64> {
        self.marks()?.moment(moment)
    }

    /// The successor's UUID; `None`: it did not come so far, or is of a version that does not tell.
    #[cfg(feature = "otlp")]
    pub(crate) fn instance(self) -> Option<[u8; 16]> {
        Some(self.marks()?.named())
            .filter(|uuid| *uuid != 0)
            .map(u128::to_le_bytes)
    }

    /// Forgets whoever was on trial before.
    pub(super) fn forget_moments(self) {
        if let Some(marks) = self.marks() {
            marks.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_found_and_forgotten() {
        const ALL: [Moment; MOMENTS] = [
            Moment::Entered,
            Moment::NetworkStart,
            Moment::NetworkUp,
            Moment::CoresCalled,
            Moment::CoresOnline,
            Moment::FirstAnswer,
        ];
        // SAFETY: atomic numbers alone, for all of which zero is a value.
        let marks: Marks = unsafe { core::mem::zeroed() };
        assert_eq!(marks.moment(Moment::Entered), None);
        for (number, moment) in (1..).zip(ALL) {
            marks.mark(moment, Instant(number));
        }
        marks.name(7 << 64 | 9);
        let found = ALL.map(|moment| marks.moment(moment).unwrap_or_default());
        assert_eq!((found, marks.named()), ([1, 2, 3, 4, 5, 6], 7 << 64 | 9));
        marks.clear();
        assert_eq!(
            (ALL.map(|moment| marks.moment(moment)), marks.named()),
            ([None; MOMENTS], 0)
        );
    }
}

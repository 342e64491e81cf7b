//! Requests that wait for the collector: bounded, and what does not fit is counted.
//!
//! Each signal has a lane with bounds of its own, so that a flood of log records cannot push out the trace of an upgrade.
//! In a full lane the oldest request makes room, except one that is being sent.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Signal;

/// An encoded request. Shared, so that whoever sends it need not hold the queue.
pub type Body = Arc<[u8]>;

/// Bounds of one signal's lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Sum of the requests' sizes.
    pub bytes: usize,
    /// Number of requests.
    pub items: usize,
}

/// Bounds of all lanes, by [`Signal::index`]. The default is 448 KiB together, more than half of it for traces: they are
/// small, rare, and the only record of an upgrade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits(pub [Limit; 3]);

impl Default for Limits {
    fn default() -> Self {
        let lane = |kib: usize| Limit {
            bytes: kib * 1024,
            items: 64,
        };
        Limits([lane(64), lane(128), lane(256)])
    }
}

/// A queued request.
#[derive(Debug)]
pub(super) struct Entry {
    pub body: Body,
    /// Age: requests are numbered across all signals.
    pub order: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// When the collector first failed to take it.
    pub failing_since_ns: Option<u64>,
}

#[derive(Debug)]
struct Lane {
    entries: VecDeque<Entry>,
    bytes: usize,
    dropped: u64,
    /// The first entry is being sent and must stay.
    sending: bool,
    limit: Limit,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    lanes: [Lane; 3],
    next_order: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        let lane = |limit| Lane {
            entries: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            sending: false,
            limit,
        };
        Queue {
            lanes: limits.0.map(lane),
            next_order: 0,
        }
    }

    /// Queues a request; drops the oldest of its signal until it fits, or itself if it never can. Empty requests say
    /// nothing and are ignored.
    pub fn push(&mut self, signal: Signal, body: Vec<u8>) {
        let lane = &mut self.lanes[signal.index()];
        if body.is_empty() {
            return;
        }
        let keep = usize::from(lane.sending);
        // What has to stay whatever happens: without this check a request too large would empty the lane in vain.
        let pinned = if lane.sending {
            lane.entries[0].body.len()
        } else {
            0
        };
        if body.len() > lane.limit.bytes.saturating_sub(pinned) || keep >= lane.limit.items {
            lane.dropped += 1;
            return;
        }
        while lane.bytes + body.len() > lane.limit.bytes || lane.entries.len() >= lane.limit.items {
            if !lane.drop_entry(keep) {
                break;
            }
        }
        lane.bytes += body.len();
        let order = self.next_order;
        self.next_order += 1;
        lane.entries.push_back(Entry {
            body: body.into(),
            order,
            attempts: 0,
            failing_since_ns: None,
        });
    }

    /// The oldest request of a signal.
    pub(super) fn front(&mut self, signal: Signal) -> Option<&mut Entry> {
        self.lanes[signal.index()].entries.front_mut()
    }

    /// Whether the oldest request of a signal is being sent, and so must not be dropped to make room.
    pub(super) fn set_sending(&mut self, signal: Signal, sending: bool) {
        self.lanes[signal.index()].sending = sending;
    }

    /// Takes the oldest request out: it was delivered, or refused for good.
    pub(super) fn pop(&mut self, signal: Signal) {
        let lane = &mut self.lanes[signal.index()];
        lane.sending = false;
        if let Some(entry) = lane.entries.pop_front() {
            lane.bytes -= entry.body.len();
        }
    }

    /// Drops the oldest request and counts it.
    pub(super) fn drop_front(&mut self, signal: Signal) {
        let lane = &mut self.lanes[signal.index()];
        lane.sending = false;
        lane.drop_entry(0);
    }

    /// Bytes that wait, over all signals.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// Requests that wait, over all signals.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.entries.len()).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests of a signal that were dropped for want of room or after failing too long.
    pub fn dropped(&self, signal: Signal) -> u64 {
        self.lanes[signal.index()].dropped
    }

    /// What was not delivered yet, for the next instar: copies of at most `max_bytes` in sum, oldest first. If not all
    /// fits, new goes before old: traces first, then the newest metrics, which tell what else was dropped, then logs, then
    /// what is left of metrics. A request that is being sent is among them, so the collector may get it twice; better
    /// than never.
    pub fn undelivered(&self, max_bytes: usize) -> Vec<(Signal, Vec<u8>)> {
        let mut room = max_bytes;
        let mut chosen: Vec<(u64, Signal, &Body)> = Vec::new();
        let all = usize::MAX;
        let mut taken = [0; 3];
        for (signal, most) in [
            (Signal::Traces, all),
            (Signal::Metrics, 1),
            (Signal::Logs, all),
            (Signal::Metrics, all),
        ] {
            let newest = self.lanes[signal.index()].entries.iter().rev();
            for entry in newest.skip(taken[signal.index()]).take(most) {
                let Some(left) = room.checked_sub(entry.body.len()) else {
                    break;
                };
                room = left;
                taken[signal.index()] += 1;
                // At most a few hundred: a sort would cost more code than it saves time.
                let place = chosen.partition_point(|(order, ..)| *order < entry.order);
                chosen.insert(place, (entry.order, signal, &entry.body));
            }
        }
        chosen
            .into_iter()
            .map(|(_, signal, body)| (signal, body.to_vec()))
            .collect()
    }

    /// How many requests of each signal wait and are not among these.
    pub fn left_behind(&self, handed: &[(Signal, Vec<u8>)]) -> [u64; 3] {
        let mut left = [0, 1, 2].map(|index| self.lanes[index].entries.len() as u64);
        for (signal, _) in handed {
            left[signal.index()] = left[signal.index()].saturating_sub(1);
        }
        left
    }

    /// So many requests of each signal were dropped elsewhere: for want of room on their way here.
    pub fn were_dropped(&mut self, requests: [u64; 3]) {
        for (lane, requests) in self.lanes.iter_mut().zip(requests) {
            lane.dropped = lane.dropped.saturating_add(requests);
        }
    }
}

impl Lane {
    fn drop_entry(&mut self, index: usize) -> bool {
        let entry = self.entries.remove(index);
        if let Some(entry) = &entry {
            self.bytes -= entry.body.len();
            self.dropped += 1;
        }
        entry.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Limits {
        Limits([Limit { bytes: 100, items: 4 }; 3])
    }

    #[test]
    fn the_oldest_of_the_same_signal_makes_room() {
        let mut queue = Queue::new(small());
        queue.push(Signal::Traces, vec![9; 100]);
        for number in 0..6 {
            queue.push(Signal::Logs, vec![number; 10]);
        }
        assert_eq!(queue.dropped(Signal::Logs), 2);
        assert_eq!(queue.front(Signal::Logs).expect("queued").body[0], 2);
        assert_eq!(queue.dropped(Signal::Traces), 0);
        queue.push(Signal::Logs, vec![7; 90]);
        assert_eq!(queue.dropped(Signal::Logs), 5);
        queue.push(Signal::Logs, vec![8; 101]);
        assert_eq!(
            (queue.dropped(Signal::Logs), queue.len()),
            (6, 3),
            "too large: only itself is dropped"
        );
    }

    #[test]
    fn what_is_being_sent_stays() {
        let mut queue = Queue::new(small());
        queue.push(Signal::Logs, vec![1; 60]);
        queue.set_sending(Signal::Logs, true);
        queue.push(Signal::Logs, vec![2; 40]);
        queue.push(Signal::Logs, vec![3; 40]);
        queue.push(Signal::Logs, vec![4; 50]);
        assert_eq!(queue.front(Signal::Logs).expect("queued").body[0], 1);
        assert_eq!(queue.dropped(Signal::Logs), 2);
        assert_eq!(queue.bytes(), 100);
    }

    #[test]
    fn the_handover_prefers_traces_and_keeps_the_order() {
        let mut queue = Queue::new(small());
        queue.push(Signal::Metrics, vec![1; 30]);
        queue.push(Signal::Traces, vec![2; 30]);
        queue.push(Signal::Logs, vec![3; 30]);
        queue.push(Signal::Traces, vec![4; 30]);
        let all = queue.undelivered(120);
        assert_eq!(
            all.iter().map(|(_, body)| body[0]).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        let some = queue.undelivered(80);
        assert_eq!(some.iter().map(|(_, body)| body[0]).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(queue.left_behind(&some), [1, 1, 0]);
        assert!(queue.undelivered(0).is_empty());
        queue.push(Signal::Metrics, vec![5; 10]);
        queue.push(Signal::Logs, vec![6; 10]);
        let some = queue.undelivered(100);
        let some: Vec<_> = some.iter().map(|(_, body)| body[0]).collect();
        assert_eq!(
            some,
            [2, 4, 5, 6],
            "the newest metrics before logs, old logs before old metrics"
        );
        let mut next = Queue::new(small());
        next.were_dropped([1, 1, 0]);
        assert_eq!(Signal::ALL.map(|signal| next.dropped(signal)), [1, 1, 0]);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_nothing_is_lost_uncounted(sizes in prop::collection::vec((0usize..3, 1usize..150), 0..200)) {
            let mut queue = Queue::new(small());
            for (index, size) in &sizes {
                let signal = Signal::from_index(*index).expect("in range");
                queue.push(signal, vec![0; *size]);
                prop_assert!(queue.bytes() <= 300 && queue.len() <= 12);
            }
            let dropped: u64 = Signal::ALL.iter().map(|signal| queue.dropped(*signal)).sum();
            prop_assert_eq!(dropped as usize + queue.len(), sizes.len());
            let handed: usize = queue.undelivered(150).iter().map(|(_, body)| body.len()).sum();
            prop_assert!(handed <= 150);
        }
    }
}

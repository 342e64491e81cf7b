//! Frames that wait for the syslog server: bounded, and what does not fit is counted.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Most bytes that wait.
pub const MAX_BYTES: usize = 64 * 1024;

/// Most bytes that are given to the connection at once, and the longest frame.
const BATCH: usize = 4096;

/// The frames, the oldest first.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How many of the first ones are under way, and must stay.
    sending: usize,
    sent: u64,
    dropped: u64,
}

impl Outbox {
    /// Adds a frame; the oldest ones that are not under way make room.
    pub fn push(&mut self, frame: Vec<u8>) {
        if frame.len() > BATCH {
            self.dropped += 1;
            return;
        }
        while self.bytes + frame.len() > MAX_BYTES
            && let Some(oldest) = self.frames.remove(self.sending)
        {
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Adds what a predecessor has left, as [`Outbox::undelivered`] made it. What is not a frame, and all behind it, is
    /// left out.
    pub fn take_over(&mut self, mut bytes: &[u8]) {
        while let Some(length) = frame_length(bytes) {
            let (frame, rest) = bytes.split_at(length);
            self.push(frame.into());
            bytes = rest;
        }
    }

    /// The next bytes to send: whole frames. `None`: nothing waits. They stay until [`Outbox::arrived`].
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let mut batch = self.frames.front()?.clone();
        self.sending = 1;
        for frame in self.frames.iter().skip(1) {
            if batch.len() + frame.len() > BATCH {
                break;
            }
            batch.extend_from_slice(frame);
            self.sending += 1;
        }
        Some(batch)
    }

    /// What [`Outbox::next`] gave has arrived.
    pub fn arrived(&mut self) {
        for frame in self.frames.drain(..self.sending) {
            self.bytes -= frame.len();
            self.sent += 1;
        }
        self.sending = 0;
    }

    /// What [`Outbox::next`] gave may not have arrived: it will be sent again.
    pub fn failed(&mut self) {
        self.sending = 0;
    }

    /// What has not arrived yet, for the next instar: the newest frames that fit into `max_bytes`, the oldest of them first. One
    /// that is under way is among them, so the server may get it twice; better than never.
    pub fn undelivered(&self, max_bytes: usize) -> Vec<u8> {
        let mut room = max_bytes;
        let newest = self.frames.iter().rev().take_while(|frame| {
            let fits = frame.len() <= room;
            room = room.saturating_sub(frame.len());
            fits
        });
        let first = self.frames.len() - newest.count();
        self.frames.iter().skip(first).flatten().copied().collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Messages that wait, that the server has taken, and that were dropped here for want of room.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.frames.len() as u64, self.sent, self.dropped)
    }
}

/// The length of the frame that `bytes` begin with, with its count; `None` if there is no whole one.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let blank = bytes.iter().take(6).position(|byte| *byte == b' ')?;
    let count = core::str::from_utf8(&bytes[..blank]).ok()?;
    // `parse` alone would take "+80"; and RFC 6587 lets no count begin with a zero.
    let well_formed = count.bytes().all(|byte| byte.is_ascii_digit()) && !count.starts_with('0');
    let length = count.parse::<usize>().ok().filter(|_| well_formed)? + blank + 1;
    (length <= bytes.len()).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Vec<u8> {
        alloc::format!("{} {text}", text.len()).into_bytes()
    }

    fn all(outbox: &mut Outbox) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(batch) = outbox.next() {
            all.extend(batch);
            outbox.arrived();
        }
        all
    }

    #[test]
    fn frames_stay_until_they_have_arrived() {
        let mut outbox = Outbox::default();
        outbox.push(of("a"));
        outbox.push(of("b"));
        assert_eq!(outbox.next().as_deref(), Some(&b"1 a1 b"[..]));
        outbox.push(of("c"));
        outbox.failed();
        assert_eq!(outbox.next().as_deref(), Some(&b"1 a1 b1 c"[..]));
        outbox.arrived();
        assert_eq!(outbox.next(), None);
        assert_eq!((outbox.counts(), outbox.bytes), ((0, 3, 0), 0));
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let mut outbox = Outbox::default();
        let long = "x".repeat(2000);
        for number in 0..40 {
            outbox.push(of(&alloc::format!("{number:02}{long}")));
            assert!(outbox.bytes <= MAX_BYTES);
        }
        let (waiting, _, dropped) = outbox.counts();
        assert!(dropped > 0 && waiting + dropped == 40);
        let first = outbox.next().expect("a batch");
        assert!(first.starts_with(alloc::format!("2002 {dropped:02}").as_bytes()));
        // What is under way stays, whatever comes.
        for _ in 0..40 {
            outbox.push(of(&long));
        }
        assert_eq!(outbox.next().as_deref(), Some(&first[..]));
        outbox.push("9".repeat(BATCH + 1).into_bytes());
        assert!(
            outbox.next().is_some_and(|batch| batch == first),
            "too long: only itself"
        );
    }

    #[test]
    fn the_newest_cross_the_jump() {
        let mut outbox = Outbox::default();
        for text in ["old", "mid", "new"] {
            outbox.push(of(text));
        }
        outbox.next();
        assert_eq!(outbox.undelivered(12), b"3 mid3 new");
        assert_eq!(outbox.undelivered(1000), b"3 old3 mid3 new");
        assert_eq!(outbox.undelivered(4), b"");
        let mut successor = Outbox::default();
        successor.take_over(&outbox.undelivered(1000));
        assert_eq!(successor.counts(), (3, 0, 0));
        assert_eq!(all(&mut successor), b"3 old3 mid3 new");
    }

    #[test]
    fn only_frames_are_taken_over() {
        for (bytes, count) in [
            (&b"1 a2 bc"[..], 2),
            (b"1 a9 bc", 1),
            (b"1 a+1 b", 1),
            (b"01 a", 0),
            (b"0 ", 0),
            (b" a", 0),
            (b"99999999999999999999 a", 0),
            (b"\xff a", 0),
        ] {
            let mut outbox = Outbox::default();
            outbox.take_over(bytes);
            assert_eq!(outbox.counts().0, count, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_left_is_taken_over(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut outbox = Outbox::default();
            outbox.take_over(&bytes);
            prop_assert!(bytes.starts_with(&all(&mut outbox)));
        }
    }
}

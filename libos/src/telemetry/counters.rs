//! What became of what was to be sent by OTLP.

/// What became of requests, by [`Signal::index`](super::Signal::index) where it is an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Taken by the collector.
    pub delivered: [u64; 3],
    /// Refused by the collector for good.
    pub rejected: [u64; 3],
    /// Dropped here: no room, or failed too long.
    pub dropped: [u64; 3],
    /// Sent again.
    pub retries: u64,
    /// Points, records and spans that the collector refused inside requests it took.
    pub rejected_items: u64,
    /// The time-stamp counter's cycles that encoding took; for traces, which are few, it is not measured.
    pub encode_cycles: [u64; 3],
    /// The time-stamp counter's cycles that sending took, without the waiting.
    pub send_cycles: [u64; 3],
    /// Bytes that wait.
    pub queued_bytes: u64,
    /// Requests that wait.
    pub queued: u64,
}

//! Ways to misbehave, for tests of whoever sends.

use std::time::Duration;

/// What the collector does wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fault {
    /// Nothing: it answers as it should.
    #[default]
    None,
    /// Nobody listens: connections are refused.
    Refuse,
    /// Connections are accepted and closed at once.
    Reset,
    /// This status, and nothing is taken. With `Retry-After` in seconds if given: 429, 503; without: 400, 500.
    Status(u16, Option<u32>),
    /// Takes the request and says nothing.
    NeverAnswer,
    /// Ends the connection in the midst of the answer's body.
    HalfAnswer,
    /// One byte of the answer at a time, with this pause.
    SlowBytes(Duration),
    /// Takes the items, and answers with a body of so many bytes.
    HugeAnswer(u64),
    /// Sends the sender elsewhere (307).
    Redirect(String),
    /// Takes the items, but says that it refused so many.
    PartialSuccess(i64),
    /// Answers something that is not HTTP.
    Garbage,
}

impl Fault {
    /// The status that is answered, if one is.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Fault::Status(status, _) => Some(*status),
            Fault::Redirect(_) => Some(307),
            Fault::Refuse | Fault::Reset | Fault::NeverAnswer | Fault::Garbage => None,
            _ => Some(200),
        }
    }

    /// Whether the sender may think that its items were taken.
    pub(super) fn takes_items(&self) -> bool {
        matches!(
            self,
            Fault::None | Fault::HugeAnswer(_) | Fault::PartialSuccess(_)
        )
    }
}

//! Clients that ask all the time and keep a record: what an upgrade looks like from outside.

mod asker;
mod echo;
mod record;

pub use asker::{AskRecord, Asker, Question};
pub use echo::{EchoClient, echo_answers};
pub use record::{EchoRecord, Gap, Sample};

//! State that survives: what an application leaves for the next image, and finds again when that one fails.
//!
//! *Small state* is records: a name, the application's version of it, bytes. They cross the jump in the handover record
//! and, on an orderly rollback, come back. *Large state* stays where it is, in a [`Preserved`] region.
//!
//! ```ignore
//! // At the start: what the predecessor left, whichever version of the application it was.
//! if let Some(record) = state::take("sessions") {
//!     match record.version {
//!         1 => …,
//!         2 => …,
//!         // Newer than what this version knows: it is kept for whoever does, and comes back on the way up.
//!         newer => state::stash("sessions", newer, record.bytes)?,
//!     }
//! }
//! // When this instar is to be replaced: nobody is served any more, and everything is as it will be handed over.
//! state::on_handover(|| async { state::stash("sessions", 2, sessions()).map_err(|error| error.to_string()) });
//! // When it goes on instead.
//! state::on_return(|_| async { serve_again() });
//! ```
//!
//! A record that nobody takes is handed on to the next instar, and so is a region. Any released version of an application
//! must be able to hand over to any other, up and down: write what the oldest one that is still in use can read, or a
//! record of another name beside it.

pub mod header;
pub mod preserved;
pub mod records;
pub mod returned;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::Pin;
use core::time::Duration;

use log::warn;
use spin::Mutex;

use crate::replace::bounded::Memory;
use crate::replace::error::{Code, Refusal};
use crate::replace::handover::PreservedRange;
use crate::task;
use records::{Records, Stashed};

pub use preserved::{Preserved, PreservedError};
pub use records::{MAX_BYTES, MAX_NAME, MAX_RECORDS, Record, StashError};
pub use returned::ReturnError;

/// How long all hooks together may take to stash what there is. It is a part of the blackout.
pub const PATIENCE: Duration = Duration::from_secs(1);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type SaveHook = Arc<dyn Fn() -> Work<Result<(), String>> + Send + Sync>;
type ReturnHook = Arc<dyn Fn(Return) -> Work<()> + Send + Sync>;

static STATE: Mutex<State> = Mutex::new(State {
    records: Records::new(),
    before: None,
    save: Vec::new(),
    goes_on: Vec::new(),
});

struct State {
    records: Records,
    /// What there was before the hooks were asked.
    before: Option<Records>,
    save: Vec<SaveHook>,
    goes_on: Vec<ReturnHook>,
}

/// Why an instar that had stashed its state goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// It was not replaced.
    NotReplaced,
    /// Its successor failed, or was ordered to give the machine back. What that one handed back can be taken; what it wrote
    /// into preserved regions is there, and so are regions that it made.
    RolledBack,
}

/// Stashes a record, in place of one of the same name.
///
/// # Errors
/// See [`StashError`].
pub fn stash(name: &str, version: u32, bytes: impl Into<Vec<u8>>) -> Result<(), StashError> {
    let bytes = bytes.into();
    STATE.lock().records.stash(name, version, bytes)
}

/// Stashes a value as CBOR; [`Record::decode`] reads it.
///
/// # Errors
/// See [`StashError`].
pub fn stash_encoded(name: &str, version: u32, value: &impl minicbor::Encode<()>) -> Result<(), StashError> {
    let mut bytes = Vec::new();
    // Writing into memory cannot fail.
    let _ = minicbor::encode(value, Memory(&mut bytes));
    stash(name, version, bytes)
}

/// Takes the record of this name: the predecessor's, what a successor handed back, or what was stashed here.
#[must_use]
pub fn take(name: &str) -> Option<Record> {
    STATE.lock().records.take(name)
}

/// Has `hook` asked before this instar hands over, after its clients were sent away: the moment to stash what there is. On an
/// orderly rollback a successor's hooks are asked in the same way.
///
/// All hooks together have [`PATIENCE`]. If they take longer (and `await` meanwhile: tasks are cooperative) or one fails, with
/// words for a person, the replacement is refused before the jump, as `state-not-saved`, and this instar serves on.
pub fn on_handover<F, W>(hook: F)
where
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), String>> + Send + 'static,
{
    let hook: SaveHook = Arc::new(move || Box::pin(hook()));
    STATE.lock().save.push(hook);
}

/// Has `hook` asked when this instar goes on after the hooks of [`on_handover`] were. New clients wait meanwhile; after
/// [`PATIENCE`] it is dropped.
pub fn on_return<F, W>(hook: F)
where
    F: Fn(Return) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let hook: ReturnHook = Arc::new(move |why| Box::pin(hook(why)));
    STATE.lock().goes_on.push(hook);
}

/// Opens what the predecessor left.
pub(crate) fn open(records: &[Stashed], regions: &[PreservedRange]) {
    STATE.lock().records = Records::inherited(records.to_vec());
    preserved::open(regions);
}

/// Has the application stash what it has. From then on [`records`] and [`preserved::to_hand_over`] say what there is, until
/// [`goes_on`].
pub(crate) async fn save() -> Result<(), Refusal> {
    preserved::freeze();
    let hooks = {
        let mut state = STATE.lock();
        state.before = Some(state.records.clone());
        state.save.clone()
    };
    let refused = |message| Err(Refusal::new(Code::StateNotSaved, message));
    let all = async {
        for hook in &hooks {
            hook().await?;
        }
        Ok(())
    };
    match task::timeout(PATIENCE, all).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err::<_, String>(why)) => refused(format!("the application did not save its state: {why}")),
        Err(_) => refused(format!(
            "the application did not save its state within {} ms",
            PATIENCE.as_millis()
        )),
    }
}

/// What has been stashed.
pub(crate) fn records() -> Vec<Stashed> {
    STATE.lock().records.all().to_vec()
}

/// A successor's part of an orderly rollback: its hooks are asked, and what they stash is a record for
/// [`accept_returned`], at most [`returned::MAX_RETURNED`] bytes.
///
/// # Errors
/// `state-not-saved`: the application failed to, or took too long. What it had journalled in preserved regions is there.
pub(crate) async fn collect_for_return() -> Result<Vec<u8>, Refusal> {
    save().await?;
    Ok(returned::encode(STATE.lock().records.all()))
}

/// The predecessor's part, before [`goes_on`]: what the successor handed back takes the place of what was handed over.
///
/// # Errors
/// See [`ReturnError`]; what this instar itself had stashed is there then.
pub(crate) fn accept_returned(bytes: &[u8]) -> Result<(), ReturnError> {
    let records = returned::decode(bytes)?;
    let mut state = STATE.lock();
    state.records = Records::inherited(records);
    state.before = None;
    Ok(())
}

/// This instar goes on: regions can be made again, what a successor has made is taken in, and the application is told.
pub(crate) async fn goes_on(why: Return) {
    if why == Return::RolledBack {
        preserved::adopt();
    }
    preserved::thaw();
    let hooks = {
        let mut state = STATE.lock();
        // On a crash too the application's own state is what it has in memory, which is newer than what it had stashed.
        if let Some(before) = state.before.take() {
            state.records = before;
        }
        state.goes_on.clone()
    };
    for hook in hooks {
        // Whoever waits to be served does not wait for ever.
        if task::timeout(PATIENCE, hook(why)).await.is_err() {
            warn!(
                "the application has not finished its work after the return within {} ms",
                PATIENCE.as_millis()
            );
        }
    }
    preserved::settle().await;
}

#[cfg(test)]
mod tests;

//! Orders that only an instar on trial takes: to stay, or to give the machine back.

use super::error::{Code, Refusal};
use super::machine::Machine;

/// Ends the trial: this instar stays.
///
/// # Errors
/// `not-on-trial`.
pub(super) fn order_commit(_machine: &Machine) -> Result<(), Refusal> {
    Err(not_on_trial())
}

/// Ends the trial: the predecessor gets the machine back.
///
/// # Errors
/// `not-on-trial`.
pub(super) fn order_rollback(_machine: &Machine) -> Result<(), Refusal> {
    Err(not_on_trial())
}

fn not_on_trial() -> Refusal {
    Refusal::new(
        Code::NotOnTrial,
        "the running image is not on trial: there is nothing to commit, and nobody to give the machine back to",
    )
}

//! What can go wrong with private memory.

use thiserror::Error;

use super::super::ledger::{KeyIdError, LedgerError};
use super::super::reset::CannotReset;
use super::PATIENCE;

/// Why there is no private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TakeError {
    /// Not a key of this machine's.
    #[error("{0}")]
    Key(#[from] KeyIdError),
    /// No bytes were asked for.
    #[error("private memory of 0 bytes: ask for at least one")]
    Nothing,
    /// Not enough free chunks in a row.
    #[error(
        "private memory needs {chunks} free chunks of 2 MiB in a row, and there is no such place: take smaller pieces, \
         or release some"
    )]
    NoMemory {
        /// How many were asked for.
        chunks: u64,
    },
    /// The ledger does not take it.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// This instar is being replaced.
    #[error(
        "this instar is being replaced, and gives no private memory away any more: try again if it serves on"
    )]
    Replacing,
}

/// Why private memory has not been reset. It stays in the ledger, and nobody else gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResetError {
    /// This machine cannot.
    #[error("{pages} private pages cannot be reset: {why}")]
    Cannot {
        /// How many pages.
        pages: u64,
        /// Why.
        why: CannotReset,
    },
    /// A core did not flush its caches in time.
    #[error(
        "{pages} private pages were not reset: a core did not flush its caches within {} s",
        PATIENCE.as_secs()
    )]
    NotFlushed {
        /// How many pages.
        pages: u64,
    },
    /// The cores did not get on with it.
    #[error(
        "{left} of {pages} private pages were not reset: no core reset one within {} s",
        PATIENCE.as_secs()
    )]
    Stuck {
        /// How many are left.
        left: u64,
        /// Of how many.
        pages: u64,
    },
    /// A core is still busy with a reset that was given up.
    #[error("an earlier reset of private pages has been given up and has not ended yet")]
    Busy,
}

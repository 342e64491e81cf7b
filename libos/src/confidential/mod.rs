//! What the platform encrypts, what a flush is, which pages are private.

pub mod ledger;
pub mod platform;
pub mod policy;
pub mod private;
pub mod reset;

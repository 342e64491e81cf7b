//! What the platform encrypts, what a flush is, which pages are private.

pub mod platform;
pub mod policy;

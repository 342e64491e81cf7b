//! Placeholder until the entry macro stands.
fn main() {}

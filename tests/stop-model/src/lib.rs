//! A model of the stop protocol: loom tries every interleaving of a few cores.
//!
//! The protocol is the file that `libos` is built from, with loom's atomics in the place of the processor's. It is tried
//! as it is, and with mistakes in it (`build.rs`), which the model must find: a model that cannot fail proves nothing.
//!
//! What is modelled: an interrupt may be taken at any moment after it was sent; an NMI beside it; a patience that runs out
//! at any moment; cores that hear nothing; cores that look without having been called; two cores that want to stop the
//! others. A cache is a cell that only its own core writes: the jump reads all of them, so that a flush that has not
//! certainly happened before the jump is either seen as dirt or as a data race.
#![cfg(test)]
#![expect(
    dead_code,
    unused_variables,
    reason = "not every variant plays every scene, and one lacks the line that uses its argument"
)]

mod cpu {
    pub mod core_id {
        include!(concat!(env!("OUT_DIR"), "/core_id.rs"));
    }

    pub mod stop {
        pub mod sync {
            pub use loom::sync::atomic::{AtomicU64, Ordering};
        }
    }
}

/// Variants of the protocol, each with the same machine and the same scenes around it.
macro_rules! variants {
    ($($name:ident)*) => {$(
        mod $name {
            mod protocol {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
            include!("machine.rs");
            include!("scenes.rs");
        }
    )*};
}

variants! { original report_before_flush set_after_interrupt stopper_keeps_its_lines }

mod found;

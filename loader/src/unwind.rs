//! The two names that the precompiled `core` and `alloc` expect of an unwinder. Built with `panic = "abort"`, nothing
//! unwinds, and neither is ever called.

/// Finds landing pads; there is nothing that could ask for one.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Continues unwinding behind a landing pad.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    panic!("unwinding, which this build does not do")
}

//! Instructions that may fault, and where to go on when one does.

/// Where to continue after a #UD (vector 6) or #GP (vector 13) of the instruction at `rip`, if it is one of those that this
/// crate tries on purpose. There, EAX holds the vector.
pub(super) fn landing(rip: u64) -> Option<u64> {
    unsafe extern "C" {
        static rdmsr_that_may_fault: u8;
        static rdmsr_faulted: u8;
        static vmxon_that_may_fault: u8;
        static vmxoff_that_may_fault: u8;
        static vmx_faulted: u8;
        static seamcall_that_may_fault: u8;
        static seamcall_faulted: u8;
    }
    let table = [
        (&raw const rdmsr_that_may_fault, &raw const rdmsr_faulted),
        (&raw const vmxon_that_may_fault, &raw const vmx_faulted),
        (&raw const vmxoff_that_may_fault, &raw const vmx_faulted),
        (&raw const seamcall_that_may_fault, &raw const seamcall_faulted),
    ];
    table
        .into_iter()
        .find(|(at, _)| *at as u64 == rip)
        .map(|(_, landing)| landing as u64)
}

//! VMX operation of one core, which a SEAMCALL needs (Intel SDM vol. 3, sections 24.7 and 24.8), and the SEAMCALL itself.
//!
//! Not for applications: a SEAMCALL can take memory away from whoever uses it.

use alloc::boxed::Box;
use core::arch::naked_asm;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

use super::core_id::CoreSet;
use super::current;
use super::registers::{msr, try_read_msr, write_msr};
use crate::confidential::module::{Registers, Seamcall, SeamcallFault};

/// Why a core did not enter VMX operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VmxError {
    /// CPUID 1, ECX bit 5 is clear.
    #[error("the processor has no VMX")]
    Missing,
    /// `IA32_FEATURE_CONTROL` is locked without VMX.
    #[error("the BIOS has locked VMX off: switch it on there")]
    LockedOff,
    /// CR0 or CR4 has a bit set that VMX operation does not allow.
    #[error("VMX operation does not allow what is set in CR0 or CR4")]
    ControlRegisters,
    /// VMXON was refused: CF set, or the vector of the fault.
    #[error("VMXON was refused ({0:?})")]
    Refused(SeamcallFault),
}

/// `IA32_FEATURE_CONTROL` (SDM vol. 4, table 2-2): it cannot be written any more; VMX is allowed outside SMX.
const LOCKED: u64 = 1 << 0;
const OUTSIDE_SMX: u64 = 1 << 2;

/// What VMXON takes: 4 KiB at most, and the revision in front (SDM vol. 3, section 25.11.5).
#[repr(C, align(4096))]
struct Region([u32; 1024]);

/// This core is in VMX root operation, until this is dropped. Bound to the core: it is not `Send`.
pub(crate) struct Operation {
    _region: Box<Region>,
    _not_send: PhantomData<*const ()>,
}

impl Operation {
    /// Enters VMX operation on this core. An `IA32_FEATURE_CONTROL` that the BIOS left open is set and locked; CR0.NE is set,
    /// and stays so.
    ///
    /// # Errors
    /// See [`VmxError`]; the core is then as before.
    pub(crate) fn enter() -> Result<Self, VmxError> {
        if core::arch::x86_64::__cpuid(1).ecx & (1 << 5) == 0 {
            return Err(VmxError::Missing);
        }
        let read = |index| try_read_msr(index).ok_or(VmxError::Missing);
        let control = read(msr::FEATURE_CONTROL)?;
        if control & LOCKED == 0 {
            // SAFETY: the register exists and is open; VMX being allowed changes nothing by itself.
            unsafe { write_msr(msr::FEATURE_CONTROL, control | LOCKED | OUTSIDE_SMX) };
        } else if control & OUTSIDE_SMX == 0 {
            return Err(VmxError::LockedOff);
        }
        let mut region = Box::new(Region([0; 1024]));
        // Bit 31 of what the processor reports is not part of the revision.
        region.0[0] = read(msr::VMX_BASIC)? as u32 & 0x7fff_ffff;
        let mut fixed = [0; 4];
        for (value, index) in fixed.iter_mut().zip(msr::VMX_CR0_FIXED0..) {
            *value = read(index)?;
        }
        without_interrupts(|| switch_on(&region, fixed))?;
        Ok(Self {
            _region: region,
            _not_send: PhantomData,
        })
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        leave_if_on();
    }
}

impl Seamcall for Operation {
    fn call(&mut self, registers: &mut Registers) -> Result<(), SeamcallFault> {
        // SAFETY: the registers are the ones that it reads and writes. Which leaves are called, and what they do to memory, is
        // for `confidential::module` to decide.
        fault(unsafe { seamcall_or_fault(registers) })
    }
}

/// Cores in VMX operation.
static ON: AtomicU64 = AtomicU64::new(0);

/// The cores that are in VMX operation.
pub(crate) fn cores_on() -> CoreSet {
    CoreSet::from_bits(ON.load(Ordering::SeqCst))
}

fn this_core() -> u64 {
    CoreSet::EMPTY.with(current::id()).bits()
}

/// Whether this core is in VMX operation, or about to be.
pub(crate) fn is_on() -> bool {
    Cr4::read_raw() & Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits() != 0
}

/// Leaves VMX operation if this core is in it. For the stop path: allocates nothing, and may interrupt anything, even
/// itself, since the processor's own bit tells whether there is something to leave, and a second VMXOFF is a fault that is
/// expected.
pub(crate) fn leave_if_on() {
    without_interrupts(|| {
        if is_on() {
            // SAFETY: leaving VMX operation changes nothing for code that makes no use of it; outside, it is a #UD that is
            // caught.
            unsafe { vmxoff_or_fault() };
            // SAFETY: outside VMX operation the bit may be cleared.
            unsafe { Cr4::update(|cr4| cr4.remove(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS)) };
            ON.fetch_and(!this_core(), Ordering::SeqCst);
        }
    });
}

/// The control registers as VMX operation wants them, then VMXON.
fn switch_on(region: &Region, [cr0_must, cr0_may, cr4_must, cr4_may]: [u64; 4]) -> Result<(), VmxError> {
    let cr0 = Cr0::read_raw() | Cr0Flags::NUMERIC_ERROR.bits();
    let cr4 = Cr4::read_raw() | Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits();
    if cr0 & !cr0_may != 0 || cr0_must & !cr0 != 0 || cr4 & !cr4_may != 0 || cr4_must & !cr4 != 0 {
        return Err(VmxError::ControlRegisters);
    }
    // SAFETY: NE changes how an x87 error is reported, of which nothing is left to chance here; VMXE only allows VMXON.
    unsafe {
        Cr0::write_raw(cr0);
        Cr4::write_raw(cr4);
    }
    // Before it is so: rather a core too many than one too few.
    ON.fetch_or(this_core(), Ordering::SeqCst);
    let address = core::ptr::from_ref(region) as u64;
    // SAFETY: memory is mapped at its own address, so that this is the region's physical one; `Operation` keeps the region
    // until VMX operation has ended.
    fault(unsafe { vmxon_or_fault(&raw const address) }).map_err(|refused| {
        leave_if_on();
        VmxError::Refused(refused)
    })
}

/// What the functions below return: 0, 1 for VMfailInvalid, or the vector of the fault.
fn fault(returned: u32) -> Result<(), SeamcallFault> {
    Err(match returned {
        0 => return Ok(()),
        1 => SeamcallFault::VmFailInvalid,
        6 => SeamcallFault::UndefinedInstruction,
        _ => SeamcallFault::GeneralProtection,
    })
}

#[unsafe(naked)]
unsafe extern "C" fn vmxon_or_fault(region: *const u64) -> u32 {
    naked_asm!(
        ".global vmxon_that_may_fault, vmxoff_that_may_fault, vmx_faulted",
        "vmxon_that_may_fault: vmxon qword ptr [rdi]",
        "setc al",
        "movzx eax, al",
        "vmx_faulted: ret",
    )
}

#[unsafe(naked)]
unsafe extern "C" fn vmxoff_or_fault() -> u32 {
    naked_asm!("vmxoff_that_may_fault: vmxoff", "setc al", "movzx eax, al", "ret",)
}

// RAX is the leaf; operands and results are in RAX, RCX, RDX and R8 to R11 (TDX Module ABI Specification, "SEAMCALL
// instruction"). The assembler does not know 66 0F 01 CF.
#[unsafe(naked)]
unsafe extern "C" fn seamcall_or_fault(registers: *mut Registers) -> u32 {
    naked_asm!(
        ".global seamcall_that_may_fault, seamcall_faulted",
        "push rdi",
        "mov rax, [rdi]",
        "mov rcx, [rdi + 8]",
        "mov rdx, [rdi + 16]",
        "mov r8, [rdi + 24]",
        "mov r9, [rdi + 32]",
        "mov r10, [rdi + 40]",
        "mov r11, [rdi + 48]",
        "seamcall_that_may_fault: .byte 0x66, 0x0f, 0x01, 0xcf",
        "pop rdi",
        "jc 2f",
        "mov [rdi], rax",
        "mov [rdi + 8], rcx",
        "mov [rdi + 16], rdx",
        "mov [rdi + 24], r8",
        "mov [rdi + 32], r9",
        "mov [rdi + 40], r10",
        "mov [rdi + 48], r11",
        "xor eax, eax",
        "ret",
        "2: mov eax, 1",
        "ret",
        "seamcall_faulted: pop rdi",
        "ret",
    )
}

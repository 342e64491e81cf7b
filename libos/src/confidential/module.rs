//! The TDX module: whether there is one, which, and how it is left.
//!
//! Pure: the calls go through `Seamcall`, so that the tests can play any module. Numbers are from the Intel TDX Module ABI
//! Specification, "Host-Side (SEAMCALL) Interface Functions", "Interface Function Completion Status Codes" and its
//! `global_metadata.json`; compared with the module's source (github.com/intel/tdx-module: `tdx_error_codes_defs.h`,
//! `global_sys_fields_lookup.h`, `tdx_vmm_dispatcher.c`). SYS.DISABLE is not in that source: its number, and which
//! statuses it is repeated on, are those of Linux's `arch/x86/virt/vmx/tdx/`.

use alloc::string::{String, ToString};
use core::fmt;

use super::platform::Platform;

/// What a SEAMCALL reads and writes: RAX, RCX, RDX, R8 to R11. RAX is the leaf before, the completion status after.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// Leaf, then completion status.
    pub(crate) rax: u64,
    /// First operand.
    pub(crate) rcx: u64,
    /// Second operand.
    pub(crate) rdx: u64,
    /// Third operand.
    pub(crate) r8: u64,
    /// Fourth operand.
    pub(crate) r9: u64,
    /// Fifth operand.
    pub(crate) r10: u64,
    /// Sixth operand.
    pub(crate) r11: u64,
}

/// A SEAMCALL that did not reach a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SeamcallFault {
    /// The processor does not know the instruction, or is not in VMX root operation.
    #[error("SEAMCALL is not known here (#UD)")]
    UndefinedInstruction,
    /// The BIOS did not enable TDX.
    #[error("SEAMCALL is refused, TDX is not enabled (#GP)")]
    GeneralProtection,
    /// No module is loaded.
    #[error("SEAMCALL found nothing to call (VMfailInvalid)")]
    VmFailInvalid,
}

/// How to call the module. The core is in VMX root operation.
pub(crate) trait Seamcall {
    /// Calls the leaf in RAX.
    ///
    /// # Errors
    /// [`SeamcallFault`]: no module was called, and the registers are as before.
    fn call(&mut self, registers: &mut Registers) -> Result<(), SeamcallFault>;
}

/// TDH.SYS.RD: RDX is the field's identifier; R8 becomes its value.
const SYS_RD: u64 = 34;
/// TDH.SYS.DISABLE: the module ends all it does, gives its memory back, and can be initialised anew.
const SYS_DISABLE: u64 = 69;

/// Class "TDX Module Version" of the global metadata.
const MAJOR_VERSION: u64 = 0x0800_0001_0000_0004;
const MINOR_VERSION: u64 = 0x0800_0001_0000_0003;
const UPDATE_VERSION: u64 = 0x0800_0001_0000_0005;
const BUILD_NUMBER: u64 = 0x8800_0001_0000_0002;

/// A completion status without its details, which bits 31:0 hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status(u64);

impl Status {
    /// `TDX_SUCCESS`.
    const SUCCESS: Self = Self(0);
    /// `TDX_INTERRUPTED_RESUMABLE`: an interrupt came; to be called again with the same operands.
    const INTERRUPTED_RESUMABLE: Self = Self(0x8000_0003_0000_0000);
    /// `TDX_OPERAND_INVALID`. With operand 0, RAX: there is no such leaf.
    const OPERAND_INVALID: Self = Self(0xc000_0100_0000_0000);
    /// `TDX_SYS_BUSY`: another core is in a call of the same kind.
    const SYS_BUSY: Self = Self(0x8000_0202_0000_0000);
    /// `TDX_SYS_LP_INIT_NOT_DONE`: the module has not been initialised on this core.
    const LP_INIT_NOT_DONE: Self = Self(0xc000_0502_0000_0000);
    /// `TDX_SYS_NOT_READY`: nor on any other.
    const NOT_READY: Self = Self(0xc000_0505_0000_0000);
    /// `TDX_SYS_SHUTDOWN`: it has been shut down.
    const SHUTDOWN: Self = Self(0xc000_0506_0000_0000);

    const fn of(rax: u64) -> Self {
        Self(rax & 0xffff_ffff_0000_0000)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {:#018x}", self.0)
    }
}

/// A module's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 1 of 1.5.
    pub major: u16,
    /// 5 of 1.5.
    pub minor: u16,
    /// Number of the update of that.
    pub update: u16,
    /// Number of the build.
    pub build: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            major,
            minor,
            update,
            build,
        } = self;
        write!(f, "{major}.{minor}.{update:02} build {build}")
    }
}

/// What is known of the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// One answered.
    pub present: bool,
    /// Which, if it told.
    pub version: Option<Version>,
    /// How this is known, for a person.
    pub why: String,
}

impl Module {
    /// There is none, or none that could be asked.
    #[must_use]
    pub(crate) fn absent(why: &impl ToString) -> Self {
        Self {
            present: false,
            version: None,
            why: why.to_string(),
        }
    }
}

/// For a person.
impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.present, &self.version) {
            (true, Some(version)) => write!(f, "{version}"),
            (true, None) => write!(f, "of unknown version: {}", self.why),
            (false, _) => write!(f, "none: {}", self.why),
        }
    }
}

/// Why this machine has no module that could be asked, if so. A SEAMCALL in a guest would not reach one of its own.
#[must_use]
pub(crate) fn not_to_be_asked(platform: &Platform) -> Option<&'static str> {
    match platform.host() {
        None => Some("not asked: this is a confidential guest"),
        Some(host) if !host.tdx.is_some_and(|tdx| tdx.is_enabled()) => {
            Some("not asked: TDX is not enabled by the BIOS")
        }
        Some(_) => None,
    }
}

/// Asks whether a module is there, and which.
pub(crate) fn query(seam: &mut impl Seamcall) -> Module {
    let mut version = || {
        Ok(Version {
            major: read(seam, MAJOR_VERSION)?,
            minor: read(seam, MINOR_VERSION)?,
            update: read(seam, UPDATE_VERSION)?,
            build: read(seam, BUILD_NUMBER)?,
        })
    };
    let (version, why) = match version() {
        Ok(version) => (Some(version), "it told its version".to_string()),
        Err(Unread::Absent(fault)) => return Module::absent(&fault),
        Err(Unread::Refused(Status::LP_INIT_NOT_DONE | Status::NOT_READY)) => {
            (None, "it is loaded, and has not been initialised".to_string())
        }
        Err(Unread::Refused(Status::SHUTDOWN)) => (None, "it has been shut down".to_string()),
        Err(Unread::Refused(status)) => (
            None,
            "it does not tell its version: ".to_string() + &status.to_string(),
        ),
    };
    Module {
        present: true,
        version,
        why,
    }
}

/// Why a field of the metadata was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    Absent(SeamcallFault),
    Refused(Status),
}

/// Reads a field of 16 bits.
fn read(seam: &mut impl Seamcall, field: u64) -> Result<u16, Unread> {
    let mut registers = Registers {
        rax: SYS_RD,
        rdx: field,
        ..Registers::default()
    };
    seam.call(&mut registers).map_err(Unread::Absent)?;
    match Status::of(registers.rax) {
        Status::SUCCESS => Ok(registers.r8 as u16),
        refused => Err(Unread::Refused(refused)),
    }
}

/// What came of leaving the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It has ended all it did and given its memory back.
    Disabled,
    /// There was none.
    NoModule,
    /// It has not been initialised: it holds nothing.
    NotInUse,
    /// It is too old to know SYS.DISABLE, and stays initialised.
    NotSupported,
    /// It refused, with this completion status.
    Failed(u64),
    /// It was interrupted or busy too often.
    GaveUp,
    /// The core that would have called it did not enter VMX operation.
    Unreachable,
    /// Nobody called it: the successor takes some of its memory over as it is.
    Kept,
}

impl Left {
    /// Whether a module may still hold memory under its keys.
    #[must_use]
    pub const fn may_hold_memory(self) -> bool {
        !matches!(self, Self::Disabled | Self::NoModule | Self::NotInUse)
    }
}

/// For a person.
impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("the TDX module is disabled, and has given its memory back"),
            Self::NoModule => f.write_str("there is no TDX module to leave"),
            Self::NotInUse => f.write_str("the TDX module is not in use: there is nothing to leave"),
            Self::NotSupported => f.write_str(
                "the TDX module is too old to be disabled and stays initialised: the next image cannot use TDX before a reset",
            ),
            Self::Failed(status) => {
                write!(f, "the TDX module could not be disabled: status {status:#018x}")
            }
            Self::GaveUp => f.write_str("the TDX module was busy or interrupted too often to be disabled"),
            Self::Unreachable => f.write_str("the TDX module could not be called, and stays as it is"),
            Self::Kept => f.write_str("the TDX module is kept: the successor takes memory of its over"),
        }
    }
}

/// How often an interrupted SYS.DISABLE is resumed. Each call makes progress (TDX Module Base Specification, "Interruptible
/// functions"): to give up means that the module is broken.
const MOST_INTERRUPTIONS: u32 = 1_000_000;
/// How often a busy module is asked again. Nobody else calls it; its own work on another core ends soon.
const MOST_BUSY: u32 = 100_000;

/// Disables the module. No TD may be running, and no other core may call the module meanwhile.
pub(crate) fn disable(seam: &mut impl Seamcall) -> Left {
    let (mut interruptions, mut busy) = (0, 0);
    loop {
        let mut registers = Registers {
            rax: SYS_DISABLE,
            ..Registers::default()
        };
        if seam.call(&mut registers).is_err() {
            return Left::NoModule;
        }
        match Status::of(registers.rax) {
            Status::SUCCESS => return Left::Disabled,
            Status::INTERRUPTED_RESUMABLE if interruptions < MOST_INTERRUPTIONS => interruptions += 1,
            Status::SYS_BUSY if busy < MOST_BUSY => {
                busy += 1;
                core::hint::spin_loop();
            }
            Status::INTERRUPTED_RESUMABLE | Status::SYS_BUSY => return Left::GaveUp,
            // So says, before it looks whether it knows the leaf, a module that is not, or only half initialised. Memory is
            // given to it when all cores have initialised it (SYS.CONFIG), this one too.
            Status::NOT_READY
                if read(seam, MAJOR_VERSION) == Err(Unread::Refused(Status::LP_INIT_NOT_DONE)) =>
            {
                return Left::NotInUse;
            }
            Status::LP_INIT_NOT_DONE => return Left::NotInUse,
            Status::OPERAND_INVALID if registers.rax as u32 == 0 => return Left::NotSupported,
            _ => return Left::Failed(registers.rax),
        }
    }
}

#[cfg(test)]
mod tests;

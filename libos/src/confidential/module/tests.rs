//! Modules played from a script.

use super::super::platform::{Host, Role, Sme, TdxHost, Vendor};
use super::*;
use alloc::vec::Vec;

const BUSY: u64 = 0x8000_0202_0000_0000;
const INTERRUPTED: u64 = 0x8000_0003_0000_0000;
const NO_SUCH_LEAF: u64 = 0xc000_0100_0000_0000;
const NOT_READY: u64 = 0xc000_0505_0000_0000;
const LP_INIT_NOT_DONE: u64 = 0xc000_0502_0000_0000;

/// A module: what SYS.RD answers, and what SYS.DISABLE answers, time after time; the last answer is repeated.
struct Script {
    fault: Option<SeamcallFault>,
    read: u64,
    disable: Vec<u64>,
    /// Leaves that were called, with RDX.
    calls: Vec<(u64, u64)>,
}

impl Script {
    fn new(read: u64, disable: &[u64]) -> Self {
        Self {
            fault: None,
            read,
            disable: disable.to_vec(),
            calls: Vec::new(),
        }
    }

    fn faulting(fault: SeamcallFault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::new(0, &[])
        }
    }

    fn disables(&self) -> usize {
        self.calls.iter().filter(|(leaf, _)| *leaf == 69).count()
    }
}

impl Seamcall for Script {
    fn call(&mut self, registers: &mut Registers) -> Result<(), SeamcallFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.calls.push((registers.rax, registers.rdx));
        match registers.rax {
            34 => {
                // Values of the module 1.5.06, build 744; other bits than the field's 16 are not the field.
                registers.r8 = match registers.rdx {
                    0x0800_0001_0000_0004 => 1,
                    0x0800_0001_0000_0003 => 5,
                    0x0800_0001_0000_0005 => 6,
                    0x8800_0001_0000_0002 => 744,
                    field => panic!("there is no field {field:#x}"),
                };
                registers.rax = self.read;
            }
            69 => {
                let now = self.disable[0];
                if self.disable.len() > 1 {
                    self.disable.remove(0);
                }
                registers.rax = now;
            }
            _ => registers.rax = NO_SUCH_LEAF,
        }
        Ok(())
    }
}

const FAULTS: [(SeamcallFault, &str); 3] = [
    (SeamcallFault::UndefinedInstruction, "#UD"),
    (SeamcallFault::GeneralProtection, "#GP"),
    (SeamcallFault::VmFailInvalid, "VMfailInvalid"),
];

#[test]
fn no_module() {
    for (fault, name) in FAULTS {
        let found = query(&mut Script::faulting(fault));
        assert!(
            !found.present && found.version.is_none() && found.why.contains(name),
            "{found:?}"
        );
        assert_eq!(disable(&mut Script::faulting(fault)), Left::NoModule);
    }
}

#[test]
fn only_a_host_with_tdx_is_asked() {
    let machine = |role| Platform {
        vendor: Vendor::Intel,
        hypervisor: false,
        role,
        movdir64b: true,
        wbnoinvd: true,
        partial_write_erratum: false,
    };
    let host = |tdx_keyids| {
        let mktme_keyids = 31;
        let tdx = TdxHost {
            mktme_keyids,
            tdx_keyids,
        };
        machine(Role::Host(Host {
            tdx: Some(tdx),
            sme: Sme::Absent,
        }))
    };
    assert_eq!(not_to_be_asked(&host(32)), None);
    assert_eq!(not_to_be_asked(&host(2)), None);
    let not_enabled = Some("not asked: TDX is not enabled by the BIOS");
    assert_eq!(not_to_be_asked(&host(1)), not_enabled);
    let without = machine(Role::Host(Host {
        tdx: None,
        sme: Sme::Active,
    }));
    assert_eq!(not_to_be_asked(&without), not_enabled);
    let guest = Some("not asked: this is a confidential guest");
    assert_eq!(not_to_be_asked(&machine(Role::TdxGuest)), guest);
}

#[test]
fn a_line_says_it() {
    let line = |script: &mut Script| query(script).to_string();
    assert_eq!(line(&mut Script::new(0, &[])), "1.5.06 build 744");
    assert_eq!(
        line(&mut Script::new(LP_INIT_NOT_DONE, &[])),
        "of unknown version: it is loaded, and has not been initialised"
    );
    assert_eq!(
        line(&mut Script::faulting(SeamcallFault::UndefinedInstruction)),
        "none: SEAMCALL is not known here (#UD)"
    );
}

#[test]
fn a_module_tells_its_version() {
    let mut script = Script::new(0, &[]);
    let found = query(&mut script);
    assert!(found.present);
    assert_eq!(
        found.version.map(|version| version.to_string()).as_deref(),
        Some("1.5.06 build 744")
    );
    assert_eq!(script.disables(), 0, "asking changes nothing");
    assert!(script.calls.iter().all(|(leaf, _)| *leaf == 34));
}

#[test]
fn a_module_that_does_not_tell_is_there() {
    for (read, why) in [
        (
            NO_SUCH_LEAF,
            "it does not tell its version: status 0xc000010000000000",
        ),
        (LP_INIT_NOT_DONE, "it is loaded, and has not been initialised"),
        (NOT_READY, "it is loaded, and has not been initialised"),
        (0xc000_0506_0000_0000, "it has been shut down"),
    ] {
        let found = query(&mut Script::new(read, &[]));
        assert_eq!(
            (found.present, found.version, found.why.as_str()),
            (true, None, why)
        );
    }
}

#[test]
fn it_is_disabled_however_often_it_is_interrupted_or_busy() {
    for answers in [
        &[0][..],
        &[BUSY, 0],
        &[BUSY, BUSY, BUSY, 0],
        &[INTERRUPTED, 0],
        // Details in bits 31:0 do not make it another status.
        &[INTERRUPTED | 7, BUSY | 1, INTERRUPTED, BUSY, INTERRUPTED, 0],
    ] {
        let mut script = Script::new(0, answers);
        assert_eq!(disable(&mut script), Left::Disabled);
        assert_eq!(script.disables(), answers.len());
        assert!(!Left::Disabled.may_hold_memory());
    }
}

#[test]
fn what_never_ends_is_given_up() {
    for (answer, most) in [(BUSY, MOST_BUSY), (INTERRUPTED, MOST_INTERRUPTIONS)] {
        let mut script = Script::new(0, &[answer]);
        assert_eq!(disable(&mut script), Left::GaveUp);
        assert_eq!(script.disables(), most as usize + 1);
        assert!(Left::GaveUp.may_hold_memory());
    }
}

#[test]
fn an_old_module_does_not_know_it() {
    assert_eq!(disable(&mut Script::new(0, &[NO_SUCH_LEAF])), Left::NotSupported);
    assert!(Left::NotSupported.may_hold_memory());
    // Another operand than RAX is another error.
    let other = NO_SUCH_LEAF | 1;
    assert_eq!(disable(&mut Script::new(0, &[other])), Left::Failed(other));
}

#[test]
fn a_module_that_nobody_initialised_holds_nothing() {
    for answers in [NOT_READY, LP_INIT_NOT_DONE] {
        assert_eq!(
            disable(&mut Script::new(LP_INIT_NOT_DONE, &[answers])),
            Left::NotInUse
        );
        assert!(!Left::NotInUse.may_hold_memory());
    }
    // Initialised by this core, but not ready: memory may have been given to it.
    assert_eq!(
        disable(&mut Script::new(0, &[NOT_READY])),
        Left::Failed(NOT_READY)
    );
}

#[test]
fn an_error_is_told() {
    let status = 0xc000_0506_0000_0000;
    let mut script = Script::new(0, &[BUSY, status]);
    let left = disable(&mut script);
    assert_eq!((left, script.disables()), (Left::Failed(status), 2));
    assert!(left.may_hold_memory() && left.to_string().contains("0xc000050600000000"));
}

//! The TDX module, on a machine whose BIOS has enabled TDX and that has none: Bochs, where VMXON works and SEAMCALL is #UD.
//! While VMX operation lasts, Bochs refuses to clear CR4.VMXE (#GP), so that a VMXOFF which did not come is a machine that
//! does not serve.

use machine_tests::{
    machine::{DEADLINE, turn},
    prepared::PREPARED,
};
use std::net::SocketAddr;
use xtask::{
    control::{self, Confidential},
    http::Limits,
    machine::{Bochs, Machine, Rig},
    upgrade,
};

/// Boots `hello` 1.0.0 where the BIOS has set `tdx_keyids` TDX KeyIDs aside.
fn boot(tdx_keyids: u32) -> Machine {
    let mut machine = Machine::builder(&PREPARED.first_stage, &PREPARED.old_path)
        .cores(2)
        .append("instar.log=debug")
        .rig(Rig::Bochs(Bochs { tdx_keyids }))
        .start()
        .expect("Bochs starts");
    machine
        .wait_for_line("instar: serving generation=1 ", DEADLINE)
        .expect("it boots");
    machine
}

fn confidential(control: SocketAddr) -> Confidential {
    let status = control::status(control, Limits::patient()).unwrap_or_else(|error| panic!("{error:?}"));
    status.confidential.expect("it is told")
}

#[test]
fn without_a_module_vmx_is_off_again_before_the_jump() {
    let _turn = turn();
    let mut machine = boot(32);
    machine
        .wait_for_line(
            "TDX module: none: SEAMCALL is not known here (#UD); VMX is off on all cores",
            DEADLINE,
        )
        .expect("it asked");
    let control = machine.addresses().control;
    let told = confidential(control);
    assert!(told.tdx.is_some_and(|tdx| tdx.enabled), "{told:?}");
    assert!(!told.tdx_module.present && told.tdx_module.version.is_none());
    assert_eq!(told.tdx_module.why, "SEAMCALL is not known here (#UD)");

    let staged = control::push(control, &PREPARED.new, Limits::patient(), |_| ())
        .unwrap_or_else(|error| panic!("{error:?}"));
    let mark = machine.serial().mark();
    upgrade::order(control, &staged.sha256, &PREPARED.operator).expect("accepted");
    machine
        .wait_for_line_after(
            mark,
            "there is no TDX module to leave; VMX is off on all cores",
            DEADLINE,
        )
        .expect("it left");
    machine
        .wait_for_line_after(mark, "instar: serving generation=2 ", DEADLINE)
        .expect("the successor serves");
    assert_eq!(
        confidential(control),
        told,
        "the successor asks anew, and is told the same"
    );
}

#[test]
fn without_tdx_nobody_asks() {
    let _turn = turn();
    let machine = boot(1);
    let told = confidential(machine.addresses().control);
    assert_eq!(
        told.tdx.map(|tdx| (tdx.enabled, tdx.tdx_keyids)),
        Some((false, 1))
    );
    assert_eq!(told.tdx_module.why, "not asked: TDX is not enabled by the BIOS");
    assert!(!machine.serial_log().contains("TDX module: "));
}

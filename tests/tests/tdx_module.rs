//! The TDX module, on a machine whose BIOS has enabled TDX and that has none: Bochs, where VMXON works and SEAMCALL is #UD.
//! While VMX operation lasts, Bochs refuses to clear CR4.VMXE (#GP), so that a VMXOFF which did not come is a machine that
//! does not serve.

use machine_tests::machine::{Bochs, Machine};
use serde_json::json;

/// Boots `hello` 1.0.0 where the BIOS has set `tdx_keyids` TDX KeyIDs aside.
fn boot(tdx_keyids: u32) -> Machine {
    Bochs {
        cores: 2,
        tdx_keyids,
        append: "instar.log=debug".into(),
        ..Bochs::default()
    }
    .boot()
}

#[test]
fn without_a_module_vmx_is_off_again_before_the_jump() {
    let machine = boot(32);
    machine.wait_line("TDX module: none: SEAMCALL is not known here (#UD); VMX is off on all cores");
    let told = machine.status()["confidential"].clone();
    assert_eq!(
        told["tdx"],
        json!({"enabled": true, "mktme_keyids": 16, "tdx_keyids": 32, "first_tdx_keyid": 17})
    );
    assert_eq!(
        told["tdx_module"],
        json!({"present": false, "version": null, "why": "SEAMCALL is not known here (#UD)"})
    );

    machine.stage(&machine.prepared.new);
    let status = machine.replace().status;
    assert_eq!(
        status["confidential"], told,
        "the successor asks anew, and is told the same"
    );
    machine.wait_line("instar: serving generation=2 ");
    let said = machine.said();
    let place = |words: &str| said.find(words).unwrap_or_else(|| panic!("not said: {words}"));
    let left = place("there is no TDX module to leave; VMX is off on all cores");
    assert!(place("instar: serving generation=1 ") < left && left < place("instar: serving generation=2 "));
}

#[test]
fn without_tdx_nobody_asks() {
    let machine = boot(1);
    let told = machine.status()["confidential"].clone();
    assert_eq!(
        told["tdx"],
        json!({"enabled": false, "mktme_keyids": 16, "tdx_keyids": 1, "first_tdx_keyid": 17})
    );
    assert_eq!(
        told["tdx_module"]["why"],
        "not asked: TDX is not enabled by the BIOS"
    );
    assert!(!machine.said().contains("TDX module: "));
}

//! Every way in, on machines of different sizes.

use machine_tests::machine::{Firmware, Machine, Setup};

/// Shows that a machine serves, and that it can be replaced.
fn works(setup: &Setup) -> Machine {
    let machine = setup.boot();
    machine.assert_serves();
    let cores = serde_json::json!({"present": setup.cores, "online": setup.cores});
    assert_eq!(machine.status()["cores"], cores, "{setup:?}");
    machine.stage(&machine.prepared.new);
    let status = machine.replace().status;
    assert_eq!(
        (&status["image"]["version"], &status["cores"]),
        (&"1.1.0".into(), &cores),
        "{setup:?}"
    );
    machine.assert_serves();
    machine
}

#[test]
fn one_core() {
    works(&Setup {
        cores: 1,
        ..Setup::default()
    });
}

#[test]
fn two_cores() {
    let machine = works(&Setup {
        cores: 2,
        ..Setup::default()
    });
    // TCG answers an unknown register with zero: a host with no KeyIDs, before and after a replacement.
    let confidential = &machine.status()["confidential"];
    assert_eq!(
        (
            &confidential["role"],
            &confidential["tdx"]["enabled"],
            &confidential["hypervisor"]
        ),
        (&"host".into(), &false.into(), &true.into())
    );
    machine.wait_line("instar: serving generation=2 ");
    let lines = machine.said().matches("platform: ").count();
    assert_eq!(lines, 2, "each instar says once what the machine is");
}

#[test]
fn four_cores_and_x2apic() {
    works(&Setup {
        cpu: "max,+x2apic",
        ..Setup::default()
    });
}

#[test]
fn four_cores_and_xapic() {
    works(&Setup {
        cpu: "max,-x2apic",
        ..Setup::default()
    });
}

#[test]
fn sixteen_cores() {
    works(&Setup {
        cores: 16,
        ..Setup::default()
    });
}

#[test]
fn an_old_processor() {
    works(&Setup {
        cpu: "qemu64",
        ..Setup::default()
    });
}

#[test]
fn little_memory() {
    works(&Setup {
        memory: 24,
        ..Setup::default()
    });
}

#[test]
fn memory_above_4_gib() {
    works(&Setup {
        memory: 5120,
        ..Setup::default()
    });
}

#[test]
fn grub_on_a_bios() {
    works(&Setup {
        firmware: Firmware::GrubBios,
        ..Setup::default()
    });
}

#[test]
fn grub_on_uefi() {
    works(&Setup {
        firmware: Firmware::GrubUefi,
        ..Setup::default()
    });
}

#[test]
fn an_address_by_dhcp() {
    let machine = Setup::default().boot();
    let network = &machine.status()["network"];
    assert_eq!(
        (&network["origin"], &network["address"]),
        (&"dhcp".into(), &"10.0.2.15/24".into())
    );
    assert_eq!(network["mac"], "52:54:00:12:34:56");
    machine.stage(&machine.prepared.new);
    let status = machine.replace().status;
    assert_eq!(
        status["network"]["origin"], "handover",
        "a successor does not ask again"
    );
    assert_eq!(status["network"]["address"], "10.0.2.15/24");
}

#[test]
fn an_address_of_the_command_line() {
    let append = "instar.ip=10.0.2.15/24 instar.gateway=10.0.2.2 instar.dns=10.0.2.3 instar.host-id=rack-7";
    let machine = works(&Setup {
        append: append.into(),
        ..Setup::default()
    });
    let status = machine.status();
    assert_eq!(status["host_id"], "rack-7");
    assert_eq!(status["network"]["gateway"], "10.0.2.2");
    assert_eq!(status["network"]["dns"], serde_json::json!(["10.0.2.3"]));
}

//! The answers against the examples of `docs/interfaces.md`.

use super::*;
use crate::confidential::module::{Module, Version, not_to_be_asked};
use crate::confidential::platform::{Host, Platform, Role, SevGuest, Sme, TdxHost, Vendor};
use crate::replace::history::History;
use crate::replace::timeline::{CoreFlush, Outcome, Phase, Timeline};
use alloc::vec::Vec;
use serde_json::Value;

const DNS: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 0, 2, 3)];

const HOST: Platform = Platform {
    vendor: Vendor::Intel,
    hypervisor: false,
    role: Role::Host(Host {
        tdx: Some(TdxHost {
            mktme_keyids: 63,
            tdx_keyids: 0,
        }),
        sme: Sme::Absent,
    }),
    movdir64b: true,
    wbnoinvd: true,
    partial_write_erratum: true,
};

fn timeline() -> Timeline {
    let mut timeline = Timeline::new([1; 16], [2; 8], "1.0.0".to_string(), "1.1.0".to_string());
    timeline.record(Phase::Quiesce, 1, 1, 2);
    timeline.record(Phase::FirstAnswer, 2, 3, 4);
    timeline.flushes.push(CoreFlush {
        core: 0,
        start_ns: 1,
        end_ns: 2,
        cycles: 3,
    });
    timeline.early_flushes.clone_from(&timeline.flushes);
    timeline.outcome = Outcome::Committed;
    timeline
}

fn status<'a>(
    timeline: &'a Timeline,
    decision: &'a FlushDecision,
    module: &'a Module,
    history: &'a History,
) -> Status<'a> {
    let counts = Counts {
        total: 126,
        free: 122,
        own: 3,
        staged: 1,
        predecessor: 0,
        private: 0,
        preserved: 0,
    };
    Status {
        image: Image {
            name: "hello",
            version: "1.0.0",
            revision: "",
            security_version: 0,
            sha256: &[0xab; 32],
        },
        generation: 1,
        floor: 0,
        host_id: "52:54:00:12:34:56",
        instance_id: "uuid",
        state: State::Staged,
        nonce: "00",
        uptime_ns: 1,
        machine_ns: 2,
        cores: Cores {
            present: 4,
            online: 4,
        },
        memory: Memory::new(counts, 10, 5),
        private_memory: PrivateMemory {
            records: 0,
            pages: 0,
            to_hand_over: 0,
        },
        flush: Flush::new(FlushPolicy::Auto, decision),
        confidential: Confidential::new(&HOST, module),
        measurement: Measurement::new(&measurements()),
        network: Some(Network {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            address: (Ipv4Addr::new(10, 0, 2, 15), 24),
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: &DNS,
            origin: Origin::Dhcp,
        }),
        telemetry: Telemetry {
            endpoint: Some("http://10.0.2.2:4318"),
            queued: 0,
            delivered: 0,
            dropped: 0,
            syslog: Some(Syslog {
                server: "10.0.2.2:601".into(),
                connected: true,
                queued: 0,
                sent: 0,
                dropped: 0,
            }),
        },
        staged: None,
        last_replacement: Some(timeline.last_replacement()),
        history: history.view(),
    }
}

fn measurements() -> Measurements {
    Measurements::default().extended(measured::Event {
        name: "hello".to_string(),
        version: "1.0.0".to_string(),
        generation: 1,
        manifest: [0xab; 48],
    })
}

fn history() -> History {
    let mut history = History::default();
    history.note(&timeline(), "");
    history
}

/// Every key with its place.
fn keys(value: &Value, place: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let place = place.to_string() + "." + key;
                keys(member, &place, into);
                into.push(place);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| keys(item, &(place.to_string() + "[]"), into)),
        _ => {}
    }
}

fn sorted_keys(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    keys(value, "", &mut found);
    found.sort();
    found.dedup();
    found
}

fn documented() -> Value {
    let page = include_str!("../../../../docs/interfaces.md");
    let example = page
        .split_once("`/v1/status`:\n\n```json\n")
        .expect("the example")
        .1;
    serde_json::from_str(example.split_once("```").expect("its end").0).expect("the example is JSON")
}

fn module() -> Module {
    Module::absent(&not_to_be_asked(&HOST).expect("no TDX"))
}

fn decision() -> FlushDecision {
    FlushDecision::Skip {
        why: "no TDX KeyIDs and no SME".to_string(),
    }
}

#[test]
fn the_keys_are_exactly_the_documented_ones() {
    let (timeline, decision, module, history) = (timeline(), decision(), module(), history());
    let ours: Value =
        serde_json::from_str(&json(&status(&timeline, &decision, &module, &history))).expect("JSON");
    assert_eq!(sorted_keys(&ours), sorted_keys(&documented()));
}

#[test]
fn the_texts_have_the_documented_form() {
    let (timeline, decision, module, history) = (timeline(), decision(), module(), history());
    let ours: Value =
        serde_json::from_str(&json(&status(&timeline, &decision, &module, &history))).expect("JSON");
    let example = documented();
    for place in [
        "/host_id",
        "/flush",
        "/confidential",
        "/memory/chunk_bytes",
        "/cores",
        "/network/address",
        "/network/gateway",
        "/network/dns",
        "/staged",
        "/telemetry/endpoint",
        "/telemetry/syslog",
        "/last_replacement/outcome",
        "/last_replacement/from",
    ] {
        assert_eq!(ours.pointer(place), example.pointer(place), "{place}");
    }
    assert_eq!(ours.pointer("/network/mac"), ours.pointer("/host_id"));
    let states = example.pointer("/state").and_then(Value::as_str).expect("a text");
    for state in [State::Serving, State::Receiving, State::Staged, State::Replacing] {
        let name = json(&state);
        assert!(
            states
                .split(" | ")
                .any(|known| name == alloc::format!("\"{known}\"")),
            "{name}"
        );
    }
    assert_eq!(
        json(&[Origin::Dhcp, Origin::Static, Origin::Handover]),
        r#"["dhcp","static","handover"]"#
    );
}

#[test]
fn what_is_not_there_is_null() {
    let (timeline, decision, module, history) = (timeline(), decision(), module(), history());
    let mut status = status(&timeline, &decision, &module, &history);
    status.last_replacement = None;
    status.telemetry.endpoint = None;
    status.telemetry.syslog = None;
    status.network.as_mut().unwrap().gateway = None;
    let ours: Value = serde_json::from_str(&json(&status)).expect("JSON");
    for place in [
        "/last_replacement",
        "/telemetry/endpoint",
        "/telemetry/syslog",
        "/network/gateway",
        "/staged",
    ] {
        assert_eq!(ours.pointer(place), Some(&Value::Null), "{place}");
    }
}

#[test]
fn the_other_answers_are_the_documented_ones() {
    let staged = Staged {
        name: "kv",
        version: "2",
        security_version: 1,
        elf_bytes: 9,
        sha256: &[0xcd; 32],
    };
    assert_eq!(
        json(&StagedAnswer { staged }),
        alloc::format!(
            r#"{{"staged":{{"name":"kv","version":"2","security_version":1,"elf_bytes":9,"sha256":"{}"}}}}"#,
            "cd".repeat(32)
        )
    );
    let measurements = measurements();
    let (chain, digest) = (hex(&measurements.chain().0), "ab".repeat(48));
    assert_eq!(
        json(&MeasurementsAnswer::new(&measurements)),
        alloc::format!(
            r#"{{"chain":"{chain}","count":1,"whole":false,"base":"{}","events":[{{"name":"hello","version":"1.0.0","generation":1,"sha384":"{digest}"}}]}}"#,
            "00".repeat(48)
        )
    );
    assert_eq!(
        json(&AcceptedAnswer::new(Action::Commit, 1, &[0xab; 16])),
        alloc::format!(
            r#"{{"accepted":{{"action":"commit","generation":1,"trace_id":"{}"}}}}"#,
            "ab".repeat(16)
        )
    );
}

#[test]
fn a_guest_has_neither_keys_nor_sme() {
    let of = |role| {
        let module = module();
        let status = Confidential::new(&Platform { role, ..HOST }, &module);
        serde_json::from_str::<Value>(&json(&status)).expect("JSON")
    };
    let tdx = of(Role::TdxGuest);
    assert_eq!(tdx["role"], "tdx-guest");
    assert!(tdx["tdx"].is_null() && tdx["sme"].is_null() && tdx["sev"].is_null());
    let sev = of(Role::SevGuest(SevGuest {
        encrypted_state: true,
        nested_paging: false,
    }));
    assert_eq!(
        (&sev["role"], &sev["sev"]),
        (
            &"sev-guest".into(),
            &serde_json::json!({"es": true, "snp": false})
        )
    );
    let enabled = of(Role::Host(Host {
        tdx: Some(TdxHost {
            mktme_keyids: 16,
            tdx_keyids: 32,
        }),
        sme: Sme::Active,
    }));
    assert_eq!(
        enabled["tdx"],
        serde_json::json!({"enabled": true, "mktme_keyids": 16, "tdx_keyids": 32, "first_tdx_keyid": 17})
    );
    assert_eq!(enabled["sme"], "active");
}

#[test]
fn a_module_has_a_version() {
    let module = Module {
        present: true,
        version: Some(Version {
            major: 1,
            minor: 5,
            update: 6,
            build: 744,
        }),
        why: "it told its version".to_string(),
    };
    let status: Value = serde_json::from_str(&json(&Confidential::new(&HOST, &module))).expect("JSON");
    assert_eq!(
        status["tdx_module"],
        serde_json::json!({"present": true, "version": "1.5.06 build 744", "why": "it told its version"})
    );
}

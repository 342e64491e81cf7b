//! Promise `measured`: a verifier can say which images a machine has run since its cold boot.

use machine_tests::{
    clients,
    image::Parts,
    machine::{Machine, Setup},
};
use serde_json::Value;
use sha2::{Digest, Sha384};

/// The chain over the manifests of these images, as docs/interfaces.md says: over one piece of memory, not with the loader's code.
fn chain(images: &[&[u8]]) -> String {
    let mut value = vec![0; 48];
    for image in images {
        value.extend_from_slice(&manifest_digest(image));
        value = Sha384::digest(&value).to_vec();
    }
    hex(&value)
}

fn manifest_digest(image: &[u8]) -> Vec<u8> {
    Sha384::digest(Parts::of(image).manifest).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn measurements(machine: &Machine) -> Value {
    let answer = clients::request(machine.control, "GET", "/v1/measurements", b"").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn the_chain_is_that_of_the_images_that_ran() {
    let machine = Setup::default().boot();
    let (old, new) = (&machine.prepared.old[..], &machine.prepared.new[..]);
    let newest = machine
        .prepared
        .parts
        .of_security_version(1, &machine.prepared.release)
        .pack();
    let mut ran = vec![old];
    for next in [None, Some(new), Some(&newest[..])] {
        if let Some(image) = next {
            machine.stage(image);
            let told = &machine.status()["measurement"]["chain"];
            assert_eq!(told, &chain(&ran), "what is staged has not run");
            machine.replace();
            ran.push(image);
        }
        let told = machine.status()["measurement"].clone();
        let expected = serde_json::json!({"chain": chain(&ran), "count": ran.len(), "whole": true});
        assert_eq!(told, expected);
        let list = measurements(&machine);
        assert_eq!(list["chain"], told["chain"]);
        assert_eq!(list["base"], "0".repeat(96));
        let digests: Vec<_> = ran.iter().map(|image| hex(&manifest_digest(image))).collect();
        let events = list["events"].as_array().expect("a list");
        let listed: Vec<_> = events
            .iter()
            .filter_map(|event| event["sha384"].as_str())
            .collect();
        assert_eq!(listed, digests);
        let last = &events[events.len() - 1];
        assert_eq!(
            (&last["name"], &last["generation"]),
            (&"hello".into(), &ran.len().into())
        );
    }
    let history = &machine.status()["history"];
    let outcomes: Vec<_> = history
        .as_array()
        .expect("a history")
        .iter()
        .map(|past| {
            (
                past["from"].as_str(),
                past["to"].as_str(),
                past["outcome"].as_str(),
            )
        })
        .collect();
    let committed = |from, to| (Some(from), Some(to), Some("committed"));
    assert_eq!(
        outcomes,
        [committed("1.0.0", "1.1.0"), committed("1.1.0", "1.1.0")]
    );
    // What gave the machine back has run.
    machine.stage(&newest);
    machine.try_out();
    machine.end_trial("rollback");
    machine.wait_for_predecessor();
    ran.push(&newest);
    assert_eq!(machine.status()["measurement"]["chain"], chain(&ran));
}

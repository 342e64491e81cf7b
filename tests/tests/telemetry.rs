//! Promise `both-ends-tell`: an upgrade's spans come from both images; and a collector that is down changes nothing.

use machine_tests::{clients, collector::Collector, machine::Setup, name_server::NameServer};
use std::{collections::BTreeSet, net::TcpListener};

#[test]
fn spans_of_one_upgrade_from_both_instars() {
    let collector = Collector::start();
    let machine = Setup {
        append: collector.append(),
        ..Setup::default()
    }
    .boot();
    machine.stage(&machine.prepared.new);
    let facts = machine.facts();
    let answer = machine.order(&facts.replace(&machine.prepared.operator));
    let trace = answer.json()["accepted"]["trace_id"]
        .as_str()
        .expect("a trace id")
        .to_owned();
    let status = machine.wait_until("the successor", |status| status["generation"] == 2);
    assert_eq!(status["last_replacement"]["trace_id"], trace.as_str());
    // The timeline ends with the first answer that a client gets.
    machine.assert_answers();
    let spans = collector.wait_for_spans("spans of both instars", |spans| {
        let ours = spans.iter().filter(|span| span.trace == trace);
        ours.map(|span| span.generation).collect::<BTreeSet<_>>() == [1, 2].into()
    });
    for span in spans.iter().filter(|span| span.trace == trace) {
        assert!(span.start_ns <= span.end_ns, "{span:?}");
        assert_eq!(span.role, "host", "{span:?}");
    }
    // The timeline that the successor tells by itself.
    let told = status["last_replacement"]["spans"].as_array().expect("spans");
    let generations: BTreeSet<_> = told
        .iter()
        .filter_map(|span| span["generation"].as_u64())
        .collect();
    assert_eq!(generations, [1, 2].into(), "{status}");
    let requests = collector.requests();
    assert!(
        requests.contains_key("/v1/metrics") && requests.contains_key("/v1/logs"),
        "{requests:?}"
    );
}

#[test]
fn a_collector_that_is_down() {
    // A port that nobody listens on, and one that takes connections and says nothing.
    let closed = TcpListener::bind("127.0.0.1:0")
        .and_then(|port| port.local_addr())
        .expect("a port")
        .port();
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mute_port = mute.local_addr().expect("an address").port();
    for port in [closed, mute_port] {
        let append = format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{port}");
        let machine = Setup {
            append,
            ..Setup::default()
        }
        .boot();
        for _ in 0..3 {
            machine.stage(&machine.prepared.new);
            machine.replace();
            machine.assert_serves();
        }
        let heap =
            |status: &serde_json::Value| status["memory"]["heap"]["bytes"].as_u64().unwrap_or_default();
        let before = heap(&machine.status());
        for _ in 0..500 {
            let answer = clients::request(machine.http, "GET", "/", b"").expect("an answer");
            assert_eq!(answer.status, 200);
        }
        let status = machine.status();
        assert!(
            heap(&status) <= before + (2 << 20),
            "memory is bounded: {before} bytes, then {status}"
        );
        assert_eq!(status["telemetry"]["delivered"], 0);
    }
}

/// By its name, which nobody knows at first.
#[test]
fn a_collector_with_a_name() {
    let collector = Collector::start();
    let names = NameServer::start();
    let machine = Setup {
        append: format!(
            "{} OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.example:{}",
            NameServer::APPEND,
            collector.port
        ),
        netdev: NameServer::NETDEV,
        arguments: names.arguments(),
        ..Setup::default()
    }
    .boot();
    let told = machine.wait_until("a request that waits", |status| {
        names.was_asked() && status["telemetry"]["queued"] != 0
    });
    assert_eq!(told["telemetry"]["delivered"], 0, "{told}");
    machine.assert_serves();
    names.learn();
    let told = machine.wait_until("delivery", |status| status["telemetry"]["queued"] == 0);
    assert_eq!(told["telemetry"]["dropped"], 0, "{told}");
    let requests = collector.requests();
    assert!(
        requests.contains_key("/v1/metrics") && requests.contains_key("/v1/logs"),
        "{requests:?}"
    );
}

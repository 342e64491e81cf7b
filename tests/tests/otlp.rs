//! Promise `both-ends-tell`, to others' tools: OpenTelemetry's official message types know every byte that is sent, through an
//! upgrade and a rollback, and the bodies hold what the specification asks of them.

use machine_tests::{
    machine::{DEADLINE, Setup},
    otlp::{Body, Expected, Request, problems},
};
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value as Any, metrics::v1::metric::Data, resource::v1::Resource, trace::v1::Span,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver as Lines, channel},
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// `tests/receivers/otlp.py`, running; it ends with the test.
struct Receiver {
    process: Child,
    port: u64,
    lines: Lines<Value>,
    requests: Vec<Request>,
}

impl Receiver {
    fn start() -> Self {
        let python = xtask::install::python::ensure(true).expect("Python with the official message types");
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/receivers/otlp.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the receiver starts");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (say, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("the receiver writes JSON");
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let first: Value = lines.recv_timeout(DEADLINE).expect("the receiver's port");
        Self {
            process,
            port: first["port"].as_u64().expect("a port"),
            lines,
            requests: Vec::new(),
        }
    }

    /// Takes requests in until they are enough.
    fn wait_for(&mut self, what: &str, enough: impl Fn(&[Request]) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !enough(&self.requests) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.take(&line),
                Err(_) => panic!(
                    "{what} did not come; what came: {:#?}",
                    names(&spans(&self.requests))
                ),
            }
        }
    }

    /// One request, as Python saw it; the two decoders must have seen the same.
    fn take(&mut self, line: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        assert_eq!(line["error"], Value::Null, "the official types do not decode it");
        assert_eq!(
            line["unknown"],
            serde_json::json!([]),
            "fields that the official types do not have"
        );
        let headers = &line["headers"];
        assert_eq!(headers["authorization"], "Bearer a secret");
        let agent = text(&headers["user-agent"]);
        assert!(agent.starts_with("Instar-OTLP-Exporter-Rust/"), "{agent}");
        let path = text(&line["path"]);
        let [sent, again] = ["body", "again"].map(|which| {
            let bytes = bytes(&text(&line[which]));
            Body::decode(&path, &bytes).expect("the crate's types decode it")
        });
        assert_eq!(sent, again, "the two decoders differ");
        self.requests.push(Request {
            content_type: text(&headers["content-type"]),
            received_ns: line["received_ns"].as_u64().expect("a time"),
            body: sent,
        });
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn spans(requests: &[Request]) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in requests {
        if let Body::Traces(body) = &request.body {
            let scopes = body.resource_spans.iter().flat_map(|part| &part.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans.clone()));
        }
    }
    spans
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// Whether the root of this trace has come: it is sent last.
fn has_root(requests: &[Request], trace: &str) -> bool {
    let trace = bytes(trace);
    spans(requests)
        .iter()
        .any(|span| span.trace_id == trace && span.parent_span_id.is_empty())
}

fn generation(resource: Option<&Resource>) -> i64 {
    let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
    let found = attributes
        .iter()
        .find(|attribute| attribute.key == "instar.generation");
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Any::IntValue(number)) => *number,
        other => panic!("the generation is {other:?}"),
    }
}

/// A counter, as each generation told it, in the order in which it came: when it began and what it had counted in all.
fn counter(requests: &[Request], name: &str) -> BTreeMap<i64, Vec<(u64, i64)>> {
    let mut told: BTreeMap<i64, Vec<(u64, i64)>> = BTreeMap::new();
    for request in requests {
        let Body::Metrics(body) = &request.body else {
            continue;
        };
        for part in &body.resource_metrics {
            let metrics = part.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            for metric in metrics.filter(|metric| metric.name == name) {
                let Some(Data::Sum(sum)) = &metric.data else {
                    panic!("{name} is no sum")
                };
                let start = sum
                    .data_points
                    .first()
                    .map_or(0, |point| point.start_time_unix_nano);
                let total = sum.data_points.iter().map(|point| match point.value {
                    Some(opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt(
                        number,
                    )) => number,
                    other => panic!("{name} counts {other:?}"),
                });
                let generation = generation(part.resource.as_ref());
                told.entry(generation).or_default().push((start, total.sum()));
            }
        }
    }
    told
}

#[test]
fn official_types_know_every_byte_of_an_upgrade_and_a_rollback() {
    let mut receiver = Receiver::start();
    let since_ns = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    let machine = Setup {
        append: format!(
            "OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{} OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20a%20secret \
             OTEL_SERVICE_NAME=greeter OTEL_RESOURCE_ATTRIBUTES=rack=7,deployment.environment.name=test",
            receiver.port
        ),
        ..Setup::default()
    }
    .boot();
    let trace = |status: &Value| {
        status["last_replacement"]["trace_id"]
            .as_str()
            .expect("a trace id")
            .to_owned()
    };

    machine.stage(&machine.prepared.new);
    let upgrade = trace(&machine.replace().status);
    machine.assert_answers();
    receiver.wait_for("the upgrade's trace", |requests| has_root(requests, &upgrade));

    machine.stage(&machine.prepared.new);
    machine.try_out();
    machine.end_trial("rollback");
    let rollback = trace(&machine.wait_for_predecessor());
    receiver.wait_for("the rollback's trace", |requests| has_root(requests, &rollback));
    // Told after the rollback.
    receiver.wait_for("metrics that know of both", |requests| {
        let told = counter(requests, "instar.replacements");
        told.get(&2)
            .is_some_and(|told| told.iter().any(|(_, count)| *count == 2))
    });
    machine.assert_serves();

    let expected = Expected {
        since_ns,
        operators: ["rack", "deployment.environment.name"].map(String::from).to_vec(),
        parents: Vec::new(),
    };
    let requests = &receiver.requests;
    let found = problems(requests, &expected);
    assert!(found.is_empty(), "{found:#?}");
    let kinds = requests.iter().map(|request| match request.body {
        Body::Metrics(_) => "metrics",
        Body::Logs(_) => "logs",
        Body::Traces(_) => "traces",
    });
    assert_eq!(
        kinds.collect::<BTreeSet<_>>(),
        ["logs", "metrics", "traces"].into()
    );

    // What an instar counts begins again with the next one; what is counted since cold boot goes on.
    let bytes = counter(requests, "system.network.io");
    let starts = |generation: i64| {
        bytes[&generation]
            .iter()
            .map(|(start, _)| *start)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!((starts(1).len(), starts(2).len()), (1, 1), "{bytes:?}");
    assert!(starts(1).last() < starts(2).first(), "{bytes:?}");
    let replacements = counter(requests, "instar.replacements");
    let starts: BTreeSet<_> = replacements.values().flatten().map(|(start, _)| *start).collect();
    assert_eq!(starts.len(), 1, "{replacements:?}");
    assert_eq!(machine.status()["telemetry"]["dropped"], 0);
    println!(
        "{} requests, {} spans: {:?}",
        requests.len(),
        spans(requests).len(),
        names(&spans(requests))
    );
}

//! Pull: Prometheus scrapes a machine across an upgrade, probes hear when nobody should be sent there, and what is counted never
//! shrinks but where its start time says so.

use machine_tests::{
    clients::{self, Answer},
    collector::Collector,
    image::Parts,
    machine::{DEADLINE, Machine, Setup, scratch},
    prepared::App,
    prometheus::{Prometheus, check_metrics},
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{Metric, NumberDataPoint, metric::Data, number_data_point},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    time::{Duration, Instant},
};

fn get(machine: &Machine, path: &str) -> Answer {
    clients::request(machine.control, "GET", path, b"").expect("the control plane answers")
}

/// `/metrics` for a client with this `Accept`.
fn page(machine: &Machine, accept: &str) -> Answer {
    let mut stream = clients::connect(machine.control).expect("a connection");
    let head =
        format!("GET /metrics HTTP/1.1\r\nHost: instar\r\nConnection: close\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it is sent");
    let answer = clients::answer(&mut stream).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

#[test]
fn prometheus_sees_an_upgrade() {
    let machine = Setup {
        cores: 2,
        append: "instar.flush=always OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test".into(),
        ..Setup::default()
    }
    .boot();
    for _ in 0..3 {
        machine.assert_answers();
    }
    let prometheus = Prometheus::start(machine.control);
    prometheus.wait_for("up == 1");
    prometheus.wait_for("hello_requests_total == 3");
    prometheus.wait_for("instar_build_info{name=\"hello\",version=\"1.0.0\"} == 1");
    prometheus.wait_for("target_info{instar_generation=\"1\",deployment_environment_name=\"test\"} == 1");
    // It asks for OpenMetrics, and only that tells units.
    assert_eq!(
        prometheus.metadata("system_network_io_bytes")["unit"],
        "bytes",
        "{:?}",
        prometheus.metadata("system_network_io_bytes_total")
    );

    machine.stage(&machine.prepared.new);
    // What the successor will not come near.
    prometheus.wait_for("system_network_io_bytes_total{network_io_direction=\"receive\"} > 500000");
    machine.replace();
    machine.assert_answers();
    prometheus.wait_for("instar_build_info{version=\"1.1.0\"} == 1");
    prometheus.wait_for("target_info{instar_generation=\"2\"} == 1");
    assert!(
        prometheus
            .query("instar_build_info{version=\"1.0.0\"}")
            .is_empty(),
        "one image at a time"
    );
    prometheus.wait_for("hello_requests_total == 1");
    for (question, why) in [
        ("resets(hello_requests_total[10m]) == 1", "an instar's own count"),
        (
            "resets(system_network_io_bytes_total{network_io_direction=\"receive\"}[10m]) == 1",
            "an instar's own count",
        ),
        (
            "instar_replacements_total{instar_replacement_outcome=\"committed\"} == 1",
            "it crosses the jump",
        ),
        ("resets(instar_nmis_total[10m]) == 0", "it crosses the jump"),
        (
            "instar_flush_duration_seconds_count{instar_flush_moment=\"stop\"} == 2",
            "one a core",
        ),
        (
            "instar_flush_duration_seconds_count{instar_flush_moment=\"early\"} == 2",
            "one a core",
        ),
        (
            "instar_flush_duration_seconds_sum{instar_flush_moment=\"stop\"} > 0",
            "it takes time",
        ),
        (
            "instar_replacement_blackout_seconds > 0",
            "known since the first answer",
        ),
        (
            "sum(system_network_connection{network_connection_state=\"listen\"}) > 0",
            "somebody listens",
        ),
        (
            "count(system_cpu_time_seconds_total{cpu_mode=\"idle\"}) == 2",
            "each core",
        ),
        (
            "sum by (cpu_logical_number) (instar_tasks) > 0",
            "each core has some",
        ),
    ] {
        prometheus.wait_for(question);
        println!("{question}: {why}");
    }

    let text = page(&machine, "*/*");
    assert!(
        text.head
            .contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n")
    );
    assert_eq!(check_metrics(&text.body), Ok(()));
    let open = page(&machine, "application/openmetrics-text; version=1.0.0");
    assert!(
        open.head
            .contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n")
    );
    assert!(open.body.ends_with("\n# EOF\n"), "{}", open.body);
}

/// An application's own metrics are beside the machine's.
#[test]
fn the_store_tells_of_itself() {
    let machine = Setup {
        app: App::Kv,
        cores: 1,
        ..Setup::default()
    }
    .boot();
    let mut client = clients::connect(machine.resp).expect("a connection");
    client
        .write_all(b"SET one 1\r\nSET two 2\r\nGET one\r\n")
        .expect("it is sent");
    let mut replies = [0; 17];
    client.read_exact(&mut replies).expect("replies");
    assert_eq!(&replies, b"+OK\r\n+OK\r\n$1\r\n1\r\n");
    let page = page(&machine, "*/*").body;
    assert_eq!(check_metrics(&page), Ok(()));
    for line in [
        "# TYPE kv_request_duration_seconds histogram",
        "kv_request_duration_seconds_bucket{le=\"+Inf\"} 3",
        "kv_request_duration_seconds_count 3",
        "kv_keys 2",
        "kv_clients 1",
        "# TYPE kv_memory_usage_bytes gauge",
    ] {
        assert!(page.lines().any(|it| it == line), "{line} is not in\n{page}");
    }
}

/// 503 from the moment at which new clients are not served any more, until they are again or the successor serves.
#[test]
fn a_prober_hears_that_this_instar_is_being_replaced() {
    let machine = Setup {
        app: App::Keeper,
        cores: 2,
        ..Setup::default()
    }
    .boot();
    assert_eq!(get(&machine, "/livez").status, 200);
    assert_eq!(get(&machine, "/readyz").body, "ready\n");
    machine.stage(&machine.prepared.new);
    for (hook, generation) in [("hang", 1), ("slow", 2)] {
        let path = format!("/hook/{hook}");
        let told = clients::request(machine.http, "GET", &path, b"").expect("the keeper answers");
        assert_eq!(told.status, 200, "{}", told.body);
        let order = machine.facts().replace(&machine.prepared.operator);
        assert_eq!(machine.order(&order).status, 202);
        let (mut answers, mut lives) = (Vec::new(), false);
        let deadline = Instant::now() + DEADLINE;
        // What is opened at the very end is reset, or answered by the successor.
        while answers.last() != Some(&200) || !answers.contains(&503) {
            assert!(Instant::now() < deadline, "{hook}: {answers:?}");
            let patience = Duration::from_secs(2);
            let asked = |path| clients::request_within(machine.control, "GET", path, b"", patience);
            if let Ok(answer) = asked("/readyz") {
                if answer.status == 503 {
                    let words =
                        "not ready: this instar is being replaced, and its successor does not serve yet\n";
                    assert_eq!(answer.body, words);
                    lives |= asked("/livez").is_ok_and(|answer| answer.status == 200);
                }
                answers.push(answer.status);
            }
        }
        assert!(lives, "{hook}: alive though not ready");
        answers.dedup();
        // Before the order has been carried out so far that nobody new is served, it is ready.
        assert!(
            answers == [200, 503, 200] || answers == [503, 200],
            "{hook}: {answers:?}"
        );
        let status = machine.wait_until("the end of the replacement", |status| {
            status["last_replacement"]["outcome"] != "pending" && status["generation"] == generation
        });
        assert_ne!(status["state"], "replacing", "{status}");
    }
}

/// The application says so, and a cold boot is asked like a successor.
#[test]
fn an_application_that_is_not_well_is_not_ready() {
    let prepared = App::Trial.prepared();
    let image = scratch("unwell.tar");
    let unwell = Parts::signed(&prepared.parts.elf, "1.0.0-unhealthy.always", &prepared.release).pack();
    fs::write(&image, unwell).expect("a place for an image");
    let machine = Setup {
        app: App::Trial,
        image: Some(image.clone()),
        cores: 1,
        ..Setup::default()
    }
    .boot();
    let answer = get(&machine, "/readyz");
    assert_eq!(
        (answer.status, &*answer.body),
        (503, "not ready: the application says: as the version says\n")
    );
    assert_eq!(get(&machine, "/livez").status, 200);
    for path in ["/readyz", "/livez", "/metrics"] {
        let answer = clients::request(machine.control, "POST", path, b"").expect("an answer");
        assert_eq!(
            answer.refusal().expect("a refusal"),
            (405, "method-not-allowed".into())
        );
    }
    fs::remove_file(image).expect("it is there");
}

/// A stream of points: instance, metric, attributes.
type Stream = (String, String, String);

/// Each number point with the stream that it is one of, in the order in which they came; `true`: it only grows.
fn points(requests: &[ExportMetricsServiceRequest]) -> Vec<(Stream, NumberDataPoint, bool)> {
    let mut points = Vec::new();
    for resource in requests.iter().flat_map(|request| &request.resource_metrics) {
        let attributes = &resource.resource.as_ref().expect("a resource").attributes;
        let instance = attributes.iter().find(|it| it.key == "service.instance.id");
        let instance = format!("{:?}", instance.expect("an instance").value);
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let (numbers, grows) = match &metric.data {
                Some(Data::Sum(sum)) => (&sum.data_points, sum.is_monotonic),
                Some(Data::Gauge(gauge)) => (&gauge.data_points, false),
                _ => continue,
            };
            for point in numbers {
                let attributes = format!("{:?}", point.attributes);
                let stream = (instance.clone(), metric.name.clone(), attributes);
                points.push((stream, point.clone(), grows));
            }
        }
    }
    points
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(number_data_point::Value::AsInt(number)) => number as f64,
        Some(number_data_point::Value::AsDouble(number)) => number,
        None => panic!("a point without a value"),
    }
}

fn names(requests: &[ExportMetricsServiceRequest]) -> BTreeSet<&str> {
    let resources = requests.iter().flat_map(|request| &request.resource_metrics);
    let metrics = resources.flat_map(|it| it.scope_metrics.iter().flat_map(|scope| &scope.metrics));
    metrics.map(|metric: &Metric| &*metric.name).collect()
}

/// How long a core has been this instar's, in seconds, as its times say.
fn core_time(machine: &Machine, core: u32) -> f64 {
    let page = page(machine, "*/*").body;
    let name = format!("system_cpu_time_seconds_total{{cpu_logical_number=\"{core}\"");
    let lines = page.lines().filter(|line| line.starts_with(&name));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// A successor begins anew, with a start time of its own; a predecessor that comes back goes on with the one that it had, and the time of
/// the trial is none of its own.
#[test]
fn what_is_counted_never_shrinks() {
    let collector = Collector::start();
    let machine = Setup {
        cores: 2,
        append: collector.append(),
        ..Setup::default()
    }
    .boot();
    let machine_ns = || machine.status()["machine_ns"].as_u64().expect("a number");
    machine.assert_answers();
    let (before, at) = ([0, 1].map(|core| core_time(&machine, core)), machine_ns());
    machine.stage(&machine.prepared.new);
    machine.try_out();
    let deadline = Instant::now() + DEADLINE;
    let on_trial = loop {
        let uptime = machine.status()["uptime_ns"].as_u64().expect("a number");
        assert!(Instant::now() < deadline, "the successor's time does not pass");
        if uptime > 500_000_000 {
            break uptime;
        }
    };
    machine.end_trial("rollback");
    machine.wait_for_predecessor();
    machine.assert_answers();
    let after = [0, 1].map(|core| core_time(&machine, core));
    let passed = (machine_ns() - at).saturating_sub(on_trial) as f64 / 1e9;
    for (core, (before, after)) in before.iter().zip(after).enumerate() {
        assert!(*before > 0.0, "core {core}");
        assert!(
            *before <= after && after - before <= passed,
            "core {core}: {before} s, then {after} s, in {passed} s"
        );
    }
    machine.stage(&machine.prepared.new);
    machine.replace();
    machine.assert_answers();

    let committed = |point: &(Stream, NumberDataPoint, bool)| {
        point.0.1 == "instar.replacements" && point.0.2.contains("committed") && number(&point.1) == 1.0
    };
    let requests = collector.wait_for_metrics("the successor's numbers", |requests| {
        points(requests).iter().any(committed)
    });
    assert!(names(&requests).contains("hello.requests"), "an application's");
    let mut last: BTreeMap<Stream, NumberDataPoint> = BTreeMap::new();
    let mut starts: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (stream, point, grows) in points(&requests) {
        assert!(point.start_time_unix_nano <= point.time_unix_nano, "{stream:?}");
        if let Some(last) = last.get(&stream) {
            assert!(last.time_unix_nano <= point.time_unix_nano, "{stream:?}");
            assert_eq!(
                last.start_time_unix_nano, point.start_time_unix_nano,
                "{stream:?}"
            );
            assert!(
                !grows || number(last) <= number(&point),
                "{stream:?}: {last:?}, then {point:?}"
            );
        }
        let start = point.start_time_unix_nano;
        starts.entry(stream.1.clone()).or_default().insert(start);
        last.insert(stream, point);
    }
    // The instar that booted, the one on trial if it came to tell, and the one that was committed.
    let of = |metric: &str| starts[metric].len();
    assert!(
        of("system.network.io") >= 2 && of("hello.requests") >= 1,
        "{starts:?}"
    );
    assert_eq!(of("instar.nmis"), 1, "it crosses the jump: {starts:?}");
}

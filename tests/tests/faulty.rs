//! Promise `both-ends-tell`: a collector that misbehaves is treated as OTLP asks, costs bounded memory and no answer of the
//! application's, and is told afterwards what it has missed.

use machine_tests::machine::{Machine, Setup, Turn};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use xtask::collect::{Arrival, Collector, Fault, Point, Received};

const PATIENCE: Duration = Duration::from_secs(60);

/// As long as the exporter waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The most that the heap may grow: the queue's bound, and what encoding and sending need for a moment.
const MOST: u64 = 2 << 20;

struct Scene {
    machine: Machine,
    collector: Collector,
    /// What the heap used before the first fault.
    heap: u64,
    /// Orders that were refused so far: each is a log record.
    told: usize,
}

impl Scene {
    /// A machine whose collector has heard of it, and is well.
    fn new(turn: Turn, words: &str) -> Self {
        let collector = Collector::start("127.0.0.1:0").expect("a collector");
        let machine = Setup {
            append: format!(
                "OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{} OTEL_EXPORTER_OTLP_TIMEOUT={} {words}",
                collector.address().port(),
                TIMEOUT.as_millis()
            ),
            turn,
            ..Setup::default()
        }
        .boot();
        let heard =
            |received: &Received| received.logs().next().is_some() && received.points().next().is_some();
        collector.wait_for(heard, PATIENCE).expect("logs and metrics");
        let heap = heap(&machine.status());
        Self {
            machine,
            collector,
            heap,
            told: 0,
        }
    }

    fn misbehave(&self, fault: Fault) {
        self.collector.set_fault(fault).expect("the fault is set");
    }

    /// Makes the machine log something, while the collector misbehaves; returns the request with which that comes.
    fn tell(&mut self) -> Arrival {
        let before = self.collector.with(|received| received.arrivals.len());
        self.log();
        let logs = |arrival: &&Arrival| arrival.path == "/v1/logs";
        let arrivals = |received: &Received| received.arrivals.iter().skip(before).find(logs).copied();
        let received = self
            .collector
            .wait_for(|received| arrivals(received).is_some(), PATIENCE);
        arrivals(&received.expect("a request with a log record")).expect("it came")
    }

    /// Makes the machine log something.
    fn log(&mut self) {
        let answer = self.machine.order(b"no order");
        assert_eq!(answer.status, 400, "{}", answer.body);
        self.told += 1;
    }

    /// Waits until all log records have come that were made so far, of which `lost` never will.
    fn wait_for_all(&self, lost: usize) {
        let refused = |received: &Received| {
            received
                .logs()
                .filter(|log| log.message.starts_with("refused POST /v1/orders"))
                .count()
        };
        let all = |received: &Received| refused(received) == self.told - lost;
        self.collector.wait_for(all, PATIENCE).expect("all log records");
    }

    /// How often a request came, and when it came last.
    fn again(&self, first: &Arrival) -> (usize, Instant) {
        self.collector.with(|received| {
            let same = |arrival: &&Arrival| arrival.body == first.body;
            let same: Vec<_> = received.arrivals.iter().filter(same).collect();
            (same.len(), same.last().expect("it came once").at)
        })
    }

    /// The application serves, and memory is bounded.
    fn assert_well(&self) {
        self.machine.assert_serves();
        let heap = heap(&self.machine.status());
        assert!(
            heap <= self.heap + MOST,
            "the heap grew from {} to {heap}",
            self.heap
        );
    }

    /// The newest of a metric's points that satisfy `wanted`, once they are as they should be.
    fn wait_for_points(&self, metric: &str, right: impl Fn(&[Arc<Point>]) -> bool) {
        let newest = |received: &Received| {
            let mut points: Vec<_> = received
                .points()
                .filter(|point| point.metric == metric)
                .cloned()
                .collect();
            let newest = points.iter().map(|point| point.time_ns).max();
            points.retain(|point| Some(point.time_ns) == newest);
            points
        };
        let came = self
            .collector
            .wait_for(|received| right(&newest(received)), PATIENCE);
        if let Err(error) = came {
            let points = self.collector.with(newest);
            let points = points
                .iter()
                .map(|point| format!("{:?} = {}", point.attributes, point.value));
            panic!("{metric}: {error}: {:#?}", points.collect::<Vec<_>>());
        }
    }
}

fn heap(status: &Value) -> u64 {
    status["memory"]["heap"]["bytes"]
        .as_u64()
        .expect("the heap's size")
}

/// What a point of `instar.telemetry.requests` counts.
fn count(points: &[Arc<Point>], path: &str, result: &str) -> u64 {
    let is = |point: &&Arc<Point>, name: &str, value: &str| point.attributes[name] == value;
    let signal = path.trim_start_matches("/v1/");
    let found = points.iter().find(|point| {
        is(point, "instar.telemetry.signal", signal) && is(point, "instar.telemetry.result", result)
    });
    found
        .and_then(|point| point.value.as_u64())
        .expect("it is counted")
}

#[test]
fn each_fault_is_treated_as_it_should_be() {
    let mut scene = Scene::new(Turn::Patient, "OTEL_METRIC_EXPORT_INTERVAL=2000");
    let elsewhere = Collector::start("127.0.0.1:0").expect("another collector");
    let mut lost = 0;

    // Not before the time that it asks for, and then again.
    scene.misbehave(Fault::Status(429, Some(3)));
    let first = scene.tell();
    scene.misbehave(Fault::None);
    scene.wait_for_all(lost);
    let (times, last) = scene.again(&first);
    // Its clock may be a hundredth off.
    assert!(
        times == 2 && last - first.at >= Duration::from_millis(2970),
        "{times}, {:?}",
        last - first.at
    );

    // Again, after a pause of the machine's own: once the collector is well, or before.
    for fault in [
        Fault::Status(503, None),
        Fault::Status(502, None),
        Fault::HalfAnswer,
    ] {
        scene.misbehave(fault.clone());
        let first = scene.tell();
        scene.assert_well();
        scene.misbehave(Fault::None);
        scene.wait_for_all(lost);
        let (times, last) = scene.again(&first);
        let pause = last - first.at;
        assert!(
            times >= 2 && pause >= Duration::from_millis(500),
            "{fault:?}: {times}, {pause:?}"
        );
    }

    // Never again. What is told later comes, so the exporter is done with it.
    let away = format!("http://10.0.2.2:{}/v1/logs", elsewhere.address().port());
    for fault in [
        Fault::Status(400, None),
        Fault::Status(500, None),
        Fault::Redirect(away),
        Fault::Garbage,
    ] {
        scene.misbehave(fault.clone());
        let first = scene.tell();
        scene.assert_well();
        scene.misbehave(Fault::None);
        scene.log();
        lost += 1;
        scene.wait_for_all(lost);
        assert_eq!(scene.again(&first).0, 1, "{fault:?}");
    }
    assert_eq!(
        elsewhere.with(|received| received.connections),
        0,
        "a redirect was followed"
    );

    // Taken, once: of the answer no more is read than is wanted, and what it refused is counted.
    for fault in [Fault::HugeAnswer(100 << 20), Fault::PartialSuccess(7)] {
        scene.misbehave(fault.clone());
        let answered = scene.collector.with(|received| received.answered_bytes);
        let first = scene.tell();
        scene.assert_well();
        scene.misbehave(Fault::None);
        scene.log();
        scene.wait_for_all(lost);
        let answered = scene.collector.with(|received| received.answered_bytes) - answered;
        assert_eq!(scene.again(&first).0, 1, "{fault:?}");
        assert!(answered < 32 << 20, "{answered} bytes of {fault:?} were taken");
    }

    // Nobody there: the machine goes on trying, and gives nothing up.
    for fault in [Fault::Reset, Fault::Refuse] {
        let before = scene.collector.with(|received| received.connections);
        scene.misbehave(fault.clone());
        scene.log();
        if fault == Fault::Reset {
            let tried = |received: &Received| received.connections > before + 1;
            scene
                .collector
                .wait_for(tried, PATIENCE)
                .expect("a second connection");
        }
        scene
            .machine
            .wait_until("something waits", |status| status["telemetry"]["queued"] != 0);
        scene.assert_well();
        scene.misbehave(Fault::None);
        scene.wait_for_all(lost);
    }

    // Too slow: given up when the time is over, and sent again.
    for fault in [Fault::NeverAnswer, Fault::SlowBytes(Duration::from_secs(1))] {
        scene.misbehave(fault.clone());
        let first = scene.tell();
        scene.misbehave(Fault::None);
        scene.assert_well();
        scene.wait_for_all(lost);
        let (times, last) = scene.again(&first);
        let pause = last - first.at;
        assert!(
            times == 2 && pause >= TIMEOUT.mul_f64(0.9),
            "{fault:?}: {times}, {pause:?}"
        );
    }

    // All of it is told: what was refused for good, and in parts, and how often something was sent again.
    let arrivals: Vec<Arrival> = scene
        .collector
        .with(|received| received.arrivals.iter().copied().collect());
    let never_again = arrivals.iter().enumerate().filter(|(index, arrival)| {
        let again = arrivals[index + 1..]
            .iter()
            .any(|later| later.body == arrival.body);
        arrival.path == "/v1/logs" && arrival.status != Some(200) && !again
    });
    let refused = never_again.count() as u64;
    assert_eq!(refused, lost as u64);
    scene.wait_for_points("instar.telemetry.requests", |points| {
        count(points, "/v1/logs", "rejected") == refused
            && count(points, "/v1/logs", "dropped") == 0
            && count(points, "/v1/logs", "delivered") > 0
    });
    scene.wait_for_points("instar.telemetry.rejected_items", |points| {
        points.iter().any(|point| point.value.as_u64() >= Some(7))
    });
    scene.wait_for_points("instar.telemetry.retries", |points| {
        points.iter().any(|point| point.value.as_u64() >= Some(6))
    });
    scene.assert_well();
}

#[test]
fn what_does_not_fit_is_dropped_and_told_later() {
    let mut scene = Scene::new(Turn::Busy, "");
    scene.misbehave(Fault::Refuse);
    let dropped = |status: &Value| status["telemetry"]["dropped"].as_u64().expect("a number");
    let deadline = Instant::now() + PATIENCE;
    while dropped(&scene.machine.status()) == 0 {
        assert!(Instant::now() < deadline, "nothing was dropped");
        for _ in 0..100 {
            scene.log();
        }
    }
    scene.assert_well();
    let requests = dropped(&scene.machine.status());
    scene.misbehave(Fault::None);
    // The oldest went. What came last is there.
    let last = scene.tell();
    assert_eq!(last.status, Some(200));
    scene.wait_for_points("instar.telemetry.requests", |points| {
        count(points, "/v1/logs", "dropped") >= requests
    });
    let came = scene.collector.with(|received| received.logs().count());
    assert!(came > 100, "only the oldest were dropped");
    // What came, and what was dropped before it was part of a request, is not more than what was told.
    scene.wait_for_points("instar.telemetry.dropped_records", |points| {
        let records = points
            .iter()
            .filter_map(|point| point.value.as_u64())
            .sum::<u64>();
        records > 0 && records as usize + came < scene.told + 100
    });
    scene.wait_for_points("instar.telemetry.queue.usage", |points| {
        points.iter().any(|point| point.value.as_u64() < Some(64 << 10))
    });
}

//! An application's metrics: the ones that are told, those that are not, and names that do not compile.
//!
//! The application's registry is one for the process: no test looks at another's names.

use super::instruments::*;
use super::model::{Distribution, Value};
use super::names::{Kind, Metric};

fn read(name: &str) -> Vec<Value> {
    let families = APPLICATION.families(7);
    let found = families.iter().filter(|family| family.metric.name == name);
    found.map(|family| family.points[0].value.clone()).collect()
}

#[test]
fn told_from_the_first_use_on() {
    static COUNTER: Counter = Counter::new("t1.requests", "{request}", "Requests.");
    static GAUGE: Gauge = Gauge::new("t1.keys", "{key}", "Keys.");
    static HISTOGRAM: Histogram = Histogram::new("t1.duration", "s", "Durations.", &[0.1, 1.0]);
    assert!(read("t1.requests").is_empty());
    COUNTER.add(2);
    COUNTER.add(3);
    GAUGE.set(-5);
    GAUGE.add(1);
    HISTOGRAM.record(0.1);
    HISTOGRAM.record(10.0);
    assert_eq!(read("t1.requests"), [Value::Int(5)]);
    assert_eq!(read("t1.keys"), [Value::Int(-4)]);
    let expected = Distribution {
        bounds: &[0.1, 1.0],
        counts: vec![1, 0, 1],
        sum: 10.1,
    };
    assert_eq!(read("t1.duration"), [Value::Histogram(expected)]);
}

#[test]
fn told_at_zero_when_registered() {
    static COUNTER: Counter = Counter::new("t2.requests", "{request}", "Requests.");
    COUNTER.register();
    COUNTER.register();
    assert_eq!(read("t2.requests"), [Value::Int(0)]);
}

#[test]
fn the_number_is_bounded_and_who_is_left_out_is_counted() {
    struct One;
    impl Instrument for One {
        fn read(&self) -> Value {
            Value::Int(1)
        }
    }
    let registry = Registry::new();
    let name = |index: usize| -> &'static str { format!("a.{index}").leak() };
    let add = |name| {
        let metric = Metric {
            name,
            unit: "1",
            kind: Kind::Counter,
            description: "One.",
        };
        registry.add(metric, &One);
    };
    // From several cores at once.
    std::thread::scope(|scope| {
        for quarter in 0..4 {
            scope.spawn(move || (0..16).for_each(|index| add(name(quarter * 16 + index))));
        }
    });
    assert_eq!(registry.families(0).len(), MAX_INSTRUMENTS);
    assert_eq!(registry.newly_refused(), None);
    (100..107).for_each(|index| add(name(index)));
    assert_eq!(registry.families(0).len(), MAX_INSTRUMENTS);
    assert_eq!(
        (registry.newly_refused(), registry.newly_refused()),
        (Some(7), None)
    );
}

#[test]
fn of_two_with_one_name_the_first_is_told() {
    static TWINS: [Counter; 2] = [const { Counter::new("t3.twin", "1", "One of two.") }; 2];
    TWINS[1].add(7);
    TWINS[0].add(1);
    assert_eq!(read("t3.twin"), [Value::Int(7)]);
    assert!(APPLICATION.newly_refused().is_some());
}

#[test]
fn adding_loses_nothing() {
    static COUNTER: Counter = Counter::new("t4.requests", "{request}", "Requests.");
    static HISTOGRAM: Histogram = Histogram::new("t4.sizes", "By", "Sizes.", &[]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    COUNTER.add(1);
                    HISTOGRAM.record(2.0);
                }
            });
        }
    });
    assert_eq!(read("t4.requests"), [Value::Int(4000)]);
    let expected = Distribution {
        bounds: &[],
        counts: vec![4000],
        sum: 8000.0,
    };
    assert_eq!(read("t4.sizes"), [Value::Histogram(expected)]);
}

#[test]
fn names_and_units_that_do_not_compile() {
    let long: &'static str = "a".repeat(64).leak();
    let good = [
        "kv.requests",
        "a",
        "a1.b_2",
        "systems.x",
        "instars",
        "updates",
        "a.sums",
    ];
    for name in good {
        Counter::new(name, "1", "Good.");
    }
    let bad = [
        "",
        long,
        "instar.x",
        "instar_x",
        "system.cpu",
        "system",
        "target.x",
        "otel_scope",
        "scrape.x",
        "up",
        "Kv",
        "1a",
        ".a",
        "_a",
        "a.",
        "a_",
        "a..b",
        "a._b",
        "a-b",
        "a b",
        "a\nb",
        "a{b=\"c\"}",
        "é",
        "kv.sum",
        "kv_bucket",
        "kv.info",
        "kv.created",
    ];
    let refused = |make: fn(&'static str)| {
        move |argument: &'static str| std::panic::catch_unwind(|| make(argument)).is_err()
    };
    for name in bad {
        assert!(
            refused(|name| _ = Counter::new(name, "1", "Bad."))(name),
            "{name}"
        );
        assert!(refused(|name| _ = Gauge::new(name, "1", "Bad."))(name), "{name}");
        assert!(
            refused(|name| _ = Histogram::new(name, "1", "Bad.", &[]))(name),
            "{name}"
        );
    }
    for unit in ["", "seconds", "{a b}", "By/s"] {
        assert!(
            refused(|unit| _ = Counter::new("a", unit, "Bad."))(unit),
            "{unit}"
        );
    }
}

//! The text as Prometheus documents it, small and whole; and what hostile words become.

use super::attributes::{AnyValue, KeyValue, Resource, Value as Any};
use super::model::{Distribution, Family, Label, Point, Value};
use super::names::{self, Kind, Metric};
use super::prometheus::{Build, Format, base_name, exposition, suffix};

fn metric(name: &'static str, unit: &'static str, kind: Kind) -> Metric {
    Metric {
        name,
        unit,
        kind,
        description: "How \"many\" \\ there are.\nReally.",
    }
}

fn point(attributes: [Option<(names::Attribute, Label)>; 2], value: Value) -> Point {
    Point {
        attributes,
        start_unix_ns: 1,
        value,
    }
}

fn resource(pairs: &[(&str, &str)]) -> Resource {
    let attributes = pairs.iter().map(|(key, value)| KeyValue {
        key: (*key).into(),
        value: Some(AnyValue {
            value: Some(Any::Text((*value).into())),
        }),
    });
    Resource {
        attributes: attributes.collect(),
    }
}

fn page(format: Format, families: &[Family]) -> String {
    let build = Build {
        name: "hello",
        version: "1.0.0",
        revision: "",
    };
    exposition(format, build, &resource(&[("service.name", "shop")]), &[families])
}

fn families() -> Vec<Family> {
    let core = |number| Some((names::CORE, Label::Number(number)));
    let mode = |mode| Some((names::CPU_MODE, Label::Text(mode)));
    let durations = Distribution {
        bounds: &[0.001, 1.0],
        counts: vec![1, 0, 2],
        sum: 5.5,
    };
    vec![
        Family {
            metric: metric("system.cpu.time", "s", Kind::Counter),
            points: vec![
                point([core(0), mode("idle")], Value::Double(0.25)),
                point([core(1), mode("idle")], Value::Double(1e-9)),
            ],
        },
        Family {
            metric: metric("kv.queue", "{request}", Kind::Gauge),
            points: vec![point([None, None], Value::Int(-3))],
        },
        Family {
            metric: metric("kv.duration", "s", Kind::Histogram),
            points: vec![point([None, mode("system")], Value::Histogram(durations))],
        },
        Family {
            metric: metric("kv.never", "s", Kind::Gauge),
            points: vec![],
        },
    ]
}

#[test]
fn the_text_format() {
    let expected = r#"# TYPE instar_build_info gauge
# HELP instar_build_info What runs here.
instar_build_info{name="hello",version="1.0.0",revision=""} 1
# TYPE target_info gauge
# HELP target_info Who tells this.
target_info{service_name="shop"} 1
# TYPE system_cpu_time_seconds_total counter
# HELP system_cpu_time_seconds_total How "many" \\ there are.\nReally.
system_cpu_time_seconds_total{cpu_logical_number="0",cpu_mode="idle"} 0.25
system_cpu_time_seconds_total{cpu_logical_number="1",cpu_mode="idle"} 1e-9
# TYPE kv_queue gauge
# HELP kv_queue How "many" \\ there are.\nReally.
kv_queue -3
# TYPE kv_duration_seconds histogram
# HELP kv_duration_seconds How "many" \\ there are.\nReally.
kv_duration_seconds_bucket{cpu_mode="system",le="0.001"} 1
kv_duration_seconds_bucket{cpu_mode="system",le="1.0"} 1
kv_duration_seconds_bucket{cpu_mode="system",le="+Inf"} 3
kv_duration_seconds_sum{cpu_mode="system"} 5.5
kv_duration_seconds_count{cpu_mode="system"} 3
"#;
    assert_eq!(page(Format::Text, &families()), expected);
}

#[test]
fn openmetrics() {
    let expected = r#"# TYPE instar_build info
# HELP instar_build What runs here.
instar_build_info{name="hello",version="1.0.0",revision=""} 1
# TYPE target info
# HELP target Who tells this.
target_info{service_name="shop"} 1
# TYPE system_cpu_time_seconds counter
# UNIT system_cpu_time_seconds seconds
# HELP system_cpu_time_seconds How \"many\" \\ there are.\nReally.
system_cpu_time_seconds_total{cpu_logical_number="0",cpu_mode="idle"} 0.25
system_cpu_time_seconds_total{cpu_logical_number="1",cpu_mode="idle"} 1e-9
# TYPE kv_queue gauge
"#;
    let page = page(Format::OpenMetrics, &families());
    assert!(page.starts_with(expected), "{page}");
    assert!(page.ends_with("_count{cpu_mode=\"system\"} 3\n# EOF\n"), "{page}");
}

#[test]
fn names_as_the_compatibility_specification_makes_them() {
    for (name, unit, kind, expected) in [
        ("system.uptime", "s", Kind::Gauge, "system_uptime_seconds"),
        (
            "system.network.io",
            "By",
            Kind::Counter,
            "system_network_io_bytes_total",
        ),
        (
            "system.network.packet.count",
            "{packet}",
            Kind::Counter,
            "system_network_packet_count_total",
        ),
        (
            "system.network.connection.count",
            "{connection}",
            Kind::UpDownCounter,
            "system_network_connection",
        ),
        ("a.load", "1", Kind::Gauge, "a_load_ratio"),
        ("a.tries", "1", Kind::Counter, "a_tries_total"),
        ("a.total", "{try}", Kind::Counter, "a_total"),
        ("a.total", "{try}", Kind::Gauge, "a"),
        ("a.seconds", "s", Kind::Gauge, "a_seconds"),
        ("a.seconds.spent", "s", Kind::Counter, "a_seconds_spent_total"),
        ("a.duration", "ms", Kind::Histogram, "a_duration_milliseconds"),
    ] {
        let metric = metric(name, unit, kind);
        assert_eq!(base_name(&metric) + suffix(kind), expected, "{name}");
    }
}

#[test]
fn every_metric_has_a_prometheus_name_of_its_own() {
    let mut names: Vec<String> = names::METRICS.iter().map(base_name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// One that is there twice would make Prometheus refuse the whole page.
#[test]
fn of_two_that_become_one_name_the_first_is_told() {
    let one = |name, unit| Family {
        metric: metric(name, unit, Kind::Counter),
        points: vec![point([None, None], Value::Int(1))],
    };
    let families = [one("a.b", "s"), one("a_b", "s"), one("a.b.seconds", "{second}")];
    for format in [Format::Text, Format::OpenMetrics] {
        let page = page(format, &families);
        assert_eq!(page.matches("\na_b_seconds_total ").count(), 1, "{page}");
    }
}

#[test]
fn the_operators_words_are_escaped_and_never_twice() {
    let build = Build {
        name: "a\"b",
        version: "1\\2",
        revision: "x\ny",
    };
    let resource = resource(&[
        ("service.name", "ours"),
        ("service_name", "theirs"),
        ("__name__", "other"),
        ("9 lives", "a\\\"\nb"),
        ("é", "ü"),
    ]);
    let page = exposition(Format::Text, build, &resource, &[]);
    let expected = r#"# TYPE instar_build_info gauge
# HELP instar_build_info What runs here.
instar_build_info{name="a\"b",version="1\\2",revision="x\ny"} 1
# TYPE target_info gauge
# HELP target_info Who tells this.
target_info{service_name="ours",_name__="other",_9_lives="a\\\"\nb",_="ü"} 1
"#;
    assert_eq!(page, expected);
}

#[test]
fn the_format_is_what_the_client_likes_best() {
    use Format::{OpenMetrics, Text};
    for (accept, expected) in [
        ("", Text),
        ("*/*", Text),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Text),
        ("application/*", Text),
        ("application/openmetrics-text", OpenMetrics),
        (
            "Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8",
            OpenMetrics,
        ),
        ("application/openmetrics-text;version=\"1.0.0\"", OpenMetrics),
        ("application/openmetrics-text;version=0.0.1", Text),
        ("application/openmetrics-text;q=0", Text),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", Text),
        (
            "application/openmetrics-text;q=0.5,text/plain;q=0.50",
            OpenMetrics,
        ),
        (
            "application/openmetrics-text;q=0.5,text/plain;version=1.0.0;q=0.9",
            OpenMetrics,
        ),
        ("application/openmetrics-text;q=0.5, text/*;q=0.9", Text),
        ("application/openmetrics-text;q=2, text/plain;q=0.1", Text),
        ("application/openmetrics-text;q=0.0001, text/plain;q=0", Text),
        // Prometheus 2.42.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OpenMetrics,
        ),
        (",;/;=,application/openmetrics-text;q=,q=1;;text/plain", Text),
    ] {
        assert_eq!(Format::negotiate(accept), expected, "{accept}");
    }
}

proptest::proptest! {
    #[test]
    fn any_accept_is_an_answer(accept in "[-a-z*/;,=.0-9q \\PC]{0,200}") {
        let _ = Format::negotiate(&accept);
    }
}

//! `docs/telemetry.md`: what leaves the machine, written from the lists that decide it.
//!
//! `INSTAR_WRITE_DOCS=1 cargo test -p libos manual` writes the page; otherwise it must be the one that is there.

use std::fmt::Write;

use super::model::Family;
use super::names::{self, Kind};
use super::prometheus::{base_name, suffix};
use super::{metrics, metrics_tests};
use crate::replace::timeline::{Outcome, Phase};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/telemetry.md");

const HEAD: &str = "\
<!-- Written by INSTAR_WRITE_DOCS=1 cargo test -p libos manual (libos/src/telemetry/manual_tests.rs): change the code, not this page. -->

# Telemetry

What a machine tells: pushed to a collector by OTLP, and for whoever asks `GET /metrics` in Prometheus's text format or in OpenMetrics
([interfaces](interfaces.md#control-plane-http11-on-tcp-7700)). How to connect a receiver: [operating](operating.md#telemetry).
Nothing else leaves the machine: these lists are the allow-list of the code (`libos/src/telemetry/names.rs`).

## Metrics

Names, units and attributes follow OpenTelemetry's semantic conventions where these have one; ours begin with `instar.`. In Prometheus an
attribute is a label, with underscores for dots. Names in Prometheus are made as OpenTelemetry's compatibility specification says;
one that ends in `.count` and is no counter loses that, since Prometheus keeps `_count` for histograms.

Counters and histograms begin with each instar, and their start time says so: Prometheus sees a reset at a replacement, as at a
restart. A predecessor that gets the machine back counts on from where it was. Only those that say \"since cold boot\" cross the jump.
";

const APPLICATIONS: &str = "
An application has metrics of its own: at most 64, each a `static` and one line to use (`libos::telemetry`: `Counter`, `Gauge`,
`Histogram`). They are told beside these, by OTLP in the scope `application`.
";

const ATTRIBUTES: &str = "
## Attributes

Of the resource, of metrics and of spans. The operator adds more to the resource with `OTEL_RESOURCE_ATTRIBUTES`, but cannot change these.

| name | what |
|---|---|
";

const SPANS: &str = "
## Spans

A replacement is one trace. Its root is the span `replacement`; the others are its parts, each told under the instar that saw it. The same
names are in `last_replacement` of `/v1/status`.

| name | what |
|---|---|
| `replacement` | All of it. |
";

fn row(family: &Family) -> String {
    let metric = &family.metric;
    let kind = match metric.kind() {
        Kind::Counter => "counter",
        Kind::UpDownCounter => "up-down counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let attributes = family.points.first().map_or_else(String::new, |point| {
        let names = point.attributes().map(|(name, _)| format!("`{}`", name.name()));
        names.collect::<Vec<_>>().join(", ")
    });
    let prometheus = base_name(metric) + suffix(metric.kind());
    format!(
        "| `{}` | `{prometheus}` | {kind} | `{}` | {attributes} | {} |\n",
        metric.name(),
        metric.unit(),
        metric.description()
    )
}

fn page() -> String {
    let mut page = String::from(HEAD);
    page += "\n| name | in Prometheus | kind | unit | attributes | what |\n|---|---|---|---|---|---|\n";
    let families = metrics::families(&metrics_tests::snapshot());
    let of = |name| families.iter().find(|family| family.metric.name() == name);
    for metric in names::METRICS {
        page += &row(of(metric.name()).expect("each has a value here"));
    }
    page += "| | `instar_build_info` | info | | `name`, `version`, `revision` | What runs here. |\n";
    page += "| | `target_info` | info | | those of the resource | Who tells this. |\n";
    page += APPLICATIONS;
    page += ATTRIBUTES;
    for (attribute, description) in names::ATTRIBUTES {
        writeln!(page, "| `{}` | {description} |", attribute.name()).expect("a string takes all");
    }
    page += SPANS;
    for (phase, description) in Phase::ALL {
        writeln!(page, "| `{}` | {} |", phase.name(), description.trim()).expect("a string takes all");
    }
    page
}

#[test]
fn every_outcome_that_is_told_is_described() {
    let (_, description) = names::ATTRIBUTES
        .iter()
        .find(|(attribute, _)| *attribute == names::OUTCOME)
        .expect("there is one");
    for (outcome, _) in Outcome::ALL.iter().filter(|(it, _)| *it != Outcome::Pending) {
        assert!(
            description.contains(&format!("`{}`", outcome.name())),
            "{}",
            outcome.name()
        );
    }
}

#[test]
fn the_manual_is_what_the_code_says() {
    let page = page();
    if std::env::var_os("INSTAR_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, page).expect("the page is written");
        return;
    }
    let there = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        there == page,
        "docs/telemetry.md is not what the code says any more: write it anew with INSTAR_WRITE_DOCS=1 cargo test -p libos manual"
    );
}

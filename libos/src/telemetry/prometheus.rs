//! Metrics as Prometheus reads them: its text format (version 0.0.4) and OpenMetrics (1.0.0).
//!
//! Names are made from OpenTelemetry's as "Prometheus and OpenMetrics Compatibility" says: underscores for dots, the unit in
//! words, `_total` behind a counter. One rule is added: a name that ends in `.count` loses that, since Prometheus keeps
//! `_count` for histograms and `promtool check metrics` insists.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::attributes::{self, Resource};
use super::model::{Family, Label, Value};
use super::names::{Kind, Metric};
use super::units;

/// One of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// For the answer's `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What the client likes best (RFC 9110, 12.5.1), by its `Accept`. OpenMetrics only for who names it, and not less than the
    /// text; the text for who takes neither, since a reader can still make something of it.
    pub fn negotiate(accept: &str) -> Self {
        let text = preference(accept, "text", "plain", "0.0.4");
        let open = preference(accept, "application", "openmetrics-text", "1.0.0");
        let is_named = open.specificity == 2;
        if is_named && open.quality > 0 && open.quality >= text.quality {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// How much a client likes something.
#[derive(Clone, Copy, Default)]
struct Preference {
    /// 2: named, 1: its type, 0: anything, or nothing.
    specificity: u8,
    /// In thousandths.
    quality: u16,
}

/// What `accept` says of a media type in this version: the most specific range that takes it in counts, and of these the one
/// that likes it best.
fn preference(accept: &str, kind: &str, subtype: &str, version: &str) -> Preference {
    let mut found = Preference::default();
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let Some((range_kind, range_subtype)) = parts.next().and_then(|name| name.split_once('/')) else {
            continue;
        };
        let specificity = match (range_kind, range_subtype) {
            ("*", "*") => 0,
            (this, "*") if this.eq_ignore_ascii_case(kind) => 1,
            (this, that) if this.eq_ignore_ascii_case(kind) && that.eq_ignore_ascii_case(subtype) => 2,
            _ => continue,
        };
        let (mut quality, mut is_this_version) = (1000, true);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => quality = thousandths(value),
                name if name.eq_ignore_ascii_case("version") => is_this_version = value == version,
                _ => {}
            }
        }
        let rank = (specificity, quality);
        if is_this_version && rank >= (found.specificity, found.quality) {
            found = Preference { specificity, quality };
        }
    }
    found
}

/// A `qvalue`: 0 to 1 with at most three decimals. What is none counts as 0.
fn thousandths(value: &str) -> u16 {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    let is_valid = matches!(whole, "0" | "1") && decimals.len() <= 3;
    let padded = format!("{whole}{decimals:0<3}");
    let number = padded.parse().ok().filter(|_| is_valid);
    number.filter(|number| *number <= 1000).unwrap_or(0)
}

/// A metric's name in Prometheus, without what is put behind it in each sample.
pub fn base_name(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    let word = match (units::word(metric.unit), metric.kind) {
        (Some("ratio"), kind) if kind != Kind::Gauge => "",
        (word, _) => word.unwrap_or_default(),
    };
    let total = name.strip_suffix("_total").map(str::len);
    if let Some(length) = total.filter(|_| metric.kind == Kind::Counter) {
        name.truncate(length);
    }
    if matches!(metric.kind, Kind::Gauge | Kind::UpDownCounter) {
        for reserved in ["_count", "_total"] {
            if name.ends_with(reserved) {
                name.truncate(name.len() - reserved.len());
            }
        }
    }
    if !word.is_empty() && !name.split('_').any(|part| part == word) {
        name.push('_');
        name.push_str(word);
    }
    name
}

/// What is put behind the name in a sample.
pub const fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "_total",
        Kind::UpDownCounter | Kind::Gauge | Kind::Histogram => "",
    }
}

/// What runs, for `instar_build_info`.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// The image's name.
    pub name: &'a str,
    /// The image's version.
    pub version: &'a str,
    /// The image's source revision; may be empty.
    pub revision: &'a str,
}

/// All of it: what runs, who tells, and the families. Of two with one name in Prometheus, only the first is told: one that is there
/// twice makes a reader refuse everything.
pub fn exposition(format: Format, build: Build<'_>, resource: &Resource, families: &[&[Family]]) -> String {
    let mut page = Page {
        format,
        text: String::with_capacity(16 << 10),
        names: Vec::new(),
    };
    let told = [
        ("name", build.name),
        ("version", build.version),
        ("revision", build.revision),
    ];
    let told = told.map(|(name, value)| (name.to_string(), value.to_string()));
    page.info("instar_build", "What runs here.", &told);
    page.info("target", "Who tells this.", &labels(resource));
    for family in families.iter().copied().flatten() {
        page.family(family);
    }
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// The resource's attributes as labels.
fn labels(resource: &Resource) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::new();
    for attribute in &resource.attributes {
        let name = label_name(&attribute.key);
        let value = match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
            Some(attributes::Value::Text(text)) => text.clone(),
            Some(attributes::Value::Bool(truth)) => truth.to_string(),
            Some(attributes::Value::Int(number)) => number.to_string(),
            Some(attributes::Value::Double(number)) => decimal(*number),
            None => continue,
        };
        // What the operator wrote may become the name of one of ours.
        if labels.iter().all(|(there, _)| *there != name) {
            labels.push((name, value));
        }
    }
    labels
}

/// A label's name of letters, digits and underscores that begins with a letter, or with one underscore.
fn label_name(key: &str) -> String {
    let fitting = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '_'
        }
    };
    let name: String = key.chars().map(fitting).collect();
    // Two underscores in front are Prometheus's own.
    let name = match name.trim_start_matches('_') {
        trimmed if trimmed.len() < name.len() => format!("_{trimmed}"),
        trimmed => trimmed.into(),
    };
    match name.as_bytes().first() {
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => name,
        _ => format!("_{name}"),
    }
}

/// A number as it is written in JSON, which both formats take: `0.0` and not `0`, so that a bound is the same in both.
fn decimal(number: f64) -> String {
    serde_json::to_string(&number).unwrap_or_default()
}

struct Page {
    format: Format,
    text: String,
    /// The names that are there.
    names: Vec<String>,
}

impl Page {
    fn info(&mut self, base: &str, help: &str, labels: &[(String, String)]) {
        self.head(base, "_info", "info", "gauge", "", help);
        self.text.push_str(base);
        self.text.push_str("_info{");
        for (index, (name, value)) in labels.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.label(name, value);
        }
        self.text.push_str("} 1\n");
        self.names.push(base.into());
    }

    fn family(&mut self, family: &Family) {
        let metric = &family.metric;
        let base = base_name(metric);
        if family.points.is_empty() || self.names.contains(&base) {
            return;
        }
        let suffix = suffix(metric.kind);
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::UpDownCounter | Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let unit = units::word(metric.unit).filter(|word| !word.is_empty() && base.ends_with(word));
        self.head(
            &base,
            suffix,
            kind,
            kind,
            unit.unwrap_or_default(),
            metric.description,
        );
        for point in &family.points {
            let labels: Vec<(String, String)> = point
                .attributes()
                .map(|(attribute, label)| (label_name(attribute.name()), label_value(label)))
                .collect();
            match &point.value {
                Value::Int(number) => self.sample(&base, suffix, &labels, &number.to_string()),
                Value::Double(number) => self.sample(&base, suffix, &labels, &decimal(*number)),
                Value::Histogram(distribution) => {
                    let mut within = 0;
                    let bounds = distribution.bounds.iter().map(|bound| decimal(*bound));
                    let bounds = bounds.chain(["+Inf".to_string()]);
                    for (bound, count) in bounds.zip(&distribution.counts) {
                        within += count;
                        let mut labels = labels.clone();
                        labels.push(("le".into(), bound));
                        self.sample(&base, "_bucket", &labels, &within.to_string());
                    }
                    self.sample(&base, "_sum", &labels, &decimal(distribution.sum));
                    self.sample(&base, "_count", &labels, &within.to_string());
                }
            }
        }
        self.names.push(base);
    }

    /// HELP, TYPE and UNIT. OpenMetrics names the family, the text format the samples.
    fn head(&mut self, base: &str, suffix: &str, open_kind: &str, kind: &str, unit: &str, help: &str) {
        let is_open = self.format == Format::OpenMetrics;
        let (name_suffix, kind) = if is_open { ("", open_kind) } else { (suffix, kind) };
        for part in ["# TYPE ", base, name_suffix, " ", kind, "\n"] {
            self.text.push_str(part);
        }
        if is_open && !unit.is_empty() {
            for part in ["# UNIT ", base, " ", unit, "\n"] {
                self.text.push_str(part);
            }
        }
        for part in ["# HELP ", base, name_suffix, " "] {
            self.text.push_str(part);
        }
        self.escaped(help, is_open);
        self.text.push('\n');
    }

    fn sample(&mut self, base: &str, suffix: &str, labels: &[(String, String)], value: &str) {
        self.text.push_str(base);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.label(name, value);
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.push(' ');
        self.text.push_str(value);
        self.text.push('\n');
    }

    fn label(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        self.text.push_str("=\"");
        self.escaped(value, true);
        self.text.push('"');
    }

    /// The text format's help has no escape for a quotation mark.
    fn escaped(&mut self, text: &str, quotes: bool) {
        for letter in text.chars() {
            match letter {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if quotes => self.text.push_str("\\\""),
                other => self.text.push(other),
            }
        }
    }
}

fn label_value(label: Label) -> String {
    match label {
        Label::Text(text) => text.into(),
        Label::Number(number) => number.to_string(),
    }
}

//! What the operator and the image's makers have said about telemetry: `OTEL_*` (OpenTelemetry, "SDK configuration") and
//! `instar.syslog`, from the command line, or else from the manifest's table `environment`.
//!
//! A value that cannot be used is left out and remembered with the reason: telemetry is never a reason not to serve.
//! The values of headers are secrets. Nothing here that is made to be logged repeats a value.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::config::{self, Endpoint, Server};

/// The longest interval or time-out that is taken: a day, in milliseconds.
const LONGEST_MS: u64 = 86_400_000;

/// All keys, with what can be said about one without its value.
const KEYS: &[(&str, Use)] = &[
    (ENDPOINT, Use::Here),
    (HEADERS, Use::Here),
    (SERVICE_NAME, Use::Here),
    (RESOURCE_ATTRIBUTES, Use::Here),
    (TIMEOUT, Use::Here),
    (METRICS_EVERY, Use::Here),
    (LOGS_EVERY, Use::Here),
    (DISABLED, Use::Here),
    (COMPRESSION, Use::Only("none", "requests are sent uncompressed")),
    (PROTOCOL, Use::Only("http/protobuf", "http/protobuf is used")),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", Use::Never(ONE_ENDPOINT)),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", Use::Never(ONE_ENDPOINT)),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Use::Never(ONE_ENDPOINT)),
    (SYSLOG, Use::Here),
];

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const METRICS_EVERY: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const LOGS_EVERY: &str = "OTEL_BLRP_SCHEDULE_DELAY";
const DISABLED: &str = "OTEL_SDK_DISABLED";
const COMPRESSION: &str = "OTEL_EXPORTER_OTLP_COMPRESSION";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const SYSLOG: &str = "instar.syslog";
const ONE_ENDPOINT: &str = "all signals go to OTEL_EXPORTER_OTLP_ENDPOINT";

/// What is done with a key.
#[derive(Clone, Copy)]
enum Use {
    /// It is read below.
    Here,
    /// There is only one value that can be had; what is done with any other.
    Only(&'static str, &'static str),
    /// It is known, and not supported; what is done instead.
    Never(&'static str),
}

/// Pairs of a key and a value, as they were given. Values may be secrets, so that `{:?}` shows the keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Given(pub Vec<(String, String)>);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

/// Whether this key is one of telemetry's.
#[must_use]
pub fn is_known(key: &str) -> bool {
    KEYS.iter().any(|(known, _)| *known == key)
}

/// What is sent by OTLP, where and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Otlp {
    /// Where the collector is.
    pub endpoint: Endpoint,
    /// Headers of each request. Their values are secrets: this type has no `Debug`.
    pub headers: Vec<(String, String)>,
    /// The longest that a request may take.
    pub timeout: Duration,
    /// The time between two looks at the metrics.
    pub metrics_every: Duration,
    /// How long log records wait for company.
    pub logs_every: Duration,
}

/// All of it.
#[derive(Default)]
pub struct Settings {
    /// `OTEL_SERVICE_NAME`; empty if it is not given.
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub attributes: Vec<(String, String)>,
    /// `None`: nothing is sent by OTLP.
    pub otlp: Option<Otlp>,
    /// `None`: nothing is sent by syslog.
    pub syslog: Option<Server>,
    /// What could not be used, and why, for a person.
    pub ignored: Vec<String>,
}

impl Settings {
    /// Reads what was given. The command line's go before the manifest's; within one of them the last holds. An
    /// empty value is the same as none, as OpenTelemetry has it: on the command line it undoes the manifest's.
    #[must_use]
    pub fn read(command_line: &Given, manifest: &[(String, String)]) -> Self {
        let command_line = &command_line.0[..];
        let given = |key: &str| {
            let last = |pairs: &[(String, String)]| pairs.iter().rposition(|(name, _)| name == key);
            let value = match (last(command_line), last(manifest)) {
                (Some(index), _) => &command_line[index].1,
                (None, Some(index)) => &manifest[index].1,
                (None, None) => "",
            };
            (!value.is_empty()).then(|| String::from(value))
        };
        let mut settings = Self::default();
        let mut reader = Reader {
            given: &given,
            ignored: &mut settings.ignored,
        };
        for (key, usage) in KEYS {
            match (usage, given(key)) {
                (Use::Only(value, instead), Some(given)) if given != *value => reader.ignore(key, instead),
                (Use::Never(instead), Some(_)) => reader.ignore(key, instead),
                _ => {}
            }
        }
        for (key, _) in manifest.iter().filter(|(key, _)| !is_known(key)) {
            reader.ignore(
                &format!("the manifest's {key}"),
                "it is not one of telemetry's keys",
            );
        }
        settings.service_name = given(SERVICE_NAME).unwrap_or_default();
        settings.attributes = reader
            .value(RESOURCE_ATTRIBUTES, config::resource_attributes)
            .unwrap_or_default();
        settings.syslog = reader.value(SYSLOG, config::server);
        settings.otlp = reader.otlp();
        settings
    }
}

struct Reader<'a> {
    given: &'a dyn Fn(&str) -> Option<String>,
    ignored: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn otlp(&mut self) -> Option<Otlp> {
        // "true", in any case; all else means false ("Boolean value").
        if (self.given)(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let endpoint = self.value(ENDPOINT, config::endpoint)?;
        let milliseconds = |default| Duration::from_millis(default);
        Some(Otlp {
            endpoint,
            headers: self.value(HEADERS, config::headers).unwrap_or_default(),
            timeout: self.value(TIMEOUT, span).unwrap_or(milliseconds(10_000)),
            metrics_every: self.value(METRICS_EVERY, span).unwrap_or(milliseconds(10_000)),
            logs_every: self.value(LOGS_EVERY, span).unwrap_or(milliseconds(1000)),
        })
    }

    fn value<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(&(self.given)(key)?)
            .inspect_err(|error| self.ignore(key, error))
            .ok()
    }

    fn ignore(&mut self, key: &str, why: impl fmt::Display) {
        self.ignored.push(format!("{key} is ignored: {why}"));
    }
}

fn span(text: &str) -> Result<Duration, &'static str> {
    // `parse` alone would take "+80".
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(ms @ 1..=LONGEST_MS) if digits => Ok(Duration::from_millis(ms)),
        _ => Err("it is not a number of milliseconds from 1 to 86400000"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        owned.collect()
    }

    fn read(command_line: &[(&str, &str)], manifest: &[(&str, &str)]) -> Settings {
        Settings::read(&Given(pairs(command_line)), &pairs(manifest))
    }

    const HERE: (&str, &str) = (ENDPOINT, "http://here");

    #[test]
    fn the_command_line_wins() {
        let settings = read(
            &[HERE, (SERVICE_NAME, "")],
            &[
                (ENDPOINT, "http://there"),
                (SERVICE_NAME, "kv"),
                (LOGS_EVERY, "50"),
                (SYSLOG, "logs"),
            ],
        );
        let otlp = settings.otlp.expect("an endpoint");
        assert_eq!(otlp.endpoint.authority, "here:4318");
        assert_eq!(settings.service_name, "", "undone");
        assert_eq!(otlp.logs_every, Duration::from_millis(50));
        assert_eq!(
            settings.syslog.map(|server| server.name).as_deref(),
            Some("logs:601")
        );
        assert_eq!(settings.ignored, Vec::<String>::new());
        let twice = read(&[HERE, (ENDPOINT, "http://last")], &[])
            .otlp
            .expect("an endpoint");
        assert_eq!(twice.endpoint.authority, "last:4318");
        assert!(read(&[(ENDPOINT, "")], &[HERE]).otlp.is_none());
    }

    #[test]
    fn without_an_endpoint_there_is_nothing_to_say() {
        let settings = read(&[(HEADERS, "nonsense"), (TIMEOUT, "x")], &[]);
        assert!(settings.otlp.is_none() && settings.ignored.is_empty());
        let defaults = read(&[HERE], &[]).otlp.expect("an endpoint");
        assert_eq!(defaults.timeout, Duration::from_secs(10));
        assert_eq!(defaults.metrics_every, Duration::from_secs(10));
        assert_eq!(defaults.logs_every, Duration::from_secs(1));
    }

    #[test]
    fn disabled() {
        for (word, is_sent) in [
            ("true", false),
            ("TRUE", false),
            ("1", true),
            ("false", true),
            ("", true),
        ] {
            let settings = read(&[HERE, (DISABLED, word), (SYSLOG, "logs")], &[]);
            assert_eq!(settings.otlp.is_some(), is_sent, "{word}");
            assert!(settings.syslog.is_some(), "syslog is none of OpenTelemetry's");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_without_its_value() {
        for (key, value) in [
            (ENDPOINT, "https://secret"),
            (ENDPOINT, "http://user:secret@host"),
            (HEADERS, "authorization:secret"),
            (HEADERS, "authorization=secret%"),
            (RESOURCE_ATTRIBUTES, "secret"),
            (TIMEOUT, "secret"),
            (TIMEOUT, "0"),
            (TIMEOUT, "+5"),
            (METRICS_EVERY, "-1"),
            (METRICS_EVERY, "86400001"),
            (LOGS_EVERY, "1s"),
            (COMPRESSION, "gzip"),
            (PROTOCOL, "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://secret"),
            (SYSLOG, "secret:port"),
        ] {
            let settings = read(&[HERE, (key, value)], &[]);
            let [ignored] = &settings.ignored[..] else {
                panic!("{key}={value}: {:?}", settings.ignored)
            };
            assert!(
                ignored.starts_with(key) && !ignored.contains("secret"),
                "{ignored}"
            );
            assert_eq!(settings.otlp.is_some(), key != ENDPOINT, "{key}");
        }
        let fine = read(&[HERE, (COMPRESSION, "none"), (PROTOCOL, "http/protobuf")], &[]);
        assert_eq!(fine.ignored, Vec::<String>::new());
    }

    #[test]
    fn an_unknown_key_of_the_manifest() {
        let settings = read(&[], &[("OTEL_TRACES_SAMPLER", "secret")]);
        assert_eq!(settings.ignored.len(), 1);
        assert!(!settings.ignored[0].contains("secret"));
    }
}

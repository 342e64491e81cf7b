//! The kernel command line: words into typed options (`docs/interfaces.md`, "The command line").
//!
//! Reading never fails as a whole. A word that cannot be used is left out, and is remembered with the reason, so that
//! a machine with a typing error still starts and says what it did not understand.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::str::FromStr;

use loader::floor;
use log::LevelFilter;

use crate::confidential::policy::FlushPolicy;
use crate::telemetry::settings::{self, Given};

/// Largest image that is taken when `instar.max-image` is not given, in bytes.
pub const DEFAULT_MAX_IMAGE: u64 = 64 << 20;

/// Longest `instar.host-id`, in bytes. It is repeated in every order.
pub const MAX_HOST_ID: usize = 128;

/// Where the machine's IPv4 address comes from: `instar.ip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressSource {
    /// Ask a DHCP server.
    #[default]
    Dhcp,
    /// The command line names it.
    Static {
        /// A unicast address that is not a loopback address.
        address: Ipv4Addr,
        /// Length of the network's prefix, 1 to 32 bits.
        prefix: u8,
    },
}

/// `instar.early-flush`: how the cores flush while the machine still serves, where it flushes at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyFlush {
    /// One core after the other, so that never more than one of them stands still.
    #[default]
    Serial,
    /// All at once.
    Simultaneous,
    /// Not at all: only in the stop.
    Never,
}

/// A word that was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The key; with its value only where the key is one of `instar.*`. A mistyped key may carry a secret
    /// (`OTEL_EXPORTER_OTLP_HEADERS` does), and this text is made to be logged.
    pub word: String,
    /// Why it was not used, for a person.
    pub reason: &'static str,
}

/// The options of the command line. Where a key is given twice, the last usable value holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// `instar.flush`: when caches are flushed before a jump.
    pub flush: FlushPolicy,
    /// `instar.early-flush`.
    pub early_flush: EarlyFlush,
    /// `instar.commit-needs=telemetry`: a successor is not committed before the collector has taken something from it.
    pub commit_needs_telemetry: bool,
    /// `instar.ip`.
    pub address: AddressSource,
    /// `instar.gateway`, with a static address only.
    pub gateway: Option<Ipv4Addr>,
    /// `instar.dns`, with a static address only.
    pub dns: Option<Ipv4Addr>,
    /// `instar.host-id`; `None`: the first network device's MAC address is the host id.
    pub host_id: Option<String>,
    /// `instar.max-image`: largest image that is taken, in bytes.
    pub max_image: u64,
    /// `instar.floor`: no image of a lower security version runs. The first stage has seen to it at the cold boot.
    pub floor: u64,
    /// `instar.log`: the least important level that is logged.
    pub log: LevelFilter,
    /// Telemetry's keys with their values as written, in the order of the command line. Values may be secrets.
    pub telemetry: Given,
    /// What was not used, in the order of the command line.
    pub ignored: Vec<Ignored>,
}

impl Default for CommandLine {
    fn default() -> Self {
        Self {
            flush: FlushPolicy::default(),
            early_flush: EarlyFlush::default(),
            commit_needs_telemetry: false,
            address: AddressSource::default(),
            gateway: None,
            dns: None,
            host_id: None,
            max_image: DEFAULT_MAX_IMAGE,
            floor: 0,
            log: LevelFilter::Info,
            telemetry: Given::default(),
            ignored: Vec::new(),
        }
    }
}

impl CommandLine {
    /// Reads a command line: words separated by blanks, each `key=value`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut options = Self::default();
        for word in text.split_ascii_whitespace() {
            if let Err(reason) = options.take(word) {
                let known = word.starts_with("instar.") && reason != UNKNOWN;
                let key = word.split('=').next().unwrap_or_default();
                let word = if known { word } else { key }.to_string();
                options.ignored.push(Ignored { word, reason });
            }
        }
        options.drop_what_needs_a_static_address();
        options
    }

    fn take(&mut self, word: &str) -> Result<(), &'static str> {
        let (key, value) = word.split_once('=').ok_or("not key=value")?;
        match key {
            "instar.flush" => self.flush = flush(value)?,
            "instar.early-flush" => self.early_flush = early_flush(value)?,
            "instar.commit-needs" => self.commit_needs_telemetry = needs(value)?,
            "instar.ip" => self.address = address(value)?,
            "instar.gateway" => self.gateway = Some(unicast(value)?),
            "instar.dns" => self.dns = Some(unicast(value)?),
            "instar.host-id" => self.host_id = Some(host_id(value)?),
            "instar.max-image" => self.max_image = size(value)?,
            // The highest holds, as in the first stage.
            floor::KEY => {
                let given = floor::value(value).map_err(|_| "not a number from 0 to 2^64 - 1")?;
                self.floor = self.floor.max(given);
            }
            "instar.log" => self.log = level(value)?,
            _ if settings::is_known(key) => self.telemetry.0.push((key.into(), value.into())),
            _ => return Err(UNKNOWN),
        }
        Ok(())
    }

    /// DHCP brings its own gateway and name servers: given beside it, ours would be a silent contradiction.
    fn drop_what_needs_a_static_address(&mut self) {
        if self.address != AddressSource::Dhcp {
            return;
        }
        for (key, slot) in [
            ("instar.gateway", &mut self.gateway),
            ("instar.dns", &mut self.dns),
        ] {
            if slot.take().is_some() {
                let reason = "only used with a static instar.ip";
                self.ignored.push(Ignored {
                    word: key.to_string(),
                    reason,
                });
            }
        }
    }
}

const UNKNOWN: &str = "unknown key";

fn flush(value: &str) -> Result<FlushPolicy, &'static str> {
    FlushPolicy::from_name(value).ok_or("not auto, always or never")
}

fn needs(value: &str) -> Result<bool, &'static str> {
    match value {
        "telemetry" => Ok(true),
        "nothing" => Ok(false),
        _ => Err("not telemetry or nothing"),
    }
}

fn early_flush(value: &str) -> Result<EarlyFlush, &'static str> {
    Ok(match value {
        "serial" => EarlyFlush::Serial,
        "simultaneous" => EarlyFlush::Simultaneous,
        "never" => EarlyFlush::Never,
        _ => return Err("not serial, simultaneous or never"),
    })
}

fn address(value: &str) -> Result<AddressSource, &'static str> {
    if value == "dhcp" {
        return Ok(AddressSource::Dhcp);
    }
    let (address, prefix) = value.split_once('/').ok_or("not dhcp or ADDRESS/PREFIX")?;
    let address = unicast(address)?;
    match decimal(prefix) {
        Some(prefix @ 1..=32) => Ok(AddressSource::Static { address, prefix }),
        _ => Err("the prefix is not a number from 1 to 32"),
    }
}

/// The network stack treats any other address as a programming error and panics, so it must not get that far.
fn unicast(value: &str) -> Result<Ipv4Addr, &'static str> {
    let address = Ipv4Addr::from_str(value).map_err(|_| "not an IPv4 address")?;
    if is_usable(address) {
        Ok(address)
    } else {
        Err("not the address of one host")
    }
}

/// Whether `address` can be the address of one host on a network: unicast, not loopback.
#[must_use]
pub const fn is_usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

fn host_id(value: &str) -> Result<String, &'static str> {
    if value.is_empty() || value.len() > MAX_HOST_ID {
        return Err("not 1 to 128 bytes");
    }
    if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("has a blank or a control character");
    }
    Ok(value.to_string())
}

fn size(value: &str) -> Result<u64, &'static str> {
    match decimal(value) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("not a number of bytes"),
    }
}

/// `str::parse` alone would also take a leading plus sign.
fn decimal<T: FromStr>(value: &str) -> Option<T> {
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().ok()
    } else {
        None
    }
}

fn level(value: &str) -> Result<LevelFilter, &'static str> {
    Ok(match value {
        "error" => LevelFilter::Error,
        "warn" => LevelFilter::Warn,
        "info" => LevelFilter::Info,
        "debug" => LevelFilter::Debug,
        "trace" => LevelFilter::Trace,
        _ => return Err("not error, warn, info, debug or trace"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ignored(text: &str) -> Vec<(String, &'static str)> {
        CommandLine::parse(text)
            .ignored
            .into_iter()
            .map(|i| (i.word, i.reason))
            .collect()
    }

    #[test]
    fn nothing_given_means_the_documented_defaults() {
        let options = CommandLine::parse("");
        assert_eq!(options, CommandLine::default());
        assert_eq!(options.flush, FlushPolicy::Auto);
        assert_eq!(options.address, AddressSource::Dhcp);
        assert_eq!(options.max_image, 67_108_864);
        assert_eq!(options.log, LevelFilter::Info);
    }

    #[test]
    fn every_key_is_read() {
        let options = CommandLine::parse(
            "instar.flush=never  instar.ip=10.0.2.15/24\tinstar.gateway=10.0.2.2 instar.dns=10.0.2.3 \
             instar.host-id=rack7/u3 instar.max-image=1048576 instar.log=trace instar.floor=7 \
             OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:4318 OTEL_EXPORTER_OTLP_HEADERS=api-key=a=b,c=d \
             OTEL_SERVICE_NAME=kv OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test instar.syslog=10.0.2.2:5514\n",
        );
        assert_eq!(options.ignored, []);
        assert_eq!(options.flush, FlushPolicy::Never);
        let address = Ipv4Addr::new(10, 0, 2, 15);
        assert_eq!(options.address, AddressSource::Static { address, prefix: 24 });
        assert_eq!(options.gateway, Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(options.dns, Some(Ipv4Addr::new(10, 0, 2, 3)));
        assert_eq!(options.host_id.as_deref(), Some("rack7/u3"));
        assert_eq!(options.max_image, 1 << 20);
        assert_eq!(options.floor, 7);
        assert_eq!(options.log, LevelFilter::Trace);
        let telemetry: Vec<(&str, &str)> = options
            .telemetry
            .0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            telemetry,
            [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://10.0.2.2:4318"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a=b,c=d"),
                ("OTEL_SERVICE_NAME", "kv"),
                ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
                ("instar.syslog", "10.0.2.2:5514"),
            ]
        );
    }

    #[test]
    fn bad_values_leave_the_default_and_a_reason() {
        for word in [
            "instar.flush=yes",
            "instar.early-flush=always",
            "instar.flush=",
            "instar.flush",
            "instar.ip=10.0.2.15",
            "instar.ip=10.0.2.15/33",
            "instar.ip=10.0.2.15/0",
            "instar.ip=10.0.2.15/+4",
            "instar.ip=224.0.0.1/24",
            "instar.ip=0.0.0.0/24",
            "instar.ip=127.0.0.1/8",
            "instar.ip=255.255.255.255/8",
            "instar.ip=::1/64",
            "instar.gateway=x",
            "instar.host-id=",
            "instar.host-id=\u{a0}",
            "instar.max-image=0",
            "instar.max-image=64M",
            "instar.max-image=99999999999999999999",
            "instar.log=loud",
            "instar.floor=-1",
            "instar.floor=",
            "instar.floor",
            "quiet",
        ] {
            let options = CommandLine::parse(word);
            assert_eq!(options.ignored.len(), 1, "{word}");
            assert_eq!(options.ignored[0].word, word);
            assert_eq!(
                CommandLine {
                    ignored: Vec::new(),
                    ..options
                },
                CommandLine::default(),
                "{word}"
            );
        }
    }

    #[test]
    fn a_value_under_an_unknown_key_is_not_repeated() {
        assert_eq!(
            ignored("OTEL_EXPORTER_OTLP_HEADER=api-key=secret instar.x=secret"),
            [
                ("OTEL_EXPORTER_OTLP_HEADER".to_string(), "unknown key"),
                ("instar.x".to_string(), "unknown key")
            ]
        );
    }

    #[test]
    fn gateway_and_dns_need_a_static_address_wherever_they_stand() {
        let words = "instar.gateway=10.0.2.2 instar.dns=10.0.2.3";
        assert_eq!(ignored(words).len(), 2);
        assert_eq!(CommandLine::parse(words).gateway, None);
        let options = CommandLine::parse("instar.gateway=10.0.2.2 instar.ip=10.0.2.15/24");
        assert_eq!((options.gateway.is_some(), options.ignored.len()), (true, 0));
    }

    #[test]
    fn the_last_usable_value_holds() {
        let options = CommandLine::parse("instar.flush=always instar.flush=never instar.flush=x");
        assert_eq!((options.flush, options.ignored.len()), (FlushPolicy::Never, 1));
        // But the floor does not fall.
        assert_eq!(CommandLine::parse("instar.floor=4 instar.floor=2").floor, 4);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*") {
            let options = CommandLine::parse(&text);
            prop_assert!(options.ignored.len() <= text.split_ascii_whitespace().count() + 2);
        }

        #[test]
        fn any_value_is_read(key in 0_usize..7, value in "[0-9./a-z+-]{0,20}") {
            let keys = ["flush", "early-flush", "commit-needs", "ip", "gateway", "dns", "host-id", "max-image", "log"];
            let options = CommandLine::parse(&alloc::format!("instar.{}={value}", keys[key]));
            if let AddressSource::Static { address, prefix } = options.address {
                prop_assert!(is_usable(address) && (1..=32).contains(&prefix));
            }
        }
    }
}

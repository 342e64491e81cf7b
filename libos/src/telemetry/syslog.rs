//! Log records as syslog messages (RFC 5424), framed for TCP by octet counting (RFC 6587, section 3.4.1; the same framing as
//! RFC 5425's over TLS). Pure: bytes out; [`push`] moves them.
//!
//! ```text
//! 187 <28>1 2026-11-25T02:24:52.123456Z rack7 hello 2 libos::replace::upgrade [origin ip="10.0.2.15"
//! software="hello" swVersion="1.1.0"][meta sequenceId="17" sysUpTime="4711"] BOM the message
//! ```
//!
//! | field | is |
//! |---|---|
//! | PRI | facility `daemon` (3), severity of the record |
//! | TIMESTAMP | when it was said, UTC, in microseconds |
//! | HOSTNAME | the host id |
//! | APP-NAME | the image's name |
//! | PROCID | the generation: it changes with each replacement, as a restarted process's would |
//! | MSGID | who says it: the record's target |
//! | `origin` | the machine's address, the image's name and version |
//! | `meta` | the record's number within the instar, and hundredths of a second since the cold boot |

pub(super) mod outbox;
pub(crate) mod push;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::records::shortened;

/// The longest message, in bytes without its frame: what every receiver should take (RFC 5424, section 6.1).
pub const MAX_MESSAGE: usize = 2048;

/// "System daemons".
const FACILITY: u8 = 3;

/// UTF-8's byte-order mark, which says that a message is UTF-8 (RFC 5424, section 6.4).
const BOM: &str = "\u{feff}";

/// Who sends.
#[derive(Clone, Debug)]
pub struct Sender {
    /// What orders call this machine.
    pub host: String,
    /// The image's name.
    pub image: String,
    /// The image's version.
    pub version: String,
    /// Counted from 1 at cold boot.
    pub generation: u32,
    /// The machine's address, if it is known.
    pub address: Option<Ipv4Addr>,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// When it was said, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// When it was said, in nanoseconds since the cold boot.
    pub machine_ns: u64,
    /// How bad.
    pub level: log::Level,
    /// Who says it.
    pub target: &'a str,
    /// What is said.
    pub text: &'a str,
    /// Its number among the sender's messages, from 0.
    pub number: u64,
}

/// A message in its frame: the count of its octets, a blank, and the message. Whatever the texts hold, the frame is one
/// frame, and the message's header has exactly its fields.
pub fn frame(sender: &Sender, message: &Message<'_>) -> Vec<u8> {
    // RFC 5424, table 2.
    let severity = match message.level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    };
    let address = sender
        .address
        .map(|ip| format!(" ip=\"{ip}\""))
        .unwrap_or_default();
    let mut text = format!(
        "<{}>1 {} {} {} {} {} [origin{address} software=\"{}\" swVersion=\"{}\"][meta sequenceId=\"{}\" \
         sysUpTime=\"{}\"] {BOM}",
        FACILITY * 8 + severity,
        timestamp(message.unix_ns),
        word(&sender.host, 255),
        word(&sender.image, 48),
        sender.generation,
        word(message.target, 32),
        value(&sender.image, 48),
        value(&sender.version, 32),
        // From 1, and again from 1 behind 2^31 - 1 (section 7.3.1).
        1 + message.number % 0x7fff_ffff,
        // SNMP's TimeTicks, which have 32 bits (section 7.3.3).
        (message.machine_ns / 10_000_000) as u32,
    );
    for character in message.text.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            control if control.is_control() => text.push_str(&format!("\\u{{{:x}}}", u32::from(control))),
            other => text.push(other),
        }
        if text.len() > MAX_MESSAGE {
            break;
        }
    }
    let text = shortened(text, MAX_MESSAGE);
    format!("{} {text}", text.len()).into_bytes()
}

/// A field of the header: 1 to `max` characters of printable ASCII without blanks (RFC 5424, section 6); `-` for none.
fn word(text: &str, max: usize) -> String {
    if text.is_empty() {
        return "-".into();
    }
    let printable = |character: char| {
        if character.is_ascii_graphic() {
            character
        } else {
            '?'
        }
    };
    text.chars().take(max).map(printable).collect()
}

/// The value of a parameter of structured data, at most `max` characters: `"`, `\` and `]` are escaped (section 6.3.3).
fn value(text: &str, max: usize) -> String {
    let mut value = String::new();
    for character in text.chars().take(max) {
        match character {
            '"' | '\\' | ']' => value.extend(['\\', character]),
            control if control.is_control() => value.push('?'),
            other => value.push(other),
        }
    }
    value
}

/// RFC 3339's form of a time, in UTC and microseconds (RFC 5424, section 6.2.3).
fn timestamp(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (year, month, day) = date(seconds / 86400);
    let of_day = seconds % 86400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        unix_ns / 1000 % 1_000_000
    )
}

/// Year, month and day of a day that is counted from 1970-01-01, in the Gregorian calendar. It is counted in years that begin
/// in March, so that a leap day is a year's last one.
fn date(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01, and of 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    // Without the leap days: every 4 years but every 100 but every 400.
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Five months from March on, and from August on, have 153 days.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + u64::from(month >= 10), (month + 2) % 12 + 1);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sender() -> Sender {
        Sender {
            host: "rack7/u3".into(),
            image: "hello".into(),
            version: "1.1.0".into(),
            generation: 2,
            address: Some(Ipv4Addr::new(10, 0, 2, 15)),
        }
    }

    fn said(text: &str) -> Message<'_> {
        Message {
            unix_ns: 1_764_037_492_123_456_789,
            machine_ns: 47_110_000_000,
            level: log::Level::Warn,
            target: "libos::replace::upgrade",
            text,
            number: 16,
        }
    }

    fn text(frame: &[u8]) -> &str {
        let text = core::str::from_utf8(frame).expect("UTF-8");
        let (count, message) = text.split_once(' ').expect("a count");
        assert_eq!(count.parse(), Ok(message.len()));
        message
    }

    #[test]
    fn a_message_as_the_rfc_has_it() {
        let frame = frame(&sender(), &said("10 pages\nreset"));
        assert_eq!(
            text(&frame),
            "<28>1 2025-11-25T02:24:52.123456Z rack7/u3 hello 2 libos::replace::upgrade \
             [origin ip=\"10.0.2.15\" software=\"hello\" swVersion=\"1.1.0\"][meta sequenceId=\"17\" sysUpTime=\"4711\"] \
             \u{feff}10 pages\\nreset"
        );
    }

    #[test]
    fn severities() {
        for (level, priority) in [
            (log::Level::Error, "<27>1 "),
            (log::Level::Warn, "<28>1 "),
            (log::Level::Info, "<30>1 "),
            (log::Level::Debug, "<31>1 "),
            (log::Level::Trace, "<31>1 "),
        ] {
            let frame = frame(&sender(), &Message { level, ..said("") });
            assert!(text(&frame).starts_with(priority));
        }
    }

    #[test]
    fn what_does_not_belong_into_a_field_is_replaced() {
        let hostile = Sender {
            host: String::new(),
            image: "a b\u{0}ä".into(),
            version: "\"]\\\n".into(),
            address: None,
            ..sender()
        };
        let message = Message {
            target: "x\ny z",
            text: "\u{1b}[31m\u{85}",
            number: 0x7fff_ffff,
            machine_ns: u64::MAX,
            ..said("")
        };
        let frame = frame(&hostile, &message);
        let ticks = (u64::MAX / 10_000_000) as u32;
        assert_eq!(
            text(&frame),
            format!(
                "<28>1 2025-11-25T02:24:52.123456Z - a?b?? 2 x?y?z [origin software=\"a b?ä\" swVersion=\"\\\"\\]\\\\?\"]\
                 [meta sequenceId=\"1\" sysUpTime=\"{ticks}\"] \u{feff}\\u{{1b}}[31m\\u{{85}}"
            )
        );
    }

    #[test]
    fn days_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_782, (2026, 11, 25)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (364, (1970, 12, 31)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    proptest! {
        /// However hostile the texts are: one frame, of a length within bounds, whose header has seven fields.
        #[test]
        fn nothing_breaks_the_frame(
            host in any::<String>(), image in any::<String>(), version in any::<String>(), target in any::<String>(),
            said in any::<String>(), times in 0..200_usize, unix_ns: u64, machine_ns: u64, number: u64,
        ) {
            let sender = Sender { host, image, version, ..sender() };
            let repeated = said.repeat(times);
            let message = Message {
                unix_ns, machine_ns, level: log::Level::Info, target: &target, text: &repeated, number,
            };
            let frame = frame(&sender, &message);
            let text = text(&frame);
            prop_assert!(text.len() <= MAX_MESSAGE);
            prop_assert!(!text.chars().any(char::is_control));
            let mut fields = text.splitn(7, ' ');
            for _ in 0..6 {
                let field = fields.next().expect("a field");
                prop_assert!(!field.is_empty() && field.len() <= 255 && field.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            // The structured data: outside its quotes nothing of the texts.
            let rest = fields.next().expect("the rest");
            let (data, _) = rest.split_once(BOM).expect("a mark");
            let (mut bare, mut quoted, mut escaped) = (String::new(), false, false);
            for character in data.chars() {
                match (quoted, escaped, character) {
                    (true, false, '\\') => escaped = true,
                    (true, false, '"') => quoted = false,
                    (true, ..) => escaped = false,
                    (false, _, '"') => quoted = true,
                    (false, ..) => bare.push(character),
                }
            }
            prop_assert_eq!(bare, "[origin ip= software= swVersion=][meta sequenceId= sysUpTime=] ");
        }

        #[test]
        fn days_follow_each_other(days in 0_u64..3_000_000) {
            let ((year, month, day), next) = (date(days), date(days + 1));
            prop_assert!((1..=12).contains(&month) && (1..=31).contains(&day));
            prop_assert!(
                next == (year, month, day + 1)
                    || day >= 28 && (next == (year, month + 1, 1) || month == 12 && next == (year + 1, 1, 1))
            );
        }
    }
}

//! What follows `-plugin libwitness.so,`.

use std::{path::PathBuf, time::Duration};

/// The plugin's arguments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The file that gets the lines.
    pub(crate) out: PathBuf,
    /// Virtual CPUs whose flushes take time, and how long.
    pub(crate) slow: Vec<(u32, Duration)>,
}

impl Arguments {
    /// Reads `out=PATH` and any number of `slow=VCPU:MICROSECONDS`; the error is for a person.
    pub(crate) fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut arguments = Self::default();
        for word in words {
            match word.split_once('=') {
                Some(("out", path)) if !path.is_empty() => arguments.out = path.into(),
                Some(("slow", value)) => arguments
                    .slow
                    .push(slow(value).ok_or_else(|| format!("slow={value}: not VCPU:MICROSECONDS"))?),
                _ => {
                    return Err(format!(
                        "{word}: not an argument; they are out=PATH and slow=VCPU:MICROSECONDS"
                    ));
                }
            }
        }
        if arguments.out.as_os_str().is_empty() {
            return Err("out=PATH is missing".into());
        }
        Ok(arguments)
    }

    /// How long a flush of this virtual CPU takes.
    #[cfg_attr(
        test,
        expect(dead_code, reason = "only the plugin asks, and a test program has no plugin")
    )]
    pub(crate) fn delay(&self, vcpu: u32) -> Option<Duration> {
        self.slow
            .iter()
            .find(|(slow, _)| *slow == vcpu)
            .map(|&(_, delay)| delay)
    }
}

fn slow(value: &str) -> Option<(u32, Duration)> {
    let (vcpu, microseconds) = value.split_once(':')?;
    Some((
        vcpu.parse().ok()?,
        Duration::from_micros(microseconds.parse().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use std::time::Duration;

    #[test]
    fn both_kinds_are_read() {
        let read = Arguments::parse(["out=/tmp/w.log", "slow=3:200000", "slow=1:5"]).expect("well formed");
        assert_eq!(read.out.to_str(), Some("/tmp/w.log"));
        assert_eq!(
            read.slow,
            [(3, Duration::from_millis(200)), (1, Duration::from_micros(5))]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            &[][..],
            &["out="],
            &["slow=1:1"],
            &["out=x", "slow=1"],
            &["out=x", "fast=1"],
            &["out"],
        ] {
            assert!(Arguments::parse(words.iter().copied()).is_err(), "{words:?}");
        }
    }
}

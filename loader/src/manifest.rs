//! The manifest: what an image is. It vouches for the ELF by its digest.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::hex::{hex, unhex32};
use crate::toml::{Document, TomlError};

/// The longest manifest, in bytes.
pub const MAX_BYTES: usize = 4096;
/// The longest name, version or revision, in bytes.
pub const MAX_TEXT: usize = 64;
/// Most pairs of `environment`.
pub const MAX_PAIRS: usize = 32;
/// The longest value of `environment`, in bytes.
pub const MAX_VALUE: usize = 1024;
const FORMAT: u64 = 1;

/// What an image is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// What the program is called: 1 to 64 of `a-z`, `0-9`, `-`, `_`, `.`.
    pub name: String,
    /// Its version: 1 to 64 printable ASCII characters.
    pub version: String,
    /// The source revision it was built from, up to 64 printable ASCII characters.
    pub revision: String,
    /// Compared with the machine's floor: what is below is known to be unsafe.
    pub security_version: u64,
    /// The program.
    pub elf: ElfFile,
    /// What the image sets unless the command line does: up to [`MAX_PAIRS`] keys of 1 to 64 printable ASCII characters, with
    /// values of up to [`MAX_VALUE`] bytes without control characters.
    pub environment: Vec<(String, String)>,
}

/// The archive member that the manifest vouches for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElfFile {
    /// Bytes, at least one.
    pub size: u64,
    /// The SHA-256 of these bytes.
    pub sha256: [u8; 32],
}

/// Why a text is not a manifest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_BYTES`].
    #[error("the manifest has {found} bytes, at most {MAX_BYTES} are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Not TOML, or a key is missing or of the wrong type.
    #[error("the manifest cannot be read: {0}")]
    Toml(#[from] TomlError),
    /// Written for a newer reader.
    #[error("the manifest has format {found}, this loader knows format {FORMAT}")]
    Format {
        /// The format it declares.
        found: u64,
    },
    /// A text that is too long, or holds characters that it must not.
    #[error("`{key}` must be {rule}")]
    Text {
        /// The key.
        key: &'static str,
        /// What is allowed.
        rule: &'static str,
    },
    /// An empty program.
    #[error("`elf.size` is 0")]
    Empty,
}

impl Manifest {
    /// Reads a manifest. Unknown keys are ignored, so that newer tools may write more.
    ///
    /// # Errors
    /// [`ManifestError`] if a key is missing or has a value that is not allowed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLong { found: bytes.len() });
        }
        let toml = Document::parse(bytes)?;
        let found = toml.number("format")?;
        if found != FORMAT {
            return Err(ManifestError::Format { found });
        }
        let text = |key| toml.text(key).map(String::from);
        let manifest = Self {
            name: text("name")?,
            version: text("version")?,
            revision: text("revision")?,
            security_version: toml.number("security_version")?,
            elf: ElfFile {
                size: toml.number("elf.size")?,
                sha256: unhex32(toml.text("elf.sha256")?).ok_or(ManifestError::Text {
                    key: "elf.sha256",
                    rule: "64 lower-case hexadecimal digits",
                })?,
            },
            environment: toml
                .texts("environment")?
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        };
        let name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let printable = |byte: u8| (b' '..=b'~').contains(&byte);
        if !(1..=MAX_TEXT).contains(&manifest.name.len()) || !manifest.name.bytes().all(name) {
            let rule = "1 to 64 of a-z, 0-9, `-`, `_`, `.`";
            return Err(ManifestError::Text { key: "name", rule });
        }
        if !(1..=MAX_TEXT).contains(&manifest.version.len()) || !manifest.version.bytes().all(printable) {
            let rule = "1 to 64 printable ASCII characters";
            return Err(ManifestError::Text { key: "version", rule });
        }
        if manifest.revision.len() > MAX_TEXT || !manifest.revision.bytes().all(printable) {
            let rule = "at most 64 printable ASCII characters";
            return Err(ManifestError::Text {
                key: "revision",
                rule,
            });
        }
        let pair = |(key, value): &(String, String)| {
            (1..=MAX_TEXT).contains(&key.len())
                && key.bytes().all(printable)
                && value.len() <= MAX_VALUE
                && !value.chars().any(char::is_control)
        };
        if manifest.environment.len() > MAX_PAIRS || !manifest.environment.iter().all(pair) {
            let rule = "at most 32 texts of up to 1024 bytes without control characters";
            return Err(ManifestError::Text {
                key: "environment",
                rule,
            });
        }
        if manifest.elf.size == 0 {
            return Err(ManifestError::Empty);
        }
        Ok(manifest)
    }

    /// The text that [`parse`](Self::parse) reads.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "format = {FORMAT}\nname = \"{}\"\nversion = \"{}\"\nrevision = \"{}\"\nsecurity_version = {}\n\
             [elf]\nsize = {}\nsha256 = \"{}\"\n",
            quoted(&self.name),
            quoted(&self.version),
            quoted(&self.revision),
            self.security_version,
            self.elf.size,
            hex(&self.elf.sha256)
        );
        if !self.environment.is_empty() {
            text.push_str("[environment]\n");
        }
        for (key, value) in &self.environment {
            text.push_str(&format!("\"{}\" = \"{}\"\n", quoted(key), quoted(value)));
        }
        text
    }
}

/// TOML's basic strings escape the quotation mark, the backslash and control characters (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            character => quoted.push(character),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        Manifest {
            name: "hello".into(),
            version: "1.1.0 \"a\\b\"".into(),
            revision: String::new(),
            security_version: 3,
            elf: ElfFile {
                size: 398_112,
                sha256: [0xa5; 32],
            },
            environment: Vec::new(),
        }
    }

    #[test]
    fn there_and_back() {
        assert_eq!(Manifest::parse(manifest().to_toml().as_bytes()), Ok(manifest()));
    }

    #[test]
    fn the_environment() {
        let set = |environment: &[(&str, &str)]| {
            let environment = environment
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()));
            let manifest = Manifest {
                environment: environment.collect(),
                ..manifest()
            };
            let read = Manifest::parse(manifest.to_toml().as_bytes());
            read.map(|read| assert_eq!(read, manifest))
        };
        assert_eq!(
            set(&[
                ("OTEL_SERVICE_NAME", "kv \"ä\""),
                ("instar.syslog", "logs:601"),
                ("X", "")
            ]),
            Ok(())
        );
        let refused = |result| {
            matches!(
                result,
                Err(ManifestError::Text {
                    key: "environment",
                    ..
                })
            )
        };
        assert!(refused(set(&[("A", "a\nb")])));
        assert!(refused(set(&[("ä", "a")])));
        assert!(refused(set(&[("", "a")])));
        assert!(refused(set(&[("A", &"a".repeat(MAX_VALUE + 1))])));
        assert!(refused(set(&[("A", "a"); MAX_PAIRS + 1])));
        let number = format!("{}[environment]\nA = 1\n", manifest().to_toml());
        assert!(matches!(
            Manifest::parse(number.as_bytes()),
            Err(ManifestError::Toml(_))
        ));
    }

    #[test]
    fn ignores_unknown_keys() {
        let text = format!(
            "colour = \"red\"\n{}later = 1\n[more]\nx = 2\n",
            manifest().to_toml()
        );
        assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest()));
    }

    #[test]
    fn refuses_what_is_missing_or_wrong() {
        let good = manifest().to_toml();
        for line in good.lines() {
            let without = good.replace(&format!("{line}\n"), "");
            assert!(Manifest::parse(without.as_bytes()).is_err(), "without {line}");
        }
        let with = |from: &str, to: &str| Manifest::parse(good.replace(from, to).as_bytes());
        assert_eq!(
            with("format = 1", "format = 2"),
            Err(ManifestError::Format { found: 2 })
        );
        assert!(matches!(
            with("\"hello\"", "\"Hello\""),
            Err(ManifestError::Text { key: "name", .. })
        ));
        assert!(matches!(
            with("\"hello\"", "\"\""),
            Err(ManifestError::Text { key: "name", .. })
        ));
        let version = with("1.1.0", "1.1\\n0");
        assert!(matches!(version, Err(ManifestError::Text { key: "version", .. })));
        assert!(matches!(
            with("a5a5", "A5a5"),
            Err(ManifestError::Text {
                key: "elf.sha256",
                ..
            })
        ));
        assert_eq!(with("398112", "0"), Err(ManifestError::Empty));
        assert!(matches!(with("398112", "-1"), Err(ManifestError::Toml(_))));
        let long = vec![b'#'; MAX_BYTES + 1];
        assert_eq!(
            Manifest::parse(&long),
            Err(ManifestError::TooLong { found: MAX_BYTES + 1 })
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Manifest::parse(&bytes);
        }
    }
}

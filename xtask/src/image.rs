//! The image as a file: manifest, signature and ELF in one archive (docs/interfaces.md, "The image").

use crate::exit::{Exit, Failure};
use crate::keys;
use anyhow::{Context, Result};
use minisign::SecretKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::Path;

/// The members' names, in the order in which they stand in the archive.
pub const MEMBERS: [&str; 3] = ["manifest.toml", "manifest.toml.minisig", "image.elf"];

/// The format's number that this tool writes and reads.
pub const FORMAT: u32 = 1;

/// What an image is. Its text is what is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The application's name.
    pub name: String,
    /// The application's version.
    pub version: String,
    /// The source's revision; may be empty.
    pub revision: String,
    /// Never below the machine's floor.
    pub security_version: u64,
    /// What the ELF must be.
    pub elf: ElfFacts,
    /// What the image sets unless the command line does.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// Size and digest of the ELF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElfFacts {
    /// In bytes.
    pub size: u64,
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of `elf`.
    /// Without an environment.
    pub fn new(name: &str, version: &str, revision: &str, security_version: u64, elf: &[u8]) -> Self {
        Self {
            format: FORMAT,
            name: name.to_owned(),
            version: version.to_owned(),
            revision: revision.to_owned(),
            security_version,
            elf: ElfFacts {
                size: elf.len() as u64,
                sha256: sha256(elf),
            },
            environment: BTreeMap::new(),
        }
    }

    /// As TOML, in a fixed order.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "format = {}\nname = {}\nversion = {}\nrevision = {}\nsecurity_version = {}\n[elf]\nsize = {}\nsha256 = {}\n",
            self.format,
            toml_string(&self.name),
            toml_string(&self.version),
            toml_string(&self.revision),
            self.security_version,
            self.elf.size,
            toml_string(&self.elf.sha256),
        );
        if !self.environment.is_empty() {
            text.push_str("[environment]\n");
        }
        for (key, value) in &self.environment {
            _ = writeln!(text, "{} = {}", toml_string(key), toml_string(value));
        }
        text
    }
}

/// `text` as a TOML basic string.
pub fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => _ = write!(out, "\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// SHA-256 of `bytes` as 64 lower-case hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            _ = write!(text, "{byte:02x}");
            text
        })
}

/// A `ustar` archive of plain files that depends on nothing but its members: no times, no owners.
///
/// # Errors
/// If a name is too long for the format.
pub fn archive(members: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        builder
            .append_data(&mut header, name, *bytes)
            .with_context(|| format!("could not archive {name}"))?;
    }
    builder.into_inner().context("could not finish the archive")
}

/// The archive of `elf` with `manifest`, signed by `key`. The trusted comment is `name version`.
///
/// # Errors
/// If the key is damaged.
pub fn pack(manifest: &Manifest, elf: &[u8], key: &SecretKey) -> Result<Vec<u8>> {
    let text = manifest.to_toml();
    let comment = format!("{} {}", manifest.name, manifest.version);
    let signature = keys::sign(key, text.as_bytes(), &comment)?;
    let parts: [&[u8]; 3] = [text.as_bytes(), signature.as_bytes(), elf];
    let members: Vec<_> = MEMBERS.into_iter().zip(parts).collect();
    archive(&members)
}

/// An image that was read from a file: not verified (that is the machine's business), but well-formed.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its manifest.
    pub manifest: Manifest,
    /// The manifest's text, as it is signed and measured.
    pub text: String,
    /// The whole archive.
    pub bytes: Vec<u8>,
}

impl Image {
    /// Reads `path` and checks that it looks like an image.
    ///
    /// # Errors
    /// If it cannot be read or is no image; the error says which.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|e| {
            Failure::new(
                Exit::Usage,
                format!("could not read the image {}: {e}", path.display()),
            )
            .hint("`cargo xtask build-app APP` makes an image and prints its path")
        })?;
        Self::parse(bytes).map_err(|why| {
            Failure::new(Exit::Usage, format!("{} is not an image: {why}", path.display()))
                .hint("an image is a tar of manifest.toml, manifest.toml.minisig and image.elf, as `cargo xtask build-app` makes it")
                .into()
        })
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().map_err(|e| e.to_string())?;
        let mut text = String::new();
        let mut elf_size = 0;
        for name in MEMBERS {
            let Some(entry) = entries.next() else {
                return Err(format!("it ends before {name}"));
            };
            let mut entry = entry.map_err(|_| "it is not a tar archive".to_owned())?;
            if entry.path_bytes() != name.as_bytes() {
                let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                return Err(format!("{name} should stand where `{found}` does"));
            }
            elf_size = entry.size();
            if name == MEMBERS[0] {
                let read = (&mut entry).take(64 * 1024).read_to_string(&mut text);
                read.map_err(|e| format!("{name}: {e}"))?;
            }
        }
        let manifest: Manifest =
            toml::from_str(&text).map_err(|e| format!("manifest.toml: {}", e.message()))?;
        if manifest.format != FORMAT {
            return Err(format!(
                "it has format {}, and this tool knows {FORMAT}",
                manifest.format
            ));
        }
        if manifest.elf.size != elf_size {
            return Err(format!(
                "its ELF has {elf_size} bytes, but its manifest says {}",
                manifest.elf.size
            ));
        }
        Ok(Self {
            manifest,
            text,
            bytes,
        })
    }

    /// Whether the ELF has the digest that the manifest says.
    pub fn has_the_elf_of_its_manifest(&self) -> bool {
        let mut archive = tar::Archive::new(self.bytes.as_slice());
        let mut elf = Vec::new();
        let read = archive.entries().map(|mut entries| {
            let entry = entries.nth(2).and_then(Result::ok);
            entry.is_some_and(|mut entry| entry.read_to_end(&mut elf).is_ok())
        });
        matches!(read, Ok(true)) && sha256(&elf) == self.manifest.elf.sha256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisign::KeyPair;

    fn sample() -> Manifest {
        Manifest::new("hello", "1.1.0", "3f2c1ab", 7, b"not really an ELF")
    }

    #[test]
    fn the_manifest_is_the_documented_text() {
        let digest = sha256(b"not really an ELF");
        let expected = format!(
            "format = 1\nname = \"hello\"\nversion = \"1.1.0\"\nrevision = \"3f2c1ab\"\nsecurity_version = 7\n\
             [elf]\nsize = 17\nsha256 = \"{digest}\"\n"
        );
        assert_eq!(sample().to_toml(), expected);
        assert_eq!(digest.len(), 64);
    }

    #[test]
    fn the_environment_is_a_table_behind_all_else() {
        let mut manifest = sample();
        manifest
            .environment
            .insert("instar.syslog".to_owned(), "logs \"a\"".to_owned());
        let text = manifest.to_toml();
        assert_eq!(
            text,
            sample().to_toml() + "[environment]\n\"instar.syslog\" = \"logs \\\"a\\\"\"\n"
        );
        assert_eq!(toml::from_str::<Manifest>(&text).expect("valid TOML"), manifest);
    }

    #[test]
    fn odd_names_survive_toml() {
        let mut manifest = sample();
        manifest.name = "a\"b\\c\u{7}\nü".to_owned();
        let back: Manifest = toml::from_str(&manifest.to_toml()).expect("valid TOML");
        assert_eq!(back, manifest);
    }

    #[test]
    fn the_same_input_makes_the_same_archive() {
        let key = KeyPair::generate_unencrypted_keypair().expect("a key pair").sk;
        let elf = b"not really an ELF";
        let first = pack(&sample(), elf, &key).expect("packed");
        assert_eq!(first, pack(&sample(), elf, &key).expect("packed"));
        let image = Image::parse(first).expect("an image");
        assert_eq!(image.manifest, sample());
        for entry in tar::Archive::new(image.bytes.as_slice())
            .entries()
            .expect("entries")
        {
            let header = entry.expect("an entry").header().clone();
            assert!(header.as_ustar().is_some());
            assert_eq!(header.mtime().expect("mtime"), 0);
            assert_eq!(header.uid().expect("uid"), 0);
            assert_eq!(header.mode().expect("mode"), 0o644);
        }
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        assert!(Image::parse(b"garbage".repeat(500)).is_err());
        assert!(Image::parse(Vec::new()).is_err());
        let wrong_order = archive(&[("image.elf", b"x"), ("manifest.toml", b"y")]).expect("an archive");
        let why = Image::parse(wrong_order).expect_err("refused");
        assert!(why.contains("manifest.toml"), "{why}");
    }
}

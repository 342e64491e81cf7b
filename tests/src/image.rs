//! Images and orders, written by hand: not with xtask's code, so that the two check each other.

use minisign::SecretKey;
use sha2::{Digest, Sha256};
use std::io::{Cursor, Read};

/// The names of an image's members, in their order.
pub const MEMBERS: [&str; 3] = ["manifest.toml", "manifest.toml.minisig", "image.elf"];

/// A change of a tar header.
pub type Edit = fn(&mut [u8; 512]);

/// One member of an archive, which may lie about itself.
#[derive(Clone, Debug)]
pub struct Member {
    /// The name in the header.
    pub name: String,
    /// The type flag: `b'0'` is a plain file.
    pub kind: u8,
    /// The size in the header.
    pub size: u64,
    /// What follows the header, padded to whole blocks.
    pub data: Vec<u8>,
    /// Changes the header, before its checksum is computed.
    pub edit: Option<Edit>,
}

impl Member {
    /// An honest plain file.
    #[must_use]
    pub fn file(name: &str, data: &[u8]) -> Self {
        Self {
            name: name.into(),
            kind: b'0',
            size: data.len() as u64,
            data: data.into(),
            edit: None,
        }
    }

    fn append_to(&self, archive: &mut Vec<u8>) {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(self.size);
        header.set_entry_type(tar::EntryType::new(self.kind));
        // Not `set_path`, which refuses what a rude client would send.
        header.as_old_mut().name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        if let Some(edit) = self.edit {
            edit(header.as_mut_bytes());
        }
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(&self.data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
}

/// An archive of these members, with its two empty blocks at the end.
#[must_use]
pub fn pack(members: &[Member]) -> Vec<u8> {
    let mut archive = Vec::new();
    for member in members {
        member.append_to(&mut archive);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// What a good image consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// `manifest.toml`.
    pub manifest: String,
    /// `manifest.toml.minisig`.
    pub signature: String,
    /// `image.elf`.
    pub elf: Vec<u8>,
}

impl Parts {
    /// Takes an image apart.
    ///
    /// # Panics
    /// If it is not one: here it is made by us.
    #[must_use]
    pub fn of(image: &[u8]) -> Self {
        let mut members: Vec<Vec<u8>> = Vec::new();
        let mut archive = tar::Archive::new(Cursor::new(image));
        for (entry, name) in archive.entries().expect("an archive").zip(MEMBERS) {
            let mut entry = entry.expect("a whole member");
            assert_eq!(entry.path().expect("a name").to_str(), Some(name));
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("a whole member");
            members.push(data);
        }
        let [manifest, signature, elf] = members.try_into().expect("three members");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self {
            manifest: text(manifest),
            signature: text(signature),
            elf,
        }
    }

    /// A correctly signed image of any bytes.
    #[must_use]
    pub fn signed(elf: &[u8], version: &str, key: &SecretKey) -> Self {
        let manifest = manifest(elf, version);
        let signature = sign(manifest.as_bytes(), key);
        Self {
            manifest,
            signature,
            elf: elf.into(),
        }
    }

    /// The same program, signed as of another security version.
    ///
    /// # Panics
    /// If it was not of security version 0.
    #[must_use]
    pub fn of_security_version(&self, version: u64, key: &SecretKey) -> Self {
        let (old, new) = (
            "security_version = 0\n",
            format!("security_version = {version}\n"),
        );
        assert!(self.manifest.contains(old), "{}", self.manifest);
        let manifest = self.manifest.replace(old, &new);
        let signature = sign(manifest.as_bytes(), key);
        Self {
            manifest,
            signature,
            elf: self.elf.clone(),
        }
    }

    /// The same program, signed with a table `environment` in its manifest.
    #[must_use]
    pub fn with_environment(&self, environment: &[(&str, &str)], key: &SecretKey) -> Self {
        let lines = environment
            .iter()
            .map(|(key, value)| format!("\"{key}\" = \"{value}\"\n"));
        let manifest = format!("{}[environment]\n{}", self.manifest, lines.collect::<String>());
        let signature = sign(manifest.as_bytes(), key);
        Self {
            manifest,
            signature,
            elf: self.elf.clone(),
        }
    }

    /// The members, to be changed before they are packed.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        vec![
            Member::file(MEMBERS[0], self.manifest.as_bytes()),
            Member::file(MEMBERS[1], self.signature.as_bytes()),
            Member::file(MEMBERS[2], &self.elf),
        ]
    }

    /// The archive.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        pack(&self.members())
    }
}

/// A true manifest of `elf`.
#[must_use]
pub fn manifest(elf: &[u8], version: &str) -> String {
    manifest_of(elf.len() as u64, &sha256(elf), version)
}

/// A manifest that claims what it is told to.
#[must_use]
pub fn manifest_of(size: u64, sha256: &str, version: &str) -> String {
    format!(
        "format = 1\nname = \"hello\"\nversion = \"{version}\"\nrevision = \"\"\nsecurity_version = 0\n\
         [elf]\nsize = {size}\nsha256 = \"{sha256}\"\n"
    )
}

/// The SHA-256 in lower-case hex digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The text of a minisign signature file, of the prehashed kind.
///
/// # Panics
/// If the key cannot sign.
#[must_use]
pub fn sign(data: &[u8], key: &SecretKey) -> String {
    minisign::sign(
        None,
        key,
        Cursor::new(data),
        Some("machine-tests"),
        Some("signature of machine-tests"),
    )
    .expect("the key signs")
    .into_string()
}

/// A new key pair without a password.
///
/// # Panics
/// Without randomness.
#[must_use]
pub fn keys() -> minisign::KeyPair {
    minisign::KeyPair::generate_unencrypted_keypair().expect("randomness")
}

#[cfg(test)]
mod tests {
    use super::{Parts, keys, pack};
    use minisign::SignatureBox;
    use std::io::Cursor;

    #[test]
    fn an_image_comes_apart_again() {
        let keys = keys();
        let parts = Parts::signed(b"not an ELF", "1.0.0", &keys.sk);
        let image = parts.pack();
        assert_eq!(Parts::of(&image), parts);
        assert_eq!(image.len() % 512, 0);
        let signature = SignatureBox::from_string(&parts.signature).expect("a signature");
        assert!(signature.is_prehashed());
        minisign::verify(
            &keys.pk,
            &signature,
            Cursor::new(&parts.manifest),
            true,
            false,
            false,
        )
        .expect("the signature holds");
    }

    #[test]
    fn nothing_packs_to_two_empty_blocks() {
        assert_eq!(pack(&[]), [0; 1024]);
    }
}

//! Builders for tests: keys from a number, archives, images, ELF files, good and broken.
//!
//! Behind the feature `test-support`. Nothing here is fit to sign a release: the keys are not secret.

pub mod elf_builder;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest};
use sha2::Sha256;
use zerocopy::{FromZeros, IntoBytes};

use crate::archive::{self, BLOCK, Header};
use crate::manifest::{ElfFile, Manifest};
use crate::signature::PublicKey;

/// Signs as minisign does, with a key made from a number.
#[derive(Clone)]
pub struct Signer {
    id: u64,
    pair: ed25519_compact::KeyPair,
}

impl Signer {
    /// The key number `number`.
    pub fn new(number: u8) -> Self {
        let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([number; 32]));
        Self {
            id: 0x0123_4567_89ab_cd00 | u64::from(number),
            pair,
        }
    }

    /// The public half.
    ///
    /// # Panics
    /// Never: the key is a sound one.
    pub fn public_key(&self) -> PublicKey {
        let bytes = [&b"Ed"[..], &self.id.to_le_bytes(), self.pair.pk.as_slice()].concat();
        PublicKey::from_base64(&STANDARD.encode(bytes)).expect("a sound key")
    }

    /// The text of a `.minisig` file for `document`.
    pub fn sign(&self, document: &[u8]) -> Vec<u8> {
        self.signature(b"ED", &Blake2b512::digest(document))
    }

    /// A signature of minisign's legacy kind, which is to be refused.
    pub fn sign_legacy(&self, document: &[u8]) -> Vec<u8> {
        self.signature(b"Ed", document)
    }

    fn signature(&self, algorithm: &[u8], message: &[u8]) -> Vec<u8> {
        let comment = "signed for a test";
        let signature = self.pair.sk.sign(message, None);
        let global = self
            .pair
            .sk
            .sign([signature.as_slice(), comment.as_bytes()].concat(), None);
        let line = STANDARD.encode([algorithm, &self.id.to_le_bytes(), signature.as_slice()].concat());
        let global = STANDARD.encode(global.as_slice());
        let text: String =
            format!("untrusted comment: a test\n{line}\ntrusted comment: {comment}\n{global}\n");
        text.into_bytes()
    }
}

/// The `ustar` header of a plain file.
pub fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = Header::new_zeroed();
    let length = name.len().min(header.name.len());
    header.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    header.mode = *b"0000644\0";
    header.uid = *b"0000000\0";
    header.gid = *b"0000000\0";
    header.mtime = *b"00000000000\0";
    header.size[..11].copy_from_slice(&format!("{size:011o}").as_bytes()[..11]);
    header.kind = b'0';
    header.magic = *b"ustar\0";
    header.version = *b"00";
    let mut block = [0; BLOCK];
    block.copy_from_slice(header.as_bytes());
    let sum = archive::sum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A `ustar` archive of these files, ended by two zero blocks.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in members {
        archive.extend(header(name, bytes.len() as u64));
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

/// The manifest of a program.
pub fn manifest(name: &str, version: &str, security_version: u64, elf: &[u8]) -> Manifest {
    Manifest {
        name: name.into(),
        version: version.into(),
        revision: String::new(),
        security_version,
        elf: ElfFile {
            size: elf.len() as u64,
            sha256: Sha256::digest(elf).into(),
        },
        environment: Vec::new(),
    }
}

/// A signed image of a program.
pub fn image(signer: &Signer, name: &str, version: &str, security_version: u64, elf: &[u8]) -> Vec<u8> {
    let manifest = manifest(name, version, security_version, elf)
        .to_toml()
        .into_bytes();
    let minisig = signer.sign(&manifest);
    archive(&[
        ("manifest.toml", &manifest),
        ("manifest.toml.minisig", &minisig),
        ("image.elf", elf),
    ])
}

/// A signed document, as orders are sent.
pub fn signed(signer: &Signer, name: &str, document: &[u8]) -> Vec<u8> {
    archive(&[
        (name, document),
        (&format!("{name}.minisig"), &signer.sign(document)),
    ])
}

//! Key pairs: minisign's own file formats, so that `minisign` reads ours and we read its.

use crate::exit::{Exit, Failure};
use crate::workspace;
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use blake2::{Blake2b512, Digest as _};
use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The variable that holds the password of an encrypted secret key, for scripts.
pub const PASSWORD_VARIABLE: &str = "INSTAR_KEY_PASSWORD";

/// What a key may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Says what may run.
    Release,
    /// Says who may ask.
    Operator,
}

impl Role {
    /// The stem of the key's files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Operator => "operator",
        }
    }

    /// The secret key's file in `dir`.
    pub fn secret_path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.key", self.name()))
    }

    /// The public key's file in `dir`.
    pub fn public_path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.pub", self.name()))
    }
}

/// Makes both key pairs in `dir`. Never overwrites: where one of the files exists, nothing is written.
///
/// # Errors
/// If a key exists already or `dir` cannot be written to.
pub fn generate(dir: &Path) -> Result<()> {
    for role in [Role::Release, Role::Operator] {
        for path in [role.secret_path(dir), role.public_path(dir)] {
            if path.exists() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("{} exists already; keys are never overwritten", path.display()),
                )
                .hint("choose another directory with --dir, or move the old keys away yourself")
                .into());
            }
        }
    }
    fs::create_dir_all(dir).with_context(|| format!("could not create {}", dir.display()))?;
    for role in [Role::Release, Role::Operator] {
        let pair =
            KeyPair::generate_unencrypted_keypair().map_err(|e| anyhow!("could not make a key: {e}"))?;
        let comment = format!("Instar {} secret key: keep it secret", role.name());
        let secret = pair
            .sk
            .to_box(Some(&comment))
            .map_err(|e| anyhow!("could not write a key: {e}"))?;
        let public = pair
            .pk
            .to_box()
            .map_err(|e| anyhow!("could not write a key: {e}"))?;
        write_new(&role.secret_path(dir), &secret.into_string(), 0o600)?;
        write_new(&role.public_path(dir), &public.into_string(), 0o644)?;
    }
    Ok(())
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("could not write {}", path.display()))
}

/// The directory of the development keys. Makes them, and says so, where there are none yet.
///
/// # Errors
/// If they cannot be made.
pub fn development() -> Result<PathBuf> {
    let dir = workspace::dev_keys_dir();
    let _lock = workspace::lock()?;
    let missing = [Role::Release, Role::Operator]
        .iter()
        .any(|role| !role.secret_path(&dir).exists() || !role.public_path(&dir).exists());
    if missing {
        generate(&dir)?;
        eprintln!(
            "made development keys in {} (not for anything but development)",
            dir.display()
        );
    }
    Ok(dir)
}

/// Reads a secret key, encrypted or not. An encrypted one's password comes from `INSTAR_KEY_PASSWORD`, or is asked for.
///
/// # Errors
/// If the file is missing, is no secret key, or the password is wrong.
pub fn read_secret(path: &Path) -> Result<SecretKey> {
    let text = read_text(path, "secret key")?;
    let key = match unencrypted(&text) {
        Some(key) => key,
        None => SecretKeyBox::from(text)
            .into_secret_key(std::env::var(PASSWORD_VARIABLE).ok())
            .map_err(|e| e.to_string())
            .and_then(checked),
    };
    key.map_err(|why| {
        Failure::new(
            Exit::Usage,
            format!("{} is not a usable minisign secret key: {why}", path.display()),
        )
        .hint(format!(
            "make one with `cargo xtask keygen` or `minisign -G`; an encrypted key's password may be in \
                 {PASSWORD_VARIABLE}"
        ))
        .into()
    })
}

/// The key in `text`, if it is one without a password. `minisign -W` leaves such a key's checksum zero, which the
/// `minisign` crate takes for damage; so the key itself is checked instead.
fn unencrypted(text: &str) -> Option<Result<SecretKey, String>> {
    let bytes = BASE64_STANDARD.decode(text.lines().nth(1)?.trim()).ok()?;
    if bytes.len() != KEY_LENGTH || bytes.get(2..4) != Some(&[0, 0]) {
        return None;
    }
    Some(
        SecretKey::from_bytes(&bytes)
            .map_err(|e| e.to_string())
            .and_then(checked),
    )
}

/// `key`, if its public half belongs to its secret half.
fn checked(key: SecretKey) -> Result<SecretKey, String> {
    let bytes = key.to_bytes();
    let pair = bytes
        .get(KEY_PAIR)
        .and_then(|pair| ed25519_compact::SecretKey::from_slice(pair).ok());
    match pair {
        Some(pair) if ed25519_compact::KeyPair::from_seed(pair.seed()).sk == pair => Ok(key),
        _ => Err("it is damaged".to_owned()),
    }
}

/// Reads a public key: a minisign `.pub` file, or the key itself in base64.
///
/// # Errors
/// If it is neither.
pub fn read_public(path: &Path) -> Result<PublicKey> {
    if !path.exists()
        && let Some(key) = path.to_str().and_then(|text| PublicKey::from_base64(text).ok())
    {
        return Ok(key);
    }
    let text = read_text(path, "public key")?;
    PublicKeyBox::from(text).into_public_key().map_err(|e| {
        Failure::new(
            Exit::Usage,
            format!("{} is not a minisign public key: {e}", path.display()),
        )
        .hint("a public key's file has two lines: a comment, and the key in base64")
        .into()
    })
}

fn read_text(path: &Path, what: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|e| {
        Failure::new(
            Exit::Usage,
            format!("could not read the {what} {}: {e}", path.display()),
        )
        .hint("`cargo xtask keygen` makes keys")
        .into()
    })
}

/// The public half of `secret`.
///
/// # Errors
/// If the key is damaged.
pub fn public_of(secret: &SecretKey) -> Result<PublicKey> {
    PublicKey::from_secret_key(secret).map_err(|e| anyhow!("could not derive the public key: {e}"))
}

/// Where the parts of a secret key stand in its bytes (minisign's manual page, "SECRET KEY FORMAT").
const KEY_LENGTH: usize = 158;
const KEY_ID: Range<usize> = 54..62;
const KEY_PAIR: Range<usize> = 62..126;

/// Signs `data` the way `minisign -S` does (prehashed), with `comment` as the trusted comment.
/// The same input gives the same signature, as with minisign itself, so that images can be built twice and compared;
/// the `minisign` crate mixes randomness in, and is therefore only used for the key files.
///
/// # Errors
/// If the key is damaged or the comment has more than one line.
pub fn sign(secret: &SecretKey, data: &[u8], comment: &str) -> Result<String> {
    ensure!(!comment.contains(['\n', '\r']), "a trusted comment has one line");
    let bytes = secret.to_bytes();
    let (Some(id), Some(pair)) = (bytes.get(KEY_ID), bytes.get(KEY_PAIR)) else {
        bail!("the secret key is too short");
    };
    let pair = ed25519_compact::SecretKey::from_slice(pair)
        .map_err(|e| anyhow!("the secret key is damaged: {e}"))?;
    let signature = pair.sign(Blake2b512::digest(data), None);
    let both = [signature.as_ref(), comment.as_bytes()].concat();
    let line = BASE64_STANDARD.encode([b"ED", id, signature.as_ref()].concat());
    let global = BASE64_STANDARD.encode(pair.sign(both, None).as_ref());
    Ok(format!(
        "untrusted comment: signed by Instar's xtask\n{line}\ntrusted comment: {comment}\n{global}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisign::SignatureBox;
    use std::io::Cursor;

    #[test]
    fn signatures_are_prehashed_and_repeatable() {
        let pair = KeyPair::generate_unencrypted_keypair().expect("a key pair");
        let first = sign(&pair.sk, b"data", "hello 1.0.0").expect("a signature");
        let second = sign(&pair.sk, b"data", "hello 1.0.0").expect("a signature");
        assert_eq!(first, second);
        let parsed = SignatureBox::from_string(&first).expect("a signature box");
        assert!(parsed.is_prehashed());
        assert_eq!(parsed.trusted_comment().expect("a comment"), "hello 1.0.0");
        minisign::verify(&pair.pk, &parsed, Cursor::new(b"data"), true, false, false).expect("verifies");
    }

    #[test]
    fn keys_are_read_back_and_never_overwritten() {
        let dir = std::env::temp_dir().join(format!("instar-keys-{}", std::process::id()));
        generate(&dir).expect("made");
        let secret = read_secret(&Role::Release.secret_path(&dir)).expect("a secret key");
        let public = read_public(&Role::Release.public_path(&dir)).expect("a public key");
        assert_eq!(
            public_of(&secret).expect("derived").to_base64(),
            public.to_base64()
        );
        assert_eq!(
            read_public(Path::new(&public.to_base64()))
                .expect("base64")
                .to_base64(),
            public.to_base64()
        );
        assert!(generate(&dir).is_err());
        assert!(read_secret(&Role::Release.public_path(&dir)).is_err());
        fs::remove_dir_all(&dir).expect("removed");
    }
}

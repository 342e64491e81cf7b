//! Minisign signatures: Ed25519 over the BLAKE2b-512 of a document.
//!
//! Format: <https://jedisct1.github.io/minisign/#signature-format>. `minisign -Vm FILE -P KEY` agrees with
//! [`verify`], except that the older kind (`Ed`, not prehashed) is refused here.

use alloc::string::String;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest};

const KEY_BYTES: usize = 2 + 8 + 32;
const SIGNATURE_BYTES: usize = 2 + 8 + 64;
/// Room for the two signature lines and for two comments of a sensible length.
const MAX_TEXT: usize = 4096;

/// A minisign public key: an Ed25519 point and the random number that names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey {
    id: u64,
    point: ed25519_compact::PublicKey,
}

/// Why a text is not a public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// Not base64 of 42 bytes.
    #[error("a public key is 56 characters of base64 (42 bytes); this is {found} characters, or not base64")]
    Encoding {
        /// Characters found.
        found: usize,
    },
    /// The two letters in front are not `Ed`.
    #[error("the public key does not begin with the algorithm `Ed`")]
    Algorithm,
    /// The point is not on the curve, not canonical, or of small order: anybody could sign for it.
    #[error("the public key is not a sound Ed25519 point")]
    Weak,
}

/// Why a signature does not vouch for a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    /// Not a minisign signature file.
    #[error("not a minisign signature: {what}")]
    Format {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Made with `minisign -l`, which signs the document itself instead of its BLAKE2b-512.
    #[error("a signature of minisign's legacy kind (`Ed`); the prehashed kind (`ED`) is required")]
    LegacyAlgorithm,
    /// Signed by another key.
    #[error("signed by key {found:016X}, expected key {expected:016X}")]
    WrongKey {
        /// The key that was asked for.
        expected: u64,
        /// The key that the signature names.
        found: u64,
    },
    /// The signature does not belong to this document.
    #[error("the signature does not match the document")]
    Wrong,
    /// The document is signed, the trusted comment is not.
    #[error("the signature does not match its trusted comment")]
    TrustedComment,
}

impl SignatureError {
    /// The code of `docs/interfaces.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Format { .. } | Self::LegacyAlgorithm => "bad-signature-format",
            Self::WrongKey { .. } => "wrong-key",
            Self::Wrong | Self::TrustedComment => "wrong-signature",
        }
    }

    /// What whoever signed can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Format { .. } => "sign with `minisign -S` or `cargo xtask`",
            Self::LegacyAlgorithm => "sign without minisign's option -l",
            Self::WrongKey { .. } => "sign with the key that this machine trusts",
            Self::Wrong | Self::TrustedComment => "sign again: the file was changed after it had been signed",
        }
    }
}

impl PublicKey {
    /// Reads the second line of a minisign public key file.
    ///
    /// # Errors
    /// [`KeyError`], also when the point is one that no honest key has.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let encoding = KeyError::Encoding { found: text.len() };
        if text.len() != KEY_BYTES.div_ceil(3) * 4 {
            return Err(encoding);
        }
        let bytes: [u8; KEY_BYTES] = decode(text).ok_or(encoding)?;
        let (algorithm, id, point) = split(&bytes);
        if algorithm != *b"Ed" {
            return Err(KeyError::Algorithm);
        }
        let point = ed25519_compact::PublicKey::from_slice(point).map_err(|_| KeyError::Weak)?;
        point.validate().map_err(|_| KeyError::Weak)?;
        Ok(Self { id, point })
    }

    /// The text that [`from_base64`](Self::from_base64) reads.
    pub fn to_base64(&self) -> String {
        let mut bytes = [0; KEY_BYTES];
        bytes[..2].copy_from_slice(b"Ed");
        bytes[2..10].copy_from_slice(&self.id.to_le_bytes());
        bytes[10..].copy_from_slice(self.point.as_slice());
        STANDARD.encode(bytes)
    }

    /// The number that minisign prints, in sixteen hexadecimal digits, as the key's name.
    pub fn key_id(&self) -> u64 {
        self.id
    }
}

/// Checks that `minisig`, the text of a signature file, is `key`'s signature of `document`.
///
/// # Errors
/// [`SignatureError`]; then nothing of the document may be believed.
pub fn verify(key: &PublicKey, document: &[u8], minisig: &[u8]) -> Result<(), SignatureError> {
    let format = |what| SignatureError::Format { what };
    if minisig.len() > MAX_TEXT {
        return Err(format("it is longer than 4096 bytes"));
    }
    let text = str::from_utf8(minisig).map_err(|_| format("it is not text"))?;
    let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let mut line = || lines.next().ok_or(format("it has fewer than four lines"));
    if !line()?.starts_with("untrusted comment: ") {
        return Err(format("line 1 is not an untrusted comment"));
    }
    let signature: [u8; SIGNATURE_BYTES] =
        decode(line()?).ok_or(format("line 2 is not base64 of 74 bytes"))?;
    let comment = line()?
        .strip_prefix("trusted comment: ")
        .ok_or(format("line 3 is not a trusted comment"))?;
    let global: [u8; 64] = decode(line()?).ok_or(format("line 4 is not base64 of 64 bytes"))?;
    if lines.next().is_some() {
        return Err(format("it has more than four lines"));
    }

    let (algorithm, found, signature) = split(&signature);
    match &algorithm {
        b"ED" => {}
        b"Ed" => return Err(SignatureError::LegacyAlgorithm),
        _ => return Err(format("its algorithm is unknown")),
    }
    if found != key.id {
        return Err(SignatureError::WrongKey {
            expected: key.id,
            found,
        });
    }
    let hash = Blake2b512::digest(document);
    check(key, &hash, signature).ok_or(SignatureError::Wrong)?;
    // The comment is signed together with the signature, so it cannot be moved to another document.
    let mut vouched = signature.to_vec();
    vouched.extend_from_slice(comment.as_bytes());
    check(key, &vouched, &global).ok_or(SignatureError::TrustedComment)
}

fn check(key: &PublicKey, message: &[u8], signature: &[u8]) -> Option<()> {
    let signature = ed25519_compact::Signature::from_slice(signature).ok()?;
    key.point.verify(message, &signature).ok()
}

/// Algorithm, key id and the rest of a key or a signature.
fn split<const N: usize>(bytes: &[u8; N]) -> ([u8; 2], u64, &[u8]) {
    let [a, b, id @ .., _, _] = bytes.first_chunk::<12>().unwrap_or(&[0; 12]);
    (
        [*a, *b],
        u64::from_le_bytes(*id),
        bytes.get(10..).unwrap_or_default(),
    )
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Base64 of N bytes, and not more: `decode` allocates by the length of the text.
    if text.len() > N.div_ceil(3) * 4 {
        return None;
    }
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Signer;

    fn signed() -> (Signer, PublicKey, Vec<u8>) {
        let signer = Signer::new(7);
        let minisig = signer.sign(b"document");
        (signer.clone(), signer.public_key(), minisig)
    }

    #[test]
    fn accepts_what_it_should() {
        let (_, key, minisig) = signed();
        assert_eq!(verify(&key, b"document", &minisig), Ok(()));
        assert_eq!(PublicKey::from_base64(&key.to_base64()), Ok(key));
    }

    #[test]
    fn agrees_with_the_reference_implementation() {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let key = PublicKey::from_base64(&pair.pk.to_base64()).unwrap();
        let theirs = minisign::sign(None, &pair.sk, &b"document"[..], Some("told"), None).unwrap();
        assert_eq!(verify(&key, b"document", theirs.to_string().as_bytes()), Ok(()));

        let (_, key, ours) = signed();
        let key = minisign::PublicKey::from_base64(&key.to_base64()).unwrap();
        let ours = minisign::SignatureBox::from_string(str::from_utf8(&ours).unwrap()).unwrap();
        minisign::verify(&key, &ours, std::io::Cursor::new(b"document"), true, false, false).unwrap();
    }

    #[test]
    fn tells_what_is_wrong() {
        let (signer, key, minisig) = signed();
        assert_eq!(verify(&key, b"Document", &minisig), Err(SignatureError::Wrong));
        let other = Signer::new(8).public_key();
        let wrong = SignatureError::WrongKey {
            expected: other.key_id(),
            found: key.key_id(),
        };
        assert_eq!(verify(&other, b"document", &minisig), Err(wrong));
        let text = String::from_utf8(minisig).unwrap();
        let comment = text.replace("trusted comment: ", "trusted comment: not ");
        let comment = comment.replacen("untrusted comment: not ", "untrusted comment: ", 1);
        assert_eq!(
            verify(&key, b"document", comment.as_bytes()),
            Err(SignatureError::TrustedComment)
        );
        let legacy = signer.sign_legacy(b"document");
        assert_eq!(
            verify(&key, b"document", &legacy),
            Err(SignatureError::LegacyAlgorithm)
        );
        for bad in [
            "",
            "untrusted comment: a",
            &text[..text.len() - 3],
            &format!("{text}x\n"),
        ] {
            let result = verify(&key, b"document", bad.as_bytes());
            assert!(
                matches!(result, Err(SignatureError::Format { .. })),
                "{bad}: {result:?}"
            );
        }
        assert!(matches!(
            verify(&key, b"document", &[0xff; 10]),
            Err(SignatureError::Format { .. })
        ));
    }

    #[test]
    fn refuses_bad_keys() {
        assert!(matches!(
            PublicKey::from_base64("abc"),
            Err(KeyError::Encoding { found: 3 })
        ));
        let mut bytes = [0; KEY_BYTES];
        assert_eq!(
            PublicKey::from_base64(&STANDARD.encode(bytes)),
            Err(KeyError::Algorithm)
        );
        bytes[..2].copy_from_slice(b"Ed");
        // The point with y = 0 has order 4.
        assert_eq!(
            PublicKey::from_base64(&STANDARD.encode(bytes)),
            Err(KeyError::Weak)
        );
    }
}

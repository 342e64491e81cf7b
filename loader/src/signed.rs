//! A small signed document in an archive: how orders arrive.

use alloc::format;

use crate::archive::{self, ArchiveError, BLOCK};
use crate::signature::{self, PublicKey, SignatureError};

/// The longest document, in bytes.
pub const MAX_DOCUMENT: u64 = 4096;
const MAX_SIGNATURE: u64 = 1024;
const DOCUMENT: &str = "the signed document";
const SIGNATURE: &str = "the document's .minisig";

/// Why a signed document is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Not the archive that it should be.
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    /// The archive ends too early.
    #[error("the archive ends inside {member}")]
    Truncated {
        /// The member that is incomplete.
        member: &'static str,
    },
    /// A member is larger than allowed.
    #[error("{member} has {found} bytes, at most {allowed} are allowed")]
    TooLarge {
        /// The member.
        member: &'static str,
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        allowed: u64,
    },
    /// Bytes behind the signature that are not the end of an archive.
    #[error("behind the signature there is more than the (at most 21) zero blocks that end an archive")]
    TrailingData,
    /// The key does not vouch for the document.
    #[error("{0}")]
    Signature(#[from] SignatureError),
}

impl OpenError {
    /// The code of `docs/interfaces.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Archive(_) | Self::TrailingData => "bad-archive",
            Self::Truncated { .. } => "truncated",
            Self::TooLarge { .. } => "too-large",
            Self::Signature(error) => error.code(),
        }
    }

    /// What whoever sent the document can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Signature(error) => error.hint(),
            _ => "send a ustar archive of the document and its .minisig, in this order",
        }
    }
}

/// Returns the document `document` of an archive of `document` and `document.minisig`, both complete, once `key`'s
/// signature has been verified.
///
/// # Errors
/// [`OpenError`]; then nothing of the document may be believed.
pub fn open<'a>(archive: &'a [u8], document: &str, key: &PublicKey) -> Result<&'a [u8], OpenError> {
    let mut rest = archive;
    let text = next(&mut rest, DOCUMENT, document, MAX_DOCUMENT)?;
    let minisig = next(
        &mut rest,
        SIGNATURE,
        &format!("{document}.minisig"),
        MAX_SIGNATURE,
    )?;
    if rest.len() > archive::MAX_END_BLOCKS * BLOCK || !archive::zero(rest) {
        return Err(OpenError::TrailingData);
    }
    signature::verify(key, text, minisig)?;
    Ok(text)
}

/// `member` is what errors call the member, `name` what the archive calls it.
fn next<'a>(
    rest: &mut &'a [u8],
    member: &'static str,
    name: &str,
    allowed: u64,
) -> Result<&'a [u8], OpenError> {
    let truncated = OpenError::Truncated { member };
    let (block, body) = rest.split_first_chunk::<BLOCK>().ok_or(truncated)?;
    let found = archive::member_named(block, member, name)?;
    if found > allowed {
        return Err(OpenError::TooLarge {
            member,
            found,
            allowed,
        });
    }
    let size = usize::try_from(found).map_err(|_| truncated)?;
    let (text, body) = body.split_at_checked(size).ok_or(truncated)?;
    let (padding, body) = body.split_at_checked(archive::padding(found)).ok_or(truncated)?;
    if !archive::zero(padding) {
        return Err(ArchiveError::Padding { member }.into());
    }
    *rest = body;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Signer};
    use proptest::prelude::*;

    const TEXT: &[u8] = b"format = 1\naction = \"replace\"\n";

    fn order() -> Vec<u8> {
        testing::signed(&Signer::new(2), "order.toml", TEXT)
    }

    fn open_order(archive: &[u8]) -> Result<&[u8], OpenError> {
        open(archive, "order.toml", &Signer::new(2).public_key())
    }

    #[test]
    fn opens_what_is_signed() {
        assert_eq!(open_order(&order()), Ok(TEXT));
    }

    #[test]
    fn refuses_with_the_agreed_code() {
        let code = |archive: &[u8]| open_order(archive).unwrap_err().code();
        assert_eq!(
            code(&testing::signed(&Signer::new(3), "order.toml", TEXT)),
            "wrong-key"
        );
        assert_eq!(
            code(&testing::signed(&Signer::new(2), "other.toml", TEXT)),
            "bad-archive"
        );
        assert_eq!(
            code(&testing::signed(&Signer::new(2), "order.toml", &[b'#'; 4097])),
            "too-large"
        );
        let mut more = order();
        more.push(1);
        assert_eq!(code(&more), "bad-archive");
        let minisig = Signer::new(2).sign(b"another");
        let moved = testing::archive(&[("order.toml", TEXT), ("order.toml.minisig", &minisig)]);
        assert_eq!(code(&moved), "wrong-signature");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_believes_a_changed_document(at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
            let mut archive = order();
            let at = at.index(archive.len());
            archive[at] ^= 1 << bit;
            prop_assert!(open_order(&archive).is_err() || open_order(&archive) == Ok(TEXT));
        }

        #[test]
        fn truncation_is_noticed(at in any::<proptest::sample::Index>()) {
            let archive = order();
            let size = archive.len() - 2 * BLOCK;
            prop_assert!(open_order(&archive[..at.index(size)]).is_err());
        }
    }
}

//! What a machine has run since its cold boot: a chain of SHA-384 digests over the manifests of its images.
//!
//! ```text
//! value_0 = 48 zero bytes
//! value_n = SHA-384(value_{n-1} || SHA-384(manifest.toml of the n-th image))
//! ```
//!
//! That is how a TPM extends a PCR (TCG, TPM 2.0 Library Part 1, "Extend of a PCR": new = H(old || digest)) and the TDX module
//! an RTMR (Intel TDX Module Base Architecture Specification, TDG.MR.RTMR.EXTEND: SHA-384 over old value and extension data,
//! 48 bytes each, from zero). So a later version can extend a real register by the same digests. The manifest holds the
//! ELF's digest: what is measured is all of the image.

use sha2::{Digest as _, Sha384};

/// Bytes of a digest and of the chain's value.
pub const BYTES: usize = 48;

/// The digest that an image extends the chain by: that of the bytes of its `manifest.toml`.
#[must_use]
pub fn digest(manifest: &[u8]) -> [u8; BYTES] {
    Sha384::digest(manifest).into()
}

/// The value of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chain(pub [u8; BYTES]);

impl Chain {
    /// Before the first image.
    pub const START: Self = Self([0; BYTES]);

    /// The value after an image whose manifest has this digest.
    #[must_use]
    pub fn extend(self, digest: &[u8; BYTES]) -> Self {
        Self(
            Sha384::new()
                .chain_update(self.0)
                .chain_update(digest)
                .finalize()
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::hex;

    /// Computed with another implementation (Python's hashlib):
    /// `m = sha384(b"abc").digest(); v1 = sha384(bytes(48) + m).digest(); sha384(v1 + sha384(b"").digest())`.
    #[test]
    fn known_values() {
        let abc = digest(b"abc");
        assert_eq!(hex(&abc), ABC, "the test vector of FIPS 180-4");
        let one = Chain::START.extend(&abc);
        assert_eq!(hex(&one.0), ONE);
        assert_eq!(hex(&one.extend(&digest(b"")).0), TWO);
    }

    /// The formula as it is written down, over one piece of memory.
    #[test]
    fn the_chain_is_the_documented_formula() {
        let mut chain = Chain::START;
        let mut value = vec![0_u8; BYTES];
        for manifest in ["format = 1\n", "", "format = 1\n", "x"] {
            chain = chain.extend(&digest(manifest.as_bytes()));
            value.extend_from_slice(&Sha384::digest(manifest));
            assert_eq!(value.len(), 2 * BYTES);
            value = Sha384::digest(&value).to_vec();
            assert_eq!(chain.0.as_slice(), value);
        }
    }

    #[test]
    fn order_and_repetition_show() {
        let (a, b) = (digest(b"a"), digest(b"b"));
        let start = Chain::START;
        assert_ne!(start.extend(&a).extend(&b), start.extend(&b).extend(&a));
        assert_ne!(start.extend(&a).extend(&a), start.extend(&a));
    }
    const ABC: &str =
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7";
    const ONE: &str =
        "93732e3733514a841c982cfa75ea76ab55fe011acb9cd980ef4523913c65be1b0998e04d77f8c174f81a82151619ca40";
    const TWO: &str =
        "a4d392030aec0188324dac645cac0391f996c9a913563092cd9d7c55c3d86c0f109053c37d2974da85660814bf359bed";
}

//! What a successor hands back to its predecessor on an orderly rollback.
//!
//! ```text
//! offset  bytes  what
//! 0       8      "INSTARST"
//! 8       4      length of the body, little-endian
//! 12      8      CRC-64/XZ over length and body, little-endian
//! 20      …      body: CBOR, a map: 0 the records, each as in the handover record
//! ```

use alloc::vec::Vec;

use minicbor::{Decode, Decoder, Encode};
use thiserror::Error;

use super::records::{self, MAX_RECORDS, Stashed};
use crate::replace::{bounded, envelope};

const MAGIC: [u8; 8] = *b"INSTARST";

/// Largest such record, in bytes: what the bounds allow, and room for what CBOR adds.
pub const MAX_RETURNED: usize = 2 * records::MAX_BYTES;

/// Why state that a successor handed back cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReturnError {
    /// Cut off, overwritten, or not such a record.
    #[error("the state that the successor handed back is damaged: {0}")]
    Damaged(#[from] envelope::EnvelopeError),
    /// Not CBOR with these fields.
    #[error("the state that the successor handed back cannot be read")]
    Malformed,
    /// More than a successor may stash.
    #[error("the state that the successor handed back is beyond every bound")]
    Bounds,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[cbor(
        n(0),
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_RECORDS>"
    )]
    records: Vec<Stashed>,
}

/// Writes the record.
#[must_use]
pub fn encode(records: &[Stashed]) -> Vec<u8> {
    let mut bytes = alloc::vec![0; envelope::HEADER];
    let body = Body {
        records: records.to_vec(),
    };
    // Writing into memory cannot fail, and what is within its bounds fits.
    let _ = minicbor::encode(body, bounded::Memory(&mut bytes));
    let _ = envelope::seal(MAGIC, &mut bytes);
    bytes
}

/// Reads the record; bytes behind it are not looked at.
///
/// # Errors
/// See [`ReturnError`]; the bytes may be anything.
pub fn decode(bytes: &[u8]) -> Result<Vec<Stashed>, ReturnError> {
    let body = envelope::open(MAGIC, MAX_RETURNED, bytes)?;
    let Body { records } = Decoder::new(body).decode().map_err(|_| ReturnError::Malformed)?;
    records::within_bounds(&records)
        .then_some(records)
        .ok_or(ReturnError::Bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stashed() -> impl Strategy<Value = Stashed> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..400);
        ("[a-z]{1,32}", any::<u32>(), bytes).prop_map(|(name, version, bytes)| Stashed {
            name,
            version,
            bytes,
        })
    }

    #[test]
    fn the_largest_state_fits() {
        let large = Stashed {
            name: "a".into(),
            version: 1,
            bytes: alloc::vec![0xff; records::MAX_BYTES - 1],
        };
        assert_eq!(
            decode(&encode(core::slice::from_ref(&large))),
            Ok([large].to_vec())
        );
    }

    proptest! {
        #[test]
        fn there_and_back(mut records in proptest::collection::vec(stashed(), 0..20), behind in any::<[u8; 5]>()) {
            records.sort_by(|one, other| one.name.cmp(&other.name));
            records.dedup_by(|one, other| one.name == other.name);
            let mut bytes = encode(&records);
            prop_assert!(bytes.len() <= MAX_RETURNED);
            bytes.extend(behind);
            prop_assert_eq!(decode(&bytes), Ok(records));
        }

        #[test]
        fn a_flipped_bit_is_an_error(records in proptest::collection::vec(stashed(), 1..3), at in any::<prop::sample::Index>()) {
            let mut bytes = encode(&records[..1]);
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn any_body_gets_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [&[0; envelope::HEADER][..], &body].concat();
            envelope::seal(MAGIC, &mut bytes).expect("small");
            let _ = decode(&bytes);
        }
    }
}

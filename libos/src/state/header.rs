//! The first page of a preserved region: what it is, and which region was made after it.
//!
//! The handover record names all regions. This page is for the other direction: a predecessor that continues after its
//! successor failed finds by it the regions that the successor had made.
//!
//! ```text
//! offset  bytes  what, little-endian
//! 0       8      "INSTARPR"
//! 8       4      length of the body: 56
//! 12      8      CRC-64/XZ over length and body
//! 20      56     body: start 8, end 8, version 4, length of the name 4, name 32
//! 80      8      address of the region that was made next, 0: none; written in one piece
//! ```

use alloc::string::{String, ToString};
use core::ops::Range;

use super::records::MAX_NAME;
use crate::memory::CHUNK;
use crate::replace::envelope;

/// What of the region is the library OS's: a page.
pub const HEADER_BYTES: u64 = 4096;
/// Where the address of the next region stands.
pub const NEXT: u64 = 80;
/// Size of what [`write`] makes.
pub const SEALED: usize = envelope::HEADER + 24 + MAX_NAME;

const MAGIC: [u8; 8] = *b"INSTARPR";

/// A region by its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where it lies.
    pub range: Range<u64>,
    /// The application's name for it.
    pub name: String,
    /// The application's version of what is in it.
    pub version: u32,
}

/// The bytes of a header. The name has at most [`MAX_NAME`] bytes.
#[must_use]
pub fn write(header: &Header) -> [u8; SEALED] {
    let mut bytes = [0; SEALED];
    let mut at = envelope::HEADER;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&header.range.start.to_le_bytes());
    put(&header.range.end.to_le_bytes());
    put(&header.version.to_le_bytes());
    put(&(header.name.len() as u32).to_le_bytes());
    put(header.name.as_bytes());
    // It is as long as it must be.
    let _ = envelope::seal(MAGIC, &mut bytes);
    bytes
}

/// Reads the header that stands at `start`; `None`: there is none, or a damaged one.
#[must_use]
pub fn read(start: u64, bytes: &[u8; SEALED]) -> Option<Header> {
    let (range, name, version) = parse(start, bytes)?;
    Some(Header {
        range,
        name: name.to_string(),
        version,
    })
}

/// The same without an allocation.
#[must_use]
pub fn parse(start: u64, bytes: &[u8; SEALED]) -> Option<(Range<u64>, &str, u32)> {
    let body = envelope::open(MAGIC, SEALED, bytes).ok()?;
    let (own, rest) = body.split_first_chunk::<8>()?;
    let (end, rest) = rest.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (length, name) = rest.split_first_chunk::<4>()?;
    let name = core::str::from_utf8(name.get(..u32::from_le_bytes(*length) as usize)?).ok()?;
    let (own, end) = (u64::from_le_bytes(*own), u64::from_le_bytes(*end));
    let whole = own == start && own < end && own.is_multiple_of(CHUNK) && end.is_multiple_of(CHUNK);
    (whole && !name.is_empty()).then_some((own..end, name, u32::from_le_bytes(*version)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            range: 6 * CHUNK..9 * CHUNK,
            name: "kv.12".to_string(),
            version: 3,
        }
    }

    #[test]
    fn there_and_back() {
        let bytes = write(&header());
        assert_eq!(read(6 * CHUNK, &bytes), Some(header()));
        assert_eq!(read(7 * CHUNK, &bytes), None, "a copy at another place");
        assert!(SEALED as u64 <= NEXT && NEXT < HEADER_BYTES);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for bit in 0..SEALED * 8 {
            let mut bytes = write(&header());
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(6 * CHUNK, &bytes), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_body_gets_an_answer(body in proptest::collection::vec(any::<u8>(), 56)) {
            let mut bytes = [0; SEALED];
            bytes[envelope::HEADER..].copy_from_slice(&body);
            envelope::seal(MAGIC, &mut bytes).expect("it is long enough");
            let _ = read(6 * CHUNK, &bytes);
        }
    }
}

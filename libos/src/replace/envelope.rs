//! Magic, length and sum around a body: how a record is found again, and how an accident is found out.

use crc::{CRC_64_XZ, Crc};
use thiserror::Error;

/// Bytes before the body: 8 of magic, 4 of length, 8 of the sum over length and body.
pub const HEADER: usize = 20;

/// Why there is no record in these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Shorter than its header says, or than a header.
    #[error("it is cut off")]
    Truncated,
    /// It does not begin like one.
    #[error("there is none")]
    Magic,
    /// Larger than its limit; the number of bytes.
    #[error("{0} bytes are too large")]
    TooLarge(usize),
    /// The sum does not fit the body.
    #[error("its checksum is wrong")]
    Checksum,
}

/// Fills in the header of a record whose body is written.
///
/// # Errors
/// [`EnvelopeError::Truncated`], [`EnvelopeError::TooLarge`].
pub fn seal(magic: [u8; 8], record: &mut [u8]) -> Result<(), EnvelopeError> {
    let size = record.len();
    let (header, body) = record
        .split_at_mut_checked(HEADER)
        .ok_or(EnvelopeError::Truncated)?;
    let length = u32::try_from(body.len())
        .map_err(|_| EnvelopeError::TooLarge(size))?
        .to_le_bytes();
    header[..8].copy_from_slice(&magic);
    header[8..12].copy_from_slice(&length);
    header[12..].copy_from_slice(&sum(&length, body));
    Ok(())
}

/// The body of a record of at most `most` bytes; what stands behind it is not looked at.
///
/// # Errors
/// See [`EnvelopeError`]; the bytes may be anything.
pub fn open(magic: [u8; 8], most: usize, bytes: &[u8]) -> Result<&[u8], EnvelopeError> {
    let (found, rest) = bytes.split_first_chunk::<8>().ok_or(EnvelopeError::Truncated)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(EnvelopeError::Truncated)?;
    let (expected, rest) = rest.split_first_chunk::<8>().ok_or(EnvelopeError::Truncated)?;
    if *found != magic {
        return Err(EnvelopeError::Magic);
    }
    let body_bytes = u32::from_le_bytes(*length) as usize;
    if body_bytes > most - HEADER {
        return Err(EnvelopeError::TooLarge(body_bytes.saturating_add(HEADER)));
    }
    let body = rest.get(..body_bytes).ok_or(EnvelopeError::Truncated)?;
    if sum(length, body) == *expected {
        Ok(body)
    } else {
        Err(EnvelopeError::Checksum)
    }
}

/// CRC-64/XZ over both.
pub fn sum(length: &[u8], body: &[u8]) -> [u8; 8] {
    // Reading a record is part of the blackout: a cryptographic digest would be most of it, and find no more accidents.
    static CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);
    let mut digest = CRC.digest();
    digest.update(length);
    digest.update(body);
    digest.finalize().to_le_bytes()
}

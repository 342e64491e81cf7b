//! `ustar` headers, read strictly, one block at a time.
//!
//! POSIX.1-2017, `pax`, "ustar Interchange Format". tar-no-std was considered: it finds its headers only in a whole
//! archive in memory, and checks neither the checksum nor the file type; an image is read while it streams in, and
//! its headers are outside the signature, so one fixed layout with nothing left open is what is wanted here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Archives are made of blocks of this many bytes.
pub const BLOCK: usize = 512;
/// Zero blocks accepted at the end: two are required by POSIX, GNU tar fills a record of twenty blocks, and may need one more than that.
pub const MAX_END_BLOCKS: usize = 21;

/// The header in front of each member. Numbers are octal digits.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) name: [u8; 100],
    pub(crate) mode: [u8; 8],
    pub(crate) uid: [u8; 8],
    pub(crate) gid: [u8; 8],
    pub(crate) size: [u8; 12],
    pub(crate) mtime: [u8; 12],
    pub(crate) checksum: [u8; 8],
    pub(crate) kind: u8,
    pub(crate) link: [u8; 100],
    pub(crate) magic: [u8; 6],
    pub(crate) version: [u8; 2],
    pub(crate) user: [u8; 32],
    pub(crate) group: [u8; 32],
    pub(crate) device: [u8; 16],
    pub(crate) prefix: [u8; 155],
    pub(crate) rest: [u8; 12],
}

/// Why an archive is not one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The header was damaged, or is no header.
    #[error("no tar header where {expected} should begin (checksum or `ustar` magic is wrong)")]
    Header {
        /// The member that was expected.
        expected: &'static str,
    },
    /// Another member was expected here.
    #[error("the archive's next member is not {expected}")]
    Name {
        /// The member that was expected.
        expected: &'static str,
    },
    /// A directory, a link, a device, …
    #[error("{member} is not a plain file (type {found})")]
    Kind {
        /// The member.
        member: &'static str,
        /// The type in its header.
        found: u8,
    },
    /// The size is not a number.
    #[error("the size of {member} is not an octal number")]
    Size {
        /// The member.
        member: &'static str,
    },
    /// A member does not have the size that the manifest declares.
    #[error("{member} has {found} bytes, {expected} were announced")]
    Length {
        /// The member.
        member: &'static str,
        /// Bytes announced.
        expected: u64,
        /// Bytes in the archive.
        found: u64,
    },
    /// Something hides between the members.
    #[error("the padding behind {member} is not zero")]
    Padding {
        /// The member in front of the padding.
        member: &'static str,
    },
}

/// Checks the header of the member `expected` and returns the member's size in bytes.
///
/// # Errors
/// [`ArchiveError`] if the header is damaged or does not announce a plain file of exactly this name.
pub fn member(block: &[u8; BLOCK], expected: &'static str) -> Result<u64, ArchiveError> {
    member_named(block, expected, expected)
}

/// The same for a member whose name is known only at run time; errors call it `expected`.
///
/// # Errors
/// As [`member`].
pub fn member_named(block: &[u8; BLOCK], expected: &'static str, name: &str) -> Result<u64, ArchiveError> {
    let broken = ArchiveError::Header { expected };
    let header = Header::ref_from_bytes(block).map_err(|_| broken)?;
    if sum(block) != checksum(&header.checksum).ok_or(broken)? || !ustar(header) {
        return Err(broken);
    }
    let (found, end) = header
        .name
        .split_at_checked(name.len())
        .ok_or(ArchiveError::Name { expected })?;
    if found != name.as_bytes() || !zero(end) || !zero(&header.prefix) {
        return Err(ArchiveError::Name { expected });
    }
    // NUL is how archives older than POSIX marked a plain file.
    if !matches!(header.kind, b'0' | 0) {
        return Err(ArchiveError::Kind {
            member: expected,
            found: header.kind,
        });
    }
    octal(&header.size).ok_or(ArchiveError::Size { member: expected })
}

/// How many bytes follow a member of this size, up to the next block.
pub fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

/// Whether these bytes are all zero.
pub fn zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn ustar(header: &Header) -> bool {
    // POSIX, and what GNU tar wrote before.
    (&header.magic == b"ustar\0" && &header.version == b"00")
        || (&header.magic == b"ustar " && &header.version == b" \0")
}

/// The sum of all bytes, those of the checksum itself taken as blanks.
pub(crate) fn sum(block: &[u8; BLOCK]) -> u64 {
    const FIELD: core::ops::Range<usize> = 148..156;
    let byte = |(index, byte): (usize, &u8)| if FIELD.contains(&index) { b' ' } else { *byte };
    block.iter().enumerate().map(|at| u64::from(byte(at))).sum()
}

/// Six digits, NUL, blank (POSIX), or seven digits and NUL (Rust's `tar`): nothing that a flipped bit could turn
/// into something else that is accepted.
fn checksum(field: &[u8; 8]) -> Option<u64> {
    match field {
        [digits @ .., 0, b' '] => digits_only(digits),
        [digits @ .., 0] => digits_only(digits),
        _ => None,
    }
}

/// Octal digits, ended by blanks or NULs or by the end of the field.
fn octal(field: &[u8]) -> Option<u64> {
    let end = field
        .iter()
        .position(|byte| matches!(byte, 0 | b' '))
        .unwrap_or(field.len());
    let (digits, rest) = field.split_at_checked(end)?;
    rest.iter()
        .all(|byte| matches!(byte, 0 | b' '))
        .then(|| digits_only(digits))?
}

fn digits_only(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn block(name: &str, size: u64) -> [u8; BLOCK] {
        testing::header(name, size)
    }

    fn again(mut block: [u8; BLOCK], change: impl FnOnce(&mut Header)) -> [u8; BLOCK] {
        change(Header::mut_from_bytes(&mut block).unwrap());
        let sum = sum(&block);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    #[test]
    fn reads_a_header() {
        assert_eq!(member(&block("image.elf", 123_456), "image.elf"), Ok(123_456));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = block("image.elf", 5);
        for bit in 0..BLOCK * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(member(&bad, "image.elf").is_err(), "bit {bit}");
        }
    }

    #[test]
    fn tells_what_is_wrong() {
        let good = block("image.elf", 5);
        assert_eq!(
            member(&good, "other"),
            Err(ArchiveError::Name { expected: "other" })
        );
        let prefix = again(good, |header| header.prefix[0] = b'a');
        assert_eq!(
            member(&prefix, "image.elf"),
            Err(ArchiveError::Name {
                expected: "image.elf"
            })
        );
        let link = again(good, |header| header.kind = b'2');
        let kind = ArchiveError::Kind {
            member: "image.elf",
            found: b'2',
        };
        assert_eq!(member(&link, "image.elf"), Err(kind));
        let size = again(good, |header| header.size = *b"0000000008\0\0");
        assert_eq!(
            member(&size, "image.elf"),
            Err(ArchiveError::Size { member: "image.elf" })
        );
        // GNU's binary sizes are for files of 8 GiB and more.
        let size = again(good, |header| {
            header.size = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]
        });
        assert_eq!(
            member(&size, "image.elf"),
            Err(ArchiveError::Size { member: "image.elf" })
        );
        let magic = again(good, |header| header.magic = [0; 6]);
        assert_eq!(
            member(&magic, "image.elf"),
            Err(ArchiveError::Header {
                expected: "image.elf"
            })
        );
    }

    #[test]
    fn reads_what_gnu_tar_writes() {
        let gnu = again(block("image.elf", 5), |header| {
            header.magic = *b"ustar ";
            header.version = *b" \0";
        });
        assert_eq!(member(&gnu, "image.elf"), Ok(5));
    }

    #[test]
    fn pads_to_whole_blocks() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}

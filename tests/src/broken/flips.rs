//! One wrong bit, and ends that come too early.

use super::Case;
use crate::image::{MEMBERS, Parts};

const ANY_SIGNATURE_ERROR: &[super::Refusal] = &[
    (403, "wrong-signature"),
    (403, "wrong-key"),
    (400, "bad-signature-format"),
];

/// Which bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    byte: usize,
    bit: u8,
}

fn every_bit(bytes: std::ops::Range<usize>) -> impl Iterator<Item = Flip> {
    bytes.flat_map(|byte| (0..8).map(move |bit| Flip { byte, bit }))
}

fn flipped(bytes: &[u8], flip: Flip) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[flip.byte] ^= 1 << flip.bit;
    flipped
}

fn case(good: &Parts, member: usize, flip: Flip, expected: &[super::Refusal]) -> Case {
    let mut members = good.members();
    members[member].data = flipped(&members[member].data, flip);
    let name = format!(
        "{}: byte {}, bit {} flipped",
        MEMBERS[member], flip.byte, flip.bit
    );
    Case::new(name, crate::image::pack(&members), expected)
}

/// A case of which only the beginning is sent: manifest and signature are refused before anything of the ELF is there.
fn early(mut case: Case) -> Case {
    case.claimed = Some(case.body.len() as u64);
    case.body.truncate(8 * 1024);
    case
}

/// Each bit of the manifest in turn.
pub fn manifest(good: &Parts) -> impl Iterator<Item = Case> {
    every_bit(0..good.manifest.len()).map(|flip| early(case(good, 0, flip, &[(403, "wrong-signature")])))
}

/// Each bit of the signature file in turn, but for those of [`untrusted_comment`].
pub fn signature(good: &Parts) -> impl Iterator<Item = Case> {
    let skip = unsigned(good);
    every_bit(0..good.signature.len())
        .filter(move |flip| !skip.contains(&flip.byte))
        .map(|flip| early(case(good, 1, flip, ANY_SIGNATURE_ERROR)))
}

/// Each bit of the text of the untrusted comment, which no signature covers: minisign itself does not mind them.
/// Whatever the verdict, the machine must serve on. (`expected` lists the refusals; acceptance is right as well.)
pub fn untrusted_comment(good: &Parts) -> impl Iterator<Item = Case> {
    every_bit(unsigned(good)).map(|flip| case(good, 1, flip, ANY_SIGNATURE_ERROR))
}

fn unsigned(good: &Parts) -> std::ops::Range<usize> {
    let line = good.signature.find('\n').unwrap_or(good.signature.len());
    "untrusted comment: ".len().min(line)..line
}

/// Each bit of the first KiB of the ELF in turn: its headers.
pub fn elf_headers(good: &Parts) -> impl Iterator<Item = Case> {
    every_bit(0..good.elf.len().min(1024)).map(|flip| case(good, 2, flip, &[(403, "digest-mismatch")]))
}

/// `count` bits all over the ELF: the first and the last, and others at even distances, with each bit position.
pub fn elf_sample(good: &Parts, count: usize) -> impl Iterator<Item = Case> {
    let last = good.elf.len().saturating_sub(1);
    (0..count).map(move |index| {
        let byte = last * index / count.saturating_sub(1).max(1);
        let bit = if index + 1 == count { 7 } else { (index % 8) as u8 };
        case(good, 2, Flip { byte, bit }, &[(403, "digest-mismatch")])
    })
}

/// Each bit of the three tar headers, but for the checksum itself (its digits may be written in several ways).
pub fn tar_headers(good: &Parts) -> impl Iterator<Item = Case> {
    let image = good.pack();
    let blocks = |bytes: usize| 512 + bytes.next_multiple_of(512);
    let second = blocks(good.manifest.len());
    let starts = [0, second, second + blocks(good.signature.len())];
    starts.into_iter().flat_map(move |start| {
        let image = image.clone();
        every_bit(start..start + 512)
            .filter(move |flip| !(148..156).contains(&(flip.byte - start)))
            .map(move |flip| {
                let name = format!(
                    "tar header at {start}: byte {}, bit {} flipped",
                    flip.byte - start,
                    flip.bit
                );
                Case::new(name, flipped(&image, flip), &[(400, "bad-archive")])
            })
    })
}

/// The archive cut at the borders of everything in it, one byte before and after them, and at places between;
/// `Content-Length` tells the truth about what is left. The end of the ELF is the last place: what comes after it is
/// padding.
pub fn truncated(good: &Parts) -> impl Iterator<Item = Case> {
    let image = good.pack();
    let mut borders = vec![0];
    for size in [good.manifest.len(), good.signature.len(), good.elf.len()] {
        let header = borders.last().copied().unwrap_or(0usize).next_multiple_of(512);
        borders.extend([
            header + 257,
            header + 512,
            header + 512 + size / 2,
            header + 512 + size,
        ]);
    }
    let end = borders.last().copied().unwrap_or(0);
    let mut cuts: Vec<usize> = borders
        .into_iter()
        .flat_map(|border| [border.saturating_sub(1), border, border + 1])
        .collect();
    cuts.extend((1..16).map(|part| end * part / 16));
    cuts.retain(|&cut| cut < end);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.into_iter().map(move |cut| {
        let expected: &[super::Refusal] = match cut {
            0 => &[(400, "truncated"), (400, "bad-archive"), (400, "bad-request")],
            _ => &[(400, "truncated")],
        };
        Case::new(
            format!("cut after {cut} of {} bytes", image.len()),
            image[..cut].to_vec(),
            expected,
        )
    })
}

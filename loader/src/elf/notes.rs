//! The notes of the first PT_NOTE segment: the Hermit entry version is one of them.

use elf::abi;
use elf::segment::ProgramHeader;

use super::{ElfError, within};

const HERMIT: &[u8] = b"HERMIT\0";
const ENTRY_VERSION_KIND: u32 = 0x5a00;
const ENTRY_VERSION: u8 = 4;

/// Walks all notes as `hermit-entry`'s iterator does, which takes names and sizes on trust.
pub(super) fn check(elf: &[u8], headers: &[ProgramHeader]) -> Result<(), ElfError> {
    let header = headers.iter().find(|header| header.p_type == abi::PT_NOTE);
    let header = header.ok_or(ElfError::Note("there is no note segment (PT_NOTE)"))?;
    let align = match header.p_align {
        4 => 4,
        8 => 8,
        _ => return Err(ElfError::Note("the segment's alignment is neither 4 nor 8")),
    };
    let mut rest = within(elf, "notes", header.p_offset, header.p_filesz, 4)?;
    let mut version = None;
    while let Some(note) = next(&mut rest, align)? {
        if version.is_none() && note.kind == ENTRY_VERSION_KIND && note.name == HERMIT {
            version = Some(note.descriptor);
        }
    }
    match version {
        // Hermit's macro writes one byte, its documentation says one word; its loader looks at the first byte.
        Some([ENTRY_VERSION] | [ENTRY_VERSION, 0, 0, 0]) => Ok(()),
        Some(_) => Err(ElfError::Note("the Hermit entry version is not 4")),
        None => Err(ElfError::Note(
            "the first note segment has no Hermit entry version",
        )),
    }
}

struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    descriptor: &'a [u8],
}

fn next<'a>(rest: &mut &'a [u8], align: usize) -> Result<Option<Note<'a>>, ElfError> {
    const OUTSIDE: ElfError = ElfError::Note("a name or a descriptor reaches beyond the segment");
    // Fewer bytes than a note's header end the list.
    let Some((header, _)) = rest.split_first_chunk::<12>() else {
        return Ok(None);
    };
    let ([name_size, descriptor_size, kind], _) = header.as_chunks::<4>() else {
        return Ok(None);
    };
    let size = |word: &[u8; 4]| usize::try_from(u32::from_le_bytes(*word)).map_err(|_| OUTSIDE);
    let (name_size, descriptor_size) = (size(name_size)?, size(descriptor_size)?);
    let part = |start: usize, size: usize| {
        let end = start.checked_add(size).ok_or(OUTSIDE)?;
        let aligned = end.checked_next_multiple_of(align).ok_or(OUTSIDE)?;
        // The padding, too, must be inside: `hermit-entry` skips it by slicing.
        if aligned > rest.len() {
            return Err(OUTSIDE);
        }
        Ok((rest.get(start..end).ok_or(OUTSIDE)?, aligned))
    };
    let (name, behind_name) = part(12, name_size)?;
    let (descriptor, behind) = part(behind_name, descriptor_size)?;
    // A name of no bytes has not even the NUL that ends it.
    let text = name.split_last().ok_or(ElfError::Note("a note has no name"))?.1;
    if str::from_utf8(text).is_err() {
        return Err(ElfError::Note("a name is not text"));
    }
    *rest = rest.get(behind..).ok_or(OUTSIDE)?;
    Ok(Some(Note {
        kind: u32::from_le_bytes(*kind),
        name,
        descriptor,
    }))
}

//! What an ELF file must be before it is loaded.
//!
//! `hermit-entry` loads the file, and it trusts it: its `parse` and `load_kernel` (0.10.11) index and unwrap
//! throughout. So every offset, size and alignment that it relies on is checked here, in the file's order, and on
//! top of that what Instar asks of an image (`docs/interfaces.md`): page-wise W^X, no interpreter, no libraries,
//! only relative relocations, and only into writable memory. The layouts are those of the System V gABI, chapters 4
//! and 5.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use elf::ElfBytes;
use elf::abi;
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::section::SectionHeader;
use elf::segment::ProgramHeader;

mod dynamic;
mod notes;

/// The size of a page.
pub const PAGE: u64 = 4096;
/// The most memory that an image may ask for: it is loaded below 4 GiB.
pub const MAX_MEMORY: u64 = 1 << 32;
/// Far more than any linker writes, and a bound for every loop over them.
const MAX_SEGMENTS: u16 = 64;

/// What a checked program needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Bytes from address 0 to the end of the last segment.
    pub memory: u64,
    /// What is where, in ascending order.
    pub segments: Vec<Segment>,
    /// The entry point's address.
    pub entry: u64,
}

/// A part of a program, in whole pages. Addresses count from where the program is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The first byte, at a page's beginning.
    pub start: u64,
    /// The first byte behind it, at a page's beginning.
    pub end: u64,
    /// How its pages are to be mapped.
    pub kind: SegmentKind,
}

/// How the pages of a segment are to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// Readable and executable.
    Code,
    /// Readable.
    ReadOnly,
    /// Readable and writable.
    Data,
}

/// Why a file is not loaded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ElfError {
    /// The file does not lie at a multiple of 8 in memory: the caller's mistake, not the file's.
    #[error("the ELF file must lie at a multiple of 8 in memory")]
    Misaligned,
    /// The headers cannot be read.
    #[error("not an ELF file: {0}")]
    Parse(&'static str),
    /// A header field that has only one right value.
    #[error("{field} is {found:#x}, must be {expected:#x}")]
    Field {
        /// The field's name in the gABI.
        field: &'static str,
        /// What it must be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// Something lies outside the file, or not at the multiple of bytes where it should.
    #[error("{what} at file offset {offset:#x}, {size:#x} bytes: outside the file, or misaligned")]
    Place {
        /// What.
        what: &'static str,
        /// Its offset in the file.
        offset: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// The wrong number of something.
    #[error("{found} {what}, must be {expected}")]
    Count {
        /// What.
        what: &'static str,
        /// What the number must be.
        expected: &'static str,
        /// What it is.
        found: u64,
    },
    /// A segment is not as it must be.
    #[error("segment at {address:#x}: {what}")]
    Segment {
        /// Where it wants to be loaded.
        address: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The program asks for more memory than [`MAX_MEMORY`].
    #[error("the program needs {found:#x} bytes of memory, at most {MAX_MEMORY:#x} are allowed")]
    TooBig {
        /// Bytes it asks for.
        found: u64,
    },
    /// The entry point is not code.
    #[error("the entry point {entry:#x} lies in no executable segment")]
    Entry {
        /// The address.
        entry: u64,
    },
    /// A note that cannot be read, or the wrong entry version.
    #[error("notes: {0}")]
    Note(&'static str),
    /// The dynamic section asks for something that nobody here does.
    #[error("dynamic section: {0}")]
    Dynamic(&'static str),
    /// A relocation of a kind, to a place or with a value that is not allowed.
    #[error("relocation {index} at {address:#x}: {what}")]
    Relocation {
        /// Its place in the table.
        index: usize,
        /// The address it changes.
        address: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl ElfError {
    /// The code of `docs/interfaces.md`.
    pub fn code(&self) -> &'static str {
        "bad-elf"
    }

    /// What whoever built the program can do.
    pub fn hint(&self) -> &'static str {
        "build the program with `cargo xtask build-app`, which links it as a loader needs it"
    }

    /// Code, message and hint in one line.
    pub fn line(&self) -> String {
        format!("{}: {self}; {}", self.code(), self.hint())
    }
}

/// Checks a program. What passes can be loaded by [`crate::load::load`] without a panic, and does not ask for more
/// than [`MAX_MEMORY`].
///
/// # Errors
/// [`ElfError`]: the first thing that is wrong.
pub fn check(elf: &[u8]) -> Result<Plan, ElfError> {
    // `hermit-entry` looks at the file through references to structures of u64.
    if !elf.as_ptr().addr().is_multiple_of(8) {
        return Err(ElfError::Misaligned);
    }
    let file =
        ElfBytes::<LittleEndian>::minimal_parse(elf).map_err(|error| ElfError::Parse(plain(&error)))?;
    header(&file)?;
    let headers: Vec<ProgramHeader> = file
        .segments()
        .map(|table| table.iter().collect())
        .unwrap_or_default();
    tables(elf, &file)?;

    let loads: Vec<Load> = loads(elf, &headers)?;
    let segments: Vec<Segment> = loads.iter().map(|load| load.segment).collect();
    let memory = loads.last().map_or(0, |load| load.memory.end);
    let entry = file.ehdr.e_entry;
    let is_code = |load: &&Load| load.segment.kind == SegmentKind::Code && load.file.contains(&entry);
    if loads.iter().find(is_code).is_none() {
        return Err(ElfError::Entry { entry });
    }
    refuse(&headers, abi::PT_INTERP, "interpreters (PT_INTERP)")?;
    tls(&headers, memory)?;
    notes::check(elf, &headers)?;
    dynamic::check(elf, &headers, &loads, memory)?;
    Ok(Plan {
        memory,
        segments,
        entry,
    })
}

/// A PT_LOAD segment: what it is, the addresses it fills from the file, the addresses it occupies, and its place in
/// the file.
struct Load {
    segment: Segment,
    file: Range<u64>,
    memory: Range<u64>,
    offset: u64,
}

fn header(file: &ElfBytes<'_, LittleEndian>) -> Result<(), ElfError> {
    let header = &file.ehdr;
    let class = if header.class == Class::ELF64 {
        abi::ELFCLASS64
    } else {
        abi::ELFCLASS32
    };
    let fields = [
        ("EI_CLASS", u64::from(abi::ELFCLASS64), u64::from(class)),
        (
            "e_machine",
            u64::from(abi::EM_X86_64),
            u64::from(header.e_machine),
        ),
        ("e_type", u64::from(abi::ET_DYN), u64::from(header.e_type)),
        ("e_version", 1, u64::from(header.version)),
        ("e_phentsize", 56, u64::from(header.e_phentsize)),
    ];
    for (field, expected, found) in fields {
        if found != expected {
            return Err(ElfError::Field {
                field,
                expected,
                found,
            });
        }
    }
    if !(1..=MAX_SEGMENTS).contains(&header.e_phnum) {
        let found = u64::from(header.e_phnum);
        return Err(ElfError::Count {
            what: "program headers",
            expected: "1 to 64",
            found,
        });
    }
    Ok(())
}

/// The tables of program and section headers. `hermit-entry` takes references to both, even to empty ones, and to
/// the symbols of the first SHT_DYNSYM section.
fn tables(elf: &[u8], file: &ElfBytes<'_, LittleEndian>) -> Result<(), ElfError> {
    let header = &file.ehdr;
    within(
        elf,
        "program headers",
        header.e_phoff,
        u64::from(header.e_phnum) * 56,
        8,
    )?;
    within(
        elf,
        "section headers",
        header.e_shoff,
        u64::from(header.e_shnum) * 64,
        8,
    )?;
    // With e_shnum = 0 the gABI keeps the number elsewhere; `hermit-entry` sees no sections then.
    let shown = usize::from(header.e_shnum);
    let sections = file.section_headers();
    let mut sections = sections.iter().flat_map(|table| table.iter()).take(shown);
    if let Some(SectionHeader {
        sh_offset, sh_size, ..
    }) = sections.find(|s| s.sh_type == abi::SHT_DYNSYM)
    {
        within(elf, "dynamic symbols", sh_offset, sh_size, 8)?;
    }
    Ok(())
}

fn loads(elf: &[u8], headers: &[ProgramHeader]) -> Result<Vec<Load>, ElfError> {
    let mut loads: Vec<Load> = Vec::new();
    for header in headers.iter().filter(|header| header.p_type == abi::PT_LOAD) {
        let load = load(elf, header)?;
        let wrong = |what| {
            Err(ElfError::Segment {
                address: header.p_vaddr,
                what,
            })
        };
        match loads.last() {
            None if header.p_vaddr != 0 => return wrong("the first segment must be at address 0"),
            Some(before) if load.segment.start < before.segment.end => {
                return wrong(
                    "it overlaps or shares a page with the one before, or they are not in ascending order",
                );
            }
            _ => loads.push(load),
        }
    }
    if loads.is_empty() {
        return Err(ElfError::Count {
            what: "segments to load (PT_LOAD)",
            expected: "at least 1",
            found: 0,
        });
    }
    Ok(loads)
}

fn load(elf: &[u8], header: &ProgramHeader) -> Result<Load, ElfError> {
    let wrong = |what| ElfError::Segment {
        address: header.p_vaddr,
        what,
    };
    within(elf, "a segment", header.p_offset, header.p_filesz, 1)?;
    if header.p_memsz == 0 || header.p_filesz > header.p_memsz {
        return Err(wrong("it is empty, or larger in the file than in memory"));
    }
    // The program is loaded at the beginning of a page, of any page.
    if header.p_align > PAGE || !(header.p_align == 0 || header.p_align.is_power_of_two()) {
        return Err(wrong(
            "its alignment is not a power of two, or larger than a page",
        ));
    }
    let end = header.p_vaddr.saturating_add(header.p_memsz);
    if end > MAX_MEMORY {
        return Err(ElfError::TooBig { found: end });
    }
    let kind = match header.p_flags & (abi::PF_R | abi::PF_W | abi::PF_X) {
        abi::PF_R => SegmentKind::ReadOnly,
        flags if flags == abi::PF_R | abi::PF_X => SegmentKind::Code,
        flags if flags == abi::PF_R | abi::PF_W => SegmentKind::Data,
        flags if flags & abi::PF_R == 0 => return Err(wrong("it is not readable")),
        _ => return Err(wrong("it is both writable and executable")),
    };
    let start = header.p_vaddr;
    Ok(Load {
        segment: Segment {
            start: start / PAGE * PAGE,
            end: end.next_multiple_of(PAGE),
            kind,
        },
        file: start..start + header.p_filesz,
        memory: start..end,
        offset: header.p_offset,
    })
}

/// The thread-local template is only reported; but the sums that `hermit-entry` makes of it must not overflow.
fn tls(headers: &[ProgramHeader], memory: u64) -> Result<(), ElfError> {
    for header in headers.iter().filter(|header| header.p_type == abi::PT_TLS) {
        let end = header.p_vaddr.checked_add(header.p_memsz);
        // The uninitialised part of the template takes no room in memory: only its beginning must lie inside.
        let file = header.p_vaddr.checked_add(header.p_filesz);
        let inside = file.is_some_and(|end| end <= memory) && end.is_some_and(|end| end <= MAX_MEMORY);
        if !inside || header.p_filesz > header.p_memsz {
            let what = "the thread-local template lies outside the program";
            return Err(ElfError::Segment {
                address: header.p_vaddr,
                what,
            });
        }
    }
    Ok(())
}

fn refuse(headers: &[ProgramHeader], kind: u32, what: &'static str) -> Result<(), ElfError> {
    match headers.iter().filter(|header| header.p_type == kind).count() {
        0 => Ok(()),
        found => Err(ElfError::Count {
            what,
            expected: "0",
            found: found as u64,
        }),
    }
}

/// The bytes at `offset`, if they lie in the file at a multiple of `align`.
fn within<'a>(
    elf: &'a [u8],
    what: &'static str,
    offset: u64,
    size: u64,
    align: u64,
) -> Result<&'a [u8], ElfError> {
    let place = || {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        offset.is_multiple_of(align).then(|| elf.get(start..end))?
    };
    place().ok_or(ElfError::Place { what, offset, size })
}

/// The `elf` crate's errors say little that would help here: the headers are outside the file, or of the wrong kind.
fn plain(error: &elf::ParseError) -> &'static str {
    use elf::ParseError::{BadMagic, UnsupportedElfClass, UnsupportedElfEndianness};
    match error {
        BadMagic(_) => "it does not begin with 7f 45 4c 46",
        UnsupportedElfClass(_) => "it is neither 32-bit nor 64-bit",
        UnsupportedElfEndianness(_) => "it is not little-endian",
        _ => "its headers point outside the file, or have entries of the wrong size",
    }
}

#[cfg(test)]
mod tests;

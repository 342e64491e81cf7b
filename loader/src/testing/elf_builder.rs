//! Small ELF files, valid until a field is changed.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// Bytes at a multiple of 8, as [`crate::elf::check`] wants them.
#[derive(Clone)]
pub struct Aligned {
    words: Vec<u64>,
    size: usize,
}

impl Aligned {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut aligned = Self {
            words: vec![0; bytes.len().div_ceil(8)],
            size: bytes.len(),
        };
        aligned.copy_from_slice(bytes);
        aligned
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        zerocopy::IntoBytes::as_bytes(self.words.as_slice())
            .get(..self.size)
            .unwrap_or_default()
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        let size = self.size;
        zerocopy::IntoBytes::as_mut_bytes(self.words.as_mut_slice())
            .get_mut(..size)
            .unwrap_or_default()
    }
}

/// A PT_LOAD segment.
#[derive(Clone, Debug)]
pub struct LoadSegment {
    /// PF_R, PF_W, PF_X.
    pub flags: u32,
    /// Where in the file.
    pub offset: u64,
    /// Where in memory.
    pub address: u64,
    /// Bytes in the file.
    pub file: u64,
    /// Bytes in memory.
    pub memory: u64,
    /// Alignment.
    pub align: u64,
}

/// Builds an ELF file of three segments: headers, note, dynamic section and relocations (read-only, at 0), code
/// (at 0x1000), data (at 0x2000).
#[derive(Clone, Debug)]
pub struct ElfBuilder {
    /// e_type.
    pub kind: u16,
    /// e_machine.
    pub machine: u16,
    /// e_entry.
    pub entry: u64,
    /// The segments to load.
    pub segments: Vec<LoadSegment>,
    /// Adds a PT_INTERP header.
    pub interpreter: bool,
    /// The name of the Hermit note.
    pub note_name: [u8; 8],
    /// The version in the Hermit note.
    pub entry_version: u32,
    /// Entries of the dynamic section besides DT_RELA, DT_RELASZ and DT_NULL.
    pub dynamic: Vec<(u64, u64)>,
    /// r_offset, r_info, r_addend.
    pub relocations: Vec<(u64, u64, i64)>,
    /// The machine code, up to 4096 bytes.
    pub code: Vec<u8>,
    /// The data, up to 4096 bytes.
    pub data: Vec<u8>,
}

const NOTES: u64 = 0x240;
const DYNAMIC: u64 = 0x280;
const RELOCATIONS: u64 = 0x400;

impl Default for ElfBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ElfBuilder {
    /// Everything but code and data lies in so many bytes at the file's beginning.
    pub const METADATA: usize = 0x500;

    /// A file that is valid. Its code is `cli; 1: hlt; jmp 1b`.
    pub fn new() -> Self {
        let segment = |flags, offset, file, memory| LoadSegment {
            flags,
            offset,
            address: offset,
            file,
            memory,
            align: 0x1000,
        };
        Self {
            kind: 3,
            machine: 62,
            entry: 0x1000,
            segments: vec![
                segment(4, 0, Self::METADATA as u64, Self::METADATA as u64),
                segment(5, 0x1000, 0x100, 0x100),
                segment(6, 0x2000, 0x100, 0x1800),
            ],
            interpreter: false,
            note_name: *b"HERMIT\0\0",
            entry_version: 4,
            dynamic: vec![(9, 24)],
            relocations: vec![(0x2000, 8, 0x1000), (0x2010, 8, 0x2020)],
            code: vec![0xfa, 0xf4, 0xeb, 0xfd],
            data: Vec::new(),
        }
    }

    /// Writes the file.
    pub fn build(&self) -> Aligned {
        let size = 0x2100_usize.max(0x2000 + self.data.len());
        let mut file = vec![0; size];
        let mut put = |at: u64, bytes: &[u8]| {
            let at = at as usize;
            file[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let rela_size = 24 * self.relocations.len() as u64;
        let mut dynamic = self.dynamic.clone();
        dynamic.extend([(7, RELOCATIONS), (8, rela_size), (0, 0)]);
        let dynamic: Vec<u8> = dynamic
            .iter()
            .flat_map(|(tag, value)| [*tag, *value])
            .flat_map(u64::to_le_bytes)
            .collect();
        let mut headers: Vec<[u64; 7]> = self.segments.iter().map(program_header).collect();
        let extra = |kind: u64, flags: u64, offset: u64, size: u64, align: u64| {
            [kind | flags << 32, offset, offset, offset, size, size, align]
        };
        headers.push(extra(4, 4, NOTES, 24, 4));
        headers.push(extra(2, 4, DYNAMIC, dynamic.len() as u64, 8));
        if self.interpreter {
            headers.push(extra(3, 4, NOTES, 8, 1));
        }

        put(0, b"\x7fELF\x02\x01\x01\xff");
        put(16, &self.kind.to_le_bytes());
        put(18, &self.machine.to_le_bytes());
        put(20, &1_u32.to_le_bytes());
        put(24, &self.entry.to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        // No section headers: e_shoff and e_shnum stay 0.
        for (at, value) in [(52, 64), (54, 56), (56, headers.len() as u16), (58, 64)] {
            put(at, &value.to_le_bytes());
        }
        let words: Vec<u8> = headers
            .iter()
            .flatten()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        put(64, &words);
        for (at, value) in [(0, 7), (4, 4), (8, 0x5a00), (20, self.entry_version)] {
            put(NOTES + at, &value.to_le_bytes());
        }
        put(NOTES + 12, &self.note_name);
        put(DYNAMIC, &dynamic);
        for (index, (offset, info, addend)) in self.relocations.iter().enumerate() {
            let at = RELOCATIONS + 24 * index as u64;
            put(at, &offset.to_le_bytes());
            put(at + 8, &info.to_le_bytes());
            put(at + 16, &addend.to_le_bytes());
        }
        put(0x1000, &self.code);
        put(0x2000, &self.data);
        Aligned::new(&file)
    }
}

fn program_header(segment: &LoadSegment) -> [u64; 7] {
    let LoadSegment {
        flags,
        offset,
        address,
        file,
        memory,
        align,
    } = *segment;
    [
        1 | u64::from(flags) << 32,
        offset,
        address,
        address,
        file,
        memory,
        align,
    ]
}

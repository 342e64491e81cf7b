//! Reads and writes single fields of an ELF64, by the offsets of the System V ABI: everything a linker would not do.

/// `PT_LOAD` and the other segment types that matter.
pub(super) const PT_NULL: u32 = 0;
pub(super) const PT_LOAD: u32 = 1;
pub(super) const PT_DYNAMIC: u32 = 2;
pub(super) const PT_INTERP: u32 = 3;
pub(super) const PT_NOTE: u32 = 4;
/// Segment flags.
pub(super) const EXECUTE: u32 = 1;
pub(super) const WRITE: u32 = 2;
/// Tags of dynamic entries.
pub(super) const DT_NEEDED: u64 = 1;
pub(super) const DT_RELA: u64 = 7;
pub(super) const DT_RELASZ: u64 = 8;
pub(super) const DT_RELAENT: u64 = 9;

/// A field of a program header, by its offset.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Offset = 8,
    Address = 16,
    FileSize = 32,
    MemorySize = 40,
    Align = 48,
}

/// An ELF to be changed.
#[derive(Clone)]
pub(super) struct Elf(pub(super) Vec<u8>);

impl Elf {
    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|index| self.0[at + index]))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|index| self.0[at + index]))
    }

    /// Overwrites bytes.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Where the headers of this type start.
    pub(super) fn headers(&self, kind: u32) -> Vec<usize> {
        let start = self.u64(32) as usize;
        (0..usize::from(self.u16(56)))
            .map(|index| start + 56 * index)
            .filter(|&at| self.u32(at) == kind)
            .collect()
    }

    /// Where the first header of this type starts whose flags are these (of write and execute).
    pub(super) fn load(&self, flags: u32) -> usize {
        let found = |&at: &usize| self.u32(at + 4) & (WRITE | EXECUTE) == flags;
        self.headers(PT_LOAD)
            .into_iter()
            .find(found)
            .expect("a good ELF has this segment")
    }

    pub(super) fn get(&self, header: usize, field: Field) -> u64 {
        self.u64(header + field as usize)
    }

    pub(super) fn set(&mut self, header: usize, field: Field, value: u64) {
        self.put(header + field as usize, &value.to_le_bytes());
    }

    /// Adds to a field.
    pub(super) fn add(&mut self, header: usize, field: Field, value: u64) {
        self.set(header, field, self.get(header, field).wrapping_add(value));
    }

    /// Where the file holds what will be at this address.
    pub(super) fn file_offset(&self, address: u64) -> usize {
        let holds = |&at: &usize| {
            (self.get(at, Field::Address)..self.get(at, Field::Address) + self.get(at, Field::FileSize))
                .contains(&address)
        };
        let header = self
            .headers(PT_LOAD)
            .into_iter()
            .find(holds)
            .expect("a good ELF's addresses are in the file");
        (address - self.get(header, Field::Address) + self.get(header, Field::Offset)) as usize
    }

    /// Where the dynamic entries start in the file: those before the first `DT_NULL`, and that one.
    pub(super) fn dynamic(&self) -> Vec<usize> {
        let Some(&header) = self.headers(PT_DYNAMIC).first() else {
            return Vec::new();
        };
        let start = self.get(header, Field::Offset) as usize;
        let entries = self.get(header, Field::FileSize) as usize / 16;
        let used = (0..entries)
            .map(|index| start + 16 * index)
            .take_while(|&at| self.u64(at) != 0)
            .count();
        (0..(used + 1).min(entries))
            .map(|index| start + 16 * index)
            .collect()
    }

    /// Where the dynamic entry with this tag starts in the file.
    pub(super) fn dynamic_entry(&self, tag: u64) -> Option<usize> {
        self.dynamic().into_iter().find(|&at| self.u64(at) == tag)
    }

    /// Where the relocations start in the file.
    pub(super) fn relocations(&self) -> Vec<usize> {
        let (Some(table), Some(size)) = (self.dynamic_entry(DT_RELA), self.dynamic_entry(DT_RELASZ)) else {
            return Vec::new();
        };
        let start = self.file_offset(self.u64(table + 8));
        (0..self.u64(size + 8) as usize / 24)
            .map(|index| start + 24 * index)
            .collect()
    }
}

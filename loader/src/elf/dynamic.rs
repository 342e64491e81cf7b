//! The dynamic section, and the relocations that it points to.

use elf::abi;
use elf::dynamic::Dyn;
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::parse::ParsingTable;
use elf::relocation::Rela;
use elf::segment::ProgramHeader;

use super::{ElfError, Load, SegmentKind, within};

const RELA_SIZE: u64 = 24;
/// Packed relative relocations (gABI 4.2, draft): `hermit-entry` would leave them undone.
const DT_RELRSZ: i64 = 35;

/// What the dynamic section says about relocations.
#[derive(Default)]
struct Table {
    address: Option<u64>,
    size: Option<u64>,
}

pub(super) fn check(
    elf: &[u8],
    headers: &[ProgramHeader],
    loads: &[Load],
    memory: u64,
) -> Result<(), ElfError> {
    let mut sections = headers.iter().filter(|header| header.p_type == abi::PT_DYNAMIC);
    let Some(header) = sections.next() else {
        return Ok(());
    };
    if sections.next().is_some() {
        return Err(ElfError::Dynamic("there is more than one"));
    }
    let bytes = within(elf, "the dynamic section", header.p_offset, header.p_filesz, 8)?;
    let table = entries(ParsingTable::new(LittleEndian, Class::ELF64, bytes))?;
    let (address, size) = match table {
        Table {
            address: None,
            size: None,
        } => return Ok(()),
        Table {
            address: Some(address),
            size: Some(size),
        } => (address, size),
        _ => return Err(ElfError::Dynamic("only one of DT_RELA and DT_RELASZ")),
    };
    if size % RELA_SIZE != 0 {
        return Err(ElfError::Dynamic("DT_RELASZ is not a multiple of 24"));
    }
    let offset = file_offset(loads, address, size).ok_or(ElfError::Dynamic(
        "the relocations do not lie in the file's part of one segment",
    ))?;
    let bytes = within(elf, "relocations", offset, size, 8)?;
    relocations(
        ParsingTable::new(LittleEndian, Class::ELF64, bytes),
        loads,
        memory,
    )
}

fn entries(entries: ParsingTable<'_, LittleEndian, Dyn>) -> Result<Table, ElfError> {
    let mut table = Table::default();
    let mut ended = false;
    for entry in entries.iter() {
        let value = entry.d_val();
        // `hermit-entry` does not stop at DT_NULL as a dynamic linker does: what both read must be the same.
        if ended && entry.d_tag != abi::DT_NULL {
            return Err(ElfError::Dynamic("an entry behind DT_NULL"));
        }
        let once = |field: &mut Option<u64>| match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(ElfError::Dynamic("DT_RELA or DT_RELASZ appears twice")),
        };
        match entry.d_tag {
            abi::DT_NULL => ended = true,
            abi::DT_RELA => once(&mut table.address)?,
            abi::DT_RELASZ => once(&mut table.size)?,
            abi::DT_NEEDED => return Err(ElfError::Dynamic("it needs a shared library (DT_NEEDED)")),
            abi::DT_RELAENT if value != RELA_SIZE => return Err(ElfError::Dynamic("DT_RELAENT is not 24")),
            // Hermit's loaders assert these to be 0.
            abi::DT_RELACOUNT | abi::DT_RELCOUNT if value != 0 => {
                return Err(ElfError::Dynamic(
                    "DT_RELACOUNT is not 0 (link with -z nocombreloc)",
                ));
            }
            abi::DT_RELSZ | abi::DT_PLTRELSZ | DT_RELRSZ if value != 0 => {
                return Err(ElfError::Dynamic(
                    "relocations of a kind that is not applied (DT_REL, DT_JMPREL or DT_RELR)",
                ));
            }
            _ => {}
        }
    }
    Ok(table)
}

/// Where `size` bytes at `address` lie in the file.
fn file_offset(loads: &[Load], address: u64, size: u64) -> Option<u64> {
    let end = address.checked_add(size)?;
    let load = loads
        .iter()
        .find(|load| load.memory.contains(&address) && end <= load.file.end)?;
    load.offset.checked_add(address - load.file.start)
}

fn relocations(
    relocations: ParsingTable<'_, LittleEndian, Rela>,
    loads: &[Load],
    memory: u64,
) -> Result<(), ElfError> {
    for (index, rela) in relocations.iter().enumerate() {
        let wrong = |what| {
            Err(ElfError::Relocation {
                index,
                address: rela.r_offset,
                what,
            })
        };
        if rela.r_type != abi::R_X86_64_RELATIVE || rela.r_sym != 0 {
            return wrong("only R_X86_64_RELATIVE without a symbol is allowed");
        }
        let Some(end) = rela.r_offset.checked_add(8) else {
            return wrong("its target overflows");
        };
        let inside = |load: &Load| load.memory.start <= rela.r_offset && end <= load.memory.end;
        if !loads
            .iter()
            .any(|load| load.segment.kind == SegmentKind::Data && inside(load))
        {
            return wrong("its target lies in no writable segment");
        }
        // The end itself is a fair value: `__end` and the like.
        if !u64::try_from(rela.r_addend).is_ok_and(|value| value <= memory) {
            return wrong("its value lies outside the program");
        }
    }
    Ok(())
}

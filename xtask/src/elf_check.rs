//! What `build-app` checks of an ELF before it signs it: the rules of docs/interfaces.md that a linker flag could break.
//! The machine checks again, and more strictly, with code of its own.

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela};
use object::{Endianness, elf::FileHeader64};

/// The sizes worth telling about an ELF that keeps the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ElfSummary {
    /// In the file.
    pub file_bytes: u64,
    /// In memory, with zeroed data.
    pub memory_bytes: u64,
    /// How many relocations the loader has to apply.
    pub relocations: usize,
}

/// Checks `bytes`.
///
/// # Errors
/// With the rule that is broken, in words.
pub fn check(bytes: &[u8]) -> Result<ElfSummary, String> {
    let file =
        FileHeader64::<Endianness>::parse(bytes).map_err(|e| format!("it is not an ELF64 file ({e})"))?;
    let endian = file.endian().map_err(|e| e.to_string())?;
    if endian != Endianness::Little || file.e_machine.get(endian) != elf::EM_X86_64 {
        return Err("it is not for x86-64".to_owned());
    }
    if file.e_type.get(endian) != elf::ET_DYN {
        return Err("it is not position-independent (ET_DYN)".to_owned());
    }
    let segments = file.program_headers(endian, bytes).map_err(|e| e.to_string())?;
    let mut summary = ElfSummary {
        file_bytes: bytes.len() as u64,
        ..ElfSummary::default()
    };
    let mut loads = 0;
    for segment in segments {
        match segment.p_type(endian) {
            elf::PT_INTERP => return Err("it wants a dynamic linker (PT_INTERP)".to_owned()),
            elf::PT_LOAD => {
                let start = segment.p_vaddr(endian);
                if loads == 0 && start != 0 {
                    return Err(format!("its first segment is at {start:#x}, not at 0"));
                }
                let flags = segment.p_flags(endian);
                let both = elf::PF_W | elf::PF_X;
                if flags & both == both {
                    return Err(format!(
                        "its segment at {start:#x} is both writable and executable"
                    ));
                }
                loads += 1;
                summary.memory_bytes = summary
                    .memory_bytes
                    .max(start.saturating_add(segment.p_memsz(endian)));
            }
            elf::PT_DYNAMIC => {
                let entries = segment
                    .dynamic(endian, bytes)
                    .map_err(|e| e.to_string())?
                    .unwrap_or_default();
                summary.relocations = check_dynamic(file, endian, bytes, entries)?;
            }
            _ => {}
        }
    }
    if loads == 0 {
        return Err("it has nothing to load".to_owned());
    }
    Ok(summary)
}

/// No needed libraries, no other relocations than `R_X86_64_RELATIVE`. Returns how many of these there are.
fn check_dynamic(
    file: &FileHeader64<Endianness>,
    endian: Endianness,
    bytes: &[u8],
    entries: &[elf::Dyn64<Endianness>],
) -> Result<usize, String> {
    let value = |tag| {
        entries
            .iter()
            .find(|e| e.d_tag(endian) == tag)
            .map(|e| e.d_val(endian))
    };
    if value(elf::DT_NEEDED).is_some() {
        return Err("it needs a shared library (DT_NEEDED)".to_owned());
    }
    if value(elf::DT_RELACOUNT).is_some_and(|count| count != 0) {
        return Err("it has DT_RELACOUNT (link with `-z nocombreloc`)".to_owned());
    }
    if value(elf::DT_REL).is_some() || value(elf::DT_JMPREL).is_some() || value(elf::DT_RELR).is_some() {
        return Err("it has relocations of another kind than RELA".to_owned());
    }
    let (Some(address), Some(size)) = (value(elf::DT_RELA), value(elf::DT_RELASZ)) else {
        return Ok(0);
    };
    let segments = file.program_headers(endian, bytes).map_err(|e| e.to_string())?;
    let data = segments
        .iter()
        .find_map(|s| s.data_range(endian, bytes, address, size).ok().flatten())
        .ok_or("its relocations lie outside of its segments")?;
    let (relocations, _) = object::pod::slice_from_all_bytes::<elf::Rela64<Endianness>>(data)
        .map(|r| (r, ()))
        .map_err(|()| "its relocation table is not a whole number of entries".to_owned())?;
    for relocation in relocations {
        let kind = relocation.r_type(endian, false);
        if kind != elf::R_X86_64_RELATIVE {
            let at = relocation.r_offset(endian);
            return Err(format!(
                "it has a relocation of type {kind} at {at:#x}; only R_X86_64_RELATIVE is allowed"
            ));
        }
    }
    Ok(relocations.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_and_host_programs_are_refused() {
        assert!(check(b"").is_err());
        assert!(check(&[0x7f; 4096]).is_err());
        let own = std::fs::read("/proc/self/exe").expect("this program");
        let why = check(&own).expect_err("a program for the host is no image");
        assert!(why.contains("PT_INTERP") || why.contains("DT_NEEDED"), "{why}");
    }
}

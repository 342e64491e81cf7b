//! A small ELF that keeps every rule of `docs/interfaces.md`: to break, and to be sure that it is the break that is
//! refused. It does nothing when run.

/// One page: no two segments share one.
const PAGE: u64 = 0x1000;
/// Read-only: headers, note, relocations.
const NOTE: u64 = 0x200;
const RELOCATIONS: u64 = 0x300;
const TEXT: u64 = PAGE;
const DATA: u64 = 2 * PAGE;
/// A dynamic section, at the start of the data.
const DYNAMIC: u64 = DATA;
/// The word that the relocation changes.
const POINTER: u64 = DATA + 0x100;

/// The bytes of the sample.
#[must_use]
pub fn elf() -> Vec<u8> {
    let mut bytes = vec![0; (DATA + 0x200) as usize];
    let mut at = |offset: u64, data: &[u8]| {
        bytes[offset as usize..offset as usize + data.len()].copy_from_slice(data);
    };
    let words = |words: &[u64]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<u8>>()
    };

    at(0, b"\x7fELF\x02\x01\x01\xff");
    // ET_DYN, EM_X86_64, version 1; entry; program headers at 64, no section headers.
    at(16, &[3, 0, 62, 0, 1, 0, 0, 0]);
    at(24, &words(&[TEXT, 64, 0]));
    // e_flags, e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    at(48, &[0, 0, 0, 0, 64, 0, 56, 0, 6, 0, 64, 0, 0, 0, 0, 0]);

    // Type, flags, offset = address, size in the file, size in memory, alignment.
    let segments: [(u32, u32, u64, u64, u64, u64); 6] = [
        (1, 4, 0, 0x400, 0x400, PAGE),
        (1, 5, TEXT, 0x100, 0x100, PAGE),
        (1, 6, DATA, 0x200, 0x3000, PAGE),
        (2, 6, DYNAMIC, 6 * 16, 6 * 16, 8),
        (4, 4, NOTE, 24, 24, 4),
        // PT_GNU_STACK
        (0x6474_e551, 6, 0, 0, 0, 16),
    ];
    for (index, (kind, flags, offset, file, memory, align)) in segments.into_iter().enumerate() {
        let start = 64 + 56 * index as u64;
        at(start, &kind.to_le_bytes());
        at(start + 4, &flags.to_le_bytes());
        at(start + 8, &words(&[offset, offset, offset, file, memory, align]));
    }

    // Name size, descriptor size, type, name, entry version 4.
    at(NOTE, &[7, 0, 0, 0, 4, 0, 0, 0, 0, 0x5a, 0, 0]);
    at(NOTE + 12, b"HERMIT\0\0\x04\0\0\0");

    // DT_RELA, DT_RELASZ, DT_RELAENT, DT_FLAGS_1 (PIE), twice DT_NULL.
    at(
        DYNAMIC,
        &words(&[7, RELOCATIONS, 8, 24, 9, 24, 0x6fff_fffb, 0x0800_0000, 0, 0, 0, 0]),
    );
    // R_X86_64_RELATIVE: the pointer points to the text.
    at(RELOCATIONS, &words(&[POINTER, 8, TEXT]));

    // cli; hlt; jmp to the hlt.
    at(TEXT, &[0xfa, 0xf4, 0xeb, 0xfd]);
    bytes
}

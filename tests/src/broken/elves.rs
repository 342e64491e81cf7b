//! Correctly signed ELFs that must not run all the same.

use super::{
    Case, Forge, Refusal,
    elf::{self, Elf, Field},
};
use crate::image::Parts;

const BAD_ELF: &[Refusal] = &[(400, "bad-elf")];
/// Claims beyond all bounds may be refused as such, or for want of memory.
const BAD_OR_NO_ROOM: &[Refusal] = &[(400, "bad-elf"), (413, "too-large"), (503, "no-memory")];

/// Correctly signed ELFs that break the boot ABI or our limits.
#[must_use]
pub fn cases(forge: Forge<'_>) -> Vec<Case> {
    let case = |name: &str, elf: &[u8], expected: &[Refusal]| {
        Case::new(
            format!("signed ELF: {name}"),
            Parts::signed(elf, "9.9.9", forge.release).pack(),
            expected,
        )
    };
    let mut cases: Vec<Case> = [
        ("nothing", &b""[..]),
        ("text", b"#!/bin/sh\nexec true\n"),
        ("four bytes", b"\x7fELF"),
        ("a Windows program", b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0"),
        ("zeros", &[0; 8192]),
        ("noise", &super::archive::noise(8192, 5)),
        (
            "noise with an ELF's first bytes",
            &[b"\x7fELF\x02\x01\x01\0", &*super::archive::noise(8192, 6)].concat(),
        ),
        ("half of one", &forge.good.elf[..forge.good.elf.len() / 2]),
        ("its header alone", &forge.good.elf[..64]),
    ]
    .into_iter()
    .map(|(name, elf)| match name {
        "nothing" => case(name, elf, &[(400, "bad-elf"), (400, "bad-manifest")]),
        _ => case(name, elf, BAD_ELF),
    })
    .collect();
    let good = Elf(forge.good.elf.clone());
    cases.extend(edits().into_iter().map(|(name, expected, edit)| {
        let mut broken = good.clone();
        edit(&mut broken);
        assert!(broken.0 != good.0, "{name}: nothing has changed");
        case(name, &broken.0, expected)
    }));
    cases
}

type Edit = (&'static str, &'static [Refusal], fn(&mut Elf));

fn edits() -> Vec<Edit> {
    let mut edits = header_edits();
    edits.extend(segment_edits());
    edits.extend(dynamic_edits());
    edits
}

fn header_edits() -> Vec<Edit> {
    vec![
        ("32 bits", BAD_ELF, |elf| elf.put(4, &[1])),
        ("big-endian", BAD_ELF, |elf| elf.put(5, &[2])),
        ("for AArch64", BAD_ELF, |elf| elf.put(18, &[183, 0])),
        ("for the 80386", BAD_ELF, |elf| elf.put(18, &[3, 0])),
        ("an object file", BAD_ELF, |elf| elf.put(16, &[1, 0])),
        ("not relocatable", BAD_ELF, |elf| elf.put(16, &[2, 0])),
        ("a core dump", BAD_ELF, |elf| elf.put(16, &[4, 0])),
        ("no segments", BAD_ELF, |elf| elf.put(56, &[0, 0])),
        ("65535 segments", BAD_ELF, |elf| elf.put(56, &[0xff, 0xff])),
        ("segment headers of another size", BAD_ELF, |elf| {
            elf.put(54, &[32, 0])
        }),
        ("segment headers outside", BAD_ELF, |elf| {
            elf.put(32, &(1u64 << 40).to_le_bytes())
        }),
        ("segment headers at the end of the numbers", BAD_ELF, |elf| {
            elf.put(32, &u64::MAX.to_le_bytes())
        }),
        ("entry outside", BAD_ELF, |elf| {
            elf.put(24, &(1u64 << 40).to_le_bytes())
        }),
        ("entry at the end of the numbers", BAD_ELF, |elf| {
            elf.put(24, &u64::MAX.to_le_bytes())
        }),
        ("entry at 0, in the headers", BAD_ELF, |elf| {
            elf.put(24, &0u64.to_le_bytes())
        }),
        ("entry in the data", BAD_ELF, |elf| {
            let data = elf.get(elf.load(elf::WRITE), Field::Address);
            elf.put(24, &data.to_le_bytes());
        }),
        ("entry one past the code", BAD_ELF, |elf| {
            let code = elf.load(elf::EXECUTE);
            let end = elf.get(code, Field::Address) + elf.get(code, Field::MemorySize);
            elf.put(24, &end.to_le_bytes());
        }),
    ]
}

fn segment_edits() -> Vec<Edit> {
    vec![
        ("segment beyond the file", BAD_ELF, |elf| {
            elf.set(elf.load(elf::WRITE), Field::Offset, elf.0.len() as u64 + 0x1000);
        }),
        ("segment at the end of the numbers in the file", BAD_ELF, |elf| {
            elf.set(elf.load(elf::WRITE), Field::Offset, u64::MAX - 0xfff);
        }),
        ("segment larger in the file than in memory", BAD_ELF, |elf| {
            let data = elf.load(elf::WRITE);
            elf.set(data, Field::MemorySize, elf.get(data, Field::FileSize) - 1);
        }),
        ("segment of 2^63 bytes in the file", BAD_ELF, |elf| {
            elf.set(elf.load(elf::WRITE), Field::FileSize, 1 << 63);
        }),
        ("segment of 2^64 - 1 bytes in memory", BAD_OR_NO_ROOM, |elf| {
            elf.set(elf.load(elf::WRITE), Field::MemorySize, u64::MAX);
        }),
        ("segment of 1 TiB in memory", BAD_OR_NO_ROOM, |elf| {
            elf.set(elf.load(elf::WRITE), Field::MemorySize, 1 << 40);
        }),
        (
            "segment at the end of the numbers in memory",
            BAD_OR_NO_ROOM,
            |elf| {
                elf.set(elf.load(elf::WRITE), Field::Address, u64::MAX - 0xfff);
            },
        ),
        ("segment at 1 TiB", BAD_OR_NO_ROOM, |elf| {
            elf.add(elf.load(elf::WRITE), Field::Address, 1 << 40)
        }),
        ("two segments in one place", BAD_ELF, |elf| {
            let code = elf.get(elf.load(elf::EXECUTE), Field::Address);
            elf.set(elf.load(elf::WRITE), Field::Address, code);
        }),
        ("segments that overlap", BAD_ELF, |elf| {
            let first = elf.headers(elf::PT_LOAD)[0];
            let second = elf.headers(elf::PT_LOAD)[1];
            let reach = elf.get(second, Field::Address) - elf.get(first, Field::Address) + 1;
            elf.set(first, Field::MemorySize, reach);
        }),
        ("segments that share a page", BAD_ELF, |elf| {
            let data = elf.load(elf::WRITE);
            let code = elf.load(elf::EXECUTE);
            let end = elf.get(code, Field::Address) + elf.get(code, Field::MemorySize);
            elf.set(
                data,
                Field::Address,
                if end % 0x1000 == 0 { end - 16 } else { end },
            );
        }),
        ("segments in descending order", BAD_ELF, |elf| {
            let [first, second] = elf.headers(elf::PT_LOAD)[..2] else {
                return;
            };
            let swapped = [&elf.0[second..second + 56], &elf.0[first..first + 56]].map(<[u8]>::to_vec);
            elf.put(first, &swapped[0]);
            elf.put(second, &swapped[1]);
        }),
        ("the first segment not at 0", BAD_ELF, |elf| {
            for header in elf.headers(elf::PT_LOAD) {
                elf.add(header, Field::Address, 0x10_0000);
            }
        }),
        ("alignment that is no power of two", BAD_ELF, |elf| {
            elf.set(elf.load(elf::WRITE), Field::Align, 0x1001);
        }),
        ("code that is writable", BAD_ELF, |elf| {
            elf.put(elf.load(elf::EXECUTE) + 4, &[7])
        }),
        ("data that is executable", BAD_ELF, |elf| {
            elf.put(elf.load(elf::WRITE) + 4, &[7])
        }),
        ("nothing to load", BAD_ELF, |elf| {
            for header in elf.headers(elf::PT_LOAD) {
                elf.put(header, &elf::PT_NULL.to_le_bytes());
            }
        }),
        ("wants an interpreter", BAD_ELF, |elf| {
            // Any segment that is not loaded will do; the last header is the least important one.
            let last = elf.u64(32) as usize + 56 * (usize::from(elf.u16(56)) - 1);
            elf.put(last, &elf::PT_INTERP.to_le_bytes());
        }),
        ("no note", BAD_ELF, |elf| {
            for header in elf.headers(elf::PT_NOTE) {
                elf.put(header, &elf::PT_NULL.to_le_bytes());
            }
        }),
        ("a note of somebody else", BAD_ELF, |elf| {
            let note = elf.get(elf.headers(elf::PT_NOTE)[0], Field::Offset) as usize;
            elf.put(note + 12, b"HORNET");
        }),
        ("a note that names a longer name than there is", BAD_ELF, |elf| {
            let note = elf.get(elf.headers(elf::PT_NOTE)[0], Field::Offset) as usize;
            elf.put(note, &u32::MAX.to_le_bytes());
        }),
        ("a note beyond the file", BAD_ELF, |elf| {
            elf.set(elf.headers(elf::PT_NOTE)[0], Field::Offset, u64::MAX - 3);
        }),
        ("entry version 3", BAD_ELF, |elf| {
            let note = elf.get(elf.headers(elf::PT_NOTE)[0], Field::Offset) as usize;
            let descriptor = note + 12 + (elf.u32(note) as usize).next_multiple_of(4);
            elf.put(descriptor, &3u32.to_le_bytes());
        }),
        ("entry version 5", BAD_ELF, |elf| {
            let note = elf.get(elf.headers(elf::PT_NOTE)[0], Field::Offset) as usize;
            let descriptor = note + 12 + (elf.u32(note) as usize).next_multiple_of(4);
            elf.put(descriptor, &5u32.to_le_bytes());
        }),
    ]
}

fn dynamic_edits() -> Vec<Edit> {
    vec![
        ("needs a library", BAD_ELF, |elf| {
            let spare = elf
                .dynamic()
                .into_iter()
                .find(|&at| ![elf::DT_RELA, elf::DT_RELASZ, elf::DT_RELAENT].contains(&elf.u64(at)));
            elf.put(
                spare.expect("an entry that is not about relocations"),
                &elf::DT_NEEDED.to_le_bytes(),
            );
        }),
        ("an unknown relocation", BAD_ELF, |elf| {
            elf.put(elf.relocations()[0] + 8, &37u64.to_le_bytes())
        }),
        ("a relocation with a symbol", BAD_ELF, |elf| {
            elf.put(elf.relocations()[0] + 8, &1u64.to_le_bytes())
        }),
        ("a copy relocation", BAD_ELF, |elf| {
            elf.put(elf.relocations()[0] + 8, &5u64.to_le_bytes())
        }),
        ("the last relocation unknown", BAD_ELF, |elf| {
            elf.put(
                elf.relocations().last().copied().unwrap_or(0) + 8,
                &0xffff_ffffu64.to_le_bytes(),
            );
        }),
        ("a relocation of the code", BAD_ELF, |elf| {
            let code = elf.get(elf.load(elf::EXECUTE), Field::Address);
            elf.put(elf.relocations()[0], &code.to_le_bytes());
        }),
        ("a relocation outside", BAD_ELF, |elf| {
            elf.put(elf.relocations()[0], &(1u64 << 40).to_le_bytes())
        }),
        ("a relocation at the end of the numbers", BAD_ELF, |elf| {
            elf.put(elf.relocations()[0], &(u64::MAX - 3).to_le_bytes());
        }),
        ("a relocation half outside", BAD_ELF, |elf| {
            let data = elf.load(elf::WRITE);
            let end = elf.get(data, Field::Address) + elf.get(data, Field::MemorySize);
            elf.put(elf.relocations()[0], &(end - 4).to_le_bytes());
        }),
        ("relocations outside", BAD_ELF, |elf| {
            let table = elf.dynamic_entry(elf::DT_RELA).expect("a table");
            elf.put(table + 8, &(1u64 << 40).to_le_bytes());
        }),
        ("2^64 - 16 bytes of relocations", BAD_ELF, |elf| {
            let size = elf.dynamic_entry(elf::DT_RELASZ).expect("a size");
            elf.put(size + 8, &(u64::MAX - 15).to_le_bytes());
        }),
        ("relocations of another size", BAD_ELF, |elf| {
            let size = elf.dynamic_entry(elf::DT_RELAENT).expect("a size");
            elf.put(size + 8, &7u64.to_le_bytes());
        }),
        ("a dynamic section outside", BAD_ELF, |elf| {
            elf.set(elf.headers(elf::PT_DYNAMIC)[0], Field::Offset, 1 << 40);
        }),
    ]
}

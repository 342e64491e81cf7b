use super::*;
use crate::load;
use crate::testing::elf_builder::{Aligned, ElfBuilder};
use core::mem::MaybeUninit;
use proptest::prelude::*;

fn good() -> Aligned {
    ElfBuilder::new().build()
}

#[test]
fn accepts_a_good_program() {
    let plan = check(&good()).unwrap();
    assert_eq!(plan.entry, 0x1000);
    assert_eq!(plan.memory, 0x2000 + 0x1800);
    let kinds: Vec<_> = plan.segments.iter().map(|s| (s.start, s.end, s.kind)).collect();
    let expected = [
        (0, 0x1000, SegmentKind::ReadOnly),
        (0x1000, 0x2000, SegmentKind::Code),
        (0x2000, 0x4000, SegmentKind::Data),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn refuses_what_is_misaligned_in_memory() {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&good());
    let shifted = Aligned::new(&bytes);
    assert_eq!(check(&shifted[1..]), Err(ElfError::Misaligned));
}

#[test]
fn refuses_what_is_not_allowed() {
    type Change = fn(&mut ElfBuilder);
    let cases: [(&str, Change); 23] = [
        ("e_machine", |elf| elf.machine = 40),
        ("e_type", |elf| elf.kind = 2),
        ("first segment", |elf| elf.segments[0].address = 0x1000),
        // Where the pen is: a program does not say where it lies.
        ("first segment", |elf| elf.segments[0].address = 0x1_0000),
        ("writable and executable", |elf| elf.segments[1].flags = 7),
        ("not readable", |elf| elf.segments[1].flags = 1),
        ("shares a page", |elf| elf.segments[2].address = 0x1800),
        ("ascending", |elf| elf.segments.swap(1, 2)),
        ("larger in the file", |elf| elf.segments[2].memory = 4),
        ("alignment", |elf| elf.segments[2].align = 0x20_0000),
        ("entry point", |elf| elf.entry = 0x2000),
        ("entry point", |elf| elf.entry = 0),
        ("bytes of memory", |elf| {
            elf.segments[2].memory = u64::MAX - 0x2000
        }),
        ("PT_INTERP", |elf| elf.interpreter = true),
        ("entry version is not 4", |elf| elf.entry_version = 3),
        ("no Hermit entry version", |elf| elf.note_name = *b"HERMIX\0\0"),
        ("DT_NEEDED", |elf| elf.dynamic.push((1, 1))),
        ("nocombreloc", |elf| elf.dynamic.push((0x6fff_fff9, 1))),
        ("DT_JMPREL", |elf| elf.dynamic.push((2, 24))),
        ("only R_X86_64_RELATIVE", |elf| elf.relocations[0].1 = 1),
        ("only R_X86_64_RELATIVE", |elf| elf.relocations[0].1 = 8 | 1 << 32),
        ("no writable segment", |elf| elf.relocations[0].0 = 0x1000),
        ("outside the program", |elf| elf.relocations[0].2 = -1),
    ];
    for (text, change) in cases {
        let mut builder = ElfBuilder::new();
        change(&mut builder);
        let error = check(&builder.build()).expect_err(text).to_string();
        assert!(error.contains(text), "expected `{text}`, got `{error}`");
    }
    let whole = good();
    for size in 0..whole.len() {
        assert!(check(&Aligned::new(&whole[..size])).is_err(), "cut at {size}");
    }
}

/// Loads what passes the check; a panic of `hermit-entry` fails the test.
fn load_if_allowed(elf: &[u8]) -> bool {
    let Ok(plan) = check(elf) else { return false };
    // Some mutations ask for gigabytes, which is allowed, but not here.
    if plan.memory < 1 << 24 {
        let mut memory = vec![MaybeUninit::new(0xaa); plan.memory as usize];
        let loaded = load::load(elf, &plan, &mut memory, 0x20_0000).unwrap();
        assert_eq!(loaded.entry, 0x20_0000 + plan.entry);
    }
    true
}

#[test]
fn every_changed_header_byte_is_refused_or_loads() {
    let whole = good();
    let mut allowed = 0;
    // Each byte of the headers, the notes, the dynamic section and the relocations, to a few telling values.
    for at in 0..ElfBuilder::METADATA {
        for value in [
            0,
            1,
            4,
            8,
            0x7f,
            0x80,
            0xff,
            whole[at] ^ 1,
            whole[at].wrapping_add(8),
        ] {
            let mut elf = whole.clone();
            elf[at] = value;
            allowed += usize::from(load_if_allowed(&elf));
        }
    }
    assert!(allowed > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_are_refused_or_load(
        changes in proptest::collection::vec((0..ElfBuilder::METADATA, any::<u8>()), 1..6),
        words in proptest::collection::vec((0..ElfBuilder::METADATA / 8, prop_oneof![
            any::<u64>(), 0_u64..0x5000, (u64::MAX - 0x5000)..=u64::MAX
        ]), 0..2),
    ) {
        let mut elf = good();
        for (at, value) in changes {
            elf[at] = value;
        }
        for (word, value) in words {
            elf[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        load_if_allowed(&elf);
    }

    #[test]
    fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.extend(bytes);
        load_if_allowed(&Aligned::new(&elf));
    }
}

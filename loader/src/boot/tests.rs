use super::*;
use crate::testing::elf_builder::Aligned;
use proptest::prelude::*;

const MEMORY: &[Region] = &[
    Region {
        start: 0,
        end: 0x9_fc00,
    },
    Region {
        start: 0x10_0000,
        end: 0x8000_0000,
    },
    Region {
        start: 1 << 32,
        end: 5 << 32,
    },
];

fn parameters() -> Parameters<'static> {
    Parameters {
        memory: MEMORY,
        rsdp: Some(0xf_5ad0),
        command_line: "instar.ip=10.0.0.2/24 instar.log=debug",
        own: Region {
            start: 0x40_0000,
            end: 0x80_0000,
        },
        manifest: "format = 1\nname = \"hello\"\n",
        release_key: "RWQ",
        operator_key: "RWR",
        handover: Some(Region {
            start: 0x70_0000,
            end: 0x70_1234,
        }),
        measurement: Some(measure::Chain([0xa5; measure::BYTES])),
    }
}

fn owned(parameters: &Parameters<'_>) -> OwnedParameters {
    OwnedParameters {
        memory: parameters.memory.to_vec(),
        rsdp: parameters.rsdp,
        command_line: parameters.command_line.into(),
        own: parameters.own,
        manifest: parameters.manifest.into(),
        release_key: parameters.release_key.into(),
        operator_key: parameters.operator_key.into(),
        handover: parameters.handover,
        measurement: parameters.measurement,
    }
}

fn loaded() -> Loaded {
    let load_info = LoadInfo {
        kernel_image_addr_range: 0x40_0000..0x41_0000,
        tls_info: None,
    };
    Loaded {
        entry: 0x40_1000,
        load_info,
    }
}

fn written(parameters: &Parameters<'_>) -> (Aligned, WrittenBoot) {
    let mut area = Aligned::new(&vec![0xcc; space(parameters) as usize]);
    let boot = write(parameters, &loaded(), &mut area, 0x60_0000).unwrap();
    (area, boot)
}

const TREE_AT: usize = size_of::<RawBootInfo>();

#[test]
fn there_and_back() {
    let mut parameters = parameters();
    let (area, boot) = written(&parameters);
    assert_eq!(boot.boot_info_address, 0x60_0000);
    assert_eq!(tree_bytes(&area[TREE_AT..]), Ok(boot.used - TREE_AT));
    assert_eq!(read(&area[TREE_AT..]), Ok(owned(&parameters)));
    (parameters.rsdp, parameters.handover, parameters.measurement) = (None, None, None);
    assert_eq!(read(&written(&parameters).0[TREE_AT..]), Ok(owned(&parameters)));
}

#[test]
fn the_raw_structure_points_to_the_tree() {
    let (area, _) = written(&parameters());
    let word = |index: usize| u64::from_le_bytes(area[index * 8..index * 8 + 8].try_into().unwrap());
    // hermit-entry 0.10.11: RawHardwareInfo, then RawLoadInfo. The port has 16 bits, the rest is padding.
    assert_eq!([word(0), word(1), word(2) & 0xffff], [0, 5 << 32, 0x3f8]);
    assert_eq!(
        [word(3), word(4), word(5)],
        [0x60_0000 + TREE_AT as u64, 0x40_0000, 0x41_0000]
    );
}

#[test]
fn the_fdt_crate_agrees() {
    let (area, _) = written(&parameters());
    let tree = fdt::Fdt::new(&area[TREE_AT..]).unwrap();
    assert_eq!(tree.chosen().bootargs(), Some(parameters().command_line));
    let regions: Vec<Region> = tree
        .find_all_nodes("/memory")
        .flat_map(|node| node.reg().unwrap())
        .map(|region| (region.starting_address.addr() as u64, region.size.unwrap() as u64))
        .map(|(start, size)| Region {
            start,
            end: start + size,
        })
        .collect();
    assert_eq!(regions, MEMORY);
    assert!(tree.find_node("/hermit,rsdp@f5ad0").is_some());
    let root = tree.root();
    assert_eq!(root.compatible().first(), COMPATIBLE);
}

#[test]
fn refuses_what_cannot_be_written() {
    let good = parameters();
    let result = |parameters: &Parameters<'_>, size: usize, at: u64| {
        write(parameters, &loaded(), &mut Aligned::new(&vec![0; size]), at)
    };
    assert!(matches!(
        result(&good, 100, 8),
        Err(WriteError::Space { found: 100, .. })
    ));
    assert!(matches!(
        result(&good, 0, 8),
        Err(WriteError::Space { found: 0, .. })
    ));
    assert_eq!(result(&good, 4096, 4), Err(WriteError::Misaligned));
    assert_eq!(result(&good, 4096, 0), Err(WriteError::Misaligned));
    let nul = Parameters {
        command_line: "a\0b",
        ..parameters()
    };
    assert_eq!(result(&nul, 4096, 8), Err(WriteError::Tree));
    let own = Parameters {
        own: Region { start: 2, end: 1 },
        ..parameters()
    };
    assert!(matches!(
        result(&own, 4096, 8),
        Err(WriteError::Region { start: 2, end: 1, .. })
    ));
}

#[test]
fn tells_what_is_missing() {
    let none = Parameters {
        memory: &[],
        ..parameters()
    };
    assert_eq!(
        read(&written(&none).0[TREE_AT..]),
        Err(ReadError::Missing("memory regions"))
    );
    let mut fdt = FdtWriter::new().unwrap();
    let root = fdt.begin_node("").unwrap();
    let node = fdt.begin_node("memory@0").unwrap();
    fdt.property_array_u64("reg", &[0, 1]).unwrap();
    fdt.end_node(node).unwrap();
    fdt.end_node(root).unwrap();
    assert_eq!(
        read(&fdt.finish().unwrap()),
        Err(ReadError::Missing("instar,own"))
    );
}

#[test]
fn a_measurement_has_its_length() {
    for length in [0, 47, 49] {
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        let node = fdt.begin_node("chosen").unwrap();
        fdt.property("instar,measurement", &vec![1; length]).unwrap();
        fdt.end_node(node).unwrap();
        fdt.end_node(root).unwrap();
        assert_eq!(
            read(&fdt.finish().unwrap()),
            Err(ReadError::Value("instar,measurement")),
            "{length}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_and_back_for_any_text(line in "[^\0]{0,200}", manifest in "[^\0]{0,900}", count in 0_u64..40) {
        let memory: Vec<Region> = (0..=count).map(|n| Region { start: n << 32, end: (n << 32) + 99 }).collect();
        let parameters =
            Parameters { command_line: &line, manifest: &manifest, memory: &memory, ..parameters() };
        prop_assert_eq!(read(&written(&parameters).0[TREE_AT..]), Ok(owned(&parameters)));
    }

    #[test]
    fn any_change_is_survived(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        size in any::<proptest::sample::Index>(),
    ) {
        let (area, boot) = written(&parameters());
        let mut tree = area[TREE_AT..boot.used].to_vec();
        for (at, value) in changes {
            let at = at.index(tree.len());
            tree[at] = value;
        }
        let _ = read(&tree);
        prop_assert!(read(&tree[..size.index(tree.len())]).is_err());
    }

    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes).is_err());
        let mut tree = 0xd00d_feed_u32.to_be_bytes().to_vec();
        tree.extend(bytes);
        let _ = read(&tree);
    }
}

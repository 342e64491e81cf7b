//! PVH: `hvm_start_info` (Xen, `xen/include/public/arch-x86/hvm/start_info.h`; docs/misc/pvh).

use loader::boot::Region;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian as le};

use crate::machine::{MAX_ENTRIES, Machine, MachineError, Physical, Rsdp};

/// The magic number of the structure; our entry code hands it over as the protocol's.
pub const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StartInfo {
    magic: le::U32,
    version: le::U32,
    flags: le::U32,
    modules: le::U32,
    module_list: le::U64,
    command_line: le::U64,
    rsdp: le::U64,
    memory_map: le::U64,
    memory_entries: le::U32,
    reserved: le::U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Module {
    address: le::U64,
    size: le::U64,
    command_line: le::U64,
    reserved: le::U64,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    address: le::U64,
    size: le::U64,
    kind: le::U32,
    reserved: le::U32,
}

/// Reads what the hypervisor left at `address`.
pub fn read(physical: &impl Physical, address: u64) -> Result<Machine, MachineError> {
    const INFO: u64 = size_of::<StartInfo>() as u64;
    let broken = |size| MachineError::Structure {
        what: "start info",
        address,
        size,
    };
    let info = physical.need("start info", address, INFO)?;
    let info = StartInfo::ref_from_bytes(info).map_err(|_| broken(INFO))?;
    if info.magic != MAGIC {
        return Err(MachineError::Magic(info.magic.get()));
    }
    let (map, entries) = (
        info.memory_map.get(),
        u64::from(info.memory_entries).min(MAX_ENTRIES),
    );
    if info.version == 0 || entries == 0 {
        return Err(MachineError::NoMemoryMap);
    }
    let mut machine = Machine::default();
    let size = entries * size_of::<Entry>() as u64;
    let bytes = physical.need("memory map", map, size)?;
    for entry in <[Entry]>::ref_from_bytes(bytes).map_err(|_| broken(size))? {
        machine.add_region(entry.address.get(), entry.size.get(), entry.kind == RAM);
    }
    if info.modules != 0 {
        const MODULE: u64 = size_of::<Module>() as u64;
        let module = physical.need("module list", info.module_list.get(), MODULE)?;
        let module = Module::ref_from_bytes(module).map_err(|_| broken(MODULE))?;
        let start = module.address.get();
        machine.module = Some(Region {
            start,
            end: start.saturating_add(module.size.get()),
        });
    }
    if info.command_line != 0 {
        machine.command_line = physical.text(info.command_line.get());
    }
    machine.rsdp = (info.rsdp != 0).then(|| Rsdp::At(info.rsdp.get()));
    Ok(machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::Memory;
    use proptest::prelude::*;

    fn memory() -> Memory {
        let mut bytes = Vec::new();
        for word in [MAGIC, 1, 0, 1] {
            bytes.extend(word.to_le_bytes());
        }
        // Module list, command line, RSDP, memory map, its two entries.
        for word in [0x1100_u64, 0x1200, 0xf_5ad0, 0x1300, 2] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(0x400, 0);
        let mut put = |at: usize, words: &[u64]| {
            for (index, word) in words.iter().enumerate() {
                bytes[at + index * 8..at + index * 8 + 8].copy_from_slice(&word.to_le_bytes());
            }
        };
        put(0x100, &[0x20_0000, 0x5000, 0, 0]);
        put(0x300, &[0, 0x9_fc00, 1, 0xf_0000, 0x1_0000, 2]);
        bytes[0x200..0x203].copy_from_slice(b"a=b");
        Memory(bytes)
    }

    #[test]
    fn reads_what_qemu_writes() {
        let machine = read(&memory(), 0x1000).unwrap();
        assert_eq!(
            machine.memory,
            [Region {
                start: 0,
                end: 0x9_fc00
            }]
        );
        assert_eq!(
            machine.taken,
            [Region {
                start: 0xf_0000,
                end: 0x10_0000
            }]
        );
        assert_eq!(
            machine.module,
            Some(Region {
                start: 0x20_0000,
                end: 0x20_5000
            })
        );
        assert_eq!(machine.command_line, "a=b");
        assert_eq!(machine.rsdp, Some(Rsdp::At(0xf_5ad0)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_change_is_survived(changes in proptest::collection::vec((0..0x40_usize, any::<u8>()), 1..6)) {
            let mut memory = memory();
            for (at, value) in changes {
                memory.0[at] = value;
            }
            let _ = read(&memory, 0x1000);
        }
    }
}

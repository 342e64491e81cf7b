//! Multiboot2's boot information (Multiboot2 Specification 2.0, 3.6).
//!
//! The `multiboot2` crate (0.28) asserts what it reads, and brings UEFI types and a second ELF reader along; a walk
//! over five kinds of tags returns errors instead.

use loader::boot::Region;

use crate::machine::{MAX_ENTRIES, Machine, MachineError, Physical, Rsdp, printable};

/// What a Multiboot2 loader leaves in EAX.
pub const MAGIC: u32 = 0x36d7_6289;
const MAX_BYTES: u32 = 1 << 20;

const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const MODULE: u32 = 3;
const MEMORY_MAP: u32 = 6;
const RSDP_V1: u32 = 14;
const RSDP_V2: u32 = 15;
const RAM: u32 = 1;

/// Reads what the boot loader left at `address`.
pub fn read(physical: &impl Physical, address: u64) -> Result<Machine, MachineError> {
    const WHAT: &str = "Multiboot2 information";
    let head = physical.need(WHAT, address, 8)?;
    let size = word(head, 0).filter(|size| (8..=MAX_BYTES).contains(size));
    let size = u64::from(size.ok_or(MachineError::Structure {
        what: WHAT,
        address,
        size: 8,
    })?);
    let broken = || MachineError::Structure {
        what: WHAT,
        address,
        size,
    };
    let mut rest = physical.need(WHAT, address, size)?.get(8..).ok_or_else(broken)?;

    let mut machine = Machine::default();
    machine.take(address, size);
    loop {
        let (kind, length) = word(rest, 0).zip(word(rest, 4)).ok_or_else(broken)?;
        let length = usize::try_from(length).map_err(|_| broken())?;
        let value = rest.get(8..length).ok_or_else(broken)?;
        match kind {
            END => break,
            COMMAND_LINE => {
                let text = value.iter().take_while(|byte| **byte != 0).take(4096);
                machine.command_line = text.map(|byte| printable(*byte)).collect();
            }
            MODULE if machine.module.is_none() => {
                let (start, end) = word(value, 0).zip(word(value, 4)).ok_or_else(broken)?;
                machine.module = Some(Region {
                    start: start.into(),
                    end: end.into(),
                });
            }
            MEMORY_MAP => memory_map(&mut machine, value).ok_or_else(broken)?,
            // The newer table names the XSDT, too: it wins.
            RSDP_V2 => machine.rsdp = Some(Rsdp::Copy(value.to_vec())),
            RSDP_V1 if machine.rsdp.is_none() => machine.rsdp = Some(Rsdp::Copy(value.to_vec())),
            _ => {}
        }
        // Tags begin at multiples of 8.
        rest = rest
            .get(length.checked_next_multiple_of(8).ok_or_else(broken)?..)
            .ok_or_else(broken)?;
    }
    if machine.memory.is_empty() {
        return Err(MachineError::NoMemoryMap);
    }
    Ok(machine)
}

fn memory_map(machine: &mut Machine, value: &[u8]) -> Option<()> {
    // Entries may grow: their size is told.
    let size = usize::try_from(word(value, 0)?).ok().filter(|size| *size >= 24)?;
    for entry in value.get(8..)?.chunks_exact(size).take(MAX_ENTRIES as usize) {
        machine.add_region(long(entry, 0)?, long(entry, 8)?, word(entry, 16)? == RAM);
    }
    Some(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::Memory;
    use proptest::prelude::*;

    fn memory() -> Memory {
        let mut bytes = vec![0; 8];
        let mut tag = |kind: u32, value: &[u8]| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((8 + value.len() as u32).to_le_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        };
        let words = |words: &[u64]| {
            words
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        tag(COMMAND_LINE, b"a=b\0");
        tag(MODULE, &words(&[0x20_5000 << 32 | 0x20_0000, 0]));
        tag(RSDP_V2, b"new");
        tag(RSDP_V1, b"old");
        tag(MEMORY_MAP, &words(&[24, 0, 0x9_fc00, 1, 0xf_0000, 0x1_0000, 2]));
        tag(END, &[]);
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        Memory(bytes)
    }

    #[test]
    fn reads_what_grub_writes() {
        let memory = memory();
        let machine = read(&memory, 0x1000).unwrap();
        assert_eq!(
            machine.memory,
            [Region {
                start: 0,
                end: 0x9_fc00
            }]
        );
        let own = Region {
            start: 0x1000,
            end: 0x1000 + memory.0.len() as u64,
        };
        assert_eq!(
            machine.taken,
            [
                own,
                Region {
                    start: 0xf_0000,
                    end: 0x10_0000
                }
            ]
        );
        assert_eq!(
            machine.module,
            Some(Region {
                start: 0x20_0000,
                end: 0x20_5000
            })
        );
        assert_eq!(machine.command_line, "a=b");
        assert_eq!(machine.rsdp, Some(Rsdp::Copy(b"new".to_vec())));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_change_is_survived(changes in proptest::collection::vec((0..160_usize, any::<u8>()), 1..6)) {
            let mut memory = memory();
            for (at, value) in changes {
                let size = memory.0.len();
                memory.0[at % size] = value;
            }
            let _ = read(&memory, 0x1000);
        }
    }
}

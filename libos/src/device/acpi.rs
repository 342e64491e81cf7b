//! The one thing that ACPI is asked for: which cores there are (MADT; ACPI 6.5, section 5.2.12).
//!
//! Tables come from the firmware: lengths are checked before anything is read, and a table that does not add up is an error.

use alloc::vec::Vec;

use crate::cpu::{ApicId, MAX_CORES};

/// Why the cores could not be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AcpiError {
    /// Not a table of that name, or its checksum is wrong.
    #[error("ACPI table {0} is not where it should be, or is damaged")]
    Damaged(&'static str),
    /// There is no MADT.
    #[error("ACPI names no interrupt controllers (MADT)")]
    NoMadt,
}

/// Memory that tables are read from: a byte at a physical address.
pub trait Memory {
    /// `length` bytes at `address`, or `None` where nothing may be read.
    fn read(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// The longest table that is believed.
const MAX_TABLE: usize = 1 << 20;
const HEADER: usize = 36;

/// How the PIT's interrupt comes in: which I/O APIC, and which of its pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PitRoute {
    /// Physical address of the I/O APIC's registers.
    pub io_apic: u64,
    /// The pin, from 0.
    pub pin: u8,
}

/// APIC ids of all usable cores, in the firmware's order.
pub fn cores(memory: &impl Memory, rsdp: u64) -> Result<Vec<ApicId>, AcpiError> {
    madt(memory, rsdp).map(usable)
}

/// How the PIT's interrupt comes in; `None` where ACPI does not say.
pub fn pit_route(memory: &impl Memory, rsdp: u64) -> Option<PitRoute> {
    madt(memory, rsdp).ok().and_then(route_of_irq_0)
}

fn madt(memory: &impl Memory, rsdp: u64) -> Result<&[u8], AcpiError> {
    let root = memory
        .read(rsdp, 36)
        .filter(|bytes| bytes.starts_with(b"RSD PTR "))
        .ok_or(AcpiError::Damaged("RSDP"))?;
    if sum(&root[..20]) != 0 {
        return Err(AcpiError::Damaged("RSDP"));
    }
    let (extended, address) = (word64(root, 24), u64::from(word32(root, 16)));
    // Revision 2 has an XSDT with 64-bit entries.
    let wide = root[15] >= 2 && extended != 0;
    let (name, signature, entry_bytes) = if wide {
        ("XSDT", *b"XSDT", 8)
    } else {
        ("RSDT", *b"RSDT", 4)
    };
    let list =
        table(memory, if wide { extended } else { address }, signature).ok_or(AcpiError::Damaged(name))?;
    list[HEADER..]
        .chunks_exact(entry_bytes)
        .map(|entry| {
            if wide {
                word64(entry, 0)
            } else {
                u64::from(word32(entry, 0))
            }
        })
        .find_map(|address| table(memory, address, *b"APIC"))
        .ok_or(AcpiError::NoMadt)
}

/// The entries of a MADT, each with its kind.
fn entries(madt: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = madt.get(44..).unwrap_or_default();
    core::iter::from_fn(move || {
        let [kind, length, ..] = *rest else { return None };
        let length = usize::from(length);
        let entry = rest.get(..length).filter(|_| length >= 2)?;
        rest = &rest[length..];
        Some((kind, entry))
    })
}

/// ISA interrupt 0 is the PIT's; an override may give it another number (ACPI 6.5, section 5.2.12.5).
fn route_of_irq_0(madt: &[u8]) -> Option<PitRoute> {
    const IO_APIC: u8 = 1;
    const OVERRIDE: u8 = 2;
    let number = entries(madt)
        .find(|(kind, entry)| *kind == OVERRIDE && entry.len() >= 10 && entry[2..4] == [0, 0])
        .map_or(0, |(_, entry)| word32(entry, 4));
    entries(madt)
        .filter(|(kind, entry)| *kind == IO_APIC && entry.len() >= 12)
        .find_map(|(_, entry)| {
            let (io_apic, first) = (word32(entry, 4), word32(entry, 8));
            // As many pins as any I/O APIC has.
            let pin = number.checked_sub(first).filter(|pin| *pin < 24)?;
            Some(PitRoute {
                io_apic: io_apic.into(),
                pin: pin as u8,
            })
        })
}

/// The entries of a MADT that are cores which are enabled (bit 0 of their flags).
fn usable(madt: &[u8]) -> Vec<ApicId> {
    const LOCAL_APIC: u8 = 0;
    const LOCAL_X2APIC: u8 = 9;
    let mut cores = Vec::new();
    for (kind, entry) in entries(madt) {
        let id = match kind {
            LOCAL_APIC if entry.len() >= 8 && entry[4] & 1 != 0 => Some(u32::from(entry[3])),
            LOCAL_X2APIC if entry.len() >= 16 && entry[8] & 1 != 0 => Some(word32(entry, 4)),
            _ => None,
        };
        if let Some(id) = id.map(ApicId)
            && !cores.contains(&id)
            && cores.len() < MAX_CORES
        {
            cores.push(id);
        }
    }
    cores
}

fn table(memory: &impl Memory, address: u64, signature: [u8; 4]) -> Option<&[u8]> {
    let header = memory.read(address, HEADER)?;
    let length = word32(header, 4) as usize;
    if !header.starts_with(&signature) || !(HEADER..=MAX_TABLE).contains(&length) {
        return None;
    }
    memory.read(address, length).filter(|bytes| sum(bytes) == 0)
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word32(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..offset + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn word64(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..offset + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Physical memory, as the loader's page tables map it: the first 4 GiB at its own address.
pub struct Physical;

impl Memory for Physical {
    fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        if address < 4096 || end > 4 << 30 {
            return None;
        }
        // SAFETY: mapped, and firmware tables do not change. What they say is checked by the caller.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Vec<u8>);

    impl Memory for Fake {
        fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
            self.0.get(address as usize..)?.get(..length)
        }
    }

    fn seal(table: &mut [u8], at: usize) {
        table[at] = 0;
        table[at] = 0_u8.wrapping_sub(sum(table));
    }

    fn make_table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = vec![0; HEADER];
        table[..4].copy_from_slice(signature);
        table.extend_from_slice(body);
        let length = table.len() as u32;
        table[4..8].copy_from_slice(&length.to_le_bytes());
        seal(&mut table, 9);
        table
    }

    /// RSDP at 0, RSDT at 64, MADT at 128.
    fn machine(entries: &[u8]) -> Fake {
        let mut memory = vec![0; 4096];
        let mut rsdp = vec![0; 20];
        rsdp[..8].copy_from_slice(b"RSD PTR ");
        rsdp[16] = 64;
        seal(&mut rsdp, 8);
        memory[..20].copy_from_slice(&rsdp);
        let rsdt = make_table(b"RSDT", &128_u32.to_le_bytes());
        memory[64..64 + rsdt.len()].copy_from_slice(&rsdt);
        let madt = make_table(b"APIC", &[&[0; 8], entries].concat());
        memory[128..128 + madt.len()].copy_from_slice(&madt);
        Fake(memory)
    }

    #[test]
    fn finds_enabled_cores_of_both_kinds_once() {
        let entries: Vec<u8> = [
            &[0, 8, 0, 0, 1, 0, 0, 0][..],
            &[0, 8, 1, 3, 1, 0, 0, 0],
            &[0, 8, 2, 4, 0, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[9, 16, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(
            cores(&machine(&entries), 0),
            Ok(vec![ApicId(0), ApicId(3), ApicId(256)])
        );
    }

    #[test]
    fn the_pit_may_have_another_number() {
        let io_apic = [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];
        let other = [2, 10, 0, 0, 2, 0, 0, 0, 0, 0];
        let route = |pin| {
            Some(PitRoute {
                io_apic: 0xfec0_0000,
                pin,
            })
        };
        assert_eq!(pit_route(&machine(&io_apic), 0), route(0));
        assert_eq!(pit_route(&machine(&[&other[..], &io_apic].concat()), 0), route(2));
        assert_eq!(pit_route(&machine(&other), 0), None);
    }

    #[test]
    fn an_entry_of_length_zero_or_beyond_the_end_ends_the_list() {
        for entries in [&[0, 0][..], &[0, 200, 1, 1]] {
            assert_eq!(cores(&machine(entries), 0), Ok(vec![]));
        }
    }

    #[test]
    fn every_flipped_bit_is_an_error_or_harmless() {
        let good = machine(&[0, 8, 0, 0, 1, 0, 0, 0]);
        for bit in 0..8 * 256 {
            let mut memory = good.0.clone();
            memory[bit / 8] ^= 1 << (bit % 8);
            // Must not panic; what it returns depends on the bit.
            let _ = cores(&Fake(memory), 0);
        }
        let mut damaged = good.0.clone();
        damaged[128 + 40] ^= 1;
        assert_eq!(cores(&Fake(damaged), 0), Err(AcpiError::NoMadt));
    }
}

//! What a boot protocol tells about the machine, and how its structures are read.

use alloc::string::String;
use alloc::vec::Vec;

use loader::boot::Region;

use crate::{multiboot, pvh};

/// The longest command line, in bytes.
const MAX_LINE: u64 = 4096;
/// The most entries that are read of any list.
pub const MAX_ENTRIES: u64 = 512;
/// What the first stage can reach.
const REACH: u64 = 1 << 32;

/// The machine, as a boot protocol describes it.
#[derive(Debug, Default, PartialEq)]
pub struct Machine {
    /// Usable RAM.
    pub memory: Vec<Region>,
    /// What must not be overwritten: not RAM, or still needed.
    pub taken: Vec<Region>,
    /// The image's archive.
    pub module: Option<Region>,
    /// The command line.
    pub command_line: String,
    /// The ACPI RSDP.
    pub rsdp: Option<Rsdp>,
}

/// The ACPI RSDP.
#[derive(Debug, PartialEq)]
pub enum Rsdp {
    /// Where it lies.
    At(u64),
    /// Its bytes: Multiboot2 gives a copy among its own structures.
    Copy(Vec<u8>),
}

/// What is wrong with what the boot protocol told.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum MachineError {
    /// Entered by neither protocol.
    #[error("entered with the magic number {0:#x}: boot it by PVH (qemu -kernel) or Multiboot2 (GRUB)")]
    Magic(u32),
    /// A structure that is not where it should be, or cut.
    #[error(
        "the boot loader's {what} at {address:#x} ({size:#x} bytes) cannot be read: update the boot loader"
    )]
    Structure {
        /// What.
        what: &'static str,
        /// Where.
        address: u64,
        /// How long.
        size: u64,
    },
    /// No memory map.
    #[error("the boot loader gave no memory map: use one that does (PVH version 1, Multiboot2)")]
    NoMemoryMap,
}

/// Physical memory, as bytes. The tests have their own.
pub trait Physical {
    /// The bytes at `address`, if they can be reached.
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]>;

    /// The same, with an error that tells what was to be read.
    fn need(&self, what: &'static str, address: u64, size: u64) -> Result<&[u8], MachineError> {
        self.bytes(address, size)
            .ok_or(MachineError::Structure { what, address, size })
    }

    /// A text that ends with a NUL, and at 4096 bytes at the latest. What is not ASCII becomes `?`.
    fn text(&self, address: u64) -> String {
        let bytes = (0..MAX_LINE).map_while(|at| self.bytes(address.checked_add(at)?, 1)?.first().copied());
        bytes.take_while(|byte| *byte != 0).map(printable).collect()
    }
}

/// The command line reaches the device tree, logs and terminals.
pub fn printable(byte: u8) -> char {
    if matches!(byte, b' '..=b'~') {
        char::from(byte)
    } else {
        '?'
    }
}

/// Whether the first stage can reach the bytes, and they are not at address 0.
pub fn reachable(address: u64, size: u64) -> bool {
    address != 0 && address.checked_add(size).is_some_and(|end| end <= REACH)
}

impl Machine {
    /// Reads what the protocol with this magic number left at `info`.
    pub fn read(physical: &impl Physical, magic: u32, info: u64) -> Result<Self, MachineError> {
        match magic {
            pvh::MAGIC => pvh::read(physical, info),
            multiboot::MAGIC => multiboot::read(physical, info),
            other => Err(MachineError::Magic(other)),
        }
    }

    /// Adds a line of the memory map.
    pub fn add_region(&mut self, start: u64, size: u64, usable: bool) {
        let region = Region {
            start,
            end: start.saturating_add(size),
        };
        if size == 0 {
            return;
        }
        if usable {
            self.memory.push(region)
        } else {
            self.taken.push(region)
        }
    }

    /// Marks memory that is still needed.
    pub fn take(&mut self, start: u64, size: u64) {
        self.taken.push(Region {
            start,
            end: start.saturating_add(size),
        });
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Memory from 0x1000 on.
    pub struct Memory(pub Vec<u8>);

    impl Physical for Memory {
        fn bytes(&self, address: u64, size: u64) -> Option<&[u8]> {
            let start = usize::try_from(address.checked_sub(0x1000)?).ok()?;
            self.0.get(start..start.checked_add(usize::try_from(size).ok()?)?)
        }
    }

    #[test]
    fn texts_end() {
        assert_eq!(Memory(b"a b\xff\0c".to_vec()).text(0x1000), "a b?");
        assert_eq!(Memory(vec![b'x'; 9000]).text(0x1000).len(), 4096);
        assert_eq!(Memory(b"ab".to_vec()).text(0x1000), "ab");
        assert_eq!(Memory(Vec::new()).text(u64::MAX), "");
    }

    #[test]
    fn knows_its_protocols() {
        let read = |magic| Machine::read(&Memory(vec![0; 100]), magic, 0x1000);
        assert_eq!(read(0), Err(MachineError::Magic(0)));
        // The structure has a magic number of its own, which is missing here.
        assert_eq!(read(pvh::MAGIC), Err(MachineError::Magic(0)));
        assert!(matches!(
            read(multiboot::MAGIC),
            Err(MachineError::Structure { .. })
        ));
    }

    #[test]
    fn reach_ends_at_four_gibibytes() {
        assert!(reachable(1, (1 << 32) - 1));
        assert!(!reachable(0, 1) && !reachable(2, (1 << 32) - 1) && !reachable(u64::MAX, 2));
    }
}

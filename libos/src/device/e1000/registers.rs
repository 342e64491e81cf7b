//! The card's registers (Intel 317453, section 13), and what else of the machine its driver needs.

use core::time::Duration;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use crate::cpu::time;
use crate::device::pci::{self, Ports};

/// Bytes of registers behind BAR 0 (section 4.1).
const BYTES: u64 = 0x2_0000;

pub const CTRL: u32 = 0x0000;
pub const EERD: u32 = 0x0014;
pub const ICR: u32 = 0x00c0;
pub const IMC: u32 = 0x00d8;
pub const RCTL: u32 = 0x0100;
pub const TCTL: u32 = 0x0400;
pub const TIPG: u32 = 0x0410;
pub const RDBAL: u32 = 0x2800;
pub const RDBAH: u32 = 0x2804;
pub const RDLEN: u32 = 0x2808;
pub const RDH: u32 = 0x2810;
pub const RDT: u32 = 0x2818;
pub const RDTR: u32 = 0x2820;
pub const TDBAL: u32 = 0x3800;
pub const TDBAH: u32 = 0x3804;
pub const TDLEN: u32 = 0x3808;
pub const TDH: u32 = 0x3810;
pub const TDT: u32 = 0x3818;
pub const RXCSUM: u32 = 0x5000;
pub const MTA: u32 = 0x5200;
pub const MTA_WORDS: u32 = 128;
pub const RAL0: u32 = 0x5400;
pub const RAH0: u32 = 0x5404;
/// Receive addresses: each two words long.
pub const RECEIVE_ADDRESSES: u32 = 16;

/// In CTRL (section 13.4.1).
pub mod ctrl {
    pub const LINK_RESET: u32 = 1 << 3;
    /// Find out the speed from the PHY.
    pub const AUTO_SPEED: u32 = 1 << 5;
    pub const SET_LINK_UP: u32 = 1 << 6;
    pub const INVERT_LOSS_OF_SIGNAL: u32 = 1 << 7;
    pub const FORCE_SPEED: u32 = 1 << 11;
    pub const FORCE_DUPLEX: u32 = 1 << 12;
    pub const RESET: u32 = 1 << 26;
    pub const VLAN: u32 = 1 << 30;
    pub const PHY_RESET: u32 = 1 << 31;
}

/// In EERD (section 13.4.4), as the 82540EM has it; the 82541 has other places.
pub mod eerd {
    pub const START: u32 = 1;
    pub const DONE: u32 = 1 << 4;
    pub const ADDRESS_SHIFT: u32 = 8;
    pub const DATA_SHIFT: u32 = 16;
}

/// In RCTL (section 13.4.22). What is not here stays off: bad frames, frames of more than 1522 bytes, other people's.
pub mod rctl {
    pub const ENABLE: u32 = 1 << 1;
    pub const BROADCAST: u32 = 1 << 15;
    /// Buffers of 2048 bytes.
    pub const SIZE_2048: u32 = 0;
    pub const STRIP_CRC: u32 = 1 << 26;
}

/// In TCTL (section 13.4.33).
pub mod tctl {
    pub const ENABLE: u32 = 1 << 1;
    pub const PAD_SHORT: u32 = 1 << 3;
    /// Collision threshold and distance for full duplex, as section 14.5 wants them.
    pub const COLLISIONS: u32 = 0x0f << 4 | 0x40 << 12;
}

/// Gaps between frames of IEEE 802.3: IPGT 10, IPGR1 8, IPGR2 6 (section 13.4.34, table 13-77).
pub const GAPS: u32 = 10 | 8 << 10 | 6 << 20;

/// In RAH (section 13.5.3).
pub const ADDRESS_VALID: u32 = 1 << 31;

/// What the driver needs of the machine: tests play it.
pub trait Hardware {
    /// Reads a register.
    fn read(&self, register: u32) -> u32;
    /// Writes a register.
    fn write(&self, register: u32, value: u32);
    /// Lets the card reach memory, or not any more.
    fn set_bus_master(&self, on: bool);
    /// Waits.
    fn pause(&self, span: Duration);
    /// Must reception stay enabled in RCTL while the card is cut off from memory? See [`Card::is_qemu`].
    fn keeps_receiving(&self) -> bool;
}

/// A card on a PCI bus.
pub struct Card {
    function: DeviceFunction,
    base: u64,
    is_qemu: bool,
}

impl Card {
    /// Maps the registers; the card is cut off from memory. `None` if BAR 0 is not memory, or has no address.
    pub fn new(function: DeviceFunction) -> Option<Self> {
        // What the firmware left running must not reach memory.
        pci::enable(function, false);
        let (base, size) = pci::steady_root()
            .bar_info(function, 0)
            .ok()??
            .memory_address_size()?;
        if base == 0 || size < BYTES {
            return None;
        }
        crate::memory::map_device(base..base.checked_add(BYTES)?);
        Some(Self {
            function,
            base,
            is_qemu: Self::is_qemu(function),
        })
    }

    /// QEMU's card takes in no frame for a second after *any* write to RCTL (`flush_queue_timer`, since QEMU 3.1), which
    /// would be a blackout of a second. But it knows bus mastering: a card that is cut off takes no frames in. So there
    /// RCTL is left as it is, and the successor finds the value that it wants. Bochs's card is the other way round. QEMU
    /// is known by the subsystem vendor of its PCI devices.
    fn is_qemu(function: DeviceFunction) -> bool {
        const SUBSYSTEM: u8 = 0x2c;
        const QEMU: u32 = 0x1af4;
        Ports.read_word(function, SUBSYSTEM) & 0xffff == QEMU
    }

    /// Where on the PCI buses it is.
    pub fn function(&self) -> DeviceFunction {
        self.function
    }

    fn pointer(&self, register: u32) -> *mut u32 {
        (self.base + u64::from(register)) as *mut u32
    }
}

impl Hardware for Card {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: a register below `BYTES` of a card that this instar drives, mapped uncached, 32-bit aligned.
        unsafe { self.pointer(register).read_volatile() }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as above. What the card does to memory then, rings and buffers allow: `E1000` owns them.
        unsafe { self.pointer(register).write_volatile(value) };
    }

    fn set_bus_master(&self, on: bool) {
        if on {
            pci::enable(self.function, true);
        } else {
            pci::cut_off(self.function);
        }
    }

    fn pause(&self, span: Duration) {
        time::spin(span);
    }

    fn keeps_receiving(&self) -> bool {
        self.is_qemu
    }
}

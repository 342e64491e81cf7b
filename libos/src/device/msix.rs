//! Message-signalled interrupts, MSI-X kind (PCI 3.0, section 6.8.2).

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::pci::{self, Ports};
use crate::cpu::ApicId;

const CAPABILITY: u8 = 0x11;
const ENABLE: u32 = 1 << 31;
const FUNCTION_MASK: u32 = 1 << 30;
const ENTRY_BYTES: u64 = 16;
/// In an entry's last word.
const MASKED: u32 = 1;

/// Entry 0 of a function's MSI-X table, masked until [`Message::unmask`].
pub struct Message {
    control: *mut u32,
}

// SAFETY: a device register, written by whoever holds the card's lock.
unsafe impl Send for Message {}

impl Message {
    /// Makes it interrupt `core` with `vector`, once it is unmasked. `None` if the function has no MSI-X.
    pub fn new(function: DeviceFunction, core: ApicId, vector: u8) -> Option<Self> {
        let mut root = pci::steady_root();
        let capability = root
            .capabilities(function)
            .find(|capability| capability.id == CAPABILITY)?;
        let table = Ports.read_word(function, capability.offset + 4);
        let bar = root.bar_info(function, (table & 0b111) as u8).ok()??;
        let entry = bar.memory_address_size()?.0 + u64::from(table & !0b111);
        crate::memory::map_device(entry..entry + ENTRY_BYTES);
        let control = Ports.read_word(function, capability.offset);
        Ports.write_word(function, capability.offset, control | ENABLE | FUNCTION_MASK);
        // Address and data of an interrupt message: Intel SDM vol. 3, section 12.11.
        let words = [0xfee0_0000 | (core.0 & 0xff) << 12, 0, u32::from(vector), MASKED];
        for (index, word) in (0_u64..).zip(words) {
            // SAFETY: the entry lies in a BAR of a device that this instar drives, and is mapped uncached.
            unsafe { ((entry + 4 * index) as *mut u32).write_volatile(word) };
        }
        Ports.write_word(function, capability.offset, (control | ENABLE) & !FUNCTION_MASK);
        Some(Self {
            control: (entry + 12) as *mut u32,
        })
    }

    /// From now on it interrupts; at once if it had reason to before.
    pub fn unmask(&self) {
        // SAFETY: see `new`.
        unsafe { self.control.write_volatile(0) };
    }
}

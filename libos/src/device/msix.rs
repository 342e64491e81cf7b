//! Message-signalled interrupts, MSI-X kind (PCI 3.0, section 6.8.2).

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::pci::{self, Ports};
use crate::cpu::ApicId;

const CAPABILITY: u8 = 0x11;
const ENABLE: u32 = 1 << 31;
const FUNCTION_MASK: u32 = 1 << 30;
const ENTRY_BYTES: u64 = 16;

/// Makes entry 0 of the function's MSI-X table interrupt `core` with `vector`. Returns false if the function has no MSI-X.
pub fn enable(function: DeviceFunction, core: ApicId, vector: u8) -> bool {
    let mut root = pci::steady_root();
    let Some(capability) = root
        .capabilities(function)
        .find(|capability| capability.id == CAPABILITY)
    else {
        return false;
    };
    let table = Ports.read_word(function, capability.offset + 4);
    let Ok(Some(bar)) = root.bar_info(function, (table & 0b111) as u8) else {
        return false;
    };
    let Some((address, _)) = bar.memory_address_size() else {
        return false;
    };
    let entry = address + u64::from(table & !0b111);
    crate::memory::map_device(entry..entry + ENTRY_BYTES);
    let control = Ports.read_word(function, capability.offset);
    Ports.write_word(function, capability.offset, control | ENABLE | FUNCTION_MASK);
    // Address and data of an interrupt message: Intel SDM vol. 3, section 12.11.
    let words = [0xfee0_0000 | (core.0 & 0xff) << 12, 0, u32::from(vector), 0];
    for (index, word) in (0_u64..).zip(words) {
        // SAFETY: the entry lies in a BAR of a device that this instar drives, and is mapped uncached.
        unsafe { ((entry + 4 * index) as *mut u32).write_volatile(word) };
    }
    Ports.write_word(function, capability.offset, (control | ENABLE) & !FUNCTION_MASK);
    true
}

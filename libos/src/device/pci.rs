//! PCI: which functions there are, and how to cut them off from memory (PCI Local Bus 3.0; by the ports 0xcf8 and 0xcfc).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Mutex;
use virtio_drivers::transport::pci::bus::{
    Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, HeaderType, PciRoot,
};
use x86_64::instructions::port::Port;

/// Configuration space by ports (PCI 3.0, section 3.2.2.3.2).
pub struct Ports;

static PORTS: Mutex<()> = Mutex::new(());

impl Ports {
    fn address(function: DeviceFunction, register: u8) -> u32 {
        1 << 31
            | u32::from(function.bus) << 16
            | u32::from(function.device) << 11
            | u32::from(function.function) << 8
            | u32::from(register & !3)
    }

    fn select(function: DeviceFunction, register: u8) {
        // SAFETY: selects a register; the caller holds the lock, so that nobody selects another before the access.
        unsafe { Port::<u32>::new(0xcf8).write(Self::address(function, register)) };
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        let _guard = PORTS.lock();
        Self::select(function, register);
        // SAFETY: reading configuration space has no effect on the devices that are driven here.
        unsafe { Port::<u32>::new(0xcfc).read() }
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, value: u32) {
        let _guard = PORTS.lock();
        Self::select(function, register);
        // SAFETY: the callers write BARs that they restore, command registers and capabilities of devices that they own.
        unsafe { Port::<u32>::new(0xcfc).write(value) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// Configuration space for a driver that wants to know its BARs, without moving them.
///
/// The usual way to learn a BAR's size is to switch the device's decoding off, write ones into the BAR, and read what
/// stuck. Each step makes an emulator rebuild its memory map, which takes longer than all the rest of a replacement. But
/// a BAR lies at a multiple of its size (PCI 3.0, section 6.2.5.1), so its address bounds its size from above, and that
/// is what a driver is told here: enough to see that a structure does not lie outside its BAR, and nothing is written.
#[derive(Default)]
pub struct Steady {
    /// BARs whose size is being asked for, a bit each.
    asked: u8,
}

impl Steady {
    const COMMAND: u8 = 0x04;

    fn bar(register: u8) -> Option<u8> {
        (0x10..0x28).contains(&register).then_some((register - 0x10) / 4)
    }

    /// What a BAR would read as after ones had been written, if it were as large as its address allows.
    fn size_mask(function: DeviceFunction, index: u8) -> u32 {
        let read = |index: u8| Ports.read_word(function, 0x10 + 4 * index);
        let is_wide = |bar: u32| bar & 0b111 == 0b100;
        let own = read(index);
        if index > 0 && is_wide(read(index - 1)) {
            // The upper half of a 64-bit BAR.
            let address = u64::from(own) << 32 | u64::from(read(index - 1) & !0b1111);
            return (size_mask(address) >> 32) as u32;
        }
        if own & 1 == 1 {
            return size_mask(u64::from(own & !0b11)) as u32 | own & 0b11;
        }
        let high = if is_wide(own) {
            u64::from(read(index + 1)) << 32
        } else {
            0
        };
        size_mask(high | u64::from(own & !0b1111)) as u32 | own & 0b1111
    }
}

/// Ones where an address of a BAR of the largest possible size has address bits; 0 for address 0, which is no BAR.
const fn size_mask(address: u64) -> u64 {
    if address == 0 {
        0
    } else {
        !((1 << address.trailing_zeros()) - 1)
    }
}

impl ConfigurationAccess for Steady {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        match Self::bar(register) {
            Some(index) if self.asked & 1 << index != 0 => Self::size_mask(function, index),
            _ => Ports.read_word(function, register),
        }
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, value: u32) {
        match Self::bar(register) {
            Some(index) if value == u32::MAX => self.asked |= 1 << index,
            Some(index) => self.asked &= !(1 << index),
            // Decoding off and on again around the question: neither.
            None if register == Self::COMMAND => {}
            None => Ports.write_word(function, register, value),
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self { asked: self.asked }
    }
}

/// The root of all buses.
pub fn root() -> PciRoot<Ports> {
    PciRoot::new(Ports)
}

/// The same, for drivers that look for their BARs.
pub fn steady_root() -> PciRoot<Steady> {
    PciRoot::new(Steady::default())
}

/// All functions on bus 0 and on the buses behind its bridges.
pub fn functions() -> Vec<(DeviceFunction, DeviceFunctionInfo)> {
    let mut found = Vec::new();
    let mut buses = Vec::from([0_u8]);
    while let Some(bus) = buses.pop() {
        for (function, info) in root().enumerate_bus(bus) {
            if info.header_type == HeaderType::PciPciBridge {
                // Bus numbers: primary, secondary, subordinate (PCI-to-PCI bridge 1.2, section 3.2.5).
                let secondary = (Ports.read_word(function, 0x18) >> 8) as u8;
                if secondary > bus && !buses.contains(&secondary) {
                    buses.push(secondary);
                }
            }
            found.push((function, info));
        }
    }
    found
}

/// Lets `function` decode its addresses and, if `bus_master`, reach memory.
pub fn enable(function: DeviceFunction, bus_master: bool) {
    let mut command = Command::IO_SPACE | Command::MEMORY_SPACE;
    command.set(Command::BUS_MASTER, bus_master);
    root().set_command(function, command);
}

/// No function but `except` reaches memory any more: what a driver has forgotten to quiesce cannot write into the next
/// image.
pub fn cut_off_from_memory(except: Option<DeviceFunction>) {
    for (function, info) in functions() {
        // A bridge passes its devices' requests on, and nobody would open it again for the successor's.
        if info.header_type != HeaderType::PciPciBridge && Some(function) != except {
            cut_off(function);
        }
    }
}

/// Address of the command register of the function that [`cut_off_remembered`] is for; 0: none.
static REMEMBERED: AtomicU32 = AtomicU32::new(0);

/// For [`cut_off_remembered`].
pub(super) fn remember(function: DeviceFunction) {
    REMEMBERED.store(Ports::address(function, 0x04), Ordering::Relaxed);
}

/// The function that was remembered does not reach memory any more. Takes no lock: no other core runs, or none that matters.
pub(super) fn cut_off_remembered() {
    let address = REMEMBERED.load(Ordering::Relaxed);
    if address == 0 {
        return;
    }
    // SAFETY: reads and writes the command register; another core's access that is interrupted by this is never continued.
    unsafe {
        Port::<u32>::new(0xcf8).write(address);
        let command = Port::<u32>::new(0xcfc).read();
        // The upper half is the status, whose bits are cleared by ones.
        let cut_off = command & 0xffff & !u32::from(Command::BUS_MASTER.bits());
        Port::<u32>::new(0xcfc).write(cut_off);
    }
}

/// `function` does not reach memory any more.
pub fn cut_off(function: DeviceFunction) {
    let (_, command) = root().get_status_command(function);
    if command.contains(Command::BUS_MASTER) {
        root().set_command(function, command - Command::BUS_MASTER);
    }
}

/// One byte of configuration space.
pub(super) fn read_byte(function: DeviceFunction, register: u8) -> u8 {
    (Ports.read_word(function, register) >> (8 * (register & 3))) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_bounds_the_size_of_a_bar() {
        assert_eq!(size_mask(0xfebf_4000), 0xffff_ffff_ffff_c000);
        assert_eq!(size_mask(0x38_0000_0000), 0xffff_fff8_0000_0000);
        assert_eq!(size_mask(0), 0);
    }
}

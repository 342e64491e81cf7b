//! PCI: which functions there are, and how to cut them off from memory (PCI Local Bus 3.0; by the ports 0xcf8 and 0xcfc).

use alloc::vec::Vec;

use spin::Mutex;
use virtio_drivers::transport::pci::bus::{
    Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, HeaderType, PciRoot,
};
use x86_64::instructions::port::Port;

/// Configuration space by ports (PCI 3.0, section 3.2.2.3.2).
pub struct Ports;

static PORTS: Mutex<()> = Mutex::new(());

impl Ports {
    fn select(function: DeviceFunction, register: u8) {
        let address = 1 << 31
            | u32::from(function.bus) << 16
            | u32::from(function.device) << 11
            | u32::from(function.function) << 8
            | u32::from(register & !3);
        // SAFETY: selects a register; the caller holds the lock, so that nobody selects another before the access.
        unsafe { Port::<u32>::new(0xcf8).write(address) };
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

/// The root of all buses.
pub fn root() -> PciRoot<Ports> {
    PciRoot::new(Ports)
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

/// Lets `function` decode its addresses and reach memory.
pub fn enable(function: DeviceFunction) {
    root().set_command(function, Command::IO_SPACE | Command::MEMORY_SPACE | Command::BUS_MASTER);
}

/// No function reaches memory any more: what a driver has forgotten to quiesce cannot write into the next image.
pub fn cut_off_from_memory() {
    for (function, _) in functions() {
        let (_, command) = root().get_status_command(function);
        if command.contains(Command::BUS_MASTER) {
            root().set_command(function, command - Command::BUS_MASTER);
        }
    }
}

/// One byte of configuration space.
pub(super) fn read_byte(function: DeviceFunction, register: u8) -> u8 {
    (Ports.read_word(function, register) >> (8 * (register & 3))) as u8
}

//! PCI, serial, network cards: nothing above knows which card it is.

pub mod acpi;
mod e1000;
mod msix;
pub mod network;
pub mod pci;
pub mod pic;
pub mod serial;
mod virtio;

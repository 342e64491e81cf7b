//! PCI, serial, network cards: nothing above knows which card it is.

//! Intel's 82540EM, which emulators call e1000.
//!
//! Sections are those of "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual", Intel 317453. Only what
//! the card, QEMU and Bochs all have is used: legacy descriptors, 32-bit registers, no interrupts. The card is asked at
//! intervals instead: emulators have no MSI, and a pin's interrupt would need the firmware's routing tables.

mod registers;
mod ring;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use log::warn;
use virtio_drivers::transport::pci::bus::{DeviceFunction, DeviceFunctionInfo};

use super::network::{BUFFER, Buffer, NetworkError};
use registers::{Card, Hardware, ctrl, eerd, rctl, tctl};
use ring::{Arrival, Ring};

const INTEL: u16 = 0x8086;
const I82540EM: u16 = 0x100e;

/// What RCTL says while frames are received.
const RECEIVING: u32 = rctl::ENABLE | rctl::BROADCAST | rctl::SIZE_2048 | rctl::STRIP_CRC;
/// Frames that the card can take in while nobody looks; what comes then is lost. 3 ms of whole frames at 1 Gbit/s.
const RECEIVE: usize = 256;
const TRANSMIT: usize = 64;
/// How often the card is asked for something that it should have done within microseconds, one apart.
const PATIENCE: u32 = 10_000;
const MICROSECOND: Duration = Duration::from_micros(1);

/// The card. Dropping it resets it and cuts it off from memory.
pub struct E1000<H: Hardware = Card> {
    hardware: H,
    mac: [u8; 6],
    receive: Ring,
    receive_buffers: Vec<Option<Buffer>>,
    /// What the card is to be told when there is nothing more to receive.
    tail: Option<u32>,
    /// What came so far belongs to a frame that is longer than a buffer.
    is_discarding: bool,
    /// Frames that were damaged, or too long.
    dropped: u64,
    transmit: Ring,
    transmit_buffers: Vec<Buffer>,
}

impl E1000 {
    /// Is that function one?
    pub fn matches(info: &DeviceFunctionInfo) -> bool {
        (info.vendor_id, info.device_id) == (INTEL, I82540EM)
    }

    /// Resets the card and makes it ready.
    pub fn new(function: DeviceFunction) -> Result<Self, NetworkError> {
        Self::start(Card::new(function).ok_or(NetworkError::Registers)?)
    }

    /// Where on the PCI buses the card is.
    pub fn function(&self) -> DeviceFunction {
        self.hardware.function()
    }
}

impl<H: Hardware> E1000<H> {
    /// Section 14, in an order in which the card never reaches memory that is not ours: it is cut off from memory until it
    /// has been told of our rings.
    fn start(hardware: H) -> Result<Self, NetworkError> {
        hardware.set_bus_master(false);
        stop(&hardware);
        reset(&hardware)?;
        if hardware.read(registers::TDLEN) == 0 {
            // It did reset, and reads its settings from the EEPROM now, which would overwrite ours (section 5.3).
            hardware.pause(Duration::from_millis(5));
        }
        let mac = mac(&hardware).ok_or(NetworkError::NoAddress)?;
        let mut card = Self {
            hardware,
            mac,
            receive: Ring::new(RECEIVE),
            receive_buffers: (0..RECEIVE).map(|_| None).collect(),
            tail: None,
            is_discarding: false,
            dropped: 0,
            transmit: Ring::new(TRANSMIT),
            transmit_buffers: (0..TRANSMIT).map(|_| Box::new([0; BUFFER])).collect(),
        };
        card.set_address();
        card.set_link_up();
        card.set_rings();
        Ok(card)
    }

    /// Only frames for us and broadcasts (sections 13.5.1 to 13.5.3). A reset leaves the multicast table as it was.
    fn set_address(&self) {
        let [a, b, c, d, e, f] = self.mac.map(u32::from);
        self.write(registers::RAL0, a | b << 8 | c << 16 | d << 24);
        self.write(registers::RAH0, e | f << 8 | registers::ADDRESS_VALID);
        for other in 1..registers::RECEIVE_ADDRESSES {
            self.write(registers::RAH0 + 8 * other, 0);
        }
        for word in 0..registers::MTA_WORDS {
            self.write(registers::MTA + 4 * word, 0);
        }
    }

    /// The PHY keeps its link over a reset of the card, so nothing is negotiated anew, which would take seconds: the
    /// card only takes over what the PHY has (section 14.3).
    fn set_link_up(&self) {
        let off = ctrl::LINK_RESET
            | ctrl::INVERT_LOSS_OF_SIGNAL
            | ctrl::FORCE_SPEED
            | ctrl::FORCE_DUPLEX
            | ctrl::RESET
            | ctrl::VLAN
            | ctrl::PHY_RESET;
        let before = self.hardware.read(registers::CTRL);
        self.write(
            registers::CTRL,
            before & !off | ctrl::SET_LINK_UP | ctrl::AUTO_SPEED,
        );
    }

    /// Sections 14.4 and 14.5.
    fn set_rings(&mut self) {
        let (receive, transmit) = (self.receive.address(), self.transmit.address());
        for (register, value) in [
            (registers::RXCSUM, 0),
            (registers::RDTR, 0),
            (registers::RDBAL, receive as u32),
            (registers::RDBAH, (receive >> 32) as u32),
            (registers::RDLEN, self.receive.bytes()),
            (registers::RDH, 0),
            (registers::RDT, 0),
            (registers::TDBAL, transmit as u32),
            (registers::TDBAH, (transmit >> 32) as u32),
            (registers::TDLEN, self.transmit.bytes()),
            (registers::TDH, 0),
            (registers::TDT, 0),
            (registers::TIPG, registers::GAPS),
        ] {
            self.write(register, value);
        }
        for _ in 1..RECEIVE {
            self.recycle(Box::new([0; BUFFER]));
        }
        self.tell_tail();
        self.hardware.set_bus_master(true);
        self.write(registers::TCTL, tctl::ENABLE | tctl::PAD_SHORT | tctl::COLLISIONS);
        // Not written without need: see `Card::is_qemu`.
        if self.hardware.read(registers::RCTL) != RECEIVING {
            self.write(registers::RCTL, RECEIVING);
        }
    }

    fn write(&self, register: u32, value: u32) {
        self.hardware.write(register, value);
    }

    /// The card's address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// A frame that has arrived: the buffer, and where in it the frame lies.
    pub fn receive(&mut self) -> Option<(Buffer, Range<usize>)> {
        // A card that is done with everything at once, for ever, gets its turn no longer than others.
        for _ in 0..RECEIVE {
            let Some((slot, word)) = self.receive.take() else {
                self.tell_tail();
                return None;
            };
            let buffer = self.receive_buffers.get_mut(slot)?.take()?;
            match (Arrival::read(word, BUFFER), self.is_discarding) {
                (Arrival::End(length), false) => return Some((buffer, 0..length)),
                (Arrival::Part, _) => self.is_discarding = true,
                (Arrival::End(_) | Arrival::Broken, _) => {
                    self.is_discarding = false;
                    self.count_dropped();
                }
            }
            self.recycle(buffer);
        }
        None
    }

    fn count_dropped(&mut self) {
        self.dropped += 1;
        super::network::ERRORS.count_received();
        // So that a card on a bad cable does not fill the log.
        if self.dropped.is_power_of_two() {
            warn!(
                "the network card has received {} frames that were damaged or too long; they are dropped: look at the cable",
                self.dropped
            );
        }
    }

    /// Gives a buffer to the card for a frame; it is told when there is nothing more to receive.
    pub fn recycle(&mut self, mut buffer: Buffer) {
        // There is room: one buffer less was made than the ring has places.
        if let Some(slot) = self.receive.free()
            && let Some(place) = self.receive_buffers.get_mut(slot)
        {
            self.tail = Some(self.receive.give(buffer.as_mut_ptr() as u64, 0));
            *place = Some(buffer);
        }
    }

    /// Tells the card of all buffers that were given back. As many at once as there can be: at every write to RDT, QEMU
    /// takes all frames that have waited, and drops those for which it finds no buffer.
    fn tell_tail(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.write(registers::RDT, tail);
        }
    }

    /// Can a frame be sent now?
    pub fn can_transmit(&mut self) -> bool {
        while self.transmit.take().is_some() {}
        self.transmit.free().is_some()
    }

    /// Sends a frame of `length` bytes that `fill` writes. Without a free buffer the frame is lost, as on a wire.
    pub fn transmit<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let length = length.min(BUFFER);
        let slot = self.transmit.free();
        let Some(buffer) = slot.and_then(|slot| self.transmit_buffers.get_mut(slot)) else {
            super::network::ERRORS.count_transmitted();
            return fill(&mut [0; BUFFER][..length]);
        };
        let result = fill(&mut buffer[..length]);
        let address = buffer.as_mut_ptr() as u64;
        let tail = self.transmit.give(address, ring::send(length));
        self.write(registers::TDT, tail);
        result
    }
}

impl<H: Hardware> Drop for E1000<H> {
    fn drop(&mut self) {
        // What was sent last leaves, if the card is alive: a full ring takes less than a millisecond at 1 Gbit/s.
        for _ in 0..1000 {
            self.can_transmit();
            if self.transmit.is_empty() {
                break;
            }
            self.hardware.pause(MICROSECOND);
        }
        stop(&self.hardware);
        // Before the reset, which must not come in the middle of a transfer; and not every emulator's card is reset by it.
        self.hardware.set_bus_master(false);
        // The buffers are freed after this. A card that does not finish its reset is cut off from memory all the same.
        let _ = reset(&self.hardware);
    }
}

/// No more frames in, none out, no interrupts.
fn stop(hardware: &impl Hardware) {
    hardware.write(registers::IMC, u32::MAX);
    if !hardware.keeps_receiving() {
        hardware.write(registers::RCTL, 0);
    }
    hardware.write(registers::TCTL, tctl::PAD_SHORT);
}

/// Resets the card, but not its PHY, which would lose the link (section 13.4.1).
fn reset(hardware: &impl Hardware) -> Result<(), NetworkError> {
    // Zero after a reset: shows whether there was one. Emulators only clear the bit that asks for it, and must not cost the
    // time that a card needs.
    hardware.write(registers::TDLEN, 128);
    let before = hardware.read(registers::CTRL) & !ctrl::PHY_RESET;
    hardware.write(registers::CTRL, before | ctrl::RESET);
    hardware.pause(MICROSECOND);
    wait(hardware, || hardware.read(registers::CTRL) & ctrl::RESET == 0).ok_or(NetworkError::Reset)?;
    // A reset unmasks nothing; reading ICR takes back what was asked for before it (section 13.4.17).
    hardware.write(registers::IMC, u32::MAX);
    hardware.read(registers::ICR);
    Ok(())
}

/// From the EEPROM; if that does not answer, what the card has read of it, or somebody else has set.
fn mac(hardware: &impl Hardware) -> Option<[u8; 6]> {
    let of_words = |words: [u16; 3]| {
        let mut mac = [0; 6];
        for (bytes, word) in mac.chunks_exact_mut(2).zip(words) {
            // The low byte is the first on the wire (section 5.6.1).
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        // Neither a group's nor nobody's.
        (mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
    };
    let word = |address| eeprom_word(hardware, address);
    let of_eeprom = || of_words([word(0)?, word(1)?, word(2)?]);
    of_eeprom().or_else(|| {
        let (low, high) = (hardware.read(registers::RAL0), hardware.read(registers::RAH0));
        of_words([low as u16, (low >> 16) as u16, high as u16])
    })
}

/// One word of the EEPROM (sections 5.3.1 and 13.4.4).
fn eeprom_word(hardware: &impl Hardware, address: u32) -> Option<u16> {
    hardware.write(registers::EERD, address << eerd::ADDRESS_SHIFT | eerd::START);
    let mut answer = 0;
    wait(hardware, || {
        answer = hardware.read(registers::EERD);
        answer & eerd::DONE != 0
    })?;
    Some((answer >> eerd::DATA_SHIFT) as u16)
}

/// Waits until `is_done`, or 10 ms.
fn wait(hardware: &impl Hardware, mut is_done: impl FnMut() -> bool) -> Option<()> {
    for _ in 0..PATIENCE {
        if is_done() {
            return Some(());
        }
        hardware.pause(MICROSECOND);
    }
    None
}

//! A card that is played: registers, rings, EEPROM, and what it did in order.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::super::registers::*;
use super::super::{E1000, NetworkError};

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// How a card behaves.
#[derive(Clone, Copy)]
pub struct Kind {
    /// A reset clears the registers, and reads the address from the EEPROM.
    pub resets: bool,
    /// A reset ends.
    pub ends_reset: bool,
    /// The EEPROM answers.
    pub answers: bool,
    pub keeps_receiving: bool,
    pub eeprom: [u8; 6],
}

pub const HARDWARE: Kind = Kind {
    resets: true,
    ends_reset: true,
    answers: true,
    keeps_receiving: false,
    eeprom: MAC,
};
pub const BOCHS: Kind = Kind {
    resets: false,
    ..HARDWARE
};
pub const QEMU: Kind = Kind {
    keeps_receiving: true,
    ..BOCHS
};

pub struct Fake {
    pub kind: Kind,
    pub registers: Vec<u32>,
    pub bus_master: bool,
    /// What was done, in order: registers, and (as a register beyond them) bus mastering.
    pub events: Vec<(u32, u32)>,
    pub paused: Duration,
    pub sent: Vec<Vec<u8>>,
    /// Does it send what it is given?
    pub sends: bool,
}

pub const BUS_MASTER: u32 = u32::MAX;

/// The driver's end and the test's end.
#[derive(Clone)]
pub struct Shared(pub Rc<RefCell<Fake>>);

impl Shared {
    pub fn new(kind: Kind) -> Self {
        Self(Rc::new(RefCell::new(Fake {
            kind,
            registers: vec![0; 0x8000],
            bus_master: true,
            events: Vec::new(),
            paused: Duration::ZERO,
            sent: Vec::new(),
            sends: true,
        })))
    }

    pub fn start(&self) -> Result<E1000<Self>, NetworkError> {
        E1000::start(self.clone())
    }

    pub fn get(&self, register: u32) -> u32 {
        self.0.borrow().get(register)
    }

    pub fn set(&self, register: u32, value: u32) {
        self.0.borrow_mut().set(register, value);
    }

    pub fn writes(&self, register: u32) -> Vec<u32> {
        let events = &self.0.borrow().events;
        events
            .iter()
            .filter(|event| event.0 == register)
            .map(|event| event.1)
            .collect()
    }

    /// When something was done for the last time.
    pub fn last(&self, register: u32, value: u32) -> usize {
        let events = &self.0.borrow().events;
        events
            .iter()
            .rposition(|event| *event == (register, value))
            .unwrap_or_else(|| panic!("{register:#x} was never written {value:#x}"))
    }

    pub fn arrive(&self, frame: &[u8]) -> bool {
        self.0.borrow_mut().arrive(frame, 3, 0, frame.len())
    }

    pub fn arrive_as(&self, frame: &[u8], status: u64, errors: u64, length: usize) -> bool {
        self.0.borrow_mut().arrive(frame, status, errors, length)
    }
}

impl Fake {
    pub fn get(&self, register: u32) -> u32 {
        self.registers[register as usize / 4]
    }

    pub fn set(&mut self, register: u32, value: u32) {
        self.registers[register as usize / 4] = value;
    }

    pub fn is_active(&self, register: u32, enable: u32) -> bool {
        self.bus_master && self.get(register) & enable != 0
    }

    /// The two words of a descriptor.
    pub fn descriptor(&self, base: u32, index: u32) -> [&AtomicU64; 2] {
        assert!(index < self.get(base + 8) / 16, "an index outside the ring");
        let ring = u64::from(self.get(base)) | u64::from(self.get(base + 4)) << 32;
        let first = (ring + u64::from(index) * 16) as *const AtomicU64;
        // SAFETY: the driver has put its ring here, which lives as long as the driver; tests let no card act after it. Inside
        // the ring by the check above.
        unsafe { [&*first, &*first.add(1)] }
    }

    /// Puts a frame into the next buffer.
    pub fn arrive(&mut self, frame: &[u8], status: u64, errors: u64, length: usize) -> bool {
        let head = self.get(RDH);
        if !self.is_active(RCTL, rctl::ENABLE) || head == self.get(RDT) {
            return false;
        }
        let [address, word] = self.descriptor(RDBAL, head);
        assert_eq!(word.load(Ordering::Acquire), 0, "given before it was cleared");
        let buffer = address.load(Ordering::Relaxed) as *mut u8;
        // SAFETY: the driver gave this buffer of 2048 bytes, and does not touch it until it is told that it is done.
        unsafe { core::ptr::copy_nonoverlapping(frame.as_ptr(), buffer, frame.len().min(2048)) };
        word.store(
            length as u64 & 0xffff | status << 32 | errors << 40,
            Ordering::Release,
        );
        self.set(RDH, (head + 1) % (self.get(RDLEN) / 16));
        true
    }

    pub fn send(&mut self) {
        while self.sends && self.is_active(TCTL, tctl::ENABLE) && self.get(TDH) != self.get(TDT) {
            let head = self.get(TDH);
            let [address, word] = self.descriptor(TDBAL, head);
            let asked = word.load(Ordering::Acquire);
            assert_eq!(asked >> 24, 0b1011, "EOP, IFCS, RS, and not done yet");
            let buffer = address.load(Ordering::Relaxed) as *const u8;
            // SAFETY: as in `arrive`; the length is checked by the test that looks at what was sent.
            let frame = unsafe { core::slice::from_raw_parts(buffer, (asked & 0xffff) as usize) }.to_vec();
            word.store(asked | 1 << 32, Ordering::Release);
            self.sent.push(frame);
            self.set(TDH, (head + 1) % (self.get(TDLEN) / 16));
        }
    }

    pub fn control(&mut self, value: u32) {
        self.set(CTRL, value);
        if value & ctrl::RESET == 0 || !self.kind.ends_reset {
            return;
        }
        self.set(CTRL, value & !ctrl::RESET);
        if self.kind.resets {
            let [a, b, c, d, e, f] = self.kind.eeprom;
            self.registers[..0x5400 / 4].fill(0);
            self.set(RAL0, u32::from_le_bytes([a, b, c, d]));
            self.set(RAH0, u32::from_le_bytes([e, f, 0, 0]) | ADDRESS_VALID);
        }
    }
}

impl Hardware for Shared {
    fn read(&self, register: u32) -> u32 {
        let mut fake = self.0.borrow_mut();
        if register == EERD && fake.kind.answers {
            let asked = fake.get(EERD);
            assert_eq!(asked & 1, 1, "not asked for");
            let index = 2 * (asked >> 8) as usize;
            let word = u16::from_le_bytes([fake.kind.eeprom[index], fake.kind.eeprom[index + 1]]);
            fake.set(EERD, u32::from(word) << 16 | asked & !1 | 1 << 4);
        }
        fake.get(register)
    }

    fn write(&self, register: u32, value: u32) {
        let mut fake = self.0.borrow_mut();
        fake.events.push((register, value));
        match register {
            CTRL => fake.control(value),
            _ => fake.set(register, value),
        }
        if [TDT, TCTL].contains(&register) {
            fake.send();
        }
    }

    fn set_bus_master(&self, on: bool) {
        let mut fake = self.0.borrow_mut();
        fake.events.push((BUS_MASTER, on.into()));
        fake.bus_master = on;
    }

    fn pause(&self, span: Duration) {
        self.0.borrow_mut().paused += span;
    }

    fn keeps_receiving(&self) -> bool {
        self.0.borrow().kind.keeps_receiving
    }
}

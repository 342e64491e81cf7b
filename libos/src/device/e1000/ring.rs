//! Rings of legacy descriptors: receive (Intel 317453, section 3.2.3) and transmit (section 3.3.3).
//!
//! Both kinds are an address and a word, and in both the card says "done" in bit 32 of the word. Ours are the descriptors
//! from `oldest` up to before `next` that it has not done yet; one always stays unused, since equal indices mean an empty ring.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering, fence};

const DONE: u64 = 1 << 32;

/// Shared with the card, hence atomic: it writes `word` when it has done it.
#[repr(C, align(16))]
#[derive(Default)]
struct Descriptor {
    address: AtomicU64,
    word: AtomicU64,
}

/// A ring: which descriptors are the card's.
pub struct Ring {
    descriptors: Box<[Descriptor]>,
    oldest: usize,
    next: usize,
}

impl Ring {
    /// One of so many descriptors, in which the card has nothing. A multiple of 8: the length must be a multiple of 128 bytes
    /// (sections 13.4.27 and 13.4.38).
    pub fn new(length: usize) -> Self {
        Self {
            descriptors: (0..length).map(|_| Descriptor::default()).collect(),
            oldest: 0,
            next: 0,
        }
    }

    /// Where it lies, aligned to 16 bytes.
    pub fn address(&self) -> u64 {
        self.descriptors.as_ptr() as u64
    }

    /// How many bytes it is long.
    pub fn bytes(&self) -> u32 {
        size_of_val(&*self.descriptors) as u32
    }

    fn after(&self, index: usize) -> usize {
        (index + 1) % self.descriptors.len()
    }

    /// Where the next descriptor goes; `None` if the ring is full.
    pub fn free(&self) -> Option<usize> {
        (self.after(self.next) != self.oldest).then_some(self.next)
    }

    /// Hands the descriptor at [`Ring::free`] to the card, and returns what its tail register must be told. Everything that
    /// was written before is in memory when this returns.
    pub fn give(&mut self, address: u64, word: u64) -> u32 {
        if let Some(descriptor) = self.descriptors.get(self.next)
            && self.free().is_some()
        {
            descriptor.address.store(address, Ordering::Relaxed);
            descriptor.word.store(word & !DONE, Ordering::Release);
            self.next = self.after(self.next);
        }
        // Descriptor and buffer before the tail register, which is no memory that the compiler knows.
        fence(Ordering::SeqCst);
        self.next as u32
    }

    /// Takes the oldest descriptor back, if the card has done it: its index and word. What the card wrote before it said so
    /// can be read then.
    pub fn take(&mut self) -> Option<(usize, u64)> {
        if self.is_empty() {
            return None;
        }
        let index = self.oldest;
        let word = self.descriptors.get(index)?.word.load(Ordering::Acquire);
        (word & DONE != 0).then(|| {
            self.oldest = self.after(index);
            (index, word)
        })
    }

    /// Has the card nothing to do?
    pub fn is_empty(&self) -> bool {
        self.oldest == self.next
    }
}

/// Asks the card to send a whole frame, to add its checksum, and to say when that is done (section 3.3.3.1: EOP, IFCS, RS).
pub fn send(length: usize) -> u64 {
    const COMMAND: u64 = 0b1011;
    length as u64 & 0xffff | COMMAND << 24
}

/// What a receive descriptor that is done says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// A whole frame of so many bytes, or the last part of a longer one.
    End(usize),
    /// Damaged, or of an impossible length.
    Broken,
    /// Part of a frame that does not fit into a buffer; more follow.
    Part,
}

impl Arrival {
    /// Reads a descriptor's word, for buffers of `limit` bytes.
    pub fn read(word: u64, limit: usize) -> Self {
        const END_OF_PACKET: u64 = 1 << 33;
        // Errors of the frame (section 3.2.3.2): CRC, symbol, sequence, carrier extension, data. Not those of the checksums
        // inside, which the network stack computes itself.
        const ERRORS: u64 = 0b1001_0111 << 40;
        let length = (word & 0xffff) as usize;
        if word & END_OF_PACKET == 0 {
            Self::Part
        } else if word & ERRORS != 0 || length == 0 || length > limit {
            Self::Broken
        } else {
            Self::End(length)
        }
    }
}

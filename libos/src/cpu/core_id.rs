//! Names for cores.

use core::fmt;

/// The most cores that one machine may have: a set of cores is one machine word.
pub const MAX_CORES: usize = 64;

/// A core's number in this machine: 0 is the one that booted. It stays the same from instar to instar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CoreId(u8);

impl CoreId {
    /// The core that boots, replaces, and runs the network.
    pub const BOOT: Self = Self(0);

    /// Core number `index`, if there can be one.
    pub fn new(index: usize) -> Option<Self> {
        (index < MAX_CORES).then_some(Self(index as u8))
    }

    /// The number, below [`MAX_CORES`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A local APIC's id: what an interrupt is addressed to (Intel SDM vol. 3, section 12.4.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ApicId(pub u32);

/// A set of cores.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CoreSet(u64);

impl CoreSet {
    /// No core.
    pub const EMPTY: Self = Self(0);

    /// The set whose bits are `bits`, core 0 in bit 0.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Core 0 in bit 0.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// This set with `core`.
    #[must_use]
    pub const fn with(self, core: CoreId) -> Self {
        Self(self.0 | 1 << core.index())
    }

    /// This set without `core`.
    #[must_use]
    pub const fn without(self, core: CoreId) -> Self {
        Self(self.0 & !(1 << core.index()))
    }

    /// Is `core` in it?
    pub const fn contains(self, core: CoreId) -> bool {
        self.0 & 1 << core.index() != 0
    }

    /// Is no core in it?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many cores are in it.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The cores in it, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = CoreId> {
        (0..MAX_CORES as u8)
            .map(CoreId)
            .filter(move |core| self.contains(*core))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let two = CoreId::new(2).unwrap();
        let last = CoreId::new(MAX_CORES - 1).unwrap();
        let set = CoreSet::EMPTY.with(two).with(last);
        assert!(set.contains(two) && set.contains(last) && !set.contains(CoreId::BOOT));
        assert_eq!(set.iter().collect::<Vec<_>>(), [two, last]);
        assert_eq!(set.without(two).len(), 1);
        assert!(set.without(two).without(last).is_empty());
        assert_eq!(CoreId::new(MAX_CORES), None);
    }
}

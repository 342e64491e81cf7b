//! Which images this machine has run: the chain of [`loader::measure`], and the newest of the images behind it.
//!
//! It is extended before an image is entered, as a boot loader extends a PCR before it hands over. An image that gave the
//! machine back has run too: its predecessor goes on with the extended chain.

use alloc::string::String;
use alloc::vec::Vec;

use loader::manifest::Manifest;
use loader::measure::{BYTES, Chain, digest};
use minicbor::{Decode, Encode};

use super::bounded;
use super::timeline::MAX_VERSION;

/// Most images that are listed. Of earlier ones only the chain tells.
pub const MAX_EVENTS: usize = 64;

/// An image that was entered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Event {
    /// The image's name.
    #[cbor(
        n(0),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_VERSION>"
    )]
    pub name: String,
    /// The image's version.
    #[cbor(
        n(1),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_VERSION>"
    )]
    pub version: String,
    /// The number of the instar that it was to be.
    #[n(2)]
    pub generation: u32,
    /// SHA-384 of its manifest: what the chain was extended by.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub manifest: [u8; BYTES],
}

impl Event {
    /// The image whose manifest is `text`, as the instar of `generation`.
    #[must_use]
    pub fn new(manifest: &Manifest, text: &str, generation: u32) -> Self {
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            generation,
            manifest: digest(text.as_bytes()),
        }
    }
}

/// The chain and its newest images. `chain` is `base` extended by each of `events`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Measurements {
    /// The chain's value.
    #[cbor(n(0), with = "minicbor::bytes")]
    chain: [u8; BYTES],
    /// Its value before the first of `events`.
    #[cbor(n(1), with = "minicbor::bytes")]
    base: [u8; BYTES],
    /// Images before the first of `events`.
    #[n(2)]
    earlier: u64,
    /// It begins with the cold boot; otherwise with the first instar that knew of it.
    #[n(3)]
    whole: bool,
    /// The newest images, in the order in which they were entered.
    #[cbor(
        n(4),
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_EVENTS>"
    )]
    events: Vec<Event>,
}

impl Default for Measurements {
    /// Of a predecessor that did not know of them.
    fn default() -> Self {
        Self {
            chain: Chain::START.0,
            base: Chain::START.0,
            earlier: 0,
            whole: false,
            events: Vec::new(),
        }
    }
}

impl Measurements {
    /// What an instar starts with. `me` is its own image; `told` what its loader says the chain is, `handed` what its
    /// predecessor handed over, if it had one and its record can be read.
    #[must_use]
    pub fn at_start(cold: bool, told: Option<Chain>, handed: Option<Self>, me: Event) -> Self {
        match handed {
            // A predecessor that knew of the chain has extended it before it jumped.
            Some(handed) if handed.count() > 0 => return handed,
            _ => {}
        }
        let alone = Self::default().extended(me.clone());
        match told {
            Some(chain) if chain.0 == alone.chain => Self { whole: cold, ..alone },
            // The story is lost, but not the chain.
            Some(chain) => Self {
                chain: chain.0,
                base: chain.0,
                earlier: 1,
                whole: false,
                events: Vec::new(),
            },
            None => alone,
        }
    }

    /// The same after one more image.
    #[must_use]
    pub fn extended(&self, event: Event) -> Self {
        let mut next = self.clone();
        if next.events.len() == MAX_EVENTS {
            let oldest = next.events.remove(0);
            next.base = Chain(next.base).extend(&oldest.manifest).0;
            next.earlier += 1;
        }
        next.chain = Chain(next.chain).extend(&event.manifest).0;
        next.events.push(event);
        next
    }

    /// The chain's value.
    #[must_use]
    pub const fn chain(&self) -> Chain {
        Chain(self.chain)
    }

    /// The chain's value before the first of [`Self::events`].
    #[must_use]
    pub const fn base(&self) -> Chain {
        Chain(self.base)
    }

    /// Images in the chain.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.earlier.saturating_add(self.events.len() as u64)
    }

    /// Whether the chain begins with the cold boot.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// The newest images.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn event(number: u32) -> Event {
        Event {
            name: "hello".into(),
            version: format!("1.{number}"),
            generation: number,
            manifest: digest(format!("manifest {number}").as_bytes()),
        }
    }

    fn told(events: &[Event]) -> Chain {
        let extend = |chain: Chain, event: &Event| chain.extend(&event.manifest);
        events.iter().fold(Chain::START, extend)
    }

    fn cold() -> Measurements {
        Measurements::at_start(true, Some(told(&[event(1)])), None, event(1))
    }

    #[test]
    fn a_list_can_be_replayed_however_long_the_machine_has_run() {
        let mut measurements = cold();
        let mut all = alloc::vec![event(1)];
        for number in 2..200 {
            measurements = measurements.extended(event(number));
            all.push(event(number));
            assert_eq!(measurements.chain(), told(&all));
            assert_eq!(measurements.count(), u64::from(number));
            assert!(measurements.events().len() <= MAX_EVENTS && measurements.is_whole());
            let listed = measurements.events();
            assert_eq!(listed, &all[all.len() - listed.len()..]);
            let replayed = listed
                .iter()
                .fold(measurements.base(), |chain, event| chain.extend(&event.manifest));
            assert_eq!(replayed, measurements.chain());
        }
    }

    #[test]
    fn a_successor_goes_on_with_what_it_is_handed() {
        let handed = cold().extended(event(2));
        let chain = handed.chain();
        let started = Measurements::at_start(false, Some(chain), Some(handed.clone()), event(2));
        assert_eq!(started, handed);
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        // A predecessor that did not know of the chain: it begins with this image.
        let started = Measurements::at_start(false, None, Some(Measurements::default()), event(5));
        assert_eq!((started.chain(), started.count()), (told(&[event(5)]), 1));
        assert!(!started.is_whole());
        // A loader that does not know of it.
        assert!(!Measurements::at_start(true, None, None, event(1)).is_whole());
        // The record is damaged; the loader's word is not.
        let chain = told(&[event(1), event(2)]);
        let started = Measurements::at_start(false, Some(chain), None, event(2));
        assert_eq!(started.chain(), chain);
        assert!(!started.is_whole() && started.events().is_empty());
        let next = started.extended(event(3));
        assert_eq!(next.chain(), told(&[event(1), event(2), event(3)]));
    }
}

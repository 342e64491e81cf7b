//! An image comes in: checked while it comes, kept in free chunks, gone without a trace if anything is wrong with it.

use core::ops::Range;
use core::time::Duration;

use loader::image::{Event, ImageError, Limits, Reader};
use loader::manifest::Manifest;

use super::error::{Code, Refusal};
use super::machine::{Machine, Receiving};
use crate::cpu::random;
use crate::cpu::time::{self, Instant};
use crate::memory::chunks::Owner;
use crate::memory::{self, CHUNK};

/// Chunks taken for a successor. Free again when it is dropped.
#[derive(Debug)]
pub(super) struct Chunks(Range<u64>);

impl Chunks {
    /// Chunks for `bytes`, at a random place below 4 GiB, which the boot ABI's page tables always map.
    pub fn take(bytes: u64) -> Option<Self> {
        let random = random::number();
        memory::with_chunks(|map| map.take_run(bytes.div_ceil(CHUNK), Owner::Staged, 4 << 30, random))?
            .map(Self)
    }

    /// Where they lie.
    pub fn range(&self) -> Range<u64> {
        self.0.clone()
    }

    /// Their content.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the chunk map gave these chunks to this value alone, and they are mapped writable.
        unsafe {
            core::slice::from_raw_parts_mut(self.0.start as *mut u8, (self.0.end - self.0.start) as usize)
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.bytes().fill(0);
        // Taken from the map, so it is known there.
        let _ = memory::with_chunks(|map| map.release(&self.0));
    }
}

/// Takes an image as it comes.
pub(super) struct Receiver {
    machine: &'static Machine,
    reader: Reader,
    /// Held from the moment at which the sender has shown that it has a signature: nobody else can keep others out.
    receiving: Option<Receiving>,
    elf: Option<Chunks>,
    filled: usize,
    started: Instant,
    verify: (Instant, Instant),
    complete: bool,
}

/// An image that is what its signed manifest says.
pub(super) struct Received {
    pub manifest: Manifest,
    pub manifest_text: alloc::string::String,
    pub elf: Chunks,
    /// Nobody else's image comes in until this one is staged.
    pub receiving: Receiving,
    pub receive: (Instant, Instant),
    /// When its signature was verified.
    pub verify: (Instant, Instant),
}

impl Receiver {
    pub fn new(machine: &'static Machine) -> Self {
        let now = time::now();
        let limits = Limits {
            elf_bytes: machine.options.max_image,
            security_floor: machine.floor(),
        };
        Self {
            machine,
            reader: Reader::new(machine.release_key, limits),
            receiving: None,
            elf: None,
            filled: 0,
            started: now,
            verify: (now, now),
            complete: false,
        }
    }

    /// How long the whole image may take to come: 10 s until its signature is there, then as long as 64 KiB a second take,
    /// and half a minute more. A sender that trickles must not keep others out for ever.
    pub fn deadline(&self) -> Instant {
        let seconds = match (&self.receiving, self.reader.manifest()) {
            (Some(_), Some(manifest)) => 30 + manifest.elf.size / (64 * 1024),
            _ => 10,
        };
        self.started + Duration::from_secs(seconds)
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        loop {
            let before = time::now();
            match self.reader.next(&mut bytes).map_err(refusal)? {
                Event::NeedMore => return Ok(()),
                Event::Verified => {
                    self.verify = (before, time::now());
                    self.receiving = Some(self.machine.begin_receiving()?);
                    let size = self.reader.manifest().map_or(0, |manifest| manifest.elf.size);
                    let chunks = Chunks::take(size).ok_or_else(|| {
                        Refusal::new(
                            Code::NoMemory,
                            "the image does not fit into the free memory below 4 GiB",
                        )
                    })?;
                    self.elf = Some(chunks);
                }
                Event::Elf(piece) => {
                    let end = self.filled + piece.len();
                    let place = self
                        .elf
                        .as_mut()
                        .and_then(|elf| elf.bytes().get_mut(self.filled..end));
                    let place = place.ok_or_else(|| {
                        Refusal::new(Code::TooLarge, "image.elf is larger than its manifest says")
                    })?;
                    place.copy_from_slice(piece);
                    self.filled = end;
                }
                Event::End => {
                    self.complete = true;
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The stream has ended.
    pub fn finish(self) -> Result<Received, Refusal> {
        self.reader.finish().map_err(refusal)?;
        let (Some(manifest), Some(text), Some(elf), Some(receiving), true) = (
            self.reader.manifest(),
            self.reader.manifest_text(),
            self.elf,
            self.receiving,
            self.complete,
        ) else {
            return Err(Refusal::new(Code::Truncated, "the image ended before its end"));
        };
        Ok(Received {
            manifest: manifest.clone(),
            manifest_text: text.into(),
            elf,
            receiving,
            receive: (self.started, time::now()),
            verify: self.verify,
        })
    }
}

fn refusal(error: ImageError) -> Refusal {
    Refusal::with_hint(error.code(), alloc::format!("{error}"), error.hint())
}

//! An image that has been received is made ready in memory: checked as an ELF, loaded at its final address, relocated.

use alloc::format;
use alloc::string::String;
use core::mem::MaybeUninit;

use loader::elf;
use loader::load::{self, Layout, Loaded};
use loader::manifest::Manifest;

use super::error::{Code, Refusal};
use super::handover;
use super::receive::{Chunks, Received};
use crate::cpu::random;
use crate::cpu::time::{self, Instant};

/// An image that an order can have entered.
#[derive(Debug)]
pub(super) struct Staged {
    pub manifest: Manifest,
    pub manifest_text: String,
    /// The successor's memory.
    pub chunks: Chunks,
    pub layout: Layout,
    pub loaded: Loaded,
    pub receive: (Instant, Instant),
    pub verify: (Instant, Instant),
    pub stage: (Instant, Instant),
}

/// Makes `received` ready.
pub(super) fn stage(mut received: Received) -> Result<Staged, Refusal> {
    let started = time::now();
    let size = received.manifest.elf.size as usize;
    let image = received.elf.bytes().get(..size).unwrap_or_default();
    let plan = elf::check(image)
        .map_err(|error| Refusal::with_hint(error.code(), format!("{error}"), error.hint()))?;
    let chunks = load::chunks_needed(&plan, handover::PARAMETER_BYTES);
    let mut chunks = Chunks::take(chunks * load::CHUNK).ok_or_else(|| {
        Refusal::new(
            Code::NoMemory,
            format!("the image needs {chunks} free chunks of 2 MiB in a row below 4 GiB"),
        )
    })?;
    let base = chunks.range().start;
    let layout = load::place(&plan, handover::PARAMETER_BYTES, base, random::number());
    let memory =
        &mut chunks.bytes()[(layout.image.start - base) as usize..(layout.image.end - base) as usize];
    // SAFETY: bytes that are initialised may be seen as bytes that may not be; nothing uninitialised is ever written.
    let memory = unsafe {
        core::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<MaybeUninit<u8>>(), memory.len())
    };
    let loaded = load::load(image, &plan, memory, layout.image.start)
        .map_err(|error| Refusal::new(Code::BadElf, format!("{error}")))?;
    let Received {
        manifest,
        manifest_text,
        receive,
        verify,
        receiving: _receiving,
        ..
    } = received;
    Ok(Staged {
        manifest,
        manifest_text,
        chunks,
        layout,
        loaded,
        receive,
        verify,
        stage: (started, time::now()),
    })
}

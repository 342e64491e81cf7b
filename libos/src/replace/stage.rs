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
use crate::telemetry::span::Context;

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
    /// The span of whoever sent the image, if that was said.
    pub client: Option<Context>,
}

/// Chunks that the successor gets besides those for its image: the heap that it needs until it serves.
const FIRST_HEAP: u64 = 1;

/// Makes `received` ready.
pub(super) fn stage(mut received: Received) -> Result<Staged, Refusal> {
    let started = time::now();
    let size = received.manifest.elf.size as usize;
    let image = received.elf.bytes().get(..size).unwrap_or_default();
    let plan = elf::check(image)
        .map_err(|error| Refusal::with_hint(error.code(), format!("{error}"), error.hint()))?;
    let chunks = load::chunks_needed(&plan, handover::PARAMETER_BYTES) + FIRST_HEAP;
    let mut chunks = Chunks::take(chunks * load::CHUNK).ok_or_else(|| {
        Refusal::new(
            Code::NoMemory,
            format!("the image needs {chunks} free chunks of 2 MiB in a row below 4 GiB"),
        )
    })?;
    // Memory that was never touched is slow at the first touch (a hypervisor has to find it, and wipe it): that is for now,
    // not for the blackout. And the successor finds nothing that somebody left.
    chunks.bytes().fill(0);
    let base = chunks.range().start;
    let mut layout = load::place(&plan, handover::PARAMETER_BYTES, base, random::number());
    layout.own.end = chunks.range().end;
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
        client: None,
    })
}

//! From the boot protocol to the image.

use alloc::string::String;
use core::arch::asm;
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::ops::Range;
use core::panic::PanicInfo;

use loader::boot::{Parameters, Region};
use loader::image::{Event, ImageError, Limits, Reader};
use loader::signature::{KeyError, PublicKey};
use loader::{boot, elf, floor, jump, load, measure};

use crate::machine::{Machine, MachineError, Physical, Rsdp, reachable};
use crate::serial::Serial;
use crate::{places, random};

/// The roots of trust, baked in: whoever can change the command line must not be able to change them.
const RELEASE_KEY: Option<&str> = option_env!("INSTAR_RELEASE_KEY");
const OPERATOR_KEY: Option<&str> = option_env!("INSTAR_OPERATOR_KEY");
/// Room for a copy of the RSDP.
const RSDP_BYTES: u64 = 64;

/// Why the machine does not start.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("{0}")]
    Machine(#[from] MachineError),
    #[error("no {0} was built in: build with `cargo xtask build-app`, which sets it")]
    NoKey(&'static str),
    #[error("the built-in {0} is not a key: {1}; build again with the right one")]
    Key(&'static str, KeyError),
    #[error("no image was given: pass one as a module (qemu -initrd, GRUB's module2)")]
    NoModule,
    #[error("the image at {start:#x}..{end:#x} does not lie in the first 4 GiB: update the boot loader")]
    Module { start: u64, end: u64 },
    #[error("{}", .0.line())]
    Image(#[from] ImageError),
    #[error("{0}; correct it, or leave it out where there is no floor")]
    Floor(#[from] floor::BadFloor),
    #[error("{}", .0.line())]
    Elf(#[from] elf::ElfError),
    #[error("no run of {chunks} free chunks of 2 MiB below 4 GiB: give the machine more memory")]
    NoMemory { chunks: u64 },
    #[error("the image was not loaded: {0}; build it again")]
    Load(#[from] load::LoadError),
    #[error("{0}; shorten the command line")]
    Parameters(#[from] boot::WriteError),
}

/// The memory that the entry code has mapped.
struct Mapped;

impl Physical for Mapped {
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]> {
        if !reachable(address, size) {
            return None;
        }
        // SAFETY: the first 4 GiB are mapped where they lie. What is read is what the boot protocol points to;
        // nothing writes there: the image goes to chunks apart from it.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, size as usize) })
    }
}

/// Called by the entry code.
#[unsafe(no_mangle)]
extern "C" fn first_stage(magic: u32, info: u32) -> ! {
    Serial::init();
    Serial::code(b'1');
    match start(magic, info.into()) {
        Ok(never) => match never {},
        Err(error) => {
            if let BootError::Image(ImageError::BelowFloor { .. }) = error {
                Serial::code(b'F');
            }
            stop(format_args!("{error}"))
        }
    }
}

fn start(magic: u32, info: u64) -> Result<core::convert::Infallible, BootError> {
    let (release_key, key) = trusted("release key", RELEASE_KEY)?;
    let (operator_key, _) = trusted("operator key", OPERATOR_KEY)?;
    let mut machine = Machine::read(&Mapped, magic, info)?;
    let floor = floor::asked_for(&machine.command_line)?;
    let Region { start, end } = machine.module.ok_or(BootError::NoModule)?;
    let size = end.checked_sub(start).ok_or(BootError::Module { start, end })?;
    machine.take(start, size);
    let archive = Mapped
        .bytes(start, size)
        .ok_or(BootError::Module { start, end })?;

    let (manifest, program) = verify(key, floor, archive)?;
    Serial::code(b'V');
    let plan = elf::check(program)?;

    let ready = prepare(&machine, program, &plan, &manifest, [release_key, operator_key])?;
    Serial::code(b'L');
    Serial::code(b'J');
    // SAFETY: `prepare` has loaded the program into memory that is RAM and that nothing else uses, with its stack
    // and its parameters; the entry code has mapped it. There is one core, and no device has been told to do
    // anything since the boot loader.
    unsafe { jump::enter(ready.entry, ready.boot_info, ready.stack, 0) }
}

/// A built-in key: its text, and the key.
fn trusted(what: &'static str, text: Option<&'static str>) -> Result<(&'static str, PublicKey), BootError> {
    let text = text
        .filter(|text| !text.is_empty())
        .ok_or(BootError::NoKey(what))?;
    let key = PublicKey::from_base64(text).map_err(|error| BootError::Key(what, error))?;
    Ok((text, key))
}

/// The manifest's text and the program of an image in memory.
fn verify(key: PublicKey, security_floor: u64, archive: &[u8]) -> Result<(String, &[u8]), ImageError> {
    // The archive is in memory already: its size needs no limit.
    let limits = Limits {
        elf_bytes: u64::MAX,
        security_floor,
    };
    let mut reader = Reader::new(key, limits);
    let mut input = archive;
    let mut program: &[u8] = &[];
    loop {
        match reader.next(&mut input)? {
            Event::Verified | Event::End => {}
            // All of the program is in the input: it comes in one piece.
            Event::Elf(bytes) => program = bytes,
            Event::NeedMore => break,
        }
    }
    reader.finish()?;
    Ok((reader.manifest_text().unwrap_or_default().into(), program))
}

/// What the jump needs.
struct Ready {
    entry: u64,
    boot_info: u64,
    stack: u64,
}

/// Chooses a place, loads the program and writes its parameters.
fn prepare(
    machine: &Machine,
    program: &[u8],
    plan: &elf::Plan,
    manifest: &str,
    [release_key, operator_key]: [&str; 2],
) -> Result<Ready, BootError> {
    let mut parameters = Parameters {
        memory: &machine.memory,
        rsdp: match machine.rsdp {
            Some(Rsdp::At(address)) => Some(address),
            _ => None,
        },
        command_line: &machine.command_line,
        own: Region { start: 0, end: 0 },
        manifest,
        release_key,
        operator_key,
        handover: None,
        measurement: Some(measure::Chain::START.extend(&measure::digest(manifest.as_bytes()))),
    };
    // A copied RSDP adds a node to the tree: one more memory region's worth.
    let parameter_bytes = boot::space(&parameters) + 2 * RSDP_BYTES;
    let chunks = load::chunks_needed(plan, parameter_bytes);
    let base = places::choose(&machine.memory, &machine.taken, chunks, random::number())
        .ok_or(BootError::NoMemory { chunks })?;
    let layout = load::place(plan, parameter_bytes, base, random::number());
    parameters.own = Region {
        start: layout.own.start,
        end: layout.own.end,
    };

    let loaded = load::load(program, plan, free(&layout.image), layout.image.start)?;
    let (area, rsdp_area) = {
        let area = free(&layout.parameters);
        area.fill(MaybeUninit::new(0));
        // SAFETY: all bytes have just been written.
        let area = unsafe { area.assume_init_mut() };
        area.split_at_mut(area.len() - RSDP_BYTES as usize)
    };
    if let Some(Rsdp::Copy(table)) = &machine.rsdp {
        for (byte, value) in rsdp_area.iter_mut().zip(table) {
            *byte = *value;
        }
        parameters.rsdp = Some(layout.parameters.end - RSDP_BYTES);
    }
    let written = boot::write(&parameters, &loaded, area, layout.parameters.start)?;
    Ok(Ready {
        entry: loaded.entry,
        boot_info: written.boot_info_address,
        stack: layout.stack.start,
    })
}

/// Memory of the chosen chunks.
fn free(range: &Range<u64>) -> &'static mut [MaybeUninit<u8>] {
    let size = (range.end - range.start) as usize;
    // SAFETY: `places::choose` found these chunks to be RAM below 4 GiB, which is mapped, and apart from everything
    // in use; `load::place` keeps its parts apart, and each is taken once.
    unsafe { core::slice::from_raw_parts_mut(range.start as *mut MaybeUninit<u8>, size) }
}

fn stop(reason: fmt::Arguments<'_>) -> ! {
    let _ = writeln!(Serial, "\ninstar: first stage: {reason}");
    loop {
        // SAFETY: with interrupts off the core stops here for good.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop(format_args!(
        "{info}; this is a fault of the first stage, please report it"
    ))
}

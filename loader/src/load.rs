//! Where an image goes, and the copy.

use core::mem::MaybeUninit;
use core::ops::Range;

use hermit_entry::boot_info::LoadInfo;
use hermit_entry::elf::KernelObject;

use crate::elf::{PAGE, Plan};

/// Memory is given to images in chunks of this many bytes.
pub const CHUNK: u64 = 2 << 20;
/// The first stack, which Hermit's entry ABI fixes at 32 KiB.
pub const STACK: u64 = 32 << 10;

/// What is where in the chunks of an image. One page between the parts belongs to none of them, so that it can be
/// left unmapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The program, from its first byte to the end of its last segment.
    pub image: Range<u64>,
    /// The first stack.
    pub stack: Range<u64>,
    /// Boot information, device tree, handover.
    pub parameters: Range<u64>,
    /// All of the image's memory: whole chunks.
    pub own: Range<u64>,
}

/// A program that is ready to be entered.
#[derive(Debug)]
pub struct Loaded {
    /// The address of its entry point.
    pub entry: u64,
    /// What the program is told about where it lies.
    pub load_info: LoadInfo,
}

/// Why a checked program was not loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// The memory does not have the size that the plan asks for.
    #[error("the program needs exactly {expected} bytes of memory, not {found}")]
    Memory {
        /// Bytes asked for.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// The address is not one that a program can have.
    #[error("{start:#x} is not a multiple of 4096 below 2^47")]
    Start {
        /// The address.
        start: u64,
    },
    /// `hermit-entry` does not want a program that passed [`crate::elf::check`]: the plan is not this program's.
    #[error("the program is not the one that was checked")]
    NotChecked,
}

/// How many chunks an image needs for its program, its first stack and its parameters.
pub fn chunks_needed(plan: &Plan, parameter_bytes: u64) -> u64 {
    bytes_needed(plan, parameter_bytes).div_ceil(CHUNK)
}

fn bytes_needed(plan: &Plan, parameter_bytes: u64) -> u64 {
    pages(plan.memory)
        .saturating_add(PAGE + STACK + PAGE)
        .saturating_add(pages(parameter_bytes))
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE).saturating_mul(PAGE)
}

/// Lays an image out in [`chunks_needed`] chunks at `base`, at a `random` page of those that leave enough room.
///
/// `base` is the beginning of a chunk; what lies behind the end of the address space is the caller's to exclude.
pub fn place(plan: &Plan, parameter_bytes: u64, base: u64, random: u64) -> Layout {
    let own = base..base.saturating_add(chunks_needed(plan, parameter_bytes).saturating_mul(CHUNK));
    let slack = (own.end - base).saturating_sub(bytes_needed(plan, parameter_bytes));
    let image = base + random % (slack / PAGE + 1) * PAGE;
    let stack = image + pages(plan.memory) + PAGE;
    let parameters = stack + STACK + PAGE;
    Layout {
        image: image..image + plan.memory,
        stack: stack..stack + STACK,
        parameters: parameters..parameters + pages(parameter_bytes),
        own,
    }
}

/// Copies a checked program to `memory`, which lies at (or will be mapped at) `start`, and relocates it. All bytes
/// of `memory` are written: nothing of what it held before is left between the segments.
///
/// # Errors
/// [`LoadError`] if `memory`, `start` or `plan` do not belong to the program.
pub fn load(
    elf: &[u8],
    plan: &Plan,
    memory: &mut [MaybeUninit<u8>],
    start: u64,
) -> Result<Loaded, LoadError> {
    let found = memory.len() as u64;
    if found != plan.memory {
        return Err(LoadError::Memory {
            expected: plan.memory,
            found,
        });
    }
    if !start.is_multiple_of(PAGE) || start >= 1 << 47 {
        return Err(LoadError::Start { start });
    }
    let object = KernelObject::parse(elf).map_err(|_| LoadError::NotChecked)?;
    if object.mem_size() as u64 != plan.memory || object.start_addr().is_some() {
        return Err(LoadError::NotChecked);
    }
    memory.fill(MaybeUninit::new(0));
    let loaded = object.load_kernel(memory, start);
    Ok(Loaded {
        entry: loaded.entry_point,
        load_info: loaded.load_info,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf;
    use crate::testing::elf_builder::ElfBuilder;
    use proptest::prelude::*;

    fn plan(memory: u64) -> Plan {
        Plan {
            memory,
            segments: Vec::new(),
            entry: 0,
        }
    }

    #[test]
    fn relocates_and_clears() {
        let mut builder = ElfBuilder::new();
        builder.data = vec![0x55; 0x100];
        let elf = builder.build();
        let plan = elf::check(&elf).unwrap();
        let mut memory = vec![MaybeUninit::new(0xaa_u8); plan.memory as usize];
        let loaded = load(&elf, &plan, &mut memory, 0x40_0000).unwrap();
        assert_eq!(loaded.entry, 0x40_1000);
        assert_eq!(
            loaded.load_info.kernel_image_addr_range,
            0x40_0000..0x40_0000 + plan.memory
        );
        // SAFETY: `load` has written every byte.
        let memory: Vec<u8> = memory.iter().map(|byte| unsafe { byte.assume_init() }).collect();
        let word = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
        assert_eq!(
            (word(0x2000), word(0x2010), word(0x2018)),
            (0x40_1000, 0x40_2020, 0x5555_5555_5555_5555)
        );
        assert!(memory[ElfBuilder::METADATA..0x1000].iter().all(|byte| *byte == 0));
        assert!(memory[0x2100..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn refuses_the_wrong_memory() {
        let elf = ElfBuilder::new().build();
        let plan = elf::check(&elf).unwrap();
        let mut memory = vec![MaybeUninit::new(0); plan.memory as usize];
        let error = |result: Result<Loaded, LoadError>| result.err();
        assert_eq!(
            error(load(&elf, &plan, &mut memory, 1)),
            Some(LoadError::Start { start: 1 })
        );
        let wrong = LoadError::Memory {
            expected: plan.memory,
            found: plan.memory - 1,
        };
        assert_eq!(error(load(&elf, &plan, &mut memory[1..], 0)), Some(wrong));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parts_are_inside_and_apart(
            memory in 1..3 * CHUNK, parameters in 1..CHUNK, base in 0_u64..2000, random: u64
        ) {
            let plan = plan(memory);
            let base = base * CHUNK;
            let layout = place(&plan, parameters, base, random);
            prop_assert_eq!(layout.own.end - base, chunks_needed(&plan, parameters) * CHUNK);
            prop_assert!(base <= layout.image.start && layout.parameters.end <= layout.own.end);
            prop_assert!(layout.image.end + PAGE <= layout.stack.start);
            prop_assert!(layout.stack.end + PAGE <= layout.parameters.start);
            prop_assert_eq!(layout.image.end - layout.image.start, memory);
            prop_assert_eq!(layout.stack.end - layout.stack.start, STACK);
            prop_assert!(layout.parameters.end - layout.parameters.start >= parameters);
            for start in [layout.image.start, layout.stack.start, layout.parameters.start] {
                prop_assert!(start.is_multiple_of(PAGE));
            }
        }
    }
}

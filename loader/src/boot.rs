//! What an image is told when it is entered: both ends.
//!
//! Hermit's `RawBootInfo`, and behind it the flattened device tree of `docs/interfaces.md`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::{MaybeUninit, size_of};
use core::num::{NonZeroU16, NonZeroU64};

use hermit_entry::boot_info::{BootInfo, HardwareInfo, LoadInfo, PlatformInfo, RawBootInfo};
use vm_fdt::FdtWriter;

use crate::load::Loaded;
use crate::measure;

mod tree;

/// COM1.
const SERIAL_PORT: Option<NonZeroU16> = NonZeroU16::new(0x3f8);
/// Which of Hermit's loaders an image believes to come from.
const COMPATIBLE: &str = "hermit,multiboot";
/// The most memory regions that are read.
pub const MAX_REGIONS: usize = 512;
/// The ACPI 2 RSDP's size in bytes (ACPI 6.5, 5.2.5.3).
const RSDP_BYTES: u64 = 36;

/// Physical memory from `start` to before `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// The first byte.
    pub start: u64,
    /// The first byte behind it.
    pub end: u64,
}

/// What an image is told.
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    /// Usable RAM.
    pub memory: &'a [Region],
    /// The ACPI RSDP's address.
    pub rsdp: Option<u64>,
    /// The command line of the cold boot.
    pub command_line: &'a str,
    /// The memory that belongs to the image: [`crate::load::Layout::own`].
    pub own: Region,
    /// The manifest's text.
    pub manifest: &'a str,
    /// Who may sign images: a minisign public key.
    pub release_key: &'a str,
    /// Who may sign orders: a minisign public key.
    pub operator_key: &'a str,
    /// The predecessor's handover record.
    pub handover: Option<Region>,
    /// The chain of what this machine has run, with the image that is told; `None`: it is not known.
    pub measurement: Option<measure::Chain>,
}

/// What an image was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedParameters {
    /// Usable RAM.
    pub memory: Vec<Region>,
    /// The ACPI RSDP's address.
    pub rsdp: Option<u64>,
    /// The command line of the cold boot.
    pub command_line: String,
    /// The memory that belongs to the image.
    pub own: Region,
    /// The manifest's text.
    pub manifest: String,
    /// Who may sign images: a minisign public key.
    pub release_key: String,
    /// Who may sign orders: a minisign public key.
    pub operator_key: String,
    /// The predecessor's handover record.
    pub handover: Option<Region>,
    /// The chain of what this machine has run, with this image; `None`: whoever loaded it did not tell.
    pub measurement: Option<measure::Chain>,
}

/// What [`write()`] left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrittenBoot {
    /// Where the image finds its `RawBootInfo`.
    pub boot_info_address: u64,
    /// Bytes used of the area.
    pub used: usize,
}

/// Why the boot parameters were not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// The area is too small.
    #[error("the boot parameters need {needed} bytes, there are {found}")]
    Space {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        found: usize,
    },
    /// The area does not lie at a multiple of 8, or at address 0.
    #[error("the area of the boot parameters must lie at a multiple of 8 above 0")]
    Misaligned,
    /// A region that ends before it begins.
    #[error("the {what} ends at {end:#x}, before its start {start:#x}")]
    Region {
        /// What.
        what: &'static str,
        /// Its start.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// A text holds a NUL, or the tree would be too long.
    #[error("the device tree cannot be written (is there a NUL in the command line?)")]
    Tree,
}

/// Why boot parameters cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// Not a device tree.
    #[error("the device tree cannot be read: {0}")]
    Tree(&'static str),
    /// Something that an image needs is not there. Another loader than ours, perhaps.
    #[error("the device tree has no {0}")]
    Missing(&'static str),
    /// A property does not hold what it should.
    #[error("the device tree's {0} has a value that makes no sense")]
    Value(&'static str),
}

/// Enough bytes for [`write()`].
pub fn space(parameters: &Parameters<'_>) -> u64 {
    let texts = [
        parameters.command_line,
        parameters.manifest,
        parameters.release_key,
        parameters.operator_key,
    ];
    let texts: usize = texts.iter().map(|text| text.len()).sum();
    // A memory node takes up to 56 bytes; header, names and everything else less than 1 KiB.
    (texts + 64 * parameters.memory.len() + 2048) as u64
}

/// Writes the boot parameters to `area`, which is (or will be mapped) at `area_address`.
///
/// # Errors
/// [`WriteError`]; then `area` holds nothing useful.
pub fn write(
    parameters: &Parameters<'_>,
    loaded: &Loaded,
    area: &mut [u8],
    area_address: u64,
) -> Result<WrittenBoot, WriteError> {
    const TREE_AT: usize = size_of::<RawBootInfo>().next_multiple_of(8);
    let tree = write_tree(parameters)?;
    let (needed, found) = (TREE_AT + tree.len(), area.len());
    let aligned = area.as_ptr().addr().is_multiple_of(8) && area_address.is_multiple_of(8);
    let tree_address = area_address.checked_add(TREE_AT as u64).and_then(NonZeroU64::new);
    let (Some(tree_address), true, true) = (tree_address, aligned, area_address != 0) else {
        return Err(WriteError::Misaligned);
    };
    let (Some((info, rest)), true) = (area.split_at_mut_checked(TREE_AT), needed <= found) else {
        return Err(WriteError::Space { needed, found });
    };
    if let Some(place) = rest.get_mut(..tree.len()) {
        place.copy_from_slice(&tree);
    }
    let end = parameters
        .memory
        .iter()
        .map(|region| region.end)
        .max()
        .unwrap_or(0);
    let raw = RawBootInfo::from(BootInfo {
        hardware_info: HardwareInfo {
            phys_addr_range: 0..end,
            serial_port_base: SERIAL_PORT,
            device_tree: Some(tree_address),
        },
        load_info: LoadInfo {
            kernel_image_addr_range: loaded.load_info.kernel_image_addr_range.clone(),
            tls_info: loaded.load_info.tls_info,
        },
        platform_info: PlatformInfo::Fdt,
    });
    write_raw(raw, info);
    Ok(WrittenBoot {
        boot_info_address: area_address,
        used: needed,
    })
}

/// Writes the structure's bytes. `zerocopy` cannot do it: the structure is Hermit's, and has padding.
fn write_raw(raw: RawBootInfo, place: &mut [u8]) {
    let raw = MaybeUninit::new(raw);
    for (index, byte) in place.iter_mut().enumerate().take(size_of::<RawBootInfo>()) {
        // SAFETY: the index is below the structure's size. The read is volatile so that a byte of padding has the
        // value that happens to be in memory, and not none at all.
        *byte = unsafe { raw.as_ptr().cast::<u8>().add(index).read_volatile() };
    }
}

fn write_tree(parameters: &Parameters<'_>) -> Result<Vec<u8>, WriteError> {
    let tree = build_tree(parameters)?.map_err(|_| WriteError::Tree)?;
    if tree.len() > tree::MAX_BYTES {
        Err(WriteError::Tree)
    } else {
        Ok(tree)
    }
}

/// The outer error is about the parameters, the inner one comes from `vm-fdt`.
fn build_tree(parameters: &Parameters<'_>) -> Result<vm_fdt::FdtWriterResult<Vec<u8>>, WriteError> {
    let size = |what, region: &Region| {
        let Region { start, end } = *region;
        end.checked_sub(start)
            .ok_or(WriteError::Region { what, start, end })
    };
    let own = [parameters.own.start, size("image's own memory", &parameters.own)?];
    let handover = parameters.handover.as_ref();
    let handover = handover
        .map(|region| Ok([region.start, size("handover", region)?]))
        .transpose()?;
    let memory = parameters
        .memory
        .iter()
        .map(|region| Ok([region.start, size("memory region", region)?]));
    let memory: Vec<[u64; 2]> = memory.collect::<Result<_, _>>()?;

    let build = || {
        let mut fdt = FdtWriter::new()?;
        let root = fdt.begin_node("")?;
        fdt.property_string("compatible", COMPATIBLE)?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        for reg in memory {
            let node = fdt.begin_node(&format!("memory@{:x}", reg[0]))?;
            fdt.property_string("device_type", "memory")?;
            fdt.property_array_u64("reg", &reg)?;
            fdt.end_node(node)?;
        }
        if let Some(rsdp) = parameters.rsdp {
            let node = fdt.begin_node(&format!("hermit,rsdp@{rsdp:x}"))?;
            fdt.property_array_u64("reg", &[rsdp, RSDP_BYTES])?;
            fdt.end_node(node)?;
        }
        let chosen = fdt.begin_node("chosen")?;
        fdt.property_string("bootargs", parameters.command_line)?;
        fdt.property_array_u64("instar,own", &own)?;
        fdt.property_string("instar,manifest", parameters.manifest)?;
        fdt.property_string("instar,release-key", parameters.release_key)?;
        fdt.property_string("instar,operator-key", parameters.operator_key)?;
        if let Some(handover) = handover {
            fdt.property_array_u64("instar,handover", &handover)?;
        }
        if let Some(chain) = &parameters.measurement {
            fdt.property("instar,measurement", &chain.0)?;
        }
        fdt.end_node(chosen)?;
        fdt.end_node(root)?;
        fdt.finish()
    };
    Ok(build())
}

/// The size in bytes of the device tree whose first 40 bytes are `header`.
///
/// # Errors
/// [`ReadError::Tree`] if it is none, or longer than 1 MiB.
pub fn tree_bytes(header: &[u8]) -> Result<usize, ReadError> {
    tree::size(header)
}

/// Reads the device tree that [`write()`] wrote. Bytes behind the tree do not matter.
///
/// # Errors
/// [`ReadError`] if it is none, or if something is missing that an image needs.
pub fn read(fdt: &[u8]) -> Result<OwnedParameters, ReadError> {
    let (mut memory, mut rsdp, mut own, mut handover) = (Vec::new(), None, None, None);
    let mut measurement = None;
    let (mut command_line, mut manifest) = (None, None);
    let (mut release_key, mut operator_key) = (None, None);
    tree::walk(fdt, |property| {
        match (property.path, property.name) {
            ([node], b"reg") if node.starts_with(b"memory@") => {
                if memory.len() == MAX_REGIONS {
                    return Err(ReadError::Value("list of memory regions"));
                }
                memory.push(region(property.value, "memory region")?);
            }
            ([node], b"reg") if node.starts_with(b"hermit,rsdp@") => {
                rsdp = Some(region(property.value, "RSDP")?.start);
            }
            ([b"chosen"], b"bootargs") => command_line = Some(text(property.value, "bootargs")?),
            ([b"chosen"], b"instar,own") => own = Some(region(property.value, "instar,own")?),
            ([b"chosen"], b"instar,handover") => {
                handover = Some(region(property.value, "instar,handover")?);
            }
            ([b"chosen"], b"instar,measurement") => {
                let value = <[u8; measure::BYTES]>::try_from(property.value)
                    .map_err(|_| ReadError::Value("instar,measurement"))?;
                measurement = Some(measure::Chain(value));
            }
            ([b"chosen"], b"instar,manifest") => manifest = Some(text(property.value, "instar,manifest")?),
            ([b"chosen"], b"instar,release-key") => {
                release_key = Some(text(property.value, "instar,release-key")?);
            }
            ([b"chosen"], b"instar,operator-key") => {
                operator_key = Some(text(property.value, "instar,operator-key")?);
            }
            _ => {}
        }
        Ok(())
    })?;
    if memory.is_empty() {
        return Err(ReadError::Missing("memory regions"));
    }
    Ok(OwnedParameters {
        memory,
        rsdp,
        command_line: command_line.unwrap_or_default(),
        own: own.ok_or(ReadError::Missing("instar,own"))?,
        manifest: manifest.ok_or(ReadError::Missing("instar,manifest"))?,
        release_key: release_key.ok_or(ReadError::Missing("instar,release-key"))?,
        operator_key: operator_key.ok_or(ReadError::Missing("instar,operator-key"))?,
        handover,
        measurement,
    })
}

fn region(value: &[u8], what: &'static str) -> Result<Region, ReadError> {
    let ([start, size], []) = value.as_chunks::<8>() else {
        return Err(ReadError::Value(what));
    };
    let start = u64::from_be_bytes(*start);
    let end = start
        .checked_add(u64::from_be_bytes(*size))
        .ok_or(ReadError::Value(what))?;
    Ok(Region { start, end })
}

fn text(value: &[u8], what: &'static str) -> Result<String, ReadError> {
    match value.split_last() {
        Some((0, text)) if !text.contains(&0) => str::from_utf8(text)
            .map(String::from)
            .map_err(|_| ReadError::Value(what)),
        _ => Err(ReadError::Value(what)),
    }
}

#[cfg(test)]
mod tests;

//! Walks a flattened device tree (Devicetree Specification 0.4, chapter 5) that may be anything.
//!
//! The `fdt` crate (0.1.5) panics on a tree that is cut, or names strings that are not there; a tree comes from a
//! boot loader or a predecessor. So it reads our trees in tests only, where it has to agree with this walk.

use super::ReadError;

const MAGIC: u32 = 0xd00d_feed;
const HEADER: usize = 40;
/// The newest version that this reader knows, and the oldest that newer trees must be compatible with.
const VERSION: u32 = 17;
/// Longer trees are refused.
pub(super) const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 8;

/// A property: the path of its node (without the root's empty name), its name and its value.
pub(super) struct Property<'a, 'walk> {
    pub(super) path: &'walk [&'a [u8]],
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The size in bytes that a tree's header announces.
pub(super) fn size(header: &[u8]) -> Result<usize, ReadError> {
    let word = |index: usize| word(header, index * 4).ok_or(ReadError::Tree("it is shorter than its header"));
    if word(0)? != MAGIC {
        return Err(ReadError::Tree("it does not begin with d00dfeed"));
    }
    match word(1)? as usize {
        size @ HEADER..=MAX_BYTES => Ok(size),
        _ => Err(ReadError::Tree("its size is below 40 bytes or above 1 MiB")),
    }
}

/// Calls `found` for each property, in the tree's order.
pub(super) fn walk<'a>(
    tree: &'a [u8],
    mut found: impl FnMut(Property<'a, '_>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    const BROKEN: ReadError = ReadError::Tree("its structure is broken");
    let tree = tree
        .get(..size(tree)?)
        .ok_or(ReadError::Tree("it is shorter than its size"))?;
    let header = |index: usize| word(tree, index * 4).map(|word| word as usize).ok_or(BROKEN);
    if word(tree, 6 * 4).is_none_or(|compatible| compatible > VERSION) {
        return Err(ReadError::Tree("it is of a newer, incompatible version"));
    }
    let block = |start: usize, size: usize| tree.get(start..start.checked_add(size)?);
    let mut rest = block(header(2)?, header(9)?).ok_or(BROKEN)?;
    let strings = block(header(3)?, header(8)?).ok_or(BROKEN)?;

    let mut path: [&[u8]; MAX_DEPTH] = [&[]; MAX_DEPTH];
    let mut depth = 0;
    loop {
        match next_word(&mut rest).ok_or(BROKEN)? {
            // FDT_BEGIN_NODE
            1 => {
                let name = until_nul(rest).ok_or(BROKEN)?;
                rest = rest.get((name.len() + 1).next_multiple_of(4)..).ok_or(BROKEN)?;
                *path
                    .get_mut(depth)
                    .ok_or(ReadError::Tree("its nodes are nested too deeply"))? = name;
                depth += 1;
            }
            // FDT_END_NODE
            2 => depth = depth.checked_sub(1).ok_or(BROKEN)?,
            // FDT_PROP
            3 => {
                let size = next_word(&mut rest).ok_or(BROKEN)? as usize;
                let name = next_word(&mut rest).ok_or(BROKEN)? as usize;
                let name = strings.get(name..).and_then(until_nul).ok_or(BROKEN)?;
                let value = rest.get(..size).ok_or(BROKEN)?;
                rest = rest.get(size.next_multiple_of(4)..).ok_or(BROKEN)?;
                let path = path.get(1..depth).ok_or(BROKEN)?;
                found(Property { path, name, value })?;
            }
            // FDT_NOP
            4 => {}
            // FDT_END
            9 if depth == 0 => return Ok(()),
            _ => return Err(BROKEN),
        }
    }
}

fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
}

fn next_word(rest: &mut &[u8]) -> Option<u32> {
    let (word, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u32::from_be_bytes(*word))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

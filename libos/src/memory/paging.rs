//! The address space: every byte of RAM at its physical address; code executable and never writable; page 0 and the
//! page below every stack not mapped. Intel SDM vol. 3, section 5.5 (4-level paging).

use alloc::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use core::ops::Range;

use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr0, Cr0Flags};

const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;
const ENTRIES: usize = 512;

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read and execute.
    Code,
    /// Read.
    ReadOnly,
    /// Read and write.
    Data,
    /// Read and write a device's registers: not cached.
    Device,
    /// Nothing.
    None,
}

mod bit {
    pub const PRESENT: u64 = 1;
    pub const WRITABLE: u64 = 1 << 1;
    pub const WRITE_THROUGH: u64 = 1 << 3;
    pub const NO_CACHE: u64 = 1 << 4;
    pub const LARGE: u64 = 1 << 7;
    pub const NO_EXECUTE: u64 = 1 << 63;
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Self::Code => bit::PRESENT,
            Self::ReadOnly => bit::PRESENT | bit::NO_EXECUTE,
            Self::Data => bit::PRESENT | bit::WRITABLE | bit::NO_EXECUTE,
            Self::Device => {
                bit::PRESENT | bit::WRITABLE | bit::NO_EXECUTE | bit::NO_CACHE | bit::WRITE_THROUGH
            }
            Self::None => 0,
        }
    }
}

#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

/// An instar's page tables. They are never freed: the next instar's `commit` takes their chunks.
pub struct AddressSpace {
    root: *mut Table,
}

// SAFETY: the tables are changed only through `&mut self`; the processor reads them at any time, which is why each entry
// is written in one go.
unsafe impl Send for AddressSpace {}

impl AddressSpace {
    /// One in which nothing is mapped.
    #[expect(
        clippy::new_without_default,
        reason = "it takes memory that is never freed: not by accident"
    )]
    pub fn new() -> Self {
        Self { root: Table::new() }
    }

    /// Maps `range` at its own address, whole pages of 4 KiB that contain it, by large pages where they fit.
    pub fn map(&mut self, range: Range<u64>, access: Access) {
        let end = range.end.next_multiple_of(PAGE);
        let mut address = range.start & !(PAGE - 1);
        while address < end {
            if address.is_multiple_of(LARGE_PAGE) && end - address >= LARGE_PAGE && access != Access::None {
                let entry = self.entry(address, 2);
                // A table that is here already holds finer rights (guards): keep it, and change what lies below.
                if *entry & bit::PRESENT == 0 || *entry & bit::LARGE != 0 {
                    *entry = address | access.bits() | bit::LARGE;
                    address += LARGE_PAGE;
                    continue;
                }
            }
            *self.entry(address, 1) = if access == Access::None {
                0
            } else {
                address | access.bits()
            };
            address += PAGE;
        }
    }

    #[cfg(test)]
    /// Is the page that holds `address` mapped?
    pub fn is_mapped(&mut self, address: u64) -> bool {
        let large = *self.entry(address, 2);
        large & bit::PRESENT != 0 && (large & bit::LARGE != 0 || *self.entry(address, 1) & bit::PRESENT != 0)
    }

    /// The physical address that CR3 takes.
    pub fn root(&self) -> u64 {
        self.root as u64
    }

    /// The entry for `address` in the table of `level` (1: 4 KiB pages, 2: 2 MiB pages), with the tables above made where
    /// they are missing and large pages split where they are in the way.
    fn entry(&mut self, address: u64, level: u32) -> &mut u64 {
        let mut table = self.root;
        let mut depth = 4;
        loop {
            let index = (address >> (12 + 9 * (depth - 1))) as usize % ENTRIES;
            // SAFETY: tables come only from `Table::new`, are never freed, and are not borrowed elsewhere while `self` is.
            let entry = unsafe { &mut (*table).0[index] };
            if depth == level {
                return entry;
            }
            if *entry & bit::PRESENT == 0 {
                *entry = Table::new() as u64 | bit::PRESENT | bit::WRITABLE;
            } else if *entry & bit::LARGE != 0 {
                *entry = Table::split(*entry) as u64 | bit::PRESENT | bit::WRITABLE;
            }
            table = (*entry & bit::ADDRESS) as *mut Table;
            depth -= 1;
        }
    }
}

/// Makes this core look at the tables again for `range`.
pub fn forget(range: Range<u64>) {
    for page in range.step_by(PAGE as usize) {
        tlb::flush(VirtAddr::new_truncate(page));
    }
}

/// Makes this core use the tables at `root`. Write protection holds for this core from then on.
///
/// # Safety
/// They are an [`AddressSpace`]'s, which maps everything that the running code uses with the rights that it needs.
pub unsafe fn activate(root: u64) {
    // SAFETY: the caller vouches for the tables.
    unsafe {
        Cr0::update(|cr0| cr0.insert(Cr0Flags::WRITE_PROTECT));
        core::arch::asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags));
    }
}

impl Table {
    fn new() -> *mut Self {
        let layout = Layout::new::<Self>();
        // SAFETY: the layout is not of size zero.
        let table = unsafe { alloc_zeroed(layout) };
        if table.is_null() {
            handle_alloc_error(layout);
        }
        table.cast()
    }

    /// A table of 512 pages of 4 KiB that maps what the 2 MiB `entry` mapped.
    fn split(entry: u64) -> *mut Self {
        let table = Self::new();
        let base = entry & bit::ADDRESS & !(LARGE_PAGE - 1);
        let rights = entry & !bit::ADDRESS & !bit::LARGE;
        for index in 0..ENTRIES {
            // SAFETY: just made, not shared.
            unsafe { (*table).0[index] = (base + index as u64 * PAGE) | rights };
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AddressSpace {
        /// The rights of the page that holds `address`, as bits.
        fn rights(&mut self, address: u64) -> u64 {
            let large = *self.entry(address, 2);
            let entry = if large & bit::LARGE != 0 {
                large
            } else {
                *self.entry(address, 1)
            };
            entry & (bit::PRESENT | bit::WRITABLE | bit::NO_EXECUTE | bit::NO_CACHE)
        }
    }

    #[test]
    fn a_hole_in_a_large_page_is_a_hole_and_nothing_else_changes() {
        let mut space = AddressSpace::new();
        space.map(0..8 * LARGE_PAGE, Access::Data);
        space.map(3 * LARGE_PAGE + PAGE..3 * LARGE_PAGE + 2 * PAGE, Access::None);
        space.map(5 * LARGE_PAGE..5 * LARGE_PAGE + 3 * PAGE, Access::Code);
        assert_eq!(space.rights(3 * LARGE_PAGE + PAGE), 0);
        assert_eq!(
            space.rights(3 * LARGE_PAGE),
            bit::PRESENT | bit::WRITABLE | bit::NO_EXECUTE
        );
        assert_eq!(
            space.rights(3 * LARGE_PAGE + 2 * PAGE),
            bit::PRESENT | bit::WRITABLE | bit::NO_EXECUTE
        );
        assert_eq!(space.rights(5 * LARGE_PAGE), bit::PRESENT);
        assert_eq!(
            space.rights(5 * LARGE_PAGE + 3 * PAGE),
            bit::PRESENT | bit::WRITABLE | bit::NO_EXECUTE
        );
        assert!(!space.is_mapped(8 * LARGE_PAGE));
    }

    #[test]
    fn no_access_is_writable_and_executable() {
        for access in [
            Access::Code,
            Access::ReadOnly,
            Access::Data,
            Access::Device,
            Access::None,
        ] {
            let bits = access.bits();
            assert!(
                bits & bit::WRITABLE == 0 || bits & bit::NO_EXECUTE != 0,
                "{access:?}"
            );
        }
    }

    #[test]
    fn mapping_over_a_split_page_keeps_its_guard() {
        let mut space = AddressSpace::new();
        space.map(0..LARGE_PAGE, Access::Data);
        space.map(0..PAGE, Access::None);
        assert_eq!(space.rights(0), 0);
        assert_eq!(space.rights(PAGE), bit::PRESENT | bit::WRITABLE | bit::NO_EXECUTE);
    }
}

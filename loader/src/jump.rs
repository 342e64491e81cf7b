//! The jump: from here on the image runs.

use core::arch::asm;

/// Enters an image. Hermit's entry ABI (hermit-entry 0.10.11, `Entry`): RDI points to the boot information, RSI is
/// the number of the core, and RSP is the *lowest* address of a 32 KiB stack, to which the image adds the size.
///
/// # Safety
/// - `entry` is the entry point of a program that was loaded where it lies now, and `boot_info` and its device tree
///   were written for it.
/// - The stack belongs to the image alone, and so does all memory that the device tree says is its own.
/// - All of this is mapped where it lies physically, writable and executable, by page tables that nobody changes.
/// - No other core and no device uses memory that is not its own.
pub unsafe fn enter(entry: u64, boot_info: u64, stack_low: u64, cpu: u32) -> ! {
    // SAFETY: by the caller's promise the entry point is code that takes these registers and never returns. No
    // interrupt can use the new stack before the image has prepared it: they are off from the first instruction.
    unsafe {
        asm!(
            "cli",
            "cld",
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "jmp {entry}",
            stack = in(reg) stack_low,
            entry = in(reg) entry,
            in("rdi") boot_info,
            in("esi") cpu,
            options(noreturn)
        )
    }
}

//! `memcpy` and its kin: what compiled Rust calls, and what libc would bring along.
//!
//! They are assembly because the compiler turns a loop that copies bytes into a call of `memcpy`. Sixteen bytes at a
//! time with plain vector moves: `rep movsb` is as fast on a processor, and many times slower under an emulator.
//! Everything is loaded before it is overwritten, so one routine serves `memcpy` and `memmove`.
//!
//! Labels avoid numbers of only 0 and 1: LLVM reads `11b` as a binary number. System V ABI for x86-64, 3.2: arguments in RDI, RSI, RDX, result in RAX, the direction flag is clear.

use core::arch::naked_asm;

/// Copies `size` bytes from `source` to `target`, which may overlap, and returns `target`.
///
/// # Safety
/// `size` bytes can be read at `source` and written at `target`.
#[cfg_attr(metal, unsafe(export_name = "memmove"))]
#[unsafe(naked)]
pub unsafe extern "C" fn copy(target: *mut u8, source: *const u8, size: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 40f",
        "mov rcx, rdi",
        "sub rcx, rsi",
        // Unsigned: below means that the target begins inside the source, so the end has to be copied first.
        "cmp rcx, rdx",
        "jb 20f",
        // Forwards. The last 16 bytes are kept and written last, whatever their distance from the others.
        "movups xmm4, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx - 16]",
        "sub rdx, 64",
        "jb 12f",
        "61:",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + 32]",
        "movups xmm3, [rsi + 48]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + 32], xmm2",
        "movups [rdi + 48], xmm3",
        "add rsi, 64",
        "add rdi, 64",
        "sub rdx, 64",
        "jae 61b",
        "12:",
        "add rdx, 48",
        "js 14f",
        "13:",
        "movups xmm0, [rsi]",
        "movups [rdi], xmm0",
        "add rsi, 16",
        "add rdi, 16",
        "sub rdx, 16",
        "jns 13b",
        "14:",
        "movups [r8], xmm4",
        "ret",
        // Backwards, the first 16 bytes kept.
        "20:",
        "movups xmm4, [rsi]",
        "21:",
        "movups xmm0, [rsi + rdx - 16]",
        "movups [rdi + rdx - 16], xmm0",
        "sub rdx, 16",
        "cmp rdx, 16",
        "jae 21b",
        "movups [rax], xmm4",
        "ret",
        // Fewer than 16 bytes: two moves that meet or overlap.
        "40:",
        "cmp edx, 8",
        "jb 41f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "41:",
        "cmp edx, 4",
        "jb 42f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        // One to three bytes: the first, the middle one, the last.
        "42:",
        "test edx, edx",
        "jz 43f",
        "movzx ecx, byte ptr [rsi]",
        "movzx r8d, byte ptr [rsi + rdx - 1]",
        "mov r10d, edx",
        "shr r10d, 1",
        "movzx r9d, byte ptr [rsi + r10]",
        "mov [rdi], cl",
        "mov [rdi + r10], r9b",
        "mov [rdi + rdx - 1], r8b",
        "43:",
        "ret",
    )
}

/// [`copy`] under its other name.
///
/// # Safety
/// As for [`copy`].
#[cfg_attr(metal, unsafe(export_name = "memcpy"))]
#[unsafe(naked)]
pub unsafe extern "C" fn copy_apart(target: *mut u8, source: *const u8, size: usize) -> *mut u8 {
    naked_asm!("jmp {}", sym copy)
}

/// Sets `size` bytes at `target` to the low byte of `value`, and returns `target`.
///
/// # Safety
/// `size` bytes can be written at `target`.
#[cfg_attr(metal, unsafe(export_name = "memset"))]
#[unsafe(naked)]
pub unsafe extern "C" fn fill(target: *mut u8, value: i32, size: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx ecx, sil",
        "mov r8, 0x0101010101010101",
        "imul rcx, r8",
        "cmp rdx, 16",
        "jb 40f",
        "movq xmm0, rcx",
        "punpcklqdq xmm0, xmm0",
        "lea r8, [rdi + rdx - 16]",
        "sub rdx, 64",
        "jb 12f",
        "61:",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm0",
        "movups [rdi + 32], xmm0",
        "movups [rdi + 48], xmm0",
        "add rdi, 64",
        "sub rdx, 64",
        "jae 61b",
        "12:",
        "add rdx, 48",
        "js 14f",
        "13:",
        "movups [rdi], xmm0",
        "add rdi, 16",
        "sub rdx, 16",
        "jns 13b",
        "14:",
        "movups [r8], xmm0",
        "ret",
        "40:",
        "cmp edx, 8",
        "jb 41f",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], rcx",
        "ret",
        "41:",
        "cmp edx, 4",
        "jb 42f",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], ecx",
        "ret",
        "42:",
        "test edx, edx",
        "jz 43f",
        "mov [rdi], cl",
        "mov [rdi + rdx - 1], cl",
        "shr edx, 1",
        "mov [rdi + rdx], cl",
        "43:",
        "ret",
    )
}

/// Compares `size` bytes: below, equal to or above zero as the first byte that differs is smaller, absent or greater
/// in `left`.
///
/// # Safety
/// `size` bytes can be read at `left` and at `right`.
#[cfg_attr(metal, unsafe(export_name = "memcmp"))]
#[unsafe(naked)]
pub unsafe extern "C" fn compare(left: *const u8, right: *const u8, size: usize) -> i32 {
    naked_asm!(
        "cmp rdx, 16",
        "jb 40f",
        "lea r8, [rdi + rdx - 16]",
        "lea r9, [rsi + rdx - 16]",
        "61:",
        "movups xmm0, [rdi]",
        "movups xmm1, [rsi]",
        "pcmpeqb xmm0, xmm1",
        "pmovmskb ecx, xmm0",
        "xor ecx, 0xffff",
        "jnz 30f",
        "add rdi, 16",
        "add rsi, 16",
        "sub rdx, 16",
        "cmp rdx, 16",
        "jae 61b",
        // The last 16 bytes; those among them that were compared before are equal.
        "mov rdi, r8",
        "mov rsi, r9",
        "movups xmm0, [rdi]",
        "movups xmm1, [rsi]",
        "pcmpeqb xmm0, xmm1",
        "pmovmskb ecx, xmm0",
        "xor ecx, 0xffff",
        "jnz 30f",
        "xor eax, eax",
        "ret",
        "30:",
        "bsf ecx, ecx",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx ecx, byte ptr [rsi + rcx]",
        "sub eax, ecx",
        "ret",
        "40:",
        "xor ecx, ecx",
        "xor eax, eax",
        "41:",
        "cmp rcx, rdx",
        "je 42f",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r8d, byte ptr [rsi + rcx]",
        "add rcx, 1",
        "sub eax, r8d",
        "jz 41b",
        "42:",
        "ret",
    )
}

/// [`compare`] for callers to whom only equality matters.
///
/// # Safety
/// As for [`compare`].
#[cfg_attr(metal, unsafe(export_name = "bcmp"))]
#[unsafe(naked)]
pub unsafe extern "C" fn differ(left: *const u8, right: *const u8, size: usize) -> i32 {
    naked_asm!("jmp {}", sym compare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM: usize = 400;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), ROOM)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn copies(bytes in bytes(), from in 0..150_usize, to in 0..150_usize, size in 0..250_usize) {
            let mut expected = bytes.clone();
            expected.copy_within(from..from + size, to);
            for routine in [copy, copy_apart] {
                let mut found = bytes.clone();
                let base = found.as_mut_ptr();
                // SAFETY: both ranges end before 400.
                let result = unsafe { routine(base.add(to), base.add(from), size) };
                prop_assert_eq!(result, base.wrapping_add(to));
                prop_assert_eq!(&found, &expected);
            }
        }

        #[test]
        fn fills(bytes in bytes(), to in 0..150_usize, size in 0..250_usize, value: i32) {
            let mut expected = bytes.clone();
            expected[to..to + size].fill(value as u8);
            let mut found = bytes;
            let target = found[to..].as_mut_ptr();
            // SAFETY: the range ends before 400.
            let result = unsafe { fill(target, value, size) };
            prop_assert_eq!(result, target);
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn compares(bytes in bytes(), from in 0..150_usize, size in 0..250_usize, change in 0..250_usize, value: u8) {
            let left = &bytes[from..from + size];
            let mut right = left.to_vec();
            if let Some(byte) = right.get_mut(change) {
                *byte = value;
            }
            // SAFETY: both are slices of this size.
            let found = unsafe { compare(left.as_ptr(), right.as_ptr(), size) };
            prop_assert_eq!(found.cmp(&0), left.cmp(right.as_slice()));
            // SAFETY: both are slices of this size.
            let found = unsafe { differ(left.as_ptr(), right.as_ptr(), size) };
            prop_assert_eq!(found != 0, left != right);
        }
    }

    #[test]
    fn sizes_around_a_move() {
        let source: Vec<u8> = (0..=255).collect();
        for size in 0..=256 {
            let mut target = vec![0; 256];
            // SAFETY: both have 256 bytes.
            unsafe { copy(target.as_mut_ptr(), source.as_ptr(), size) };
            assert_eq!(target[..size], source[..size]);
            assert!(target[size..].iter().all(|byte| *byte == 0));
        }
    }
}

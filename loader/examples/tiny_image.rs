//! Writes a small signed image, to try the first stage with: `tiny_image FILE`. Prints the key that signed it.
//!
//! The program writes `E`, `T` if it finds a device tree, and then the tree, to COM1; then it writes to port 0xf4
//! (QEMU's isa-debug-exit) and halts.

use loader::testing::{self, Signer, elf_builder::ElfBuilder};

/// Assembled by hand; the comments are the listing.
const CODE: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'E', 0xee, // mov al, 'E'; out dx, al
    0x48, 0x8d, 0xa4, 0x24, 0x00, 0x80, 0x00, 0x00, // lea rsp, [rsp + 0x8000]
    0x50, // push rax
    0x48, 0x8b, 0x5f, 0x18, // mov rbx, [rdi + 0x18]: RawBootInfo.device_tree
    0x81, 0x3b, 0xd0, 0x0d, 0xfe, 0xed, // cmp dword ptr [rbx], d00dfeed (big-endian)
    0x75, 0x12, // jne end
    0xb0, b'T', 0xee, // mov al, 'T'; out dx, al
    0x8b, 0x4b, 0x04, // mov ecx, [rbx + 4]: totalsize
    0x0f, 0xc9, // bswap ecx
    0x8a, 0x03, 0xee, // again: mov al, [rbx]; out dx, al
    0x48, 0xff, 0xc3, // inc rbx
    0xff, 0xc9, // dec ecx
    0x75, 0xf6, // jnz again
    0xb0, 0x10, 0xe6, 0xf4, // end: mov al, 0x10; out 0xf4, al
    0xf4, 0xeb, 0xfd, // hlt; jmp
];

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "image.tar".into());
    let mut elf = ElfBuilder::new();
    elf.code = CODE.to_vec();
    let signer = Signer::new(1);
    std::fs::write(path, testing::image(&signer, "tiny", "1.0.0", 0, &elf.build()))?;
    println!("{}", signer.public_key().to_base64());
    Ok(())
}

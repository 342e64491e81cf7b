//! From 32-bit protected mode, without paging, to Rust in 64-bit mode; and the headers by which we are found.
//!
//! Both protocols enter with flat segments, interrupts off, and a pointer in EBX. Multiboot2 leaves its magic number
//! in EAX; PVH has an entry of its own (its note), which puts the magic number of its structure there.

use core::arch::global_asm;

global_asm!(
    // Multiboot2 Specification 2.0, 3.1: magic, architecture (i386), length, checksum; then tags.
    r#"
    .section .boot.header, "a", @progbits
    .balign 8
multiboot_header:
    .long 0xe85250d6, 0, multiboot_header_end - multiboot_header
    .long -(0xe85250d6 + 0 + (multiboot_header_end - multiboot_header))
    # Tag 3: the entry point, in case e_entry is taken for something else.
    .balign 8
    .short 3, 0
    .long 12, multiboot_start
    # Tag 6: modules at page boundaries, so that the ELF file inside the archive is aligned.
    .balign 8
    .short 6, 0
    .long 8
    # Tag 1: the information that cannot be done without, a memory map (6).
    .balign 8
    .short 1, 0
    .long 12, 6
    .balign 8
    .short 0, 0
    .long 8
multiboot_header_end:

    # Xen's ELF note 18, XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h).
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_start
    "#,
    // Intel SDM 3A, 10.8.5 "Initializing IA-32e mode": PAE, CR3, EFER.LME, paging, far jump.
    r#"
    .section .boot.text, "ax", @progbits
    .code32
pvh_start:
    movl $0x336ec578, %eax
    .globl multiboot_start
multiboot_start:
    cli
    cld
    movl $boot_stack_end, %esp
    movl %eax, %ebp

    # Four page directories: the first 4 GiB in pages of 2 MiB (present, writable, large).
    movl $page_directories, %edi
    movl $0x83, %eax
    movl $2048, %ecx
2:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    decl %ecx
    jnz 2b
    movl $page_directories + 3, %eax
    movl $page_pointers, %edi
    movl $4, %ecx
3:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $4096, %eax
    addl $8, %edi
    decl %ecx
    jnz 3b
    movl $page_pointers + 3, page_root
    movl $0, page_root + 4

    # CR4: PAE, OSFXSR, OSXMMEXCPT. The last two switch SSE on, which precompiled Rust uses.
    movl %cr4, %eax
    orl $0x620, %eax
    movl %eax, %cr4
    movl $page_root, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    # CR0: paging, write protection off, MP on, EM and TS off.
    movl %cr0, %eax
    andl $0xfffefff3, %eax
    orl $0x80000003, %eax
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmpl $8, $long_start

    .code64
long_start:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movq $boot_stack_end, %rsp
    movl %ebp, %edi
    movl %ebx, %esi
    xorl %ebp, %ebp
    call first_stage
    ud2

    .section .rodata.boot, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdt_pointer:
    .short 23
    .long boot_gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
page_root: .skip 4096
page_pointers: .skip 4096
page_directories: .skip 4 * 4096
    .skip 64 * 1024
boot_stack_end:
    "#,
    options(att_syntax)
);

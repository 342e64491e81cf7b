//! What a core does that does not do what it should.
//!
//! | how | what the core does |
//! |---|---|
//! | `nothing` | shows that it runs |
//! | `deaf` | loops for ever with interrupts off: hears no interrupt, only an NMI |
//! | `dead` | hangs inside an NMI handler, interrupts off: hears neither (only a reset could free it) |
//! | `panic` | panics |
//! | `panic-in-stop` | is deaf until a replacement begins to stop the cores, and panics then |
//! | `fault` | executes an undefined instruction |
//! | `overflow` | uses up its stack |
//! | `hang` | loops for ever in a task, with interrupts on |

use core::arch::{asm, naked_asm};
use core::sync::atomic::Ordering;

use libos::cpu::{CoreId, apic, current, stop};
use libos::task::spawn_on;

/// Begins to misbehave; `false` if nobody knows how.
pub fn begin(core: CoreId, how: &str) -> bool {
    let act: fn() = match how {
        "nothing" => || log::info!("core {} is well", current::id()),
        "deaf" => || deaf_until(|| false),
        "dead" => die,
        "panic" => || panic!("as told"),
        "panic-in-stop" => || {
            deaf_until(stop_begins());
            panic!("as told, while the cores are stopped");
        },
        // SAFETY: an undefined instruction has no effect but the exception, which is the point.
        "fault" => || unsafe { asm!("ud2") },
        "overflow" => || {
            core::hint::black_box(deeper(0));
        },
        "hang" => || {
            loop {
                core::hint::spin_loop();
            }
        },
        _ => return false,
    };
    spawn_on(core, async move { act() }).detach();
    true
}

fn deaf_until(over: impl Fn() -> bool) {
    // SAFETY: that nothing is heard is the point.
    unsafe { asm!("cli", options(nomem, nostack)) };
    while !over() {
        core::hint::spin_loop();
    }
}

/// Whether the cores have begun to be stopped since this was called.
fn stop_begins() -> impl Fn() -> bool {
    let started = || stop::pen().map_or(0, |pen| pen.header().stop_start.load(Ordering::SeqCst));
    let before = started();
    move || started() != before
}

fn deeper(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 64]);
    // The compiler is not to know that it never ends.
    if core::hint::black_box(false) {
        return depth;
    }
    deeper(depth + 1) + frame[(depth % 64) as usize]
}

/// Hangs inside an NMI handler. Until an IRET the processor takes no other NMI (Intel SDM vol. 3, section 7.7.1).
///
/// An INIT would not do: a core that waits for STARTUP hears no NMI, but QEMU 7.2 lets an NMI wake it, at the reset vector.
fn die() {
    #[unsafe(naked)]
    extern "C" fn hang() {
        naked_asm!("cli", "2: hlt", "jmp 2b")
    }
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let code: u16;
    // SAFETY: reads a register.
    unsafe { asm!("mov {:x}, cs", out(reg) code, options(nomem, nostack, preserves_flags)) };
    let handler = hang as *const () as u64;
    // One 64-bit interrupt gate, for vector 2 (SDM figure 7-8).
    let gate = [
        handler & 0xffff | u64::from(code) << 16 | 0x8e << 40 | (handler >> 16 & 0xffff) << 48,
        handler >> 32,
    ];
    let table = [[0; 2], [0; 2], gate];
    let pointer = Pointer {
        limit: size_of_val(&table) as u16 - 1,
        base: table.as_ptr() as u64,
    };
    // SAFETY: this core never comes back: `table` stays as it is, on this stack, and no other vector is needed.
    unsafe { asm!("cli", "lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
    apic::send(current::this().apic(), apic::Delivery::Nmi);
    loop {
        core::hint::spin_loop();
    }
}

/// Makes every core take the external NMI at LINT1; firmware lets only the first take it.
pub async fn hear_nmis() {
    /// The local vector table's entry for LINT1 (SDM section 12.5.1), and "NMI, not masked".
    const LINT1: u64 = 0x360;
    const NMI: u32 = 0b100 << 8;
    for core in current::online().iter() {
        spawn_on(core, async {
            if apic::is_x2() {
                // SAFETY: with x2APIC the register is this MSR.
                unsafe {
                    asm!("wrmsr", in("ecx") 0x800 + (LINT1 >> 4) as u32, in("eax") NMI, in("edx") 0, options(nostack))
                };
            } else {
                // SAFETY: the library OS has mapped the APIC's registers; nobody else writes to this one.
                unsafe { ((apic::base() + LINT1) as *mut u32).write_volatile(NMI) };
            }
        })
        .await;
    }
}

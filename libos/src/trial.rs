//! For tests of the way back: a successor fails at one moment of its life, as its version says. Only with the feature `trial`.
//!
//! The version ends in `-KIND.PHASE`, or `-KIND.PHASE.CORE` for another core than the first: `1.2.0-panic.before-network`,
//! `1.2.0-hang.after.2`. One ELF does for all of them, since the version is the manifest's. An image that boots without a
//! predecessor does nothing of the kind.
//!
//! | kind | what the core does |
//! |---|---|
//! | `panic` | panics |
//! | `fault` | writes to an address where nothing is mapped |
//! | `secret` | logs an address, and panics with an error that holds [`MARKER`] |
//! | `gp` | reads from an address that is none (#GP) |
//! | `double` | meets a #GP whose handler is not there |
//! | `overflow` | uses up its stack |
//! | `hang` | loops for ever with interrupts on |
//! | `deaf` | loops for ever with interrupts off |
//! | `dead` | loops for ever within an NMI's handler, which no NMI interrupts |
//! | `shutdown` | meets an exception without an IDT: the processor shuts down (a triple fault) |
//! | `no-card` | (before the network) finds no network card |
//! | `no-network` | (before the network) waits for ever for its network |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::{asm, naked_asm};
use core::hint::{black_box, spin_loop};
use core::ops::Range;

use loader::boot::{OwnedParameters, Region};
use loader::manifest::Manifest;

use crate::cpu::{CoreId, apic, current};
use crate::device::serial;
use crate::memory::{CHUNK, stack};
use crate::task::{sleep, spawn_on, yield_now};

/// In registers when the kinds `fault` and `gp` fail, and as decimal digits in the error of the kind `secret`: for tests that
/// look for it where it must not come.
pub const MARKER: u64 = 0x5ec2_e7f0_0d15_900d;

/// A moment of a successor's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It knows its parameters, and nothing is its own: page tables, handlers and stack are others'.
    BeforeHeap,
    /// Its first task runs, on the first core.
    BeforeNetwork,
    /// The network is up; no other core has been called. On another core: it has been called, and is not online.
    BeforeCores,
    /// It has answered, or waited for somebody to ask.
    After,
    /// It has been found well.
    BeforeCommit,
}

impl Phase {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "before-heap" => Self::BeforeHeap,
            "before-network" => Self::BeforeNetwork,
            "before-cores" => Self::BeforeCores,
            "after" => Self::After,
            "before-commit" => Self::BeforeCommit,
            _ => return None,
        })
    }
}

struct Plan {
    version: String,
    kind: Kind,
    phase: Phase,
    core: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Panic,
    Fault,
    Secret,
    GeneralProtection,
    DoubleFault,
    Overflow,
    Hang,
    Deaf,
    Dead,
    Shutdown,
    NoCard,
    NoNetwork,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "panic" => Self::Panic,
            "fault" => Self::Fault,
            "secret" => Self::Secret,
            "gp" => Self::GeneralProtection,
            "double" => Self::DoubleFault,
            "overflow" => Self::Overflow,
            "hang" => Self::Hang,
            "deaf" => Self::Deaf,
            "dead" => Self::Dead,
            "shutdown" => Self::Shutdown,
            "no-card" => Self::NoCard,
            "no-network" => Self::NoNetwork,
            _ => return None,
        })
    }
}

static RAM: spin::Once<Vec<Range<u64>>> = spin::Once::new();
static PLAN: spin::Once<Plan> = spin::Once::new();

fn read(version: &str) -> Option<Plan> {
    // A release may have hyphens of its own.
    let (_, rest) = version.split_once('-')?;
    let mut words = rest.split('.');
    let plan = Plan {
        version: version.into(),
        kind: Kind::named(words.next()?)?,
        phase: Phase::named(words.next()?)?,
        core: match words.next() {
            Some(number) => number.parse().ok()?,
            None => 0,
        },
    };
    words.next().is_none().then_some(plan)
}

/// Reads what this successor is to do, and what memory there is.
pub(crate) fn plan(parameters: &OwnedParameters) {
    let region = |region: &Region| region.start..region.end;
    RAM.call_once(|| parameters.memory.iter().map(region).collect());
    if parameters.handover.is_none() {
        return;
    }
    let manifest = Manifest::parse(parameters.manifest.as_bytes());
    if let Some(plan) = manifest.ok().and_then(|manifest| read(&manifest.version)) {
        PLAN.call_once(|| plan);
    }
}

fn at(phase: Phase) -> Option<&'static Plan> {
    PLAN.get().filter(|plan| plan.phase == phase)
}

/// Fails here if that is the plan for the calling core.
pub(crate) fn point(phase: Phase) {
    if let Some(plan) = at(phase).filter(|plan| plan.core == current::id().index()) {
        plan.act();
    }
}

/// Fails here if that is the plan, on whatever core it says. What this core does next on that one comes after the failure.
pub(crate) fn point_on_any_core(phase: Phase) {
    let Some(plan) = at(phase) else { return };
    if plan.core == current::id().index() {
        plan.act();
    } else if let Some(core) = CoreId::new(plan.core) {
        spawn_on(core, async { plan.act() }).detach();
    }
}

/// As [`point`], and waits for ever if that is the plan.
pub(crate) async fn before_network() {
    point(Phase::BeforeNetwork);
    if at(Phase::BeforeNetwork).is_some_and(|plan| plan.kind == Kind::NoNetwork) {
        loop {
            sleep(core::time::Duration::from_secs(1)).await;
        }
    }
}

/// Whether there is to be no network card.
pub(crate) fn has_no_card() -> bool {
    at(Phase::BeforeNetwork).is_some_and(|plan| plan.kind == Kind::NoCard)
}

/// How often a marker of 32 bytes lies in the machine's memory, at whatever address. It is given with every bit turned over, so
/// that whoever asks does not find the question.
pub async fn occurrences(turned: [u8; 32]) -> u64 {
    let mut count = 0;
    for region in RAM.get().into_iter().flatten() {
        // Nothing is mapped at the null pointer.
        let mut start = region.start.max(4096);
        while start < region.end {
            let end = region.end.min((start / CHUNK + 1) * CHUNK);
            // One that lies across the end counts here.
            count += occurrences_in(start..end, region.end, &turned);
            start = end;
            yield_now().await;
        }
    }
    count
}

fn occurrences_in(range: Range<u64>, ram_end: u64, turned: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&turned[..8]);
    let first = u64::from_le_bytes(first);
    let mut count = 0;
    for page in range.step_by(4096) {
        let last = (page + 4096).min(ram_end.saturating_sub(31));
        if stack::is_guard(page) {
            continue;
        }
        // What lies across the end of the page must be readable too.
        let last = if stack::is_guard(page + 4096) {
            last.min(page + 4096 - 31)
        } else {
            last
        };
        for address in page..last {
            // SAFETY: RAM, which this image's page tables map but for page 0 and the guards of stacks.
            let word = unsafe { (address as *const u64).read_unaligned() };
            if !word == first {
                // Byte by byte: a register that held more of it would be found too, wherever an interrupt saves it.
                let same = (address..).zip(turned).all(|(at, turned)| {
                    // SAFETY: as above.
                    !unsafe { (at as *const u8).read_volatile() } == *turned
                });
                count += u64::from(same);
            }
        }
    }
    count
}

impl Plan {
    fn act(&self) {
        serial::write_anyway(format_args!("trial: {} begins", self.version));
        match self.kind {
            Kind::Panic => panic!("as the version says"),
            // SAFETY: nothing is mapped there, on the pen's page tables either; the fault is the point.
            Kind::Fault => unsafe {
                asm!("mov [{}], al", in(reg) 0x7f00_0000_0000_u64, in("r14") MARKER, options(nostack));
            },
            Kind::Secret => {
                let secret = format!("key {}", black_box(MARKER));
                log::warn!("a key at {:p}", secret.as_ptr());
                let failed: Result<(), String> = black_box(Err(secret));
                failed.expect("the key store opens");
            }
            Kind::GeneralProtection => general_protection(),
            Kind::DoubleFault => double_fault(),
            Kind::Overflow => {
                black_box(deeper(0));
            }
            // SAFETY: from here on this core does nothing but take interrupts.
            Kind::Hang => unsafe { asm!("sti", "2: pause", "jmp 2b") },
            // SAFETY: that nothing is heard is the point.
            Kind::Deaf => unsafe { asm!("cli", "2: pause", "jmp 2b") },
            Kind::Dead => die(),
            Kind::Shutdown => {
                load_idt(0, 0);
                general_protection();
            }
            Kind::NoCard | Kind::NoNetwork => {}
        }
    }
}

fn general_protection() {
    // SAFETY: reads from an address that is not canonical; the fault is the point.
    unsafe {
        asm!("mov {0}, [{0}]", inout(reg) 0x8000_0000_0000_0000_u64 => _, in("r14") MARKER, options(nostack))
    };
}

fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    // The compiler is not to know that it never ends.
    if black_box(false) {
        return depth;
    }
    deeper(depth + 1) + frame[(depth % 64) as usize]
}

/// What LIDT reads and SIDT writes.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

fn load_idt(base: u64, limit: u16) {
    let pointer = Pointer { limit, base };
    // SAFETY: the core is about to fail.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
}

/// A copy of the IDT that is in use, whose gate of #GP is not present: that is a second fault while the first is delivered
/// (Intel SDM vol. 3, table 7-5). A copy, since the IDT may be the pen's.
fn double_fault() {
    const GATES: usize = 256;
    const PRESENT: u64 = 1 << 47;
    let mut pointer = Pointer { limit: 0, base: 0 };
    // SAFETY: writes to `pointer`.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut pointer, options(nostack)) };
    let mut copy = [[0_u64; 2]; GATES];
    // SAFETY: the IDT has that many gates, and is not being changed.
    unsafe { core::ptr::copy_nonoverlapping(pointer.base as *const [u64; 2], copy.as_mut_ptr(), GATES) };
    copy[13][0] &= !PRESENT;
    load_idt(black_box(&copy).as_ptr() as u64, pointer.limit);
    general_protection();
    // The copy is on this stack.
    black_box(&copy);
}

/// Hangs inside an NMI handler. Until an IRET the processor takes no other NMI (SDM section 7.7.1).
fn die() {
    #[unsafe(naked)]
    extern "C" fn hang() {
        naked_asm!("cli", "2: hlt", "jmp 2b")
    }
    let code: u16;
    // SAFETY: reads a register.
    unsafe { asm!("cli", "mov {:x}, cs", out(reg) code, options(nomem, nostack)) };
    let handler = hang as *const () as u64;
    // One 64-bit interrupt gate, for vector 2 (SDM figure 7-8).
    let gate = [
        handler & 0xffff | u64::from(code) << 16 | 0x8e << 40 | (handler >> 16 & 0xffff) << 48,
        handler >> 32,
    ];
    let table = [[0; 2], [0; 2], gate];
    load_idt(black_box(&table).as_ptr() as u64, size_of_val(&table) as u16 - 1);
    apic::send(current::this().apic(), apic::Delivery::Nmi);
    loop {
        spin_loop();
        black_box(&table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let found = |version| read(version).map(|plan| (plan.phase, plan.core));
        assert_eq!(found("1.2.0-panic.before-heap"), Some((Phase::BeforeHeap, 0)));
        assert_eq!(found("1.2.0-hang.after.2"), Some((Phase::After, 2)));
        for none in [
            "1.2.0",
            "1.2.0-panic",
            "1.2.0-panic.soon",
            "1.2.0-panics.after",
            "1.2.0-panic.after.x",
            "1.2.0-panic.after.1.1",
        ] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}

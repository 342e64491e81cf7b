//! From the loader's jump to the application's first task.

#[cfg(metal)]
mod entry;
mod identity;
mod logger;
pub mod panic;

pub use identity::{Identity, identity};

use alloc::vec::Vec;
use core::ops::Range;

use hermit_entry::boot_info::{BootInfo, RawBootInfo};
use loader::boot::{OwnedParameters, Region};
use log::warn;

use crate::command_line::CommandLine;
use crate::confidential::private;
use crate::cpu::{
    ApicId, CoreId, apic, current, pen::Moment, pen::Pen, registers, smp, stop, time, watchdog,
};
use crate::device::{acpi, pic, serial};
use crate::memory::chunks::{ChunkMap, Owner};
use crate::memory::{self, regions};
use crate::replace::handover::{self, ChunkRange, Essentials, MAX_RANGES};
use crate::replace::probation;
use crate::state;
use crate::task::executor;

/// Called by the entry code on the loader's stack and page tables.
#[cfg_attr(not(metal), expect(dead_code, reason = "only the entry code calls it"))]
extern "C" fn boot(raw: &'static RawBootInfo, _core: u32) -> ! {
    let entered = registers::tsc();
    serial::init();
    serial::stage(b'E');
    // Before anything can fail: whoever gives the machine back uses it.
    let apic_base = apic::detect();
    let mut parameters = parameters(BootInfo::from(*raw));
    #[cfg(feature = "trial")]
    crate::trial::plan(&parameters);
    let options = CommandLine::parse(&parameters.command_line);
    logger::init(options.log);
    let predecessor = predecessor(&parameters);

    let private = predecessor.as_ref().map_or(&[][..], |it| it.private.as_slice());
    let preserved = predecessor.as_ref().map_or(&[][..], |it| it.preserved.as_slice());
    let handed = private.iter().map(|it| it.start..it.end);
    let handed = handed.chain(preserved.iter().map(|it| it.start..it.end));
    // The predecessor has left it out of the memory map; with its record it is this machine's memory again.
    parameters.memory = regions::add(&parameters.memory, handed);

    pic::silence();
    let apics = match &predecessor {
        Some(handover) => handover.cores.iter().map(|core| ApicId(core.apic_id)).collect(),
        None => cores(&parameters),
    };
    time::set(match &predecessor {
        Some(handover) => handover.clock(),
        None => {
            apic::enable();
            time::calibrate(entered)
        }
    });
    let entered = time::at(entered);
    if let Some(pen) = predecessor.as_ref().and_then(|_| Pen::with_way_back()) {
        pen.mark(Moment::Entered, entered);
    }

    let ram: Vec<Range<u64>> = parameters
        .memory
        .iter()
        .map(|region| region.start..region.end)
        .collect();
    #[cfg(feature = "trial")]
    crate::trial::point(crate::trial::Phase::BeforeHeap);
    // SAFETY: the loader's page tables map everything; the map is made from what the loader and the predecessor say.
    unsafe {
        give_slack(&parameters.own, raw);
        memory::init(chunk_map(&ram, &parameters.own, predecessor.as_ref()), &ram);
    }
    if let Some(address) = apic_base {
        memory::map_device(address..address + 4096);
    }
    // Before this image's handlers are in charge: they count in the pen.
    // SAFETY: the pen's pages and the trampoline's lie in chunk 0, which no instar uses. A predecessor's word about its pen
    // is believed only if the pen is where it always is and says that it is one.
    let pen = unsafe {
        match &predecessor {
            Some(handover) => Pen::inherit(handover.pen.base, apics.len())
                .unwrap_or_else(|error| panic!("{error}: the predecessor's cores cannot be reached")),
            None => {
                check_low_memory(&ram, apics.len());
                let pen = Pen::create(&apics);
                let route = parameters
                    .rsdp
                    .and_then(|rsdp| acpi::pit_route(&acpi::Physical, rsdp));
                watchdog::remember(pen, route);
                pen
            }
        }
    };
    stop::set_pen(pen);
    // SAFETY: interrupts are off, and this is the core that booted.
    unsafe { crate::cpu::init_boot_core(&apics) };
    memory::activate();
    if let Some(trial) = predecessor.as_ref().and_then(|handover| handover.trial.as_ref()) {
        probation::begin(trial, options.flush);
    }
    if predecessor.is_none() {
        // SAFETY: the trampoline's page lies in chunk 0 too, and `check_low_memory` found RAM there; no other core has run.
        unsafe { smp::cold_start(pen, &apics) };
    }
    private::open(options.flush, private);
    state::open(predecessor.as_ref().map_or(&[], |it| &it.state), preserved);
    identity::set(&parameters, &options, predecessor.as_ref());
    if probation::is_on_trial() {
        pen.name_instance(identity().instance_id);
    }
    let start = Start {
        parameters,
        options,
        predecessor,
        entered,
    };
    executor::spawn_on(CoreId::BOOT, crate::serve::run(start)).detach();
    on_own_stack()
}

/// What the boot has found out, for the first task.
pub(crate) struct Start {
    pub parameters: OwnedParameters,
    pub options: CommandLine,
    pub predecessor: Option<Essentials>,
    /// When the first instruction ran.
    pub entered: time::Instant,
}

fn parameters(info: BootInfo) -> OwnedParameters {
    let Some(tree) = info.hardware_info.device_tree else {
        panic!("the loader gave no device tree: use Instar's first stage")
    };
    let address = tree.get() as *const u8;
    // SAFETY: the loader says that a device tree is there, whose first 40 bytes say how long it is.
    let read = unsafe {
        let head = core::slice::from_raw_parts(address, 40);
        loader::boot::tree_bytes(head)
            .and_then(|bytes| loader::boot::read(core::slice::from_raw_parts(address, bytes)))
    };
    read.unwrap_or_else(|error| {
        panic!("{error}: use Instar's first stage, or one of Hermit's loaders with the same properties")
    })
}

/// What the predecessor left, if there is one.
fn predecessor(parameters: &OwnedParameters) -> Option<Essentials> {
    match handover::essentials(handover_record(parameters)?) {
        Ok(essentials) => Some(essentials),
        Err(error) => panic!("the predecessor's handover record cannot be read: {error}"),
    }
}

/// The predecessor's record, in the memory that the loader gave this image for good.
pub(crate) fn handover_record(parameters: &OwnedParameters) -> Option<&'static [u8]> {
    let region = parameters.handover?;
    // SAFETY: the predecessor put its record there and said so; nothing writes to it.
    Some(unsafe {
        core::slice::from_raw_parts(region.start as *const u8, (region.end - region.start) as usize)
    })
}

/// All cores, this one first.
fn cores(parameters: &OwnedParameters) -> Vec<ApicId> {
    apic::enable();
    let me = apic::id();
    let mut apics = Vec::from([me]);
    let found = parameters.rsdp.map_or(Err(acpi::AcpiError::NoMadt), |rsdp| {
        acpi::cores(&acpi::Physical, rsdp)
    });
    match found {
        Ok(cores) => apics.extend(cores.into_iter().filter(|core| *core != me)),
        Err(error) => warn!("{error}: only the core that booted is used"),
    }
    apics.truncate(crate::cpu::MAX_CORES);
    apics
}

/// The pen and the page that cores start on have fixed places: is there RAM?
fn check_low_memory(ram: &[Range<u64>], cores: usize) {
    for needed in [
        smp::TRAMPOLINE..smp::TRAMPOLINE + 4096,
        Pen::ADDRESS..Pen::ADDRESS + Pen::bytes(cores),
    ] {
        if !ram
            .iter()
            .any(|region| region.start <= needed.start && needed.end <= region.end)
        {
            panic!(
                "the firmware keeps memory at {needed:#x?} for itself, where cores have to wait during a replacement"
            );
        }
    }
}

fn chunk_map(ram: &[Range<u64>], own: &Region, predecessor: Option<&Essentials>) -> ChunkMap {
    // The pen maps 512 GiB, or 4 GiB without 1 GiB pages. An instar jumps on the pen's tables, so that what lies above
    // cannot be used.
    let gigabyte_pages = raw_cpuid::CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|features| features.has_1gib_pages());
    let limit = if gigabyte_pages { 512 << 30 } else { 4 << 30 };
    let usable: Vec<(u64, u64)> = ram
        .iter()
        .map(|region| (region.start, region.end.min(limit).saturating_sub(region.start)))
        .collect();
    let mut map = ChunkMap::new(&usable);
    let mut mark = |range: Range<u64>, owner| {
        if let Err(error) = map.mark(&range, owner) {
            panic!("the memory map does not agree with the loader: {error}");
        }
    };
    mark(own.start..own.end, Owner::Own);
    for range in predecessor.map_or_else(Vec::new, predecessors_memory) {
        mark(range.start..range.end, Owner::Predecessor);
    }
    for range in predecessor.iter().flat_map(|handover| &handover.private) {
        mark(range.start..range.end, Owner::Private);
    }
    for range in predecessor.iter().flat_map(|handover| &handover.preserved) {
        mark(range.start..range.end, Owner::Preserved);
    }
    map
}

/// What the predecessor has: the list that it wrote last, where there is one.
fn predecessors_memory(handover: &Essentials) -> Vec<ChunkRange> {
    let Some(trial) = &handover.trial else {
        return handover.predecessor_chunks.clone();
    };
    let word = |index: u64| {
        // SAFETY: the predecessor wrote the list into this image's own memory, and says that it is there.
        unsafe { ((trial.chunks_at + 8 * index) as *const u64).read() }
    };
    let ranges = (0..word(0).min(MAX_RANGES as u64)).map(|index| ChunkRange {
        start: word(1 + 2 * index),
        end: word(2 + 2 * index),
    });
    ranges.collect()
}

/// Gives the heap what the image's own chunks have left: before the image, and behind the boot parameters.
///
/// # Safety
/// The loader laid the image out as [`loader::load::Layout`] says.
unsafe fn give_slack(own: &Region, raw: &'static RawBootInfo) {
    let image = memory::image();
    let used_end = handover::PARAMETER_BYTES + (raw as *const RawBootInfo as u64);
    // SAFETY: before the image nothing lies; from the boot information on, the parameters take that much at most.
    unsafe {
        memory::heap::give(own.start..image.start);
        memory::heap::give(used_end.next_multiple_of(4096)..own.end.max(used_end));
    }
}

/// Leaves the loader's stack, which has no guard, and runs tasks for ever.
fn on_own_stack() -> ! {
    let top = current::this().stack_top();
    // SAFETY: the stack is this core's own and unused; nothing on the old one is needed any more.
    unsafe {
        core::arch::asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {run}",
            "ud2",
            top = in(reg) top,
            run = sym run_tasks,
            options(noreturn),
        )
    }
}

extern "C" fn run_tasks() -> ! {
    executor::run()
}

/// Makes an `async fn` the application of this image. The crate begins with `#![no_main]` and
/// `#![cfg_attr(metal, no_std)]`.
///
/// ```ignore
/// libos::main!(main);
///
/// async fn main() {
///     // …
/// }
/// ```
#[macro_export]
macro_rules! main {
    ($main:path) => {
        #[cfg(metal)]
        #[unsafe(no_mangle)]
        extern "Rust" fn instar_application() -> $crate::start::Application {
            $crate::start::Application::new($main())
        }

        // On the host there is nothing to run: say what to do instead.
        #[cfg(not(metal))]
        const _: () = {
            #[unsafe(export_name = "main")]
            extern "C" fn on_the_host() -> i32 {
                let _ = $main;
                ::std::eprintln!(
                    "this is an image for a bare machine: cargo xtask build-app {}",
                    env!("CARGO_PKG_NAME")
                );
                2
            }
        };
    };
}

/// An application's `main`, not yet run.
pub struct Application(core::pin::Pin<alloc::boxed::Box<dyn Future<Output = ()> + Send>>);

impl Application {
    /// What the `main!` macro makes of an `async fn`.
    pub fn new(main: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(alloc::boxed::Box::pin(main))
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) {
        self.0.await;
    }
}

/// The application that this image was linked with.
pub(crate) fn application() -> Application {
    #[cfg(metal)]
    {
        unsafe extern "Rust" {
            fn instar_application() -> Application;
        }
        // SAFETY: the `main!` macro defines it with this signature; without it the image does not link.
        unsafe { instar_application() }
    }
    #[cfg(not(metal))]
    Application::new(async {})
}

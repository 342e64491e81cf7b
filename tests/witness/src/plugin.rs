//! The part that QEMU calls. Signatures: the plugin API's documentation, version 1 (QEMU 4.2 to 8.x).

use crate::{
    arguments::Arguments,
    event::{Kind, Site},
};
use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fs::File,
    io::Write,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

/// The API version that this plugin was written against; QEMU refuses to load a plugin without it.
#[unsafe(export_name = "qemu_plugin_version")]
pub static VERSION: c_int = 1;

/// A block of translated code, QEMU's.
#[repr(C)]
pub struct Block {
    _opaque: [u8; 0],
}

/// One instruction of a block, QEMU's.
#[repr(C)]
struct Instruction {
    _opaque: [u8; 0],
}

/// `qemu_info_t`.
#[repr(C)]
pub struct Info {
    target_name: *const c_char,
    version_min: c_int,
    version_current: c_int,
    system_emulation: bool,
    smp_vcpus: c_int,
    max_vcpus: c_int,
}

/// `QEMU_PLUGIN_CB_NO_REGS`: the callback neither reads nor writes registers.
const NO_REGISTERS: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(plugin: u64, callback: extern "C" fn(u64, *mut Block));
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const u8;
    fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
}

/// The log and the arguments: one for the whole machine.
struct Witness {
    arguments: Arguments,
    log: Mutex<Log>,
}

/// Numbering and writing happen under one lock, so that the file's order is the events' order.
struct Log {
    file: File,
    next: u64,
}

static WITNESS: OnceLock<Witness> = OnceLock::new();

/// Called once by QEMU, before the machine starts.
///
/// # Safety
/// `info` points to QEMU's description of itself and `argv` to `argc` C strings, as the plugin API says.
#[unsafe(export_name = "qemu_plugin_install")]
pub unsafe extern "C" fn install(
    plugin: u64,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let words = (0..usize::try_from(argc).unwrap_or(0)).map(|index| {
        // SAFETY: `index` is below `argc`, and each of `argc` pointers leads to a C string (this function's contract)
        // that lives until this function returns; its text is copied.
        unsafe { CStr::from_ptr(*argv.add(index)) }
            .to_string_lossy()
            .into_owned()
    });
    let words: Vec<String> = words.collect();
    // SAFETY: QEMU passes a valid `qemu_info_t` (this function's contract), whose layout has been the same in all of
    // version 1 of the API.
    let vcpus = unsafe { (*info).smp_vcpus };
    let opened = open(&words, vcpus);
    if let Err(why) = opened.and_then(|witness| WITNESS.set(witness).map_err(|_| "loaded twice".into())) {
        eprintln!("witness: {why}");
        return 1;
    }
    // SAFETY: `plugin` is the id that QEMU gave us, and the callback is a function of the documented type.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated) };
    0
}

fn open(words: &[String], vcpus: c_int) -> Result<Witness, String> {
    let arguments = Arguments::parse(words.iter().map(String::as_str))?;
    let mut file =
        File::create(&arguments.out).map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    writeln!(file, "# witness vcpus={vcpus}")
        .map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    Ok(Witness {
        arguments,
        log: Mutex::new(Log { file, next: 0 }),
    })
}

/// Called whenever QEMU has translated a block: asks for a callback at each event in it.
extern "C" fn translated(_plugin: u64, block: *mut Block) {
    // SAFETY: `block` is valid during this callback.
    let count = unsafe { qemu_plugin_tb_n_insns(block) };
    for index in 0..count {
        // SAFETY: `index` is below the number of instructions, and `block` is valid during this callback.
        let instruction = unsafe { qemu_plugin_tb_get_insn(block, index) };
        // SAFETY: QEMU keeps the instruction's bytes, as many as it says, until this callback returns.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                qemu_plugin_insn_data(instruction),
                qemu_plugin_insn_size(instruction),
            )
        };
        let Some(kind) = Kind::of(bytes) else { continue };
        // SAFETY: `instruction` is valid during this callback.
        let address = unsafe { qemu_plugin_insn_vaddr(instruction) };
        // Leaked: QEMU does not say when the translated code is gone. It is a few bytes per translation of an event.
        let site: &'static Site = Box::leak(Box::new(Site { kind, address }));
        // SAFETY: `instruction` is valid during this callback; the data lives for ever, and `executed` only reads it.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_cb(
                instruction,
                executed,
                NO_REGISTERS,
                std::ptr::from_ref(site).cast_mut().cast(),
            );
        }
    }
}

/// Called each time a virtual CPU is about to execute an event; from several threads at once.
extern "C" fn executed(vcpu: c_uint, data: *mut c_void) {
    // SAFETY: `data` is the `Site` that `translated` leaked, never written to.
    let site = unsafe { &*data.cast::<Site>().cast_const() };
    let Some(witness) = WITNESS.get() else { return };
    if site.kind.is_flush()
        && let Some(delay) = witness.arguments.delay(vcpu)
    {
        thread::sleep(delay);
    }
    let mut log = witness.log.lock().unwrap_or_else(PoisonError::into_inner);
    let line = site.line(log.next, vcpu);
    log.next += 1;
    // One write to an unbuffered file: nothing is lost when the machine is killed. Without a log there is no
    // witness, and the machine must not look as if there were.
    if let Err(error) = log.file.write_all(line.as_bytes()) {
        eprintln!("witness: {}: {error}", witness.arguments.out.display());
        std::process::abort();
    }
}

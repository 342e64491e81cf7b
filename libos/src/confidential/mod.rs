//! What the platform encrypts, what a flush is, which pages are private.

pub mod ledger;
pub mod module;
pub mod platform;
pub mod policy;
pub mod private;
pub mod reset;

use log::{Level, info, log, warn};

use crate::cpu::{ThisCore, vmx};
use module::{Left, Module};
use platform::Platform;

/// What this machine is: a host or a guest, which keys it has, and with what its caches are written back.
///
/// The processor is asked when somebody first wants to know, and never again. Not before the first task runs: reading a
/// register that does not exist needs an interrupt table.
///
/// ```no_run
/// let platform = libos::confidential::platform();
/// if let Some(tdx) = platform.host().and_then(|host| host.tdx) {
///     log::info!("{} TDX KeyIDs", tdx.tdx_keyids);
/// }
/// ```
pub fn platform() -> &'static Platform {
    static PLATFORM: spin::Once<Platform> = spin::Once::new();
    PLATFORM.call_once(|| Platform::detect(&ThisCore))
}

static MODULE: spin::Once<Module> = spin::Once::new();

/// What is known of the TDX module. Asked once, by the core that calls, which for that enters and leaves VMX operation; and
/// not at all where the BIOS did not enable TDX.
pub fn tdx_module() -> &'static Module {
    MODULE.call_once(|| match module::not_to_be_asked(platform()) {
        Some(why) => Module::absent(&why),
        None => match vmx::Operation::enter() {
            Ok(mut operation) => module::query(&mut operation),
            Err(error) => Module::absent(&error),
        },
    })
}

/// Tells the log what this machine is.
pub(crate) fn announce() {
    info!("platform: {}", platform());
    if module::not_to_be_asked(platform()).is_none() {
        info!("TDX module: {}; VMX is off on {}", tdx_module(), Off);
    }
}

/// Leaves the TDX module, so that the next image finds none of its memory in use. Called by one core while this instar still
/// serves, before private pages are reset and caches written back; takes as long as the module needs. If it fails the module stays as it is, and
/// whoever replaces this instar decides what that means for the memory that was given away.
pub(crate) fn leave_module() -> Left {
    if module::not_to_be_asked(platform()).is_some() {
        return Left::NoModule;
    }
    let left = if !tdx_module().present {
        Left::NoModule
    } else {
        match vmx::Operation::enter() {
            Ok(mut operation) => module::disable(&mut operation),
            Err(error) => {
                warn!("the TDX module cannot be called: {error}");
                Left::Unreachable
            }
        }
    };
    let level = match left {
        // Nobody asked, and a line takes milliseconds.
        Left::NoModule => Level::Debug,
        left if left.may_hold_memory() => Level::Warn,
        _ => Level::Info,
    };
    log!(level, "{left}; VMX is off on {Off}");
    left
}

/// On how many cores VMX is off, as these themselves have said.
struct Off;

impl core::fmt::Display for Off {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match vmx::cores_on() {
            on if on.is_empty() => f.write_str("all cores"),
            on => write!(f, "all cores but {:#b}", on.bits()),
        }
    }
}

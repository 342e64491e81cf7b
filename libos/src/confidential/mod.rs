//! What the platform encrypts, what a flush is, which pages are private.

pub mod platform;
pub mod policy;

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
    PLATFORM.call_once(|| Platform::detect(&crate::cpu::ThisCore))
}

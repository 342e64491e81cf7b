//! The network: smoltcp, asynchronous sockets, HTTP.
//!
//! | module | what |
//! |---|---|
//! | `configuration` | the address, where it comes from, what a successor gets |
//! | `stack` | one interface: address, DHCP, sockets; no device, no clock, no waiting |
//! | `port` | what smoltcp sees as its device: counts, watches for the first answer, learns neighbours |
//! | `across` | what becomes of connections when this instar is replaced |
//! | `backlog` | listeners, half-open and closing connections, and every bound on them |
//! | `shared` | the stack behind a lock, and the [`run`] task that drives it |
//! | `tcp`, `udp`, `dns` | sockets and names for tasks on any core |
//! | [`http`] | a small HTTP/1.1 server |
//!
//! Nothing in here touches hardware: a NIC is a [`Nic`], the clock is a [`Timer`], and two stacks joined by memory are
//! the tests. The stack's lock is a spin lock: it is held for one bounded batch of frames, never across an `await`, and
//! must never be taken by an interrupt handler (wakers may be woken by one).

mod across;
mod backlog;
mod configuration;
mod dns;
pub mod http;
mod port;
mod shared;
mod stack;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use crate::task::yield_now;
pub use across::{Across, Kept, MAX_KEPT};
pub use backlog::ListenOptions;
pub use configuration::{Addressing, Configuration, ConfigurationError, Origin};
pub use dns::{ResolveError, resolve, resolve_on};
pub use port::{Counters, Neighbour};
pub use shared::{Nic, Notify, Shared, Timer, default_network, install, run, within};
pub use stack::{Limits, Stack, Stats, TCP_STATES};
pub use tcp::{ConnectError, TcpError, TcpListener, TcpOptions, TcpStream};
pub use udp::{UdpError, UdpOptions, UdpSocket};

pub use smoltcp::phy;
pub use smoltcp::time::{Duration, Instant};

/// Why a socket could not be bound to its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// No network was installed: the machine has no NIC, or the socket was made before the network was up.
    #[error("there is no network")]
    NoNetwork,
    /// Another socket already has this port.
    #[error("port {0} is in use")]
    InUse(u16),
    /// Port 0 cannot be listened on.
    #[error("port 0 cannot be bound")]
    PortZero,
}

//! Names to addresses.

use core::future::poll_fn;
use core::net::Ipv4Addr;
use core::task::Poll;

use smoltcp::socket::dns;
use smoltcp::wire::{DnsQueryType, IpAddress};

use super::shared::{Shared, default_network};

/// Questions under way at a time.
const MAX_QUERIES: usize = 8;

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No network was installed.
    #[error("there is no network")]
    NoNetwork,
    /// Neither the command line nor DHCP named a server.
    #[error("there is no name server")]
    NoServer,
    /// Empty, a part of it longer than 63 bytes, or longer than 255 bytes.
    #[error("that is not a name")]
    InvalidName,
    /// Eight questions are under way.
    #[error("too many questions at a time")]
    Busy,
    /// The name is unknown, or no server has answered for 10 seconds.
    #[error("no address found")]
    NotFound,
}

/// Asks the installed network's name servers. An IPv4 address in figures is its own answer.
pub async fn resolve(name: &str) -> Result<Ipv4Addr, ResolveError> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    resolve_on(default_network().ok_or(ResolveError::NoNetwork)?, name).await
}

/// A question under way; dropped, it is forgotten.
struct Query {
    shared: &'static Shared,
    /// `None` once it was answered: smoltcp has given its place away.
    handle: Option<dns::QueryHandle>,
}

impl Drop for Query {
    fn drop(&mut self) {
        self.shared.with(|stack| {
            stack.queries -= 1;
            if let Some(handle) = self.handle {
                stack
                    .sockets
                    .get_mut::<dns::Socket>(stack.dns)
                    .cancel_query(handle);
            }
        });
    }
}

/// Asks a network's name servers. An IPv4 address in figures is its own answer.
pub async fn resolve_on(shared: &'static Shared, name: &str) -> Result<Ipv4Addr, ResolveError> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let handle = shared.act(|stack| {
        if stack
            .configuration()
            .is_none_or(|configuration| configuration.dns.is_empty())
        {
            return Err(ResolveError::NoServer);
        }
        if stack.queries == MAX_QUERIES {
            return Err(ResolveError::Busy);
        }
        let socket = stack.sockets.get_mut::<dns::Socket>(stack.dns);
        let handle = socket
            .start_query(stack.iface.context(), name, DnsQueryType::A)
            .map_err(|_| ResolveError::InvalidName)?;
        stack.queries += 1;
        Ok(handle)
    })?;
    let mut query = Query {
        shared,
        handle: Some(handle),
    };
    let addresses = poll_fn(|context| {
        shared.with(|stack| {
            let socket = stack.sockets.get_mut::<dns::Socket>(stack.dns);
            match socket.get_query_result(handle) {
                Err(dns::GetQueryResultError::Pending) => {
                    socket.register_query_waker(handle, context.waker());
                    Poll::Pending
                }
                Err(dns::GetQueryResultError::Failed) => Poll::Ready(None),
                Ok(addresses) => Poll::Ready(Some(addresses)),
            }
        })
    })
    .await;
    query.handle = None;
    match addresses.and_then(|addresses| addresses.first().copied()) {
        Some(IpAddress::Ipv4(address)) => Ok(address),
        None => Err(ResolveError::NotFound),
    }
}

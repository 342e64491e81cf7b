//! A connection to whom telemetry is sent.

use core::net::{Ipv4Addr, SocketAddrV4};

use super::config::Host;
use crate::net::{Across, TcpOptions, TcpStream, default_network, resolve};

/// Looks a name up, each time anew, and connects. `None`: the name is not known, or nobody answers.
pub(super) async fn dial(host: &Host, port: u16) -> Option<TcpStream> {
    let address: Ipv4Addr = match host {
        Host::Address(address) => *address,
        Host::Name(name) => resolve(name).await.ok()?,
    };
    // What a predecessor has not delivered, its successor sends: a connection that waited would have nothing to say.
    let options = TcpOptions {
        across: Across::Reset,
        ..TcpOptions::default()
    };
    TcpStream::connect_on(default_network()?, SocketAddrV4::new(address, port), options)
        .await
        .ok()
}

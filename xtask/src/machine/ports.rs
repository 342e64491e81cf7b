//! Host ports that are forwarded to the machine.

use serde::Serialize;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Three ports of 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Forwarded to TCP 80.
    pub http: u16,
    /// Forwarded to UDP 7.
    pub echo: u16,
    /// Forwarded to TCP 7700.
    pub control: u16,
}

impl Ports {
    /// Ports that were free a moment ago. Another program may take one before QEMU does; whoever starts QEMU tries again then.
    ///
    /// # Errors
    /// If the system has none.
    pub fn free() -> io::Result<Self> {
        // All three are held at the same time, so that they differ.
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self {
            http: http.local_addr()?.port(),
            echo: echo.local_addr()?.port(),
            control: control.local_addr()?.port(),
        })
    }

    /// The addresses to connect to.
    pub fn addresses(self) -> Addresses {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Addresses {
            http: at(self.http),
            echo: at(self.echo),
            control: at(self.control),
        }
    }
}

/// Where a machine's services are reached from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// The application, TCP.
    pub http: SocketAddr,
    /// The echo service, UDP.
    pub echo: SocketAddr,
    /// The control plane, TCP.
    pub control: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_documented_json() {
        let addresses = Ports {
            http: 1001,
            echo: 1002,
            control: 1003,
        }
        .addresses();
        assert_eq!(
            serde_json::to_string(&addresses).expect("JSON"),
            r#"{"http":"127.0.0.1:1001","echo":"127.0.0.1:1002","control":"127.0.0.1:1003"}"#
        );
    }

    #[test]
    fn free_ports_differ() {
        let ports = Ports::free().expect("ports");
        assert_ne!(ports.http, ports.control);
    }
}

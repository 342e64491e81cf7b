//! The address in use, and where it comes from.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::wire::Ipv4Cidr;

use super::port::Neighbour;

/// Where the address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressing {
    /// Ask a DHCP server.
    Dhcp,
    /// As the command line says.
    Static {
        /// Own address and the length of the network's prefix.
        address: Ipv4Cidr,
        /// The router, if there is one.
        gateway: Option<Ipv4Addr>,
        /// Name servers, the first three are used.
        dns: Vec<Ipv4Addr>,
    },
    /// As the predecessor had it: in use from the first frame on. A leased address is asked for again in the background.
    Handover(Configuration),
}

/// What [`Configuration::origin`] may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Leased from a DHCP server by this instar.
    Dhcp,
    /// Set on the command line.
    Static,
    /// Taken over from the predecessor.
    Handover,
}

/// The address in use, and what a successor needs to go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Own Ethernet address.
    pub mac: [u8; 6],
    /// Own IPv4 address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, 0 to 32.
    pub prefix: u8,
    /// The router, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Where this instar has it from.
    pub origin: Origin,
    /// Whether it is a DHCP lease, whoever asked for it: it has to be renewed.
    pub leased: bool,
    /// Hosts on the link that were sent to lately, at most eight: a successor answers them without ARP.
    pub neighbours: Vec<Neighbour>,
}

/// A configuration that no interface can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// The hardware address is a group address.
    #[error("the hardware address is not that of one host")]
    Mac,
    /// The own address is not that of one host.
    #[error("{0} is not the address of one host")]
    Address(Ipv4Addr),
    /// Longer than an address.
    #[error("a prefix of {0} bits is longer than an address")]
    Prefix(u8),
    /// The router's address is not that of one host.
    #[error("the gateway {0} is not the address of one host")]
    Gateway(Ipv4Addr),
    /// The device is not Ethernet with room for a minimal IP packet.
    #[error("the device's largest frame is {0} bytes, at least 590 are needed")]
    Device(usize),
}

/// What to begin with: nothing if DHCP has to be asked first.
pub(super) fn initial(
    addressing: &Addressing,
    mac: [u8; 6],
) -> Result<Option<Configuration>, ConfigurationError> {
    let configuration = match addressing {
        Addressing::Dhcp => return Ok(None),
        Addressing::Static {
            address,
            gateway,
            dns,
        } => Configuration {
            mac,
            address: address.address(),
            prefix: address.prefix_len(),
            gateway: *gateway,
            dns: dns.clone(),
            origin: Origin::Static,
            leased: false,
            neighbours: Vec::new(),
        },
        Addressing::Handover(configuration) => Configuration {
            mac,
            origin: Origin::Handover,
            ..configuration.clone()
        },
    };
    if !is_host(configuration.address) {
        return Err(ConfigurationError::Address(configuration.address));
    }
    if configuration.prefix > 32 {
        return Err(ConfigurationError::Prefix(configuration.prefix));
    }
    match configuration.gateway {
        Some(gateway) if !is_host(gateway) => Err(ConfigurationError::Gateway(gateway)),
        _ => Ok(Some(configuration)),
    }
}

/// The address of one host.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast()
}

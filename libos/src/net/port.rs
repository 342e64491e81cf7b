//! The device as smoltcp sees it.
//!
//! Behind a `dyn` trait, so that smoltcp's generic code is compiled once, whatever the NIC: two indirect calls per frame
//! against tens of KiB of code.

use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::phy::{Device, DeviceCapabilities, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpEndpoint, IpProtocol, Ipv4Cidr, Ipv4Packet, TcpPacket,
    UdpPacket,
};

use super::across::segment;

/// As many neighbours as smoltcp's own cache holds.
const MAX_NEIGHBOURS: usize = 8;

/// What passed through the device since the stack was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, Ethernet header included.
    pub rx_bytes: u64,
    /// Frames given to the device.
    pub tx_frames: u64,
    /// Bytes given to the device, Ethernet header included.
    pub tx_bytes: u64,
    /// Connection requests dropped: no place in a backlog, no longer accepting, or a repeated one; and segments of
    /// connections that a predecessor may come back to.
    pub rx_dropped: u64,
    /// Frames lost because the device took them back after it had offered room.
    pub tx_dropped: u64,
    /// Times that the device had no room; the frame stays queued.
    pub tx_busy: u64,
}

/// A host on the own link and its hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// IPv4 address.
    pub address: Ipv4Addr,
    /// Ethernet address.
    pub mac: [u8; 6],
}

/// Where frames go to. Object safe, unlike smoltcp's `Device`.
pub(super) trait Wire {
    /// Whether a frame would be taken now.
    fn can_send(&mut self) -> bool;
    /// Sends a frame of `length` bytes that `fill` writes; does not call `fill` if there is no room after all.
    fn send(&mut self, length: usize, fill: &mut dyn FnMut(&mut [u8]));
}

/// A whole device.
pub(super) struct DeviceWire<'a, D> {
    pub device: &'a mut D,
    pub now: Instant,
}

impl<D: Device> Wire for DeviceWire<'_, D> {
    fn can_send(&mut self) -> bool {
        self.device.transmit(self.now).is_some()
    }

    fn send(&mut self, length: usize, fill: &mut dyn FnMut(&mut [u8])) {
        if let Some(token) = self.device.transmit(self.now) {
            token.consume(length, |buffer| fill(buffer));
        }
    }
}

/// The room for one reply that comes with a received frame.
pub(super) struct ReplyWire<T>(pub Option<T>);

impl<T: TxToken> Wire for ReplyWire<T> {
    fn can_send(&mut self) -> bool {
        self.0.is_some()
    }

    fn send(&mut self, length: usize, fill: &mut dyn FnMut(&mut [u8])) {
        if let Some(token) = self.0.take() {
            token.consume(length, |buffer| fill(buffer));
        }
    }
}

/// Nowhere: for frames that the stack tells itself.
pub(super) struct NoWire;

impl Wire for NoWire {
    fn can_send(&mut self) -> bool {
        false
    }

    fn send(&mut self, _length: usize, _fill: &mut dyn FnMut(&mut [u8])) {}
}

/// smoltcp's device: at most one received frame, and a wire to send on.
pub(super) struct Port<'a> {
    pub capabilities: &'a DeviceCapabilities,
    pub frame: Option<&'a [u8]>,
    pub wire: &'a mut dyn Wire,
    pub watch: &'a mut Watch,
}

impl Device for Port<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Room<'b>
    where
        Self: 'b;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Room<'_>)> {
        let frame = self.frame.take()?;
        Some((
            Received(frame),
            Room {
                wire: &mut *self.wire,
                watch: &mut *self.watch,
            },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        if !self.wire.can_send() {
            self.watch.counters.tx_busy += 1;
            return None;
        }
        Some(Room {
            wire: &mut *self.wire,
            watch: &mut *self.watch,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Room<'a> {
    wire: &'a mut dyn Wire,
    watch: &'a mut Watch,
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut writer = Some(f);
        let mut result = None;
        let watch = self.watch;
        self.wire.send(length, &mut |buffer| {
            if let Some(write) = writer.take() {
                result = Some(write(buffer));
                watch.sent(buffer);
            }
        });
        if let Some(write) = writer.take() {
            // The wire had no room: smoltcp still wants its closure run, and sends again when nobody answers.
            watch.counters.tx_dropped += 1;
            result = Some(write(&mut vec![0; length]));
        }
        result.expect("the closure ran, on the wire's buffer or on the scratch one")
    }
}

/// Looks at every frame that leaves.
pub(super) struct Watch {
    pub counters: Counters,
    /// The time of the poll under way.
    pub now: Instant,
    /// When the first frame with an answer left.
    pub first_answer: Option<Instant>,
    /// Ports whose data is an application's answer; `true` for TCP.
    pub answering: Vec<(bool, u16)>,
    /// Most recently used last.
    pub neighbours: Vec<Neighbour>,
    pub network: Option<Ipv4Cidr>,
    pub gateway: Option<Ipv4Addr>,
}

impl Watch {
    pub fn new(now: Instant) -> Self {
        Watch {
            counters: Counters::default(),
            now,
            first_answer: None,
            answering: Vec::new(),
            neighbours: Vec::new(),
            network: None,
            gateway: None,
        }
    }

    fn sent(&mut self, frame: &[u8]) {
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return;
        };
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return;
        }
        let Ok(packet) = Ipv4Packet::new_checked(ethernet.payload()) else {
            return;
        };
        self.learn(packet.dst_addr(), ethernet.dst_addr().0);
        if self.first_answer.is_none() && self.is_answer(packet.next_header(), packet.payload()) {
            self.first_answer = Some(self.now);
        }
    }

    fn is_answer(&self, protocol: IpProtocol, payload: &[u8]) -> bool {
        let (tcp, port) = match protocol {
            IpProtocol::Tcp => match TcpPacket::new_checked(payload) {
                // smoltcp's keep-alive is one zero byte.
                Ok(segment) if !matches!(segment.payload(), [] | [0]) => (true, segment.src_port()),
                _ => return false,
            },
            IpProtocol::Udp => match UdpPacket::new_checked(payload) {
                Ok(datagram) => (false, datagram.src_port()),
                Err(_) => return false,
            },
            _ => return false,
        };
        self.answering.contains(&(tcp, port))
    }

    /// Where frames for this destination go, if one went there lately.
    pub fn hardware_address(&self, destination: Ipv4Addr) -> Option<[u8; 6]> {
        let address = next_hop(self.network?, self.gateway, destination)?;
        let neighbour = self.neighbours.iter().find(|known| known.address == address)?;
        Some(neighbour.mac)
    }

    /// What a successor needs so that its first answer does not wait for ARP.
    fn learn(&mut self, destination: Ipv4Addr, mac: [u8; 6]) {
        let Some(network) = self.network else { return };
        if mac[0] & 1 != 0 {
            return;
        }
        let Some(address) = next_hop(network, self.gateway, destination) else {
            return;
        };
        let neighbour = Neighbour { address, mac };
        if self.neighbours.last() == Some(&neighbour) {
            return;
        }
        self.neighbours.retain(|known| known.address != address);
        if self.neighbours.len() == MAX_NEIGHBOURS {
            self.neighbours.remove(0);
        }
        self.neighbours.push(neighbour);
    }
}

/// Who takes packets for a destination: itself, or the router.
fn next_hop(network: Ipv4Cidr, gateway: Option<Ipv4Addr>, destination: Ipv4Addr) -> Option<Ipv4Addr> {
    if network.contains_addr(&destination) {
        Some(destination)
    } else {
        gateway
    }
}

/// The peer and the port of a frame that asks this host for a TCP connection.
pub(super) fn connection_request(frame: &[u8], own: Ipv4Addr) -> Option<(IpEndpoint, u16)> {
    let (peer, segment) = segment(frame, own)?;
    if !segment.syn() || segment.ack() || segment.rst() {
        return None;
    }
    Some((
        IpEndpoint::new(IpAddress::Ipv4(*peer.ip()), peer.port()),
        segment.dst_port(),
    ))
}

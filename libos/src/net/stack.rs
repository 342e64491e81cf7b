//! One network interface with its sockets: pure, the device and the time are arguments.

mod across;

use alloc::vec;
use alloc::vec::Vec;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, RxToken};
use smoltcp::socket::{dhcpv4, dns, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    HardwareAddress, IpAddress, IpCidr, Ipv4Cidr,
};

use super::across::{Kept, Predecessors};
use super::backlog::Backlog;
use super::configuration::{Addressing, Configuration, ConfigurationError, Origin, initial, is_host};
use super::port::{Counters, DeviceWire, Neighbour, NoWire, Port, ReplyWire, Watch, Wire};

/// Frames received, and rounds of sending, in one poll: the bound on how long the lock is held.
const BATCH: usize = 32;
/// A successor serves first and asks for its lease later.
const LEASE_DELAY: Duration = Duration::from_secs(5);
/// How long to wait when the device has no room and says nothing.
const BUSY_DELAY: Duration = Duration::from_millis(1);

/// Bounds on what the network may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP sockets of all kinds: listening, half-open, open, closing.
    pub tcp_sockets: usize,
    /// Bytes of all their buffers. A connection that waits for nothing but its peer's end gives way to a new one.
    pub tcp_bytes: usize,
    /// How long a connection that the application dropped may take to close.
    pub closing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            tcp_sockets: 160,
            tcp_bytes: 1536 * 1024,
            closing: Duration::from_secs(10),
        }
    }
}

/// The states of a TCP socket, as the semantic conventions name them (`network.connection.state`), in smoltcp's order.
pub const TCP_STATES: [&str; 11] = [
    "closed",
    "listen",
    "syn_sent",
    "syn_received",
    "established",
    "fin_wait_1",
    "fin_wait_2",
    "close_wait",
    "closing",
    "last_ack",
    "time_wait",
];

/// What the network did and has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// What passed through the device.
    pub frames: Counters,
    /// TCP sockets of all kinds: listening, half-open, open, closing.
    pub tcp_sockets: usize,
    /// TCP sockets by state, in the order of [`TCP_STATES`].
    pub tcp_states: [u64; TCP_STATES.len()],
    /// TCP connections that are open or still have something to send.
    pub connections: usize,
    /// Bytes that TCP and UDP sockets hold and the network has not yet taken or acknowledged.
    pub unsent: usize,
}

/// An interface, its sockets and its address.
pub struct Stack {
    pub(super) iface: Interface,
    pub(super) sockets: SocketSet<'static>,
    pub(super) backlog: Backlog,
    pub(super) watch: Watch,
    pub(super) dns: SocketHandle,
    pub(super) queries: usize,
    pub(super) random: u64,
    capabilities: DeviceCapabilities,
    mac: [u8; 6],
    dhcp: Option<SocketHandle>,
    dhcp_at: Option<Instant>,
    current: Option<Configuration>,
    /// Woken when there is an address.
    pub(super) configured: Vec<core::task::Waker>,
    stuck: bool,
    /// What comes for these connections is not this instar's.
    pub(super) predecessors: Predecessors,
    /// What is still to be asked of peers whose connections are over: peer, and a number to acknowledge.
    over: Vec<(Kept, u32)>,
    /// Time stands still here since then.
    standing: Option<Instant>,
    /// How long it has stood still in all: what the device's time is ahead of the interface's.
    stood: Duration,
}

impl Stack {
    /// An interface for a device with these capabilities.
    ///
    /// `seed` should not be guessable: TCP's sequence numbers, ephemeral ports and DNS's identifiers come from it.
    pub fn new(
        device: &impl Device,
        mac: [u8; 6],
        addressing: Addressing,
        limits: Limits,
        seed: u64,
        now: Instant,
    ) -> Result<Stack, ConfigurationError> {
        let capabilities = device.capabilities();
        if capabilities.max_transmission_unit < 590 {
            return Err(ConfigurationError::Device(capabilities.max_transmission_unit));
        }
        let ethernet = EthernetAddress(mac);
        if !ethernet.is_unicast() || mac == [0; 6] {
            return Err(ConfigurationError::Mac);
        }
        let initial = initial(&addressing, mac)?;
        let mut config = Config::new(HardwareAddress::Ethernet(ethernet));
        config.random_seed = seed;
        let mut watch = Watch::new(now);
        let mut port = Port {
            capabilities: &capabilities,
            frame: None,
            wire: &mut NoWire,
            watch: &mut watch,
        };
        let iface = Interface::new(config, &mut port, now);
        let mut sockets = SocketSet::new(vec![]);
        let dns = sockets.add(dns::Socket::new(&[], vec![]));
        let mut stack = Stack {
            iface,
            sockets,
            backlog: Backlog::new(limits),
            watch,
            dns,
            queries: 0,
            random: seed | 1,
            capabilities,
            mac,
            dhcp: None,
            dhcp_at: None,
            current: None,
            configured: Vec::new(),
            stuck: false,
            predecessors: Predecessors::default(),
            over: Vec::new(),
            standing: None,
            stood: Duration::ZERO,
        };
        match &initial {
            None => stack.dhcp_at = Some(now),
            Some(configuration) if configuration.leased => stack.dhcp_at = Some(now + LEASE_DELAY),
            Some(_) => {}
        }
        if let Some(configuration) = initial {
            let neighbours = configuration.neighbours.clone();
            stack.apply(configuration);
            for neighbour in neighbours.iter().take(8) {
                stack.introduce(neighbour, now);
            }
        }
        Ok(stack)
    }

    /// The address in use and all that a successor needs to go on with it; `None` until DHCP has answered.
    pub fn configuration(&self) -> Option<Configuration> {
        let mut configuration = self.current.clone()?;
        configuration.neighbours.clone_from(&self.watch.neighbours);
        Some(configuration)
    }

    /// When the first answer of an application was given to the device: a datagram from a port that a UDP socket is
    /// bound to, or TCP data from a port that is listened on.
    pub fn first_answer(&self) -> Option<Instant> {
        self.watch.first_answer
    }

    /// What the network did and has.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            frames: self.watch.counters,
            ..Stats::default()
        };
        self.backlog.count(&self.sockets, &mut stats);
        for (_, socket) in self.sockets.iter() {
            if let smoltcp::socket::Socket::Udp(socket) = socket {
                stats.unsent += udp::Socket::send_queue(socket);
            }
        }
        stats
    }

    /// Receives and sends one bounded batch of frames; `now` never goes back.
    ///
    /// True if there is more to do at once.
    pub fn poll<D: Device>(&mut self, now: Instant, device: &mut D) -> bool {
        self.watch.now = now;
        let now = self.own_time(now);
        self.begin(now);
        let mut received = 0;
        while received < BATCH {
            let Some((frame, room)) = device.receive(now) else {
                break;
            };
            received += 1;
            frame.consume(|frame| self.ingest(now, frame, &mut ReplyWire(Some(room))));
        }
        let sending = self.egress(now, &mut DeviceWire { device, now });
        received == BATCH || sending
    }

    fn begin(&mut self, now: Instant) {
        if self.dhcp.is_none() && self.dhcp_at.is_some_and(|at| at <= now) {
            self.dhcp = Some(self.sockets.add(dhcp_socket()));
        }
    }

    fn ingest(&mut self, now: Instant, frame: &[u8], wire: &mut dyn Wire) {
        self.watch.counters.rx_frames += 1;
        self.watch.counters.rx_bytes += frame.len() as u64;
        let own = self.current.as_ref().map(|current| current.address);
        if self.predecessors.own(own, frame) {
            self.watch.counters.rx_dropped += 1;
            return;
        }
        let request = self.backlog.admit(&mut self.sockets, own, frame);
        if request == Some(false) {
            self.watch.counters.rx_dropped += 1;
            return;
        }
        let mut port = Port {
            capabilities: &self.capabilities,
            frame: Some(frame),
            wire,
            watch: &mut self.watch,
        };
        self.iface.poll_ingress_single(now, &mut port, &mut self.sockets);
        if request.is_some() {
            self.backlog.sweep(&mut self.sockets, now);
        }
    }

    fn egress(&mut self, now: Instant, wire: &mut dyn Wire) -> bool {
        self.iface.poll_maintenance(now);
        self.follow_dhcp();
        self.backlog.sweep(&mut self.sockets, now);
        let busy = self.watch.counters.tx_busy;
        self.tell_peers(now, wire);
        let mut port = Port {
            capabilities: &self.capabilities,
            frame: None,
            wire,
            watch: &mut self.watch,
        };
        let mut rounds = 0;
        while rounds < BATCH
            && self.iface.poll_egress(now, &mut port, &mut self.sockets)
                == smoltcp::iface::PollResult::SocketStateChanged
        {
            rounds += 1;
        }
        self.stuck = self.watch.counters.tx_busy != busy;
        // A connection may have ended just now.
        self.backlog.sweep(&mut self.sockets, now);
        rounds == BATCH && !self.stuck
    }

    /// When to poll next if nothing happens before; `None` if nothing is due.
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let device_now = now;
        let now = self.own_time(now);
        let mut at = self.iface.poll_at(now, &self.sockets);
        if !self.over.is_empty() {
            at = Some(now);
        }
        if self.stuck {
            // Some devices say when there is room again, some do not.
            at = at.map(|at| at.max(now + BUSY_DELAY));
        }
        let start = self.dhcp_at.filter(|_| self.dhcp.is_none());
        let at = [at, start, self.backlog.poll_at()].into_iter().flatten().min();
        at.map(|at| at + (device_now - now))
    }

    fn follow_dhcp(&mut self) {
        let Some(handle) = self.dhcp else { return };
        match self.sockets.get_mut::<dhcpv4::Socket>(handle).poll() {
            None => {}
            Some(dhcpv4::Event::Configured(config)) => {
                let configuration = Configuration {
                    mac: self.mac,
                    address: config.address.address(),
                    prefix: config.address.prefix_len(),
                    gateway: config.router.filter(|router| is_host(*router)),
                    dns: config.dns_servers.to_vec(),
                    origin: Origin::Dhcp,
                    leased: true,
                    neighbours: Vec::new(),
                };
                self.apply(configuration);
            }
            Some(dhcpv4::Event::Deconfigured) => self.deconfigure(),
        }
    }

    /// The lease is lost.
    fn deconfigure(&mut self) {
        // The first event of every client says so too, and knows nothing about an address that was taken over.
        if self
            .current
            .as_ref()
            .is_none_or(|current| current.origin != Origin::Dhcp)
        {
            return;
        }
        self.current = None;
        self.watch.network = None;
        self.iface.update_ip_addrs(|addresses| addresses.clear());
        self.iface.routes_mut().remove_default_ipv4_route();
    }

    fn apply(&mut self, configuration: Configuration) {
        let network = Ipv4Cidr::new(configuration.address, configuration.prefix);
        let same = self.watch.network == Some(network) && self.watch.gateway == configuration.gateway;
        // Setting the address again would make smoltcp forget its neighbours, and a renewed lease rarely changes it.
        if !same {
            self.watch.network = Some(network);
            self.watch.gateway = configuration.gateway;
            self.watch.neighbours.clear();
            self.iface.update_ip_addrs(|addresses| {
                addresses.clear();
                // There is always room for one.
                let _ = addresses.push(IpCidr::Ipv4(network));
            });
            self.iface.routes_mut().remove_default_ipv4_route();
            if let Some(gateway) = configuration.gateway {
                // Likewise: the table was just emptied.
                let _ = self.iface.routes_mut().add_default_ipv4_route(gateway);
            }
        }
        let servers: Vec<IpAddress> = configuration
            .dns
            .iter()
            .copied()
            .filter(|a| is_host(*a))
            .map(IpAddress::Ipv4)
            .collect();
        self.sockets
            .get_mut::<dns::Socket>(self.dns)
            .update_servers(&servers);
        self.current = Some(configuration);
        for waker in self.configured.drain(..) {
            waker.wake();
        }
    }

    /// Tells the interface a neighbour's hardware address, as if that host had just said it by ARP.
    fn introduce(&mut self, neighbour: &Neighbour, now: Instant) {
        let (mac, Some(own)) = (EthernetAddress(neighbour.mac), &self.current) else {
            return;
        };
        if !mac.is_unicast() || !is_host(neighbour.address) {
            return;
        }
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: mac,
            source_protocol_addr: neighbour.address,
            target_hardware_addr: EthernetAddress(self.mac),
            target_protocol_addr: own.address,
        };
        let ethernet = EthernetRepr {
            src_addr: mac,
            dst_addr: EthernetAddress(self.mac),
            ethertype: EthernetProtocol::Arp,
        };
        let mut buffer = [0; 42];
        let mut frame = EthernetFrame::new_unchecked(&mut buffer[..]);
        ethernet.emit(&mut frame);
        arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        let mut port = Port {
            capabilities: &self.capabilities,
            frame: Some(&buffer),
            wire: &mut NoWire,
            watch: &mut self.watch,
        };
        self.iface.poll_ingress_single(now, &mut port, &mut self.sockets);
        self.watch.neighbours.push(*neighbour);
    }

    /// xorshift64: only to choose ephemeral ports.
    pub(super) fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn dhcp_socket() -> dhcpv4::Socket<'static> {
    let mut socket = dhcpv4::Socket::new();
    let mut retry = socket.get_retry_config();
    // smoltcp waits 10 s for an offer: a machine that starts in 200 ms asks again sooner.
    retry.discover_timeout = Duration::from_secs(1);
    retry.initial_request_timeout = Duration::from_secs(1);
    socket.set_retry_config(retry);
    socket
}

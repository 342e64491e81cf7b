//! What becomes of TCP connections when this instar is replaced, and what its successor owes to those that it kept.
//!
//! A replacement may fail after the jump, and then the predecessor goes on where it was. A connection that it kept is there
//! again if nobody has ended it meanwhile. So the successor gets a list of these connections, and drops what comes for
//! them without a word: a reset, the usual answer, would end them. Once it is committed it tells their peers that they
//! are over ([`question`]).

use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

/// What becomes of a connection when this instar is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Across {
    /// It stays as it is: should the replacement fail, it goes on, with what it has not sent. If the successor is committed,
    /// it is reset then.
    #[default]
    Keep,
    /// It is reset before the jump, unless it has been closed by then: for protocols whose clients connect again at once,
    /// such as HTTP.
    Reset,
}

/// Most connections that are kept at a time; what is above is reset before the jump.
pub const MAX_KEPT: usize = 128;

/// A connection that was kept, as seen from here; its local address is the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// The other end.
    pub peer: SocketAddrV4,
    /// The port at this end.
    pub port: u16,
}

/// What the end of the drain does to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Kept, and handed over.
    Keep,
    /// Reset.
    Reset,
    /// Nothing: it is over, or was none.
    Leave,
}

pub(super) fn fate(state: State, across: Across) -> Fate {
    match (state, across) {
        (State::Closed | State::Listen, _) => Fate::Leave,
        // The peer has all that was said, and knows that there is no more.
        (State::FinWait2 | State::TimeWait, _) => Fate::Leave,
        (State::SynSent | State::SynReceived, _) | (_, Across::Reset) => Fate::Reset,
        (_, Across::Keep) => Fate::Keep,
    }
}

/// Connections that the predecessor kept and may come back to.
#[derive(Debug, Default)]
pub(super) struct Predecessors {
    /// Sorted.
    kept: Vec<Kept>,
}

impl Predecessors {
    pub fn new(mut kept: Vec<Kept>) -> Self {
        kept.truncate(MAX_KEPT);
        kept.sort_unstable();
        Predecessors { kept }
    }

    /// Whether a frame is for one of them.
    pub fn own(&self, own: Option<Ipv4Addr>, frame: &[u8]) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let connection = own.and_then(|own| {
            let (peer, segment) = segment(frame, own)?;
            Some(Kept {
                peer,
                port: segment.dst_port(),
            })
        });
        connection.is_some_and(|connection| self.kept.binary_search(&connection).is_ok())
    }

    /// Whether one of them has this port at this end.
    pub fn use_port(&self, port: u16) -> bool {
        self.kept.iter().any(|kept| kept.port == port)
    }

    /// They are over.
    pub fn forget(&mut self) -> Vec<Kept> {
        core::mem::take(&mut self.kept)
    }
}

/// The TCP segment in a frame for this host, and who sent it.
pub(super) fn segment(frame: &[u8], own: Ipv4Addr) -> Option<(SocketAddrV4, TcpPacket<&[u8]>)> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if packet.next_header() != IpProtocol::Tcp || packet.dst_addr() != own {
        return None;
    }
    let source = packet.src_addr();
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    Some((SocketAddrV4::new(source, segment.src_port()), segment))
}

/// An empty segment out of nowhere. Its sequence number is not what the peer expects, so the peer answers with what it does
/// expect (RFC 9293, 3.10.7.4), and the answer to that, from a host without this connection, is a reset that the peer
/// believes (3.5.1, half-open connections). Nobody has to know the connection's sequence numbers.
///
/// `acknowledged` should be each of [`ACKNOWLEDGED`]: smoltcp looks at this number first, and does not answer one that is
/// older than what it expects. Of these two one is newer.
pub(super) fn question(
    kept: &Kept,
    own: Ipv4Addr,
    hardware: (EthernetAddress, EthernetAddress),
    number: u32,
    acknowledged: u32,
) -> [u8; QUESTION] {
    let tcp = TcpRepr {
        src_port: kept.port,
        dst_port: kept.peer.port(),
        control: TcpControl::None,
        seq_number: TcpSeqNumber(number as i32),
        ack_number: Some(TcpSeqNumber(acknowledged as i32)),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: own,
        dst_addr: *kept.peer.ip(),
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: hardware.0,
        dst_addr: hardware.1,
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = [0; QUESTION];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    let sums = ChecksumCapabilities::default();
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &sums);
    let (from, to) = (IpAddress::Ipv4(own), IpAddress::Ipv4(*kept.peer.ip()));
    tcp.emit(
        &mut TcpPacket::new_unchecked(packet.payload_mut()),
        &from,
        &to,
        &sums,
    );
    bytes
}

/// Two numbers half the way round from each other.
pub(super) const ACKNOWLEDGED: [u32; 2] = [0, 1 << 31];

/// Headers of Ethernet, IPv4 and TCP.
pub(super) const QUESTION: usize = 14 + 20 + 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reset_and_left() {
        use State::*;
        for (state, across, expected) in [
            (Established, Across::Keep, Fate::Keep),
            (CloseWait, Across::Keep, Fate::Keep),
            (Established, Across::Reset, Fate::Reset),
            (CloseWait, Across::Reset, Fate::Reset),
            (SynReceived, Across::Keep, Fate::Reset),
            (SynSent, Across::Keep, Fate::Reset),
            (FinWait1, Across::Keep, Fate::Keep),
            (LastAck, Across::Reset, Fate::Reset),
            (FinWait2, Across::Reset, Fate::Leave),
            (TimeWait, Across::Keep, Fate::Leave),
            (Listen, Across::Reset, Fate::Leave),
            (Closed, Across::Keep, Fate::Leave),
        ] {
            assert_eq!(fate(state, across), expected, "{state} {across:?}");
        }
    }
}

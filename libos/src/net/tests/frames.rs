//! Frames made by hand.

use smoltcp::phy::{ChecksumCapabilities, Device, TxToken};
use smoltcp::wire::*;

use super::world::*;
use crate::net::Instant;

pub fn send(end: &mut End, frame: &[u8]) {
    if let Some(room) = end.transmit(Instant::ZERO) {
        room.consume(frame.len(), |buffer| buffer.copy_from_slice(frame));
    }
}

/// A request for a connection from MAC A to host B.
pub fn syn(source: std::net::Ipv4Addr, source_port: u16, port: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: source_port,
        dst_port: port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: B,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + 20 + tcp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(EthernetAddress(MAC_A));
    frame.set_dst_addr(EthernetAddress(MAC_B));
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
    tcp.emit(
        &mut segment,
        &source.into(),
        &B.into(),
        &ChecksumCapabilities::default(),
    );
    bytes
}

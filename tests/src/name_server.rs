//! A name server beside a machine of QEMU's: a computer of its own on the machine's network, that speaks no more than ARP and
//! DNS. The emulator's user network has one, but that asks this computer's, and nobody knows what that says.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Its address.
const ADDRESS: [u8; 4] = [10, 0, 2, 53];
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 53];

/// The user network's gateway, where this computer is found: what every name means.
const ANSWER: [u8; 4] = [10, 0, 2, 2];

/// Lengths of headers: Ethernet, IPv4 without options, UDP, DNS.
const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
const DNS: usize = 12;

/// A name server that runs as long as the test.
pub struct NameServer {
    port: u16,
    knows: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl NameServer {
    /// Starts it. It knows no name yet.
    ///
    /// # Panics
    /// Without a port.
    #[must_use]
    pub fn start() -> Self {
        let wire = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = wire.local_addr().expect("an address").port();
        let (knows, asked) = (Arc::default(), Arc::default());
        let server = Self {
            port,
            knows: Arc::clone(&knows),
            asked: Arc::clone(&asked),
        };
        thread::spawn(move || {
            let mut frame = [0; 2048];
            while let Ok((length, from)) = wire.recv_from(&mut frame) {
                let frame = &frame[..length];
                let answer = arp(frame).or_else(|| {
                    let answer = dns(frame, knows.load(Ordering::Relaxed))?;
                    asked.store(true, Ordering::Relaxed);
                    Some(answer)
                });
                if let Some(answer) = answer {
                    // A frame may be lost.
                    let _ = wire.send_to(&answer, from);
                }
            }
        });
        server
    }

    /// What QEMU is to be given: a hub that joins its user network, this server, and the card at [`NameServer::NETDEV`].
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let wire = format!(
            "socket,id=names,udp=127.0.0.1:{},localaddr=127.0.0.1:0",
            self.port
        );
        [
            "hubport,id=user,hubid=0,netdev=n",
            &wire,
            "hubport,id=server,hubid=0,netdev=names",
            "hubport,id=card,hubid=0",
        ]
        .iter()
        .flat_map(|netdev| ["-netdev".into(), netdev.into()])
        .collect()
    }

    /// Where the machine's card belongs.
    pub const NETDEV: &str = "card";

    /// The words for a machine's command line.
    pub const APPEND: &str = "instar.ip=10.0.2.15/24 instar.gateway=10.0.2.2 instar.dns=10.0.2.53";

    /// From now on every name is this computer.
    pub fn learn(&self) {
        self.knows.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The answer to an ARP request for our address (RFC 826).
fn arp(frame: &[u8]) -> Option<Vec<u8>> {
    let request = frame.get(ETHERNET..)?;
    let is_ours = frame[12..14] == [8, 6] && request.get(6..8)? == [0, 1] && request.get(24..28)? == ADDRESS;
    let asker = request.get(8..18)?;
    let kind = [0, 1, 8, 0, 6, 4, 0, 2];
    is_ours.then(|| [&frame[6..12], &MAC, &[8, 6], &kind, &MAC, &ADDRESS, asker].concat())
}

/// The answer to a question for an IPv4 address (RFC 1035), that there is none if the name is not known.
fn dns(frame: &[u8], known: bool) -> Option<Vec<u8>> {
    let ip = frame.get(ETHERNET..)?;
    let udp = ip.get(IP..)?;
    // A frame may be longer than what it carries.
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    let question = udp.get(UDP..length)?;
    let is_ours = frame[12..14] == [8, 0]
        && ip[0] == 0x45
        && ip[9] == 17
        && ip[16..20] == ADDRESS
        && udp.get(2..4)? == [0, 53]
        && question.len() > DNS;
    if !is_ours {
        return None;
    }
    // A response, recursion as asked; name error (3) where it is not known. One question, as many answers as there are.
    let flags = if known { [0x81, 0x80] } else { [0x81, 0x83] };
    let counts = [0, 1, 0, u8::from(known), 0, 0, 0, 0];
    // The question's name again, type A, class IN, for a second.
    let record = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4][..], &ANSWER].concat();
    let record = if known { &record[..] } else { &[] };
    let answer = [&question[..2], &flags, &counts, &question[DNS..], record].concat();
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    // Without a checksum, which is optional.
    let datagram = [
        &udp[2..4],
        &udp[..2],
        &length(UDP + answer.len()),
        &[0, 0],
        &answer,
    ]
    .concat();
    let mut header = [
        &[0x45, 0][..],
        &length(IP + datagram.len()),
        &[0, 0, 0, 0, 64, 17, 0, 0],
        &ADDRESS,
        &ip[12..16],
    ]
    .concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    Some([&frame[6..12], &MAC, &[8, 0], &header, &datagram].concat())
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!(folded as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_of_rfc_1071() {
        assert_eq!(
            checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]),
            (!0xddf2u16).to_be_bytes()
        );
    }

    #[test]
    fn other_frames_are_not_answered() {
        for length in 0..100 {
            let frame = vec![0; length];
            assert_eq!((arp(&frame), dns(&frame, true)), (None, None), "{length}");
        }
    }
}

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;

use super::frames::{send, syn};
use super::world::*;
use crate::net::*;

fn known() -> Addressing {
    Addressing::Handover(Configuration {
        neighbours: vec![Neighbour {
            address: A,
            mac: MAC_A,
        }],
        ..inherited(B)
    })
}

fn echo_request() -> Vec<u8> {
    let icmp = Icmpv4Repr::EchoRequest {
        ident: 7,
        seq_no: 1,
        data: b"instar",
    };
    let ip = Ipv4Repr {
        src_addr: A,
        dst_addr: B,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 34 + icmp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(EthernetAddress(MAC_A));
    frame.set_dst_addr(EthernetAddress(MAC_B));
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    icmp.emit(
        &mut Icmpv4Packet::new_unchecked(packet.payload_mut()),
        &ChecksumCapabilities::default(),
    );
    bytes
}

#[test]
fn pings_are_answered() {
    let world = World::default();
    let (end, mut peer) = cable(no_loss());
    let shared = host(&world, end, MAC_B, known(), Limits::default());
    send(&mut peer, &echo_request());
    world.block_on(world.sleep(Duration::from_millis(1)));
    let answer = peer.incoming.lock().unwrap().frames.pop_front().unwrap();
    assert_eq!(answer[..12], [MAC_A, MAC_B].concat());
    assert_eq!((answer[34], &answer[42..]), (0, &b"instar"[..]));
    assert_eq!(shared.first_answer(), None);
    let frames = shared.stats().frames;
    assert_eq!((frames.rx_frames, frames.rx_bytes, frames.tx_frames), (1, 48, 1));
}

#[test]
fn a_repeated_request_does_not_take_a_second_socket() {
    let world = World::default();
    let (end, mut peer) = cable(no_loss());
    let shared = host(&world, end, MAC_B, known(), Limits::default());
    let _listener = TcpListener::bind_on(shared, 80, ListenOptions::default()).unwrap();
    for _ in 0..3 {
        send(&mut peer, &syn(A, 1000, 80));
    }
    send(&mut peer, &syn(A, 1001, 80));
    send(&mut peer, &syn(A, 1002, 81));
    world.block_on(world.sleep(Duration::from_millis(1)));
    assert_eq!(shared.stats().frames.rx_dropped, 2);
    // Two acceptances and the refusal for port 81.
    assert_eq!(peer.incoming.lock().unwrap().frames.len(), 3);
}

#[test]
fn a_port_can_be_used_again_while_the_last_connection_waits() {
    let (world, a, b) = pair(no_loss());
    let mut listener = TcpListener::bind_on(b, 80, ListenOptions::default()).unwrap();
    world.block_on(async {
        for _ in 0..3 {
            // The same ephemeral port each time.
            a.with(|stack| stack.random = 42);
            let to = std::net::SocketAddrV4::new(B, 80);
            let mut stream = TcpStream::connect_on(a, to, TcpOptions::default()).await.unwrap();
            drop(listener.accept().await);
            assert_eq!(stream.read(&mut [0; 9]).await, Ok(0));
            stream.close().await.unwrap();
            world.sleep(Duration::from_millis(50)).await;
        }
        assert!(world.clock.now() < Instant::from_secs(1));
    });
}

/// Frames that were good once.
struct Noise(u64);

impl Noise {
    fn next(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn frame(&mut self, good: &[Vec<u8>]) -> Vec<u8> {
        let mut frame = good[self.next(good.len())].clone();
        for _ in 0..self.next(6) {
            let at = self.next(frame.len());
            frame[at] = match self.next(3) {
                0 => self.next(256) as u8,
                1 => [0, 255, 1, 0x7f, 0x80][self.next(5)],
                _ => frame[at] ^ (1 << self.next(8)),
            };
        }
        match self.next(10) {
            0 => frame.truncate(self.next(frame.len() + 1)),
            1 => frame.extend(vec![0x5a; self.next(1515 - frame.len())]),
            _ => {}
        }
        if self.next(500) == 0 {
            frame = (0..self.next(1515)).map(|_| self.next(256) as u8).collect();
        }
        frame
    }
}

/// Frames of a whole life: DHCP, ARP, ping, UDP, DNS, connections with data.
fn recorded() -> Vec<Vec<u8>> {
    let record = std::sync::Arc::new(std::sync::Mutex::new(vec![echo_request(), syn(A, 999, 80)]));
    let tape = record.clone();
    let (world, a, b) = pair(std::sync::Arc::new(std::sync::Mutex::new(
        move |frame: &[u8]| {
            tape.lock().unwrap().push(frame.to_vec());
            false
        },
    )));
    let mut listener = TcpListener::bind_on(b, 80, ListenOptions::default()).unwrap();
    let mut client = UdpSocket::bind_on(a, 53, UdpOptions::default()).unwrap();
    world.block_on(async {
        let to = std::net::SocketAddrV4::new(B, 80);
        let mut stream = TcpStream::connect_on(a, to, TcpOptions::default()).await.unwrap();
        let mut server = listener.accept().await;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        server.read(&mut [0; 99]).await.unwrap();
        server.write_all(&[b'x'; 3000]).await.unwrap();
        drop(server);
        while let Ok(1..) = stream.read(&mut [0; 999]).await {}
        drop(stream);
        client
            .send_to(&[0; 40], std::net::SocketAddrV4::new(B, 7))
            .await
            .unwrap();
        client
            .send_to(&[0; 40], std::net::SocketAddrV4::new(B, 68))
            .await
            .unwrap();
        world.sleep(Duration::from_secs(1)).await;
    });
    let frames = record.lock().unwrap();
    frames.clone()
}

#[test]
fn garbage_never_panics_and_takes_no_memory() {
    let good = recorded();
    for (seed, addressing) in [(1, known()), (2, Addressing::Dhcp)] {
        let world = World::default();
        let (mut end, mut peer) = cable(no_loss());
        // Without checksums, so that bent frames come in deep.
        end.checksums = false;
        let shared = host(
            &world,
            end,
            MAC_B,
            addressing,
            Limits {
                tcp_sockets: 24,
                ..Limits::default()
            },
        );
        let mut listener = TcpListener::bind_on(shared, 80, ListenOptions::default()).unwrap();
        let mut socket = UdpSocket::bind_on(shared, 7, UdpOptions::default()).unwrap();
        world.spawn(async move {
            loop {
                let mut stream = listener.accept().await;
                let _ = stream.write_all(&[1; 3000]).await;
            }
        });
        world.spawn(async move {
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut [0; 1400]).await {
                    let _ = socket.send_to(&[0; 1400][..length], from).await;
                }
            }
        });
        let mut noise = Noise(seed);
        world.block_on(async {
            for round in 0..30_000 {
                send(&mut peer, &noise.frame(&good));
                if round % 8 == 0 {
                    world.sleep(Duration::from_millis(1)).await;
                    peer.incoming.lock().unwrap().frames.clear();
                }
                if round % 1000 == 0 {
                    let stats = shared.stats();
                    assert!(stats.tcp_sockets <= 24, "{stats:?}");
                }
            }
            assert!(shared.stats().frames.rx_frames >= 29_000);
        });
    }
}

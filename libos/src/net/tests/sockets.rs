use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::world::*;
use crate::net::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
}

async fn read_all(stream: &mut TcpStream) -> Result<Vec<u8>, TcpError> {
    let mut all = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(all),
            read => all.extend_from_slice(&buffer[..read]),
        }
    }
}

async fn connect(from: &'static Shared, port: u16) -> Result<TcpStream, ConnectError> {
    TcpStream::connect_on(from, SocketAddrV4::new(B, port), TcpOptions::default()).await
}

fn echo(world: &World, shared: &'static Shared, port: u16, options: ListenOptions) {
    let mut listener = TcpListener::bind_on(shared, port, options).unwrap();
    let spawner = world.clone();
    world.spawn(async move {
        loop {
            let mut stream = listener.accept().await;
            spawner.spawn(async move {
                let mut buffer = [0; 700];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
                let _ = stream.close().await;
            });
        }
    });
}

fn transfer(loss: Loss, length: usize) -> Duration {
    let (world, a, b) = pair(loss);
    echo(&world, b, 9, ListenOptions::default());
    let data = pattern(length);
    world.block_on(async {
        let start = world.clock.now();
        let mut stream = connect(a, 9).await.unwrap();
        assert_eq!(*stream.peer().unwrap().ip(), B);
        let mut got = Vec::new();
        for piece in data.chunks(3000) {
            stream.write_all(piece).await.unwrap();
            let mut buffer = [0; 3000];
            let mut read = 0;
            while read < piece.len() {
                read += stream.read(&mut buffer[read..piece.len()]).await.unwrap();
            }
            got.extend_from_slice(&buffer[..piece.len()]);
        }
        stream.flush().await.unwrap();
        stream.close().await.unwrap();
        assert!(got == data);
        world.clock.now() - start
    })
}

#[test]
fn tcp_echo() {
    assert!(transfer(no_loss(), 300_000) < Duration::from_secs(1));
}

#[test]
fn tcp_echo_over_a_lossy_cable() {
    let mut count = 0_u32;
    transfer(
        Arc::new(Mutex::new(move |_: &[u8]| {
            count = count.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            count >> 28 == 0
        })),
        60_000,
    );
}

#[test]
fn bulk_into_a_large_window() {
    let (world, a, b) = pair(no_loss());
    let options = ListenOptions {
        tcp: TcpOptions::BULK,
        ..ListenOptions::default()
    };
    let mut listener = TcpListener::bind_on(b, 7700, options).unwrap();
    let data = pattern(2_000_000);
    let sent = data.clone();
    world.spawn(async move {
        let mut stream = connect(a, 7700).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.close().await.unwrap();
    });
    world.block_on(async {
        let mut stream = listener.accept().await;
        assert!(read_all(&mut stream).await.unwrap() == data);
    });
}

#[test]
fn a_dropped_stream_still_delivers_and_leaves_nothing_behind() {
    let (world, a, b) = pair(no_loss());
    let mut listener = TcpListener::bind_on(b, 80, ListenOptions::default()).unwrap();
    world.spawn(async move {
        loop {
            let mut stream = listener.accept().await;
            stream.write_all(&pattern(5000)).await.unwrap();
        }
    });
    world.block_on(async {
        let before = (a.stats().tcp_sockets, b.stats().tcp_sockets);
        for _ in 0..3 {
            let mut stream = connect(a, 80).await.unwrap();
            assert_eq!(read_all(&mut stream).await.unwrap(), pattern(5000));
        }
        world.sleep(Duration::from_secs(25)).await;
        assert_eq!((a.stats().tcp_sockets, b.stats().tcp_sockets), (before.0, 8));
        assert_eq!(b.stats().connections, 0);
    });
}

#[test]
fn a_peer_that_never_closes_is_given_up() {
    let (world, a, b) = pair(no_loss());
    let mut listener = TcpListener::bind_on(b, 80, ListenOptions::default()).unwrap();
    world.block_on(async {
        let mut stream = connect(a, 80).await.unwrap();
        drop(listener.accept().await);
        assert_eq!(stream.read(&mut [0; 9]).await, Ok(0));
        world.sleep(Duration::from_secs(15)).await;
        assert_eq!(b.stats().connections, 0);
        assert_eq!(b.stats().tcp_sockets, 8);
        assert_eq!(stream.read(&mut [0; 9]).await, Ok(0));
        assert_eq!(stream.write_all(b"x").await, Err(TcpError::Reset));
    });
}

/// Their acknowledgements of the end are lost, and new ones come all the same.
#[test]
fn connections_that_wait_for_the_last_acknowledgement_give_way() {
    let silent = Arc::new(AtomicBool::new(false));
    let world = World::default();
    let lost = silent.clone();
    let (a, b) = cable(Arc::new(Mutex::new(move |frame: &[u8]| {
        frame[6..12] == MAC_A && lost.load(Ordering::Relaxed)
    })));
    let few = Limits {
        tcp_sockets: 3,
        ..Limits::default()
    };
    let a = host(&world, a, MAC_A, fixed(A), Limits::default());
    let b = host(&world, b, MAC_B, fixed(B), few);
    let mut listener = TcpListener::bind_on(b, 7, ListenOptions::default()).unwrap();
    world.block_on(async {
        for number in 0..9 {
            let soon = world.clock.now() + Duration::from_millis(20);
            let connected = within(&world.clock, soon, connect(a, 7)).await;
            let client = connected.unwrap_or_else(|| panic!("no room for connection {number}"));
            let mut stream = listener.accept().await;
            drop(client);
            assert_eq!(stream.read(&mut [0; 9]).await, Ok(0));
            silent.store(true, Ordering::Relaxed);
            drop(stream);
            world.sleep(Duration::from_millis(5)).await;
            silent.store(false, Ordering::Relaxed);
        }
    });
}

#[test]
fn connections_are_refused_reset_and_bounded() {
    let (world, a, b) = pair(no_loss());
    world.block_on(async {
        assert_eq!(connect(a, 81).await.err(), Some(ConnectError::Refused));
        let options = ListenOptions {
            backlog: 2,
            connections: 3,
            ..ListenOptions::default()
        };
        let mut listener = TcpListener::bind_on(b, 80, options).unwrap();
        assert_eq!(
            TcpListener::bind_on(b, 80, options).err(),
            Some(BindError::InUse(80))
        );
        assert_eq!(
            TcpListener::bind_on(b, 0, options).err(),
            Some(BindError::PortZero)
        );
        let mut clients = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..3 {
            clients.push(connect(a, 80).await.unwrap());
            streams.push(listener.accept().await);
        }
        assert_eq!(b.stats().tcp_sockets, 3);
        // The fourth is kept waiting, not refused, and served when there is room.
        let late = world.clock.now() + Duration::from_secs(3);
        let fourth = connect(a, 80);
        let mut fourth = Box::pin(fourth);
        assert!(within(&world.clock, late, &mut fourth).await.is_none());
        assert!(b.stats().frames.rx_dropped >= 1);
        drop(streams.pop());
        assert!(fourth.await.is_ok());
        streams.pop().unwrap().abort();
        assert_eq!(clients[1].read(&mut [0; 9]).await, Err(TcpError::Reset));
    });
}

#[test]
fn a_flood_of_requests_stays_within_the_backlog() {
    let world = World::default();
    let (end, mut flood) = cable(no_loss());
    let limits = Limits {
        tcp_sockets: 16,
        ..Limits::default()
    };
    let mut known = inherited(B);
    known.neighbours.push(Neighbour {
        address: A,
        mac: MAC_A,
    });
    let shared = host(&world, end, MAC_B, Addressing::Handover(known), limits);
    let _listener = TcpListener::bind_on(shared, 80, ListenOptions::default()).unwrap();
    world.block_on(async {
        for round in 0..2000_u32 {
            super::frames::send(&mut flood, &super::frames::syn(A, 1000 + round as u16, 80));
            world.sleep(Duration::from_millis(10)).await;
            flood.incoming.lock().unwrap().frames.clear();
            assert!(shared.stats().tcp_sockets <= 8);
        }
        let stats = shared.stats();
        assert!(stats.frames.rx_dropped > 1000);
        // Half-open connections do give way: well over eight were answered.
        assert!(stats.frames.tx_frames > 50, "{}", stats.frames.tx_frames);
    });
}

#[test]
fn stopping_keeps_open_connections_and_drops_requests() {
    let (world, a, b) = pair(no_loss());
    echo(&world, b, 7, ListenOptions::default());
    world.block_on(async {
        let mut stream = connect(a, 7).await.unwrap();
        assert_eq!(b.first_answer(), None);
        b.stop_accepting();
        let soon = world.clock.now() + Duration::from_millis(500);
        let mut waiting = Box::pin(connect(a, 7));
        assert!(within(&world.clock, soon, &mut waiting).await.is_none());
        stream.write_all(b"still here").await.unwrap();
        let mut buffer = [0; 10];
        assert_eq!(stream.read(&mut buffer).await, Ok(10));
        assert!(b.first_answer().is_some_and(|at| at <= world.clock.now()));
        assert_eq!(a.first_answer(), None);
        assert_eq!(b.stats().connections, 1);
        b.resume_accepting();
        assert!(waiting.await.is_ok());
    });
}

#[test]
fn connect_gives_up_on_silence() {
    let (world, a, _b) = pair(Arc::new(Mutex::new(|frame: &[u8]| frame.get(23) == Some(&6))));
    world.block_on(async {
        let start = world.clock.now();
        assert_eq!(connect(a, 80).await.err(), Some(ConnectError::Refused));
        let took = world.clock.now() - start;
        assert!(took >= Duration::from_secs(59) && took < Duration::from_secs(70));
        world.sleep(Duration::from_secs(20)).await;
        assert_eq!(a.stats().tcp_sockets, 0);
    });
}

#[test]
fn udp_bursts_and_errors() {
    let (world, a, b) = pair(no_loss());
    let mut server = UdpSocket::bind_on(b, 7, UdpOptions::default()).unwrap();
    let mut client = UdpSocket::bind_on(a, 5000, UdpOptions::default()).unwrap();
    assert_eq!(
        UdpSocket::bind_on(b, 7, UdpOptions::default()).err(),
        Some(BindError::InUse(7))
    );
    world.spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            if let Ok((length, from)) = server.recv_from(&mut buffer).await {
                server.send_to(&buffer[..length], from).await.unwrap();
            }
        }
    });
    world.block_on(async {
        let to = SocketAddrV4::new(B, 7);
        let mut buffer = [0; 1500];
        for round in 0..50_u8 {
            for i in 0..60_u8 {
                client.send_to(&[round, i, 0, 0], to).await.unwrap();
            }
            for i in 0..60_u8 {
                assert_eq!(client.recv_from(&mut buffer).await, Ok((4, to)));
                assert_eq!(buffer[..2], [round, i]);
            }
        }
        assert!(b.first_answer().is_some());
        client.send_to(&[1; 1472], to).await.unwrap();
        assert_eq!(
            client.recv_from(&mut [0; 100]).await,
            Err(UdpError::Truncated(1472))
        );
        assert_eq!(client.send_to(&[1; 1473], to).await, Err(UdpError::TooLong(1473)));
        assert_eq!(
            client.send_to(&[1], SocketAddrV4::new(B, 0)).await,
            Err(UdpError::Unaddressable)
        );
        client.send_to(&[], to).await.unwrap();
        assert_eq!(client.recv_from(&mut buffer).await, Ok((0, to)));
    });
}

#[test]
fn a_full_device_does_not_make_the_runner_spin() {
    let world = World::default();
    let (mut a, b) = cable(no_loss());
    a.room = 1;
    let line = a.outgoing.clone();
    let a = host(&world, a, MAC_A, fixed(A), Limits::default());
    let mut client = UdpSocket::bind_on(a, 5000, UdpOptions::default()).unwrap();
    world.block_on(async {
        // Nobody takes the ARP request: the line stays full, and time passes in steps of a millisecond, not of nothing.
        client.send_to(b"x", SocketAddrV4::new(B, 7)).await.unwrap();
        world.sleep(Duration::from_secs(5)).await;
        assert_eq!(line.lock().unwrap().frames.len(), 1);
        assert!(a.stats().frames.tx_busy < 6000);
        let b = host(&world, b, MAC_B, fixed(B), Limits::default());
        let mut server = UdpSocket::bind_on(b, 7, UdpOptions::default()).unwrap();
        assert_eq!(server.recv_from(&mut [0; 9]).await.unwrap().0, 1);
    });
}

/// What tasks that may move between cores hold.
#[test]
fn sockets_and_their_waits_may_move_between_cores() {
    fn send<T: Send>(_: &T) {}
    let (world, a, b) = pair(no_loss());
    let mut listener = TcpListener::bind_on(b, 80, ListenOptions::default()).unwrap();
    let mut socket = UdpSocket::bind_on(a, 53, UdpOptions::default()).unwrap();
    send(&world.clock);
    send(&listener.accept());
    send(&socket.recv_from(&mut []));
    send(&connect(a, 80));
    send(&resolve_on(a, "name"));
    let (end, _) = cable(no_loss());
    send(&run(a, end, world.clock.clone()));
}

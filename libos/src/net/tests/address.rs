use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, Ipv4Cidr};

use super::world::*;
use crate::net::*;

/// A DHCP server on B that leases A for 1000 s; counts what it is asked.
fn dhcp_server(world: &World, shared: &'static Shared) -> Arc<Mutex<Vec<DhcpMessageType>>> {
    let asked = Arc::<Mutex<Vec<DhcpMessageType>>>::default();
    let log = asked.clone();
    let mut socket = UdpSocket::bind_on(shared, 67, UdpOptions::default()).unwrap();
    world.spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
            let packet = DhcpPacket::new_checked(&buffer[..length]).unwrap();
            let request = DhcpRepr::parse(&packet).unwrap();
            log.lock().unwrap().push(request.message_type);
            let answer = DhcpRepr {
                message_type: match request.message_type {
                    DhcpMessageType::Discover => DhcpMessageType::Offer,
                    _ => DhcpMessageType::Ack,
                },
                your_ip: A,
                server_identifier: Some(B),
                subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
                router: Some(B),
                dns_servers: Some([B].into_iter().collect()),
                lease_duration: Some(1000),
                client_identifier: None,
                requested_ip: None,
                parameter_request_list: None,
                max_size: None,
                ..request
            };
            let mut bytes = vec![0; answer.buffer_len()];
            answer
                .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
                .unwrap();
            socket
                .send_to(&bytes, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68))
                .await
                .unwrap();
        }
    });
    asked
}

#[test]
fn dhcp_gives_an_address_and_renews_it() {
    let world = World::default();
    let (a, b) = cable(no_loss());
    let a = host(&world, a, MAC_A, Addressing::Dhcp, Limits::default());
    assert_eq!(a.configuration(), None);
    let b = host(&world, b, MAC_B, fixed(B), Limits::default());
    let asked = dhcp_server(&world, b);
    world.block_on(async {
        let configuration = a.configured().await;
        assert_eq!(world.clock.now(), Instant::ZERO);
        assert_eq!((configuration.address, configuration.prefix), (A, 24));
        assert_eq!(
            (configuration.gateway, &configuration.dns[..]),
            (Some(B), &[B][..])
        );
        assert_eq!(
            (configuration.origin, configuration.leased, configuration.mac),
            (Origin::Dhcp, true, MAC_A)
        );
        let before = asked.lock().unwrap().len();
        world.sleep(Duration::from_secs(599)).await;
        assert!(
            asked.lock().unwrap().len() > before,
            "half of the lease has passed"
        );
        assert_eq!(a.configuration().unwrap().address, A);
        // DHCP is no answer of an application.
        assert_eq!(a.first_answer(), None);
    });
}

#[test]
fn a_lost_offer_is_asked_for_again_soon() {
    let world = World::default();
    let lost = Mutex::new(0);
    let (a, b) = cable(Arc::new(Mutex::new(move |_: &[u8]| {
        let mut lost = lost.lock().unwrap();
        *lost += 1;
        *lost <= 2
    })));
    let a = host(&world, a, MAC_A, Addressing::Dhcp, Limits::default());
    dhcp_server(&world, host(&world, b, MAC_B, fixed(B), Limits::default()));
    world.block_on(a.configured());
    assert!(world.clock.now() <= Instant::from_secs(3));
}

async fn echo(shared: &'static Shared) {
    let mut server = UdpSocket::bind_on(shared, 7, UdpOptions::default()).unwrap();
    let mut buffer = [0; 9];
    loop {
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        server.send_to(&buffer[..length], from).await.unwrap();
    }
}

/// A with this address answers B once; what A would leave, what DHCP was asked, and how often A asked for B by ARP.
fn life(addressing: Addressing) -> (Configuration, Vec<DhcpMessageType>, usize) {
    let world = World::default();
    let arps = Arc::new(Mutex::new(0));
    let count = arps.clone();
    let (a, b) = cable(Arc::new(Mutex::new(move |frame: &[u8]| {
        let request = frame[12..14] == [8, 6] && frame[21] == 1 && frame[6..12] == MAC_A;
        *count.lock().unwrap() += usize::from(request);
        false
    })));
    let handed_over = matches!(addressing, Addressing::Handover(_));
    let a = host(&world, a, MAC_A, addressing, Limits::default());
    // B knows A's hardware address, so that A does not learn B's from its question.
    let knows = Configuration {
        neighbours: vec![Neighbour {
            address: A,
            mac: MAC_A,
        }],
        ..inherited(B)
    };
    let b = host(&world, b, MAC_B, Addressing::Handover(knows), Limits::default());
    let asked = dhcp_server(&world, b);
    let mut client = UdpSocket::bind_on(b, 9999, UdpOptions::default()).unwrap();
    world.spawn(echo(a));
    world.block_on(async {
        let first = a.configured().await;
        assert_eq!(first.origin == Origin::Handover, handed_over);
        client.send_to(b"hello", SocketAddrV4::new(A, 7)).await.unwrap();
        client.recv_from(&mut [0; 9]).await.unwrap();
        assert_eq!(a.first_answer(), Some(Instant::ZERO));
        if handed_over {
            assert_eq!(asked.lock().unwrap().len(), 0, "serving comes first");
            world.sleep(Duration::from_secs(4)).await;
            assert_eq!(a.configuration(), Some(first));
            assert_eq!(asked.lock().unwrap().len(), 0);
            world.sleep(Duration::from_secs(4)).await;
        }
        let asked = asked.lock().unwrap().clone();
        (a.configuration().unwrap(), asked, *arps.lock().unwrap())
    })
}

#[test]
fn a_successor_serves_at_once_and_renews_the_lease_later() {
    let (left, asked, arps) = life(Addressing::Dhcp);
    assert_eq!(
        left.neighbours,
        [Neighbour {
            address: B,
            mac: MAC_B
        }]
    );
    assert_eq!(
        (asked, arps),
        (vec![DhcpMessageType::Discover, DhcpMessageType::Request], 1)
    );
    let (next, asked, arps) = life(Addressing::Handover(left.clone()));
    assert_eq!(
        (asked, arps),
        (vec![DhcpMessageType::Discover, DhcpMessageType::Request], 0)
    );
    assert_eq!(next, left);
}

#[test]
fn an_inherited_address_outlives_a_silent_dhcp_server() {
    let world = World::default();
    let (end, _peer) = cable(no_loss());
    let left = Configuration {
        leased: true,
        ..inherited(B)
    };
    let shared = host(&world, end, MAC_B, Addressing::Handover(left), Limits::default());
    world.block_on(async {
        world.sleep(Duration::from_secs(300)).await;
        assert_eq!(shared.configuration().unwrap().address, B);
    });
}

#[test]
fn impossible_configurations_are_refused() {
    let (end, _) = cable(no_loss());
    let new = |mac, left| {
        Stack::new(
            &end,
            mac,
            Addressing::Handover(left),
            Limits::default(),
            1,
            Instant::ZERO,
        )
        .map(|_| ())
        .err()
    };
    let address = |bytes: [u8; 4]| Configuration {
        address: bytes.into(),
        ..inherited(B)
    };
    assert_eq!(new(MAC_B, inherited(B)), None);
    assert_eq!(new([1; 6], inherited(B)), Some(ConfigurationError::Mac));
    assert_eq!(new([0; 6], inherited(B)), Some(ConfigurationError::Mac));
    for bytes in [[0; 4], [255; 4], [224, 0, 0, 1]] {
        assert_eq!(
            new(MAC_B, address(bytes)),
            Some(ConfigurationError::Address(bytes.into()))
        );
        let left = Configuration {
            gateway: Some(bytes.into()),
            ..inherited(B)
        };
        assert_eq!(new(MAC_B, left), Some(ConfigurationError::Gateway(bytes.into())));
    }
    let left = Configuration {
        prefix: 33,
        ..inherited(B)
    };
    assert_eq!(new(MAC_B, left), Some(ConfigurationError::Prefix(33)));
    // Odd, but harmless: what is not a host is left out.
    let odd = Neighbour {
        address: Ipv4Addr::BROADCAST,
        mac: [255; 6],
    };
    let left = Configuration {
        prefix: 0,
        dns: vec![Ipv4Addr::UNSPECIFIED; 9],
        neighbours: vec![odd; 99],
        ..inherited(B)
    };
    assert_eq!(new(MAC_B, left), None);
}

#[test]
fn names_are_resolved() {
    let world = World::default();
    let (a, b) = cable(no_loss());
    let dns = Addressing::Static {
        address: Ipv4Cidr::new(A, 24),
        gateway: None,
        dns: vec![B],
    };
    let a = host(&world, a, MAC_A, dns, Limits::default());
    let b = host(&world, b, MAC_B, fixed(B), Limits::default());
    let mut server = UdpSocket::bind_on(b, 53, UdpOptions::default()).unwrap();
    world.spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let mut answer = buffer[..length].to_vec();
            let known = answer.windows(5).any(|part| part == b"known");
            answer[2..4].copy_from_slice(if known { &[0x81, 0x80] } else { &[0x81, 0x83] });
            if known {
                answer[7] = 1;
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
            }
            server.send_to(&answer, from).await.unwrap();
        }
    });
    world.block_on(async {
        assert_eq!(resolve_on(a, "10.9.8.7").await, Ok(Ipv4Addr::new(10, 9, 8, 7)));
        assert_eq!(resolve_on(b, "known.example").await, Err(ResolveError::NoServer));
        for bad in ["", "..", &"x".repeat(64), &"ab.".repeat(100)] {
            assert_eq!(resolve_on(a, bad).await, Err(ResolveError::InvalidName), "{bad}");
        }
        for _ in 0..20 {
            assert_eq!(
                resolve_on(a, "known.example").await,
                Ok(Ipv4Addr::new(1, 2, 3, 4))
            );
            assert_eq!(resolve_on(a, "other.example").await, Err(ResolveError::NotFound));
        }
        // Given up by who asked: nothing is left; and the ninth at a time is refused.
        for _ in 0..20 {
            assert_eq!(
                within(&world.clock, world.clock.now(), resolve_on(a, "known.example")).await,
                None
            );
        }
        let mut questions: Vec<_> = (0..9).map(|_| Box::pin(resolve_on(a, "known.example"))).collect();
        for (index, question) in questions.iter_mut().enumerate() {
            let answer = within(&world.clock, world.clock.now(), question).await;
            assert_eq!(answer, (index == 8).then_some(Err(ResolveError::Busy)));
        }
        drop(questions);
        assert_eq!(a.with(|stack| stack.queries), 0);
    });
}

//! What becomes of connections when an instar is replaced, and when it comes back.

use std::cell::Cell;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::world::*;
use crate::net::*;

/// Longer than a silent peer has by default.
const TRIAL: Duration = Duration::from_secs(90);

/// One machine on a cable: a predecessor and its successor, of which at most one has the card.
struct Machine {
    world: World,
    incoming: std::sync::Arc<std::sync::Mutex<Line>>,
    outgoing: std::sync::Arc<std::sync::Mutex<Line>>,
    /// Whose card it is.
    turn: Rc<Cell<u32>>,
    /// TCP segments that left it.
    said: std::sync::Arc<AtomicUsize>,
    /// What leaves it is lost.
    mute: std::sync::Arc<AtomicBool>,
}

impl Machine {
    /// And a peer, which is never at a loss and waits for ever.
    fn new() -> (Self, World, &'static Shared) {
        let world = World::default();
        let (a, b) = cable(no_loss());
        let a = host(&world, a, MAC_A, fixed(A), Limits::default());
        let machine = Machine {
            world: world.clone(),
            incoming: b.incoming,
            outgoing: b.outgoing,
            turn: Rc::new(Cell::new(1)),
            said: std::sync::Arc::default(),
            mute: std::sync::Arc::default(),
        };
        (machine, world, a)
    }

    /// An instar, which is polled every millisecond while it is its turn.
    fn instar(&self, number: u32, addressing: Addressing) -> &'static Shared {
        let (said, mute) = (self.said.clone(), self.mute.clone());
        let mut end = End {
            incoming: self.incoming.clone(),
            outgoing: self.outgoing.clone(),
            loss: std::sync::Arc::new(std::sync::Mutex::new(move |frame: &[u8]| {
                let tcp = frame[12..14] == [8, 0] && frame[23] == 6;
                said.fetch_add(usize::from(tcp), Ordering::SeqCst);
                mute.load(Ordering::SeqCst)
            })),
            room: 64,
            checksums: true,
        };
        let now = self.world.clock.now();
        let stack = Stack::new(&end, MAC_B, addressing, Limits::default(), number.into(), now).unwrap();
        let shared: &'static Shared = Box::leak(Box::new(Shared::new(stack)));
        let (world, turn) = (self.world.clone(), self.turn.clone());
        self.world.spawn(async move {
            loop {
                if turn.get() == number {
                    while shared.poll_once(world.clock.now(), &mut end) {}
                }
                world.sleep(Duration::from_millis(1)).await;
            }
        });
        shared
    }

    /// The predecessor stops, and its successor has the card.
    async fn replace(&self, predecessor: &'static Shared) -> &'static Shared {
        predecessor.stop_accepting();
        let until = self.world.clock.now() + Duration::from_millis(100);
        let kept = loop {
            match predecessor.cut_if_quiet() {
                Some(kept) => break kept,
                None if self.world.clock.now() >= until => break predecessor.cut(),
                None => self.world.sleep(Duration::from_millis(1)).await,
            }
        };
        self.world.sleep(Duration::from_millis(5)).await;
        let configuration = predecessor.configuration().unwrap();
        predecessor.stand_still(self.world.clock.now());
        let successor = self.instar(2, Addressing::Handover(configuration));
        successor.leave_alone(kept);
        self.turn.set(2);
        successor
    }

    /// The predecessor has the card again.
    fn back(&self, predecessor: &'static Shared) {
        self.turn.set(1);
        predecessor.go_on(self.world.clock.now());
        predecessor.resume_accepting();
    }
}

pub fn echo(world: &World, shared: &'static Shared) {
    let mut listener = TcpListener::bind_on(shared, 7, ListenOptions::default()).unwrap();
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
            });
        }
    });
}

/// Connects; never gives up.
pub async fn connect(from: &'static Shared, port: u16) -> TcpStream {
    let mut stream = TcpStream::connect_on(from, SocketAddrV4::new(B, port), TcpOptions::default())
        .await
        .unwrap();
    stream.set_timeout(None);
    stream.set_keep_alive(None);
    stream
}

pub async fn echoed(stream: &mut TcpStream, text: &[u8]) -> Result<(), TcpError> {
    stream.write_all(text).await?;
    let mut buffer = [0; 100];
    let mut read = 0;
    while read < text.len() {
        read += match stream.read(&mut buffer[read..]).await? {
            0 => return Err(TcpError::Finished),
            more => more,
        };
    }
    assert_eq!(&buffer[..read], text);
    Ok(())
}

#[test]
fn connections_outlive_a_successor_that_fails() {
    let (machine, world, a) = Machine::new();
    let b = machine.instar(1, fixed(B));
    echo(&world, b);
    world.block_on(async {
        let (mut idle, mut busy) = (connect(a, 7).await, connect(a, 7).await);
        echoed(&mut idle, b"before").await.unwrap();
        echoed(&mut busy, b"before").await.unwrap();
        // Shortly before a keep-alive is due: silence is at its longest.
        world.sleep(Duration::from_secs(19)).await;
        let successor = machine.replace(b).await;
        let said = machine.said.load(Ordering::SeqCst);
        // One peer says something meanwhile, and repeats it.
        busy.write_all(b"anybody?").await.unwrap();
        world.sleep(TRIAL).await;
        assert!(successor.stats().frames.rx_dropped > 1, "the peer was heard");
        assert_eq!(machine.said.load(Ordering::SeqCst), said, "and not answered");

        machine.back(b);
        let mut buffer = [0; 8];
        assert_eq!(busy.read(&mut buffer).await, Ok(8));
        assert_eq!(&buffer, b"anybody?");
        echoed(&mut busy, b"after").await.unwrap();
        echoed(&mut idle, b"after").await.unwrap();
        // Silence counts again from here on, and keep-alives are answered.
        world.sleep(Duration::from_secs(100)).await;
        echoed(&mut idle, b"long after").await.unwrap();
    });
}

#[test]
fn what_was_lost_before_a_failed_replacement_is_said_again() {
    let (machine, world, a) = Machine::new();
    let b = machine.instar(1, fixed(B));
    echo(&world, b);
    world.block_on(async {
        let mut stream = connect(a, 7).await;
        echoed(&mut stream, b"before").await.unwrap();
        machine.mute.store(true, Ordering::SeqCst);
        stream.write_all(b"hello").await.unwrap();
        world.sleep(Duration::from_millis(20)).await;
        assert_eq!(b.stats().unsent, 5);
        machine.replace(b).await;
        machine.mute.store(false, Ordering::SeqCst);
        world.sleep(TRIAL).await;
        machine.back(b);
        let mut buffer = [0; 20];
        assert_eq!(stream.read(&mut buffer).await, Ok(5));
        assert_eq!(&buffer[..5], b"hello");
        echoed(&mut stream, b"after").await.unwrap();
    });
}

#[test]
fn a_peer_that_is_gone_is_given_up_after_the_way_back() {
    let (machine, world, a) = Machine::new();
    let b = machine.instar(1, fixed(B));
    echo(&world, b);
    world.block_on(async {
        let mut stream = connect(a, 7).await;
        echoed(&mut stream, b"before").await.unwrap();
        machine.replace(b).await;
        world.sleep(TRIAL).await;
        machine.back(b);
        machine.mute.store(true, Ordering::SeqCst);
        let since = world.clock.now();
        while b.stats().connections > 0 {
            world.sleep(Duration::from_millis(10)).await;
        }
        let took = world.clock.now() - since;
        assert!(
            (Duration::from_secs(55)..Duration::from_secs(65)).contains(&took),
            "{took}"
        );
    });
}

#[test]
fn timers_have_as_long_to_go_as_before() {
    let (machine, world, a) = Machine::new();
    let b = machine.instar(1, fixed(B));
    echo(&world, b);
    world.block_on(async {
        let mut stream = connect(a, 7).await;
        echoed(&mut stream, b"before").await.unwrap();
        world.sleep(Duration::from_secs(5)).await;
        machine.turn.set(0);
        let due = |shared: &Shared| {
            let now = world.clock.now();
            shared.with(|stack| stack.poll_at(now)).unwrap() - now
        };
        let before = due(b);
        assert!(
            (Duration::from_secs(14)..Duration::from_secs(16)).contains(&before),
            "{before}"
        );
        b.stand_still(world.clock.now());
        world.sleep(TRIAL).await;
        b.go_on(world.clock.now());
        assert_eq!(due(b), before);
    });
}

#[test]
fn a_committed_successor_tells_the_peers() {
    let (machine, world, a) = Machine::new();
    let b = machine.instar(1, fixed(B));
    echo(&world, b);
    world.block_on(async {
        let mut stream = connect(a, 7).await;
        echoed(&mut stream, b"before").await.unwrap();
        let successor = machine.replace(b).await;
        echo(&world, successor);
        let soon = world.clock.now() + Duration::from_secs(10);
        assert!(
            within(&world.clock, soon, stream.read(&mut [0; 9]))
                .await
                .is_none()
        );
        successor.forget_kept();
        let soon = world.clock.now() + Duration::from_millis(20);
        let read = within(&world.clock, soon, stream.read(&mut [0; 9])).await;
        assert_eq!(read, Some(Err(TcpError::Reset)), "without having said anything");
        // Others are served.
        echoed(&mut connect(a, 7).await, b"new").await.unwrap();
    });
}

#[test]
fn a_peer_whose_address_nobody_knows_is_told_when_it_says_something() {
    let (machine, world, a) = Machine::new();
    let b = machine.instar(1, fixed(B));
    echo(&world, b);
    world.block_on(async {
        let mut stream = connect(a, 7).await;
        echoed(&mut stream, b"before").await.unwrap();
        let successor = machine.replace(b).await;
        successor.with(|stack| stack.watch.neighbours.clear());
        successor.forget_kept();
        let soon = world.clock.now() + Duration::from_secs(10);
        assert!(
            within(&world.clock, soon, stream.read(&mut [0; 9]))
                .await
                .is_none()
        );
        assert_eq!(echoed(&mut stream, b"x").await, Err(TcpError::Reset));
    });
}

#[test]
fn only_what_is_kept_is_dropped() {
    let (machine, world, a) = Machine::new();
    let b = machine.instar(1, fixed(B));
    echo(&world, b);
    world.block_on(async {
        let mut stream = connect(a, 7).await;
        echoed(&mut stream, b"before").await.unwrap();
        let successor = machine.replace(b).await;
        echo(&world, successor);
        let mut other = connect(a, 7).await;
        echoed(&mut other, b"another port").await.unwrap();
        let refused = TcpStream::connect_on(a, SocketAddrV4::new(B, 8), TcpOptions::default()).await;
        assert_eq!(refused.err(), Some(ConnectError::Refused));
        machine.back(b);
        echoed(&mut stream, b"back").await.unwrap();
    });
}

#[test]
fn a_successor_does_not_use_a_kept_connections_port() {
    let (_, world, a) = Machine::new();
    let (_, _, other) = Machine::new();
    // What `a` would choose, by a look at what its double chooses.
    let port = |shared: &'static Shared| {
        shared.with(|stack| stack.random = 42);
        drop(TcpStream::connect_on(shared, SocketAddrV4::new(B, 9), TcpOptions::default()).await_once());
        shared.with(|stack| {
            let mut ports = stack.sockets.iter().filter_map(|(_, socket)| match socket {
                smoltcp::socket::Socket::Tcp(socket) => socket.local_endpoint().map(|local| local.port),
                _ => None,
            });
            ports.next().unwrap()
        })
    };
    let chosen = port(other);
    a.leave_alone(vec![Kept {
        peer: SocketAddrV4::new(B, 9),
        port: chosen,
    }]);
    assert_ne!(port(a), chosen);
    drop(world);
}

/// Polls once.
trait AwaitOnce: Future + Sized {
    fn await_once(self) -> Option<Self::Output> {
        let mut this = Box::pin(self);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match this.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => {
                // It lives on, as it would in a task.
                std::mem::forget(this);
                None
            }
        }
    }
}

impl<F: Future> AwaitOnce for F {}

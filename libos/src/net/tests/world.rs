//! A world for tests: simulated time, tasks, and a cable between two stacks that may lose frames.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, RxToken, TxToken};
use smoltcp::wire::Ipv4Cidr;

use crate::net::{
    Addressing, Configuration, Duration, Instant, Limits, Nic, Origin, Shared, Stack, Timer, run,
};

pub const A: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 0, 1);
pub const B: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 0, 2);
pub const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 2];

#[derive(Default)]
struct Sleepers {
    now: i64,
    next: u64,
    list: Vec<(u64, i64, Waker)>,
}

/// Simulated time in microseconds: it passes when no task has anything to do.
#[derive(Clone, Default)]
pub struct Clock(Arc<Mutex<Sleepers>>);

impl Timer for Clock {
    fn now(&self) -> Instant {
        Instant::from_micros(self.0.lock().unwrap().now)
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        let mut sleepers = self.0.lock().unwrap();
        sleepers.next += 1;
        Sleep {
            id: sleepers.next,
            at: at.total_micros(),
            clock: self.clone(),
        }
    }
}

struct Sleep {
    id: u64,
    at: i64,
    clock: Clock,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut sleepers = self.clock.0.lock().unwrap();
        if sleepers.now >= self.at {
            return Poll::Ready(());
        }
        sleepers.list.retain(|sleeper| sleeper.0 != self.id);
        sleepers.list.push((self.id, self.at, context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock
            .0
            .lock()
            .unwrap()
            .list
            .retain(|sleeper| sleeper.0 != self.id);
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;
type Task = (Work, Arc<Flag>);

/// Tasks and their time.
#[derive(Clone, Default)]
pub struct World {
    pub clock: Clock,
    new: Rc<RefCell<Vec<Work>>>,
    tasks: Rc<RefCell<Vec<Task>>>,
}

impl World {
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.new.borrow_mut().push(Box::pin(work));
    }

    pub async fn sleep(&self, time: Duration) {
        self.clock.sleep_until(self.clock.now() + time).await;
    }

    /// Runs until `main` ends; panics if nothing can happen any more, or after ten minutes of simulated time.
    pub fn block_on<R>(&self, main: impl Future<Output = R>) -> R {
        let mut main = Box::pin(main);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let end = self.clock.now() + Duration::from_secs(600);
        let mut polls = 0_u64;
        loop {
            polls += 1;
            assert!(polls < 20_000_000, "tasks spin");
            let new: Vec<_> = self.new.borrow_mut().drain(..).collect();
            let mut tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            tasks.extend(
                new.into_iter()
                    .map(|work| (work, Arc::new(Flag(AtomicBool::new(true))))),
            );
            let mut busy = false;
            tasks.retain_mut(|(work, flag)| {
                if !flag.0.swap(false, Ordering::SeqCst) {
                    return true;
                }
                busy = true;
                let waker = Waker::from(flag.clone());
                work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            });
            *self.tasks.borrow_mut() = tasks;
            if flag.0.swap(false, Ordering::SeqCst) {
                busy = true;
                let waker = Waker::from(flag.clone());
                if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return result;
                }
            }
            if !busy && self.new.borrow_mut().is_empty() {
                let mut sleepers = self.clock.0.lock().unwrap();
                let next = sleepers.list.iter().map(|sleeper| sleeper.1).min();
                let next = next.expect("nothing can happen any more");
                assert!(next < end.total_micros(), "ten minutes have passed");
                sleepers.now = next;
                for sleeper in sleepers.list.iter().filter(|sleeper| sleeper.1 <= next) {
                    sleeper.2.wake_by_ref();
                }
                sleepers.list.retain(|sleeper| sleeper.1 > next);
            }
        }
    }
}

#[derive(Default)]
pub struct Line {
    pub frames: VecDeque<Vec<u8>>,
    pub waker: Option<Waker>,
}

/// Decides whether a frame is lost.
pub type Loss = Arc<Mutex<dyn FnMut(&[u8]) -> bool + Send>>;

/// One end of a cable.
pub struct End {
    pub incoming: Arc<Mutex<Line>>,
    pub outgoing: Arc<Mutex<Line>>,
    pub loss: Loss,
    pub room: usize,
    pub checksums: bool,
}

pub fn no_loss() -> Loss {
    Arc::new(Mutex::new(|_: &[u8]| false))
}

pub fn cable(loss: Loss) -> (End, End) {
    let (one, two) = (Arc::<Mutex<Line>>::default(), Arc::<Mutex<Line>>::default());
    let a = End {
        incoming: one.clone(),
        outgoing: two.clone(),
        loss: loss.clone(),
        room: 64,
        checksums: true,
    };
    (
        a,
        End {
            incoming: two,
            outgoing: one,
            loss,
            room: 64,
            checksums: true,
        },
    )
}

pub struct Frame(Vec<u8>);
pub struct Room<'a>(&'a End);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        assert!(length <= 1514);
        let mut frame = vec![0xaa; length];
        let result = f(&mut frame);
        if !(self.0.loss.lock().unwrap())(&frame) {
            let mut line = self.0.outgoing.lock().unwrap();
            line.frames.push_back(frame);
            line.waker.take().into_iter().for_each(Waker::wake);
        }
        result
    }
}

impl Device for End {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Frame, Room<'_>)> {
        let frame = self.incoming.lock().unwrap().frames.pop_front()?;
        Some((Frame(frame), Room(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        let used = self.outgoing.lock().unwrap().frames.len();
        (used < self.room).then_some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = 1514;
        if !self.checksums {
            capabilities.checksum = ChecksumCapabilities::ignored();
        }
        capabilities
    }
}

impl Nic for End {
    fn poll_interrupt(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut line = self.incoming.lock().unwrap();
        line.waker = Some(context.waker().clone());
        if line.frames.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

pub fn fixed(address: std::net::Ipv4Addr) -> Addressing {
    Addressing::Static {
        address: Ipv4Cidr::new(address, 24),
        gateway: None,
        dns: vec![],
    }
}

/// What a predecessor with this address left.
pub fn inherited(address: std::net::Ipv4Addr) -> Configuration {
    Configuration {
        mac: MAC_B,
        address,
        prefix: 24,
        gateway: None,
        dns: vec![],
        origin: Origin::Static,
        leased: false,
        neighbours: vec![],
    }
}

/// A host on a cable.
pub fn host(
    world: &World,
    end: End,
    mac: [u8; 6],
    addressing: Addressing,
    limits: Limits,
) -> &'static Shared {
    let seed = 0x1234_5678 + u64::from(mac[5]);
    let stack = Stack::new(&end, mac, addressing, limits, seed, world.clock.now()).unwrap();
    let shared: &'static Shared = Box::leak(Box::new(Shared::new(stack)));
    world.spawn(run(shared, end, world.clock.clone()));
    shared
}

/// Two hosts, A and B.
pub fn pair(loss: Loss) -> (World, &'static Shared, &'static Shared) {
    let world = World::default();
    let (a, b) = cable(loss);
    let a = host(&world, a, MAC_A, fixed(A), Limits::default());
    let b = host(&world, b, MAC_B, fixed(B), Limits::default());
    (world, a, b)
}

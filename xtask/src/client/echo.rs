//! The UDP echo client: a request every so often, whatever happens to the ones before.

use super::record::{EchoRecord, Sample};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a request begins with; its sequence number and the time at which it was sent follow.
const MAGIC: [u8; 8] = *b"instar?\n";

/// The length of a request.
const LENGTH: usize = 24;

/// A record has no more requests than this (more than half an hour at 0.2 ms); then the client stops sending.
const LIMIT: usize = 10_000_000;

/// A client that is this late sends no burst to catch up.
const TOO_LATE: Duration = Duration::from_millis(2);

/// A client that asks until it is stopped.
#[derive(Debug)]
pub struct EchoClient {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<Received>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    first_answer_ns: AtomicU64,
    last_answer_ns: AtomicU64,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[derive(Default)]
struct Sent {
    times_ns: Vec<u64>,
    latest_ns: u64,
}

#[derive(Default)]
struct Received {
    /// Sequence number and time.
    answers: Vec<(u64, u64)>,
    strangers: u64,
}

impl EchoClient {
    /// Starts to send a request to `address` every `interval`.
    ///
    /// # Errors
    /// If there can be no socket or no thread.
    pub fn start(address: SocketAddr, interval: Duration) -> io::Result<Self> {
        let socket = Arc::new(connected(address)?);
        // Short, so that the receiver sees soon that it should stop.
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let shared = Arc::new(Shared {
            start: Instant::now(),
            stop_sending: AtomicBool::new(false),
            stop_receiving: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            first_answer_ns: AtomicU64::new(0),
            last_answer_ns: AtomicU64::new(0),
        });
        let receiver = {
            let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
            thread::Builder::new()
                .name("echo-in".to_owned())
                .spawn(move || receive(&socket, &shared))?
        };
        let sender = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("echo-out".to_owned())
                .spawn(move || send(&socket, &shared, interval))?
        };
        Ok(Self {
            shared,
            sender: Some(sender),
            receiver: Some(receiver),
        })
    }

    /// When it started: what the times of the record count from.
    pub fn started(&self) -> Instant {
        self.shared.start
    }

    /// Now, as the record counts.
    pub fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// How many requests were sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// How many answers came so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// When the first answer came, if one did.
    pub fn first_answer_ns(&self) -> Option<u64> {
        Some(self.shared.first_answer_ns.load(Ordering::Relaxed)).filter(|&ns| ns != 0)
    }

    /// When the last answer came, if one did.
    pub fn last_answer_ns(&self) -> Option<u64> {
        Some(self.shared.last_answer_ns.load(Ordering::Relaxed)).filter(|&ns| ns != 0)
    }

    /// Waits for `count` more answers. Returns whether they came in time.
    pub fn wait_for_answers(&self, count: u64, limit: Duration) -> bool {
        let (goal, deadline) = (self.answered() + count, Instant::now() + limit);
        while self.answered() < goal {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Stops asking, waits up to `grace` for answers that are still under way, and returns the record.
    pub fn stop(mut self, grace: Duration) -> EchoRecord {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        let sent = join(self.sender.take());
        let deadline = Instant::now() + grace;
        while self.answered() < self.sent() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
        let received = join(self.receiver.take());
        put_together(sent, received)
    }
}

impl Drop for EchoClient {
    fn drop(&mut self) {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
    }
}

fn join<T: Default>(handle: Option<JoinHandle<T>>) -> T {
    handle.and_then(|handle| handle.join().ok()).unwrap_or_default()
}

fn put_together(sent: Sent, received: Received) -> EchoRecord {
    let mut record = EchoRecord {
        samples: sent
            .times_ns
            .iter()
            .map(|&sent_ns| Sample {
                sent_ns,
                answered_ns: None,
            })
            .collect(),
        duplicates: 0,
        strangers: received.strangers,
        latest_ns: sent.latest_ns,
    };
    for (number, at) in received.answers {
        match usize::try_from(number)
            .ok()
            .and_then(|number| record.samples.get_mut(number))
        {
            Some(sample) if sample.answered_ns.is_none() => sample.answered_ns = Some(at),
            Some(_) => record.duplicates += 1,
            None => record.strangers += 1,
        }
    }
    record
}

fn send(socket: &UdpSocket, shared: &Shared, interval: Duration) -> Sent {
    let mut sent = Sent::default();
    let mut next = Instant::now();
    while !shared.stop_sending.load(Ordering::Relaxed) && sent.times_ns.len() < LIMIT {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let late = Instant::now().saturating_duration_since(next);
        sent.latest_ns = sent
            .latest_ns
            .max(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
        if late > TOO_LATE {
            next += late;
        }
        next += interval;
        let now = shared.now_ns();
        let mut request = [0; LENGTH];
        request[..8].copy_from_slice(&MAGIC);
        request[8..16].copy_from_slice(&(sent.times_ns.len() as u64).to_le_bytes());
        request[16..].copy_from_slice(&now.to_le_bytes());
        // A request that cannot be sent (nobody listens just now) is a request without an answer.
        _ = socket.send(&request);
        sent.times_ns.push(now);
        shared.sent.fetch_add(1, Ordering::Relaxed);
    }
    sent
}

fn receive(socket: &UdpSocket, shared: &Shared) -> Received {
    let mut received = Received::default();
    let mut answer = [0; 2 * LENGTH];
    while !shared.stop_receiving.load(Ordering::Relaxed) {
        // Errors are time limits, and refusals of requests while nobody listens.
        let Ok(n) = socket.recv(&mut answer) else { continue };
        let now = shared.now_ns();
        match answer.get(..n).and_then(number_of) {
            Some(number) if received.answers.len() < 2 * LIMIT => {
                received.answers.push((number, now));
                _ = shared
                    .first_answer_ns
                    .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
                shared.last_answer_ns.store(now, Ordering::Relaxed);
                shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            _ => received.strangers += 1,
        }
    }
    received
}

/// The sequence number of an answer, which is the request again.
fn number_of(answer: &[u8]) -> Option<u64> {
    if answer.len() != LENGTH || !answer.starts_with(&MAGIC) {
        return None;
    }
    answer.get(8..16)?.try_into().ok().map(u64::from_le_bytes)
}

fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket)
}

/// Whether one request to `address` is answered within `limit`.
pub fn echo_answers(address: SocketAddr, limit: Duration) -> bool {
    let ask = || -> io::Result<bool> {
        let socket = connected(address)?;
        socket.set_read_timeout(Some(limit))?;
        socket.send(b"instar, are you there?")?;
        let mut answer = [0; 64];
        let n = socket.recv(&mut answer)?;
        Ok(answer.get(..n) == Some(b"instar, are you there?"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo server that swallows the requests whose number is in `lost`.
    fn server(lost: std::ops::Range<u64>) -> (SocketAddr, JoinHandle<()>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .expect("set");
        let address = socket.local_addr().expect("an address");
        let thread = thread::spawn(move || {
            let mut request = [0; 64];
            while let Ok((n, from)) = socket.recv_from(&mut request) {
                if n == 1 {
                    break;
                }
                if number_of(&request[..n]).is_none_or(|number| !lost.contains(&number)) {
                    socket.send_to(&request[..n], from).expect("answered");
                }
            }
        });
        (address, thread)
    }

    #[test]
    fn what_is_lost_is_seen_as_a_gap() {
        let (address, thread) = server(100..200);
        assert!(echo_answers(address, Duration::from_secs(5)));
        let client = EchoClient::start(address, Duration::from_micros(200)).expect("started");
        assert!(client.wait_for_answers(200, Duration::from_secs(20)));
        let record = client.stop(Duration::from_millis(200));
        let gap = record.longest_gap(0..u64::MAX).expect("a gap");
        assert!(gap.length_ms() >= 19.0, "{gap:?}");
        assert_eq!(record.lost_outside(&[]).len(), 100);
        assert!(record.lost_outside(&[gap]).is_empty());
        assert_eq!((record.duplicates, record.strangers), (0, 0));
        UdpSocket::bind("127.0.0.1:0")
            .and_then(|s| s.send_to(b"x", address))
            .expect("told to stop");
        thread.join().expect("the server is fine");
    }

    #[test]
    fn nobody_there_is_no_answer() {
        let free = UdpSocket::bind("127.0.0.1:0")
            .and_then(|s| s.local_addr())
            .expect("an address");
        assert!(!echo_answers(free, Duration::from_millis(20)));
    }

    #[test]
    fn answers_are_counted_once() {
        let sent = Sent {
            times_ns: vec![1, 2, 3],
            latest_ns: 0,
        };
        let received = Received {
            answers: vec![(0, 5), (2, 6), (0, 7), (9, 8)],
            strangers: 1,
        };
        let record = put_together(sent, received);
        assert_eq!(
            record.samples[0],
            Sample {
                sent_ns: 1,
                answered_ns: Some(5)
            }
        );
        assert_eq!(record.samples[1].answered_ns, None);
        assert_eq!((record.duplicates, record.strangers), (1, 2));
    }
}

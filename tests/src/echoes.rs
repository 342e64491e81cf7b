//! A client that asks all the time, by UDP echo, and remembers when it was answered.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// One question and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// When it was asked.
    pub sent: Instant,
    /// When it was answered.
    pub answered: Option<Instant>,
}

/// Everything that was asked.
#[derive(Clone, Debug, Default)]
pub struct Echoes(Vec<Echo>);

/// A client at work.
pub struct Asking {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<io::Result<Echoes>>,
}

/// How long after the last question an answer may still come.
const LATE: Duration = Duration::from_secs(2);

impl Asking {
    /// Asks every `interval` from now on.
    ///
    /// # Panics
    /// Without a socket.
    #[must_use]
    pub fn start(to: SocketAddr, interval: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(to).expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Self {
            stop,
            worker: thread::spawn(move || ask(&socket, interval, &stopped)),
        }
    }

    /// Stops asking, waits for the last answers, and returns all.
    ///
    /// # Panics
    /// If the socket broke.
    #[must_use]
    pub fn stop(self) -> Echoes {
        self.stop.store(true, Ordering::Relaxed);
        self.worker
            .join()
            .expect("the client is well")
            .expect("the socket is well")
    }
}

/// Sends in a thread of its own: the time-outs of a socket are too coarse for a beat of less than some milliseconds.
fn ask(socket: &UdpSocket, interval: Duration, stop: &AtomicBool) -> io::Result<Echoes> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let sent = Mutex::new(Vec::new());
    let mut answered: Vec<(usize, Instant)> = Vec::new();
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(socket, interval, stop, &sent));
        let mut end = None;
        let mut datagram = [0; 64];
        loop {
            // Whoever asks while nobody listens is told so: not an error here.
            if let Ok(8) = socket.recv(&mut datagram) {
                let now = Instant::now();
                let number = u64::from_le_bytes(std::array::from_fn(|index| datagram[index]));
                answered.extend(usize::try_from(number).map(|number| (number, now)));
            }
            if sender.is_finished() {
                let end = *end.get_or_insert_with(|| Instant::now() + LATE);
                let asked = sent.lock().unwrap_or_else(PoisonError::into_inner).len();
                if answered.len() >= asked || Instant::now() > end {
                    return;
                }
            }
        }
    });
    let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut echoes: Vec<Echo> = sent
        .into_iter()
        .map(|sent| Echo { sent, answered: None })
        .collect();
    for (number, at) in answered {
        if let Some(echo) = echoes.get_mut(number) {
            echo.answered.get_or_insert(at);
        }
    }
    Ok(Echoes(echoes))
}

fn send(socket: &UdpSocket, interval: Duration, stop: &AtomicBool, sent: &Mutex<Vec<Instant>>) {
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let number = {
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.push(now);
            sent.len() as u64 - 1
        };
        let _ = socket.send(&number.to_le_bytes());
        // Beats that were missed are not made up for: they would come all at once.
        next = (next + interval).max(now);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

impl Echoes {
    /// How many were asked, and how many answered.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (
            self.0.len(),
            self.0.iter().filter(|echo| echo.answered.is_some()).count(),
        )
    }

    /// Those that got no answer and were not asked between the two ends of one of these `blackouts`.
    #[must_use]
    pub fn lost_outside(&self, blackouts: &[(Instant, Instant)]) -> Vec<Echo> {
        let inside = |echo: &Echo| {
            blackouts
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&echo.sent))
        };
        self.0
            .iter()
            .filter(|echo| echo.answered.is_none() && !inside(echo))
            .copied()
            .collect()
    }

    /// The longest time between two answers that follow each other, with the first between `from` and `to`.
    #[must_use]
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let mut times: Vec<Instant> = self
            .0
            .iter()
            .filter_map(|echo| echo.answered)
            .filter(|at| (from..=to).contains(at))
            .collect();
        times.sort_unstable();
        times
            .windows(2)
            .map(|two| two[1] - two[0])
            .max()
            .unwrap_or(Duration::MAX)
    }

    /// The same, with the last answer before `from` and the first one after `to`: how long a blackout between them was
    /// for a client.
    #[must_use]
    pub fn gap_around(&self, from: Instant, to: Instant) -> Duration {
        let times = || self.0.iter().filter_map(|echo| echo.answered);
        let (before, after) = (
            times().filter(|at| *at < from).max(),
            times().filter(|at| *at > to).min(),
        );
        match (before, after) {
            (Some(before), Some(after)) => self.longest_gap(before, after),
            _ => Duration::MAX,
        }
    }

    /// The round-trip times of what was asked between `from` and `to`, in ascending order.
    #[must_use]
    pub fn round_trips(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let asked = self.0.iter().filter(|echo| (from..=to).contains(&echo.sent));
        let mut times: Vec<Duration> = asked
            .filter_map(|echo| echo.answered.map(|at| at - echo.sent))
            .collect();
        times.sort_unstable();
        times
    }
}

#[cfg(test)]
mod tests {
    use super::{Asking, Echo, Echoes};
    use std::{
        net::UdpSocket,
        thread,
        time::{Duration, Instant},
    };

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn losses_and_gaps_are_counted() {
        let start = Instant::now();
        let echo = |sent, answered: Option<u64>| Echo {
            sent: at(start, sent),
            answered: answered.map(|answered| at(start, answered)),
        };
        let echoes = Echoes(vec![
            echo(0, Some(1)),
            echo(1, Some(3)),
            echo(2, None),
            echo(3, None),
            echo(4, Some(30)),
            echo(5, Some(31)),
            echo(9, None),
        ]);
        assert_eq!(echoes.counts(), (7, 4));
        let lost = echoes.lost_outside(&[(at(start, 2), at(start, 4))]);
        assert_eq!(
            lost.iter().map(|echo| echo.sent).collect::<Vec<_>>(),
            [at(start, 9)]
        );
        assert_eq!(
            echoes.longest_gap(start, at(start, 40)),
            Duration::from_millis(27)
        );
        assert_eq!(echoes.longest_gap(start, at(start, 10)), Duration::from_millis(2));
        assert_eq!(
            echoes.gap_around(at(start, 4), at(start, 9)),
            Duration::from_millis(27)
        );
        assert_eq!(echoes.gap_around(at(start, 4), at(start, 99)), Duration::MAX);
        assert_eq!(echoes.longest_gap(at(start, 90), at(start, 99)), Duration::MAX);
        assert_eq!(
            echoes.round_trips(start, at(start, 4)).last(),
            Some(&Duration::from_millis(26))
        );
    }

    #[test]
    fn it_asks_until_it_is_stopped() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let asking = Asking::start(socket.local_addr().expect("an address"), Duration::from_millis(1));
        let server = thread::spawn(move || {
            let mut datagram = [0; 64];
            for count in 0..100 {
                let (bytes, from) = socket.recv_from(&mut datagram).expect("a question");
                // Every tenth is lost.
                if count % 10 != 0 {
                    socket.send_to(&datagram[..bytes], from).expect("sent");
                }
            }
        });
        server.join().expect("the server is well");
        let (asked, answered) = asking.stop().counts();
        assert!(asked >= 100 && answered == 90, "{asked} {answered}");
    }
}

//! The HTTP client: one question after the other, each over a connection of its own, none waiting long.

use crate::http::{self, Limits};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two questions: the point is that somebody asks all the time, not how often.
const PAUSE: Duration = Duration::from_millis(2);

/// A record has no more questions than this; then the client stops asking.
const LIMIT: usize = 1_000_000;

/// One question and what became of it. Times count in nanoseconds from the instant given to [`Asker::start`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// When it was asked.
    pub asked_ns: u64,
    /// When it was over.
    pub over_ns: u64,
    /// Whether the answer came whole and was a 200.
    pub answered: bool,
}

/// Everything that the client saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskRecord {
    /// The questions, in order.
    pub questions: Vec<Question>,
    /// The first answer's text.
    pub first: Option<String>,
    /// The last answer's text.
    pub last: Option<String>,
}

impl AskRecord {
    /// How many questions were answered.
    pub fn answered(&self) -> usize {
        self.questions.iter().filter(|q| q.answered).count()
    }

    /// How many were not.
    pub fn failed(&self) -> usize {
        self.questions.len() - self.answered()
    }
}

/// A client that asks until it is stopped.
#[derive(Debug)]
pub struct Asker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<AskRecord>>,
}

impl Asker {
    /// Starts to ask `address` for `path`. Times count from `epoch`.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(address: SocketAddr, path: &str, epoch: Instant) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, path) = (Arc::clone(&stop), path.to_owned());
        let thread = thread::Builder::new().name("asker".to_owned()).spawn(move || {
            let mut record = AskRecord::default();
            while !told.load(Ordering::Relaxed) && record.questions.len() < LIMIT {
                ask(address, &path, epoch, &mut record);
                thread::sleep(PAUSE);
            }
            record
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Stops asking, and returns the record.
    pub fn stop(mut self) -> AskRecord {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(address: SocketAddr, path: &str, epoch: Instant, record: &mut AskRecord) {
    let now_ns = || u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let asked_ns = now_ns();
    let limits = Limits {
        connect: Duration::from_millis(100),
        idle: Duration::from_millis(200),
    };
    let response = http::get(address, path, limits)
        .ok()
        .filter(|response| response.status == 200);
    record.questions.push(Question {
        asked_ns,
        over_ns: now_ns(),
        answered: response.is_some(),
    });
    if let Some(response) = response {
        record.last = Some(response.text());
        if record.first.is_none() {
            record.first.clone_from(&record.last);
        }
    }
}

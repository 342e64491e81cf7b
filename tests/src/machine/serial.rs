//! The serial line, read along by a thread of its own.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What came over the line.
#[derive(Default)]
pub(crate) struct Serial {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    ended: bool,
}

impl Serial {
    /// What comes from `output`.
    pub(crate) fn of(output: impl Read + Send + 'static) -> Arc<Self> {
        let serial = Arc::new(Self::default());
        let reader = Arc::clone(&serial);
        thread::spawn(move || reader.read(output));
        serial
    }

    /// Reads until the machine ends.
    fn read(&self, output: impl Read) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // A line may hold anything: stage codes, and whatever firmware prints.
        while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.all.push(String::from_utf8_lossy(&line).trim_end().into());
            self.more.notify_all();
            line.clear();
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.more.notify_all();
    }

    /// Waits for a line that contains `words`; lines that are there already count. `None`: it did not come in time,
    /// or the machine ended.
    pub(crate) fn wait(&self, words: &str, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = 0;
        loop {
            if let Some(line) = lines.all[seen..].iter().find(|line| line.contains(words)) {
                return Some(line.clone());
            }
            seen = lines.all.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                return None;
            }
            lines = self
                .more
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the machine has ended; `false`: it has not in time.
    pub(crate) fn wait_end(&self, within: Duration) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.more.wait_timeout_while(lines, within, |lines| !lines.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Whether the machine has ended.
    pub(crate) fn ended(&self) -> bool {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// All lines so far.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.all.iter().flat_map(|line| [line, "\n"]).collect()
    }
}

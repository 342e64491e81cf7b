//! What a program writes, line by line: to wait for, to look back on, and to show to whoever watches.

use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// No more than this much is kept: a program that writes without end must not take the host's memory.
const LIMIT: usize = 64 << 20;

/// Where the output is shown as it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// Nowhere.
    #[default]
    Nowhere,
    /// On standard output.
    Stdout,
    /// On standard error.
    Stderr,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    ended: bool,
}

/// A log that one thread fills and others wait on.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<State>, Condvar)>);

/// Why a line did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLine {
    /// The output ended without it.
    Ended,
    /// The time was up.
    TimedOut,
}

impl Log {
    /// Collects what `source` gives, in a thread of its own, until it ends.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn collect(source: impl Read + Send + 'static, show: Show) -> io::Result<Self> {
        let log = Self::default();
        let writer = log.clone();
        thread::Builder::new()
            .name("serial".to_owned())
            .spawn(move || writer.fill(source, show))?;
        Ok(log)
    }

    fn fill(&self, mut source: impl Read, show: Show) {
        let mut buffer = [0; 4096];
        loop {
            let bytes = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => buffer.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            // Whoever watches may have gone away (a closed pipe); the log goes on.
            _ = match show {
                Show::Nowhere => Ok(()),
                Show::Stdout => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
                Show::Stderr => io::stderr().write_all(bytes),
            };
            let mut state = self.state();
            let room = LIMIT.saturating_sub(state.text.len());
            state.text.extend(bytes.iter().take(room));
            drop(state);
            self.0.1.notify_all();
        }
        self.state().ended = true;
        self.0.1.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make what was written less true.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.state().text).into_owned()
    }

    /// How much there is: a place to wait from.
    pub fn mark(&self) -> usize {
        self.state().text.len()
    }

    /// Whether the output has ended.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Waits until there is any output at all, or none will come any more, or the time is up.
    pub fn wait_for_any(&self, limit: Duration) {
        let quiet = |state: &mut State| state.text.is_empty() && !state.ended;
        drop(self.0.1.wait_timeout_while(self.state(), limit, quiet));
    }

    /// Waits until a whole line that begins at or after `mark` contains `pattern`, and returns it.
    ///
    /// # Errors
    /// If the output ends or the time is up before.
    pub fn wait_for_line(&self, mark: usize, pattern: &str, limit: Duration) -> Result<String, NoLine> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        let mut seen = mark;
        loop {
            let new = state.text.get(seen..).unwrap_or_default();
            let whole = new.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            let lines = if state.ended {
                new
            } else {
                new.get(..whole).unwrap_or_default()
            };
            for line in lines.split(|&b| b == b'\n') {
                let line = String::from_utf8_lossy(line);
                if line.contains(pattern) {
                    return Ok(line.trim_end().to_owned());
                }
            }
            if state.ended {
                return Err(NoLine::Ended);
            }
            seen += whole;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoLine::TimedOut);
            }
            state = self
                .0
                .1
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({} bytes)", self.mark())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn lines_are_found_and_an_end_is_told() {
        let log = Log::collect(Cursor::new("one\r\ntwo 2\nlast"), Show::Nowhere).expect("a log");
        assert_eq!(log.wait_for_line(0, "two", LONG).expect("a line"), "two 2");
        assert_eq!(log.wait_for_line(0, "one", LONG).expect("a line"), "one");
        assert_eq!(log.wait_for_line(0, "last", LONG).expect("a line"), "last");
        assert_eq!(log.wait_for_line(0, "three", LONG), Err(NoLine::Ended));
        assert_eq!(log.wait_for_line(5, "one", LONG), Err(NoLine::Ended));
    }

    #[test]
    fn half_a_line_is_no_line() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let log = Log::collect(reader, Show::Nowhere).expect("a log");
        writer.write_all(b"serv").expect("written");
        assert_eq!(
            log.wait_for_line(0, "serv", Duration::from_millis(20)),
            Err(NoLine::TimedOut)
        );
        writer.write_all(b"ing\n").expect("written");
        assert_eq!(log.wait_for_line(0, "serv", LONG).expect("a line"), "serving");
    }
}

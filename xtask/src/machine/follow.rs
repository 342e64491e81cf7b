//! A file that another process writes, read to its end, which comes when that process ends.

use super::serial::Log;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Between two looks at a file that has not grown.
const PAUSE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    file: Option<File>,
    writer: Log,
}

impl Follow {
    /// Follows `path`, which need not be there yet, until `writer`, which collects another output of the writing process,
    /// has ended.
    pub fn new(path: &Path, writer: Log) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            writer,
        }
    }

    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.file.is_none() {
            self.file = match File::open(&self.path) {
                Ok(file) => Some(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            };
        }
        self.file.as_mut().map_or(Ok(0), |file| file.read(buffer))
    }
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Asked first: what was written before the end is read after it.
            let ended = self.writer.has_ended();
            match self.read_now(buffer)? {
                0 if !ended => thread::sleep(PAUSE),
                bytes => return Ok(bytes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::serial::Show;
    use super::*;
    use std::io::Write;

    #[test]
    fn what_comes_late_is_read_and_the_end_comes_with_the_writer() {
        let path = std::env::temp_dir().join(format!("instar-follow-{}", std::process::id()));
        let (reader, writer) = io::pipe().expect("a pipe");
        let other = Log::collect(reader, Show::Nowhere).expect("a log");
        let log = Log::collect(Follow::new(&path, other), Show::Nowhere).expect("a log");
        let mut file = File::create(&path).expect("a file");
        file.write_all(b"first\n").expect("written");
        let limit = Duration::from_secs(20);
        assert_eq!(log.wait_for_line(0, "first", limit).expect("a line"), "first");
        file.write_all(b"last").expect("written");
        drop(writer);
        assert_eq!(log.wait_for_line(0, "last", limit).expect("a line"), "last");
        std::fs::remove_file(path).expect("removed");
    }
}

//! QEMU's machine protocol (QMP): one JSON object a line, over a socket in the file system.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects, and ends the capabilities negotiation.
    ///
    /// # Errors
    /// If QEMU does not answer as QMP says.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("could not connect to QEMU's monitor at {}", path.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        monitor.read()?;
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Runs one command and returns what it returned. Events that come meanwhile are dropped.
    ///
    /// # Errors
    /// If QEMU refuses or does not answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream.get_mut(), "{line}").context("could not write to QEMU's monitor")?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused `{command}`: {error}");
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    /// Runs a command of the monitor for people, such as `info registers`.
    ///
    /// # Errors
    /// If QEMU refuses or does not answer.
    pub fn human(&mut self, command: &str) -> Result<String> {
        let result = self.execute("human-monitor-command", json!({"command-line": command}))?;
        Ok(result.as_str().unwrap_or_default().to_owned())
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        let n = self
            .stream
            .read_line(&mut line)
            .context("QEMU's monitor did not answer")?;
        if n == 0 {
            bail!("QEMU's monitor hung up");
        }
        serde_json::from_str(&line).context("QEMU's monitor wrote something that is no JSON")
    }
}

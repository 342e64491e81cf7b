//! The plugin itself: built on demand, and attached to a machine.

use super::{Log, LogError};
use serde_json::Value;
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// A witness that watches one machine, and the file it writes.
#[derive(Debug)]
pub struct Witness {
    plugin: PathBuf,
    log: PathBuf,
    slow: Vec<(u32, Duration)>,
}

impl Witness {
    /// Builds the plugin, and chooses `log` as its file.
    ///
    /// # Errors
    /// If cargo does not build it: its own words have gone to standard error.
    pub fn new(log: &Path) -> io::Result<Self> {
        Ok(Self {
            plugin: build()?,
            log: log.into(),
            slow: Vec::new(),
        })
    }

    /// Makes each flush of one core last this long, so that a core which reports before its flush is too late for sure.
    #[must_use]
    pub fn slow(mut self, vcpu: u32, flush: Duration) -> Self {
        self.slow.push((vcpu, flush));
        self
    }

    /// What QEMU is to be given.
    #[must_use]
    pub fn arguments(&self) -> [OsString; 2] {
        let mut value = self.plugin.clone().into_os_string();
        value.push(",out=");
        value.push(&self.log);
        for (vcpu, flush) in &self.slow {
            value.push(format!(",slow={vcpu}:{}", flush.as_micros()));
        }
        ["-plugin".into(), value]
    }

    /// What it has seen so far.
    ///
    /// # Errors
    /// Those of the file, and [`LogError`].
    pub fn log(&self) -> io::Result<Log> {
        let broken = |error: LogError| io::Error::new(io::ErrorKind::InvalidData, format!("{error:?}"));
        Log::parse(&fs::read_to_string(&self.log)?).map_err(broken)
    }
}

fn build() -> io::Result<PathBuf> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--package",
            "witness",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find_map(|message: Value| {
            let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == "witness";
            ours.then(|| message["filenames"][0].as_str().map(PathBuf::from))?
        });
    match found {
        Some(plugin) if output.status.success() => Ok(plugin),
        _ => Err(io::Error::other("`cargo build -p witness` failed")),
    }
}

//! A virtual machine with an image in it: started, watched, and ended whatever happens.

mod command;
mod monitor;
mod ports;
mod process;
mod serial;

pub use command::{Config, Flush, Kind, QEMU, parse_memory, shell_line};
pub use monitor::Monitor;
pub use ports::{Addresses, Ports};
pub use process::{KillOnDrop, spawn};
pub use serial::{Log, NoLine, Show};

use crate::client;
use crate::control;
use crate::exit::{Exit, Failure};
use crate::http::Limits;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How often another set of ports is tried.
const TRIES: u32 = 5;

/// What kind of machine, and with what in it.
#[derive(Clone, Debug)]
pub struct Builder {
    config: Config,
    show: Show,
    monitor: bool,
}

impl Builder {
    /// How many cores (4).
    #[must_use]
    pub fn cores(mut self, cores: u32) -> Self {
        self.config.cores = cores;
        self
    }

    /// How much memory, in MiB (256).
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.config.memory_mib = mib;
        self
    }

    /// Whether caches are flushed (auto).
    #[must_use]
    pub fn flush(mut self, flush: Flush) -> Self {
        self.config.flush = flush;
        self
    }

    /// More words for the image's command line.
    #[must_use]
    pub fn append(mut self, words: &str) -> Self {
        self.config.append = format!("{} {words}", self.config.append).trim().to_owned();
        self
    }

    /// More arguments for QEMU.
    #[must_use]
    pub fn extra<I: IntoIterator<Item = S>, S: Into<String>>(mut self, arguments: I) -> Self {
        self.config.extra.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Shows the serial line as it comes.
    #[must_use]
    pub fn show(mut self, show: Show) -> Self {
        self.show = show;
        self
    }

    /// Opens QEMU's monitor; see [`Machine::monitor`].
    #[must_use]
    pub fn with_monitor(mut self) -> Self {
        self.monitor = true;
        self
    }

    /// Starts QEMU. The machine boots while this returns; see [`Machine::wait_ready`].
    ///
    /// # Errors
    /// If QEMU is missing (with the exit code for that), or ends at once.
    pub fn start(self) -> Result<Machine> {
        for (path, what) in [
            (&self.config.first_stage, "first stage"),
            (&self.config.image, "image"),
        ] {
            if !path.is_file() {
                return Err(
                    Failure::new(Exit::Usage, format!("the {what} {} is missing", path.display()))
                        .hint("`cargo xtask build-app APP` makes both")
                        .into(),
                );
            }
        }
        let mut tries = 1;
        loop {
            let mut machine = Machine::launch(&self)?;
            match machine.refused_port() {
                None => return Ok(machine),
                Some(_) if tries < TRIES => tries += 1,
                Some(said) => bail!("QEMU could not have its ports: {said}"),
            }
        }
    }
}

/// A running virtual machine. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    process: KillOnDrop,
    started: Instant,
    addresses: Addresses,
    command_line: String,
    serial: Log,
    complaints: Log,
    monitor: Option<PathBuf>,
}

impl Machine {
    /// A machine with `image` in it, booted by `first_stage`.
    pub fn builder(first_stage: impl Into<PathBuf>, image: impl Into<PathBuf>) -> Builder {
        let config = Config::new(first_stage.into(), image.into());
        Builder {
            config,
            show: Show::Nowhere,
            monitor: false,
        }
    }

    /// A machine as `config` says.
    pub fn with_config(config: Config) -> Builder {
        Builder {
            config,
            show: Show::Nowhere,
            monitor: false,
        }
    }

    fn launch(builder: &Builder) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let ports = Ports::free().context("found no free ports")?;
        let monitor = builder.monitor.then(|| {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            std::env::temp_dir().join(format!("instar-{}-{count}.qmp", std::process::id()))
        });
        let monitor_path = monitor.as_ref().map(|path| path.display().to_string());
        let arguments = builder.config.arguments(ports, monitor_path.as_deref());
        let mut command = Command::new(QEMU);
        command
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = spawn(command).map_err(|e| {
            Failure::new(Exit::MissingProgram, format!("could not start {QEMU}: {e}"))
                .hint("install it with: apt-get install qemu-system-x86")
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = KillOnDrop::new(child);
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            bail!("QEMU has no output")
        };
        Ok(Self {
            process,
            started,
            addresses: ports.addresses(),
            command_line: shell_line(QEMU, &arguments),
            serial: Log::collect(stdout, builder.show)?,
            complaints: Log::collect(stderr, Show::Nowhere)?,
            monitor,
        })
    }

    /// QEMU's words, if it ended at once because another program took one of its ports.
    fn refused_port(&mut self) -> Option<String> {
        // It ends within milliseconds then, and its serial line with it. Otherwise the first stage soon writes something.
        self.serial.wait_for_any(Duration::from_secs(1));
        self.complaints
            .wait_for_line(0, "forwarding rule", Duration::ZERO)
            .ok()
    }

    /// Where its services are reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// When QEMU was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// QEMU's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The exact command line.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// What was written on the serial line so far.
    pub fn serial_log(&self) -> String {
        self.serial.text()
    }

    /// The serial line itself, for marks.
    pub fn serial(&self) -> &Log {
        &self.serial
    }

    /// What QEMU itself said so far.
    pub fn qemu_messages(&self) -> String {
        self.complaints.text()
    }

    /// Waits until a line of the serial output contains `pattern`, and returns it. Lines that came before count.
    ///
    /// # Errors
    /// If the machine ends or the time is up before; the error ends with the last lines.
    pub fn wait_for_line(&mut self, pattern: &str, limit: Duration) -> Result<String> {
        self.wait_for_line_after(0, pattern, limit)
    }

    /// The same for lines that begin at or after `mark` (of [`Log::mark`]).
    ///
    /// # Errors
    /// As [`Machine::wait_for_line`].
    pub fn wait_for_line_after(&mut self, mark: usize, pattern: &str, limit: Duration) -> Result<String> {
        self.serial.wait_for_line(mark, pattern, limit).map_err(|why| {
            let what = match why {
                NoLine::Ended => "the machine ended before it wrote",
                NoLine::TimedOut => "in the time given, the machine did not write",
            };
            Failure::new(
                Exit::NoAnswer,
                format!("{what} `{pattern}`; {}", self.last_words()),
            )
            .into()
        })
    }

    /// Waits until the control plane and the echo service answer.
    ///
    /// # Errors
    /// If the machine ends or the time is up before.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<control::Status> {
        let deadline = Instant::now() + limit;
        loop {
            // Short: user-mode networking takes a connection before the machine can answer it, and its retries are slow.
            if client::echo_answers(self.addresses.echo, Duration::from_millis(50))
                && let Ok(status) = control::status(self.addresses.control, Limits::short())
            {
                return Ok(status);
            }
            if let Some(status) = self.ended()? {
                let what = format!(
                    "the machine ended before it answered ({status}); {}",
                    self.last_words()
                );
                return Err(Failure::new(Exit::NoAnswer, what).into());
            }
            if Instant::now() >= deadline {
                let what = format!(
                    "the machine did not answer within {} s; {}",
                    limit.as_secs(),
                    self.last_words()
                );
                return Err(Failure::new(Exit::NoAnswer, what).into());
            }
        }
    }

    /// The last lines of the serial output, and QEMU's own words: for error messages.
    pub fn last_words(&self) -> String {
        let (serial, own) = (self.serial_log(), self.qemu_messages());
        let mut text = String::new();
        for (what, log) in [("the serial line's last lines", serial), ("QEMU said", own)] {
            let lines: Vec<_> = log.lines().filter(|l| !l.trim().is_empty()).collect();
            if !lines.is_empty() {
                let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
                text.push_str(&format!("{what}:\n  {}\n", last.join("\n  ")));
            }
        }
        if text.is_empty() {
            "it wrote nothing at all".to_owned()
        } else {
            text.trim_end().to_owned()
        }
    }

    /// Connects to QEMU's monitor.
    ///
    /// # Errors
    /// If the machine was not built [`Builder::with_monitor`], or QEMU does not answer.
    pub fn monitor(&self) -> Result<Monitor> {
        let Some(path) = &self.monitor else {
            bail!("this machine was started without a monitor")
        };
        Monitor::connect(path)
    }

    /// How QEMU ended, if it did.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.try_wait().context("lost sight of QEMU")
    }

    /// Waits until QEMU ends by itself.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait().context("lost sight of QEMU")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.process.kill();
        if let Some(path) = &self.monitor {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    // QEMU removes its socket itself when it ends in peace.
    _ = fs::remove_file(path);
}

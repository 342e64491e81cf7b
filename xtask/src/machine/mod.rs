//! A virtual machine with an image in it: started, watched, and ended whatever happens.

pub mod bochs;
mod command;
pub mod disk;
mod follow;
mod monitor;
mod ports;
mod process;
mod qemu;
mod serial;

pub use bochs::{Bochs, Processor};
pub use command::{Config, Flush, Rig, parse_memory};
use follow::Follow;
pub use monitor::Monitor;
pub use ports::{Addresses, Ports};
pub use process::{KillOnDrop, spawn};
pub use qemu::{Kind, QEMU, Qemu};
pub use serial::{Log, NoLine, Show};

use crate::client;
use crate::control;
use crate::exit::{Exit, Failure};
use crate::http::Limits;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How often another set of ports is tried.
const TRIES: u32 = 5;

/// The network card's address.
const MAC: &str = "52:54:00:12:34:56";

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

    /// Who plays the machine (QEMU).
    #[must_use]
    pub fn rig(mut self, rig: Rig) -> Self {
        self.config.rig = rig;
        self
    }

    /// Shows the serial line as it comes.
    #[must_use]
    pub fn show(mut self, show: Show) -> Self {
        self.show = show;
        self
    }

    /// Opens QEMU's monitor; see [`Machine::monitor`]. Bochs has none.
    #[must_use]
    pub fn with_monitor(mut self) -> Self {
        self.monitor = true;
        self
    }

    /// Starts the emulator. The machine boots while this returns; see [`Machine::wait_ready`].
    ///
    /// # Errors
    /// If it is missing (with the exit code for that), or ends at once.
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
                Some(said) => bail!("{} could not have its ports: {said}", self.config.rig.name()),
            }
        }
    }
}

/// An emulator that has been started.
#[derive(Debug)]
struct Started {
    process: KillOnDrop,
    started: Instant,
    command_line: String,
    serial: Log,
    /// What the emulator itself has to say.
    complaints: Log,
    /// Where it logs what it does.
    log: Option<PathBuf>,
}

/// A running virtual machine. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    emulator: Started,
    rig: Rig,
    addresses: Addresses,
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
        let config = &builder.config;
        let emulator = match &config.rig {
            Rig::Qemu(qemu) => qemu.start(config, ports, monitor_path.as_deref(), builder.show)?,
            Rig::Bochs(bochs) => bochs.start(config, ports, builder.show)?,
        };
        Ok(Self {
            emulator,
            rig: config.rig.clone(),
            addresses: ports.addresses(),
            monitor,
        })
    }

    /// The emulator's words, if another program took one of its ports.
    fn refused_port(&mut self) -> Option<String> {
        match &self.rig {
            Rig::Qemu(_) => {
                // It ends within milliseconds then, and its serial line with it. Otherwise the first stage soon writes something.
                self.emulator.serial.wait_for_any(Duration::from_secs(1));
                let complaints = &self.emulator.complaints;
                complaints
                    .wait_for_line(0, "forwarding rule", Duration::ZERO)
                    .ok()
            }
            Rig::Bochs(_) => {
                let log = self.emulator.log.as_deref()?;
                bochs::refused_port(Follow::new(log, self.emulator.complaints.clone()))
            }
        }
    }

    /// Where its services are reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// When the emulator was started.
    pub fn started(&self) -> Instant {
        self.emulator.started
    }

    /// The emulator's process id.
    pub fn id(&self) -> u32 {
        self.emulator.process.id()
    }

    /// The exact command line.
    pub fn command_line(&self) -> &str {
        &self.emulator.command_line
    }

    /// What was written on the serial line so far.
    pub fn serial_log(&self) -> String {
        self.emulator.serial.text()
    }

    /// The serial line itself, for marks.
    pub fn serial(&self) -> &Log {
        &self.emulator.serial
    }

    /// Where the emulator logs what it does, if it does.
    pub fn rig_log(&self) -> Option<&Path> {
        self.emulator.log.as_deref()
    }

    /// Who plays it.
    pub fn rig(&self) -> &Rig {
        &self.rig
    }

    /// What the emulator itself said so far.
    pub fn emulator_messages(&self) -> String {
        self.emulator.complaints.text()
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
        self.emulator
            .serial
            .wait_for_line(mark, pattern, limit)
            .map_err(|why| {
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

    /// Waits until clients may ask. The user network of Bochs keeps datagrams for an address that nobody has yet, and once some
    /// have waited for long, it never forwards any again: there, nobody asks before the machine says that it serves.
    ///
    /// # Errors
    /// If the machine ends or the time is up before.
    pub fn wait_for_network(&mut self, limit: Duration) -> Result<()> {
        match self.rig {
            Rig::Qemu(_) => Ok(()),
            Rig::Bochs(_) => self.wait_for_line("instar: serving ", limit).map(|_| ()),
        }
    }

    /// Waits until the control plane and the echo service answer.
    ///
    /// # Errors
    /// If the machine ends or the time is up before.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<control::Status> {
        let deadline = Instant::now() + limit;
        self.wait_for_network(limit)?;
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

    /// The last lines of the serial output, and the emulator's own words: for error messages.
    pub fn last_words(&self) -> String {
        let (serial, own) = (self.serial_log(), self.emulator_messages());
        let mut text = String::new();
        for (what, log) in [
            ("the serial line's last lines", serial),
            ("the emulator said", own),
        ] {
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

    /// How the emulator ended, if it did.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.emulator
            .process
            .try_wait()
            .context("lost sight of the emulator")
    }

    /// Waits until the emulator ends by itself.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.emulator.process.wait().context("lost sight of the emulator")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.emulator.process.kill();
        if let Some(path) = &self.monitor {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    // QEMU removes its socket itself when it ends in peace.
    _ = fs::remove_file(path);
}

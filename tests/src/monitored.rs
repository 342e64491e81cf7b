//! A machine and QEMU's monitor of it: memory is read past the machine, and what only hardware does is done from outside.

use crate::machine::{DEADLINE, Machine, Setup, scratch};
use std::{fs, thread, time::Instant};
use xtask::machine::Monitor;

/// The two.
pub struct Monitored {
    /// The machine.
    pub machine: Machine,
    /// Its monitor.
    pub monitor: Monitor,
}

impl Monitored {
    /// Boots a machine as [`Setup::boot`] does, with a monitor at a socket that has `name` in its own.
    ///
    /// # Panics
    /// If the machine does not serve in time, or there is no monitor.
    #[must_use]
    pub fn boot(name: &str, setup: Setup) -> Self {
        let monitored = Self::start(name, setup);
        monitored.machine.wait_line("instar: serving generation=1 ");
        monitored
            .machine
            .wait_until("the first answer", |status| status["state"] == "serving");
        monitored
    }

    /// As [`boot`](Self::boot), and returns at once.
    ///
    /// # Panics
    /// If there is no monitor.
    #[must_use]
    pub fn start(name: &str, mut setup: Setup) -> Self {
        let socket = scratch(&format!("{name}.qmp"));
        // Another machine of this test may have left one.
        let _ = fs::remove_file(&socket);
        setup.arguments.push("-qmp".into());
        setup
            .arguments
            .push(format!("unix:{},server=on,wait=off", socket.display()).into());
        let machine = setup.start();
        let deadline = Instant::now() + DEADLINE;
        while !socket.exists() && Instant::now() < deadline {
            thread::yield_now();
        }
        let monitor = Monitor::connect(&socket).expect("the monitor");
        Self { machine, monitor }
    }

    /// The 64-bit word at this physical address.
    ///
    /// # Panics
    /// If the monitor does not say.
    pub fn memory(&mut self, address: u64) -> u64 {
        word_at(&mut self.monitor, address)
    }
}

/// The 64-bit word at this physical address, as the monitor reads it.
///
/// # Panics
/// If the monitor does not say.
pub fn word_at(monitor: &mut Monitor, address: u64) -> u64 {
    let text = monitor.human(&format!("xp /1gx {address:#x}")).expect("memory");
    let value = text
        .split_whitespace()
        .last()
        .and_then(|word| word.strip_prefix("0x"));
    value
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or_else(|| panic!("xp said: {text}"))
}

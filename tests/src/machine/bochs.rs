//! Machines of Bochs's: their BIOS has set TDX KeyIDs aside, and the emulator's log tells every flush.

use super::{Machine, Serial, Turn, turn};
use crate::prepared::App;
use std::{fs, net::Ipv4Addr, path::Path};
use xtask::machine::{Bochs as Emulator, Config, Ports, Processor, Rig, bochs};

/// How a machine of Bochs's is made.
#[derive(Clone, Debug)]
pub struct Bochs {
    /// What it runs.
    pub app: App,
    /// Its processor.
    pub processor: Processor,
    /// How many cores.
    pub cores: u32,
    /// How many TDX KeyIDs the BIOS has set aside.
    pub tdx_keyids: u32,
    /// The command line of the image.
    pub append: String,
}

impl Default for Bochs {
    /// Two cores, and TDX is enabled by the BIOS.
    fn default() -> Self {
        Self {
            app: App::default(),
            processor: Processor::default(),
            cores: 2,
            tdx_keyids: 32,
            append: String::new(),
        }
    }
}

impl Bochs {
    /// Boots version 1.0.0, and returns when it answers. Nobody asks before: the user network of Bochs does not bear it.
    ///
    /// # Panics
    /// If it does not in time, or there is no emulator.
    #[must_use]
    pub fn boot(&self) -> Machine {
        let prepared = self.app.prepared();
        let turn = turn(Turn::default());
        let emulator = Emulator {
            tdx_keyids: self.tdx_keyids,
            processor: self.processor,
        };
        let config = Config {
            rig: Rig::Bochs(emulator.clone()),
            cores: self.cores,
            memory_mib: 128,
            append: self.append.clone(),
            ..Config::new(prepared.first_stage.clone(), prepared.old_path.clone())
        };
        let ports = Ports::free().expect("free ports");
        let launched = emulator
            .launch(&config, ports)
            .expect("Bochs starts (`cargo xtask test` installs what it needs)");
        let at = ports.addresses();
        let machine = Machine {
            emulator: launched.process,
            serial: Serial::of(launched.serial),
            rig_log: Some(launched.files.log()),
            http: at.http,
            echo: at.echo,
            resp: (Ipv4Addr::LOCALHOST, 0).into(),
            tcp_echo: None,
            control: at.control,
            prepared,
            _turn: turn,
        };
        machine.wait_line("instar: serving generation=1 ");
        machine.wait_until("the first answer", |status| status["state"] == "serving");
        machine
    }
}

impl Machine {
    /// What the emulator has logged so far.
    ///
    /// # Panics
    /// If this one logs nothing.
    #[must_use]
    pub fn rig_log(&self) -> String {
        let path: &Path = self.rig_log.as_deref().expect("an emulator that logs");
        String::from_utf8_lossy(&fs::read(path).expect("a log")).into_owned()
    }

    /// What the emulator has logged since the log was `mark` bytes long, divided at the images' first outputs.
    ///
    /// # Panics
    /// If this one logs nothing.
    #[must_use]
    pub fn flushes_since(&self, mark: usize) -> Vec<bochs::Part> {
        bochs::parts(self.rig_log().get(mark..).expect("a log only grows"))
    }
}

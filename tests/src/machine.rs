//! A machine: an emulator, QEMU or Bochs, that boots an image, with forwarded ports and a serial line that is read along.
//!
//! Nothing here waits for time to pass: it waits for a line or for an answer, with a generous deadline.

use crate::prepared::{App, Prepared};
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};
use xtask::machine::{KillOnDrop, disk};

mod bochs;
mod control;
mod serial;

pub use bochs::Bochs;
pub use control::Replaced;
pub(crate) use serial::Serial;

/// The longest that booting or replacing may take, on the slowest computer that tests should pass on.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Who loads the first stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU itself, by PVH.
    Pvh,
    /// GRUB on a BIOS, by Multiboot 2.
    GrubBios,
    /// GRUB on UEFI, by Multiboot 2.
    GrubUefi,
}

/// Whom a machine waits for, and who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Turn {
    /// One machine at a time: two would measure each other.
    #[default]
    Busy,
    /// It is left in peace most of the time, and only one of this kind runs beside the others.
    Patient,
}

/// How a machine of QEMU's is made.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What it runs.
    pub app: App,
    /// Another image to boot than the application's version 1.0.0.
    pub image: Option<PathBuf>,
    /// How many cores.
    pub cores: u32,
    /// How much memory, in MiB.
    pub memory: u32,
    /// QEMU's `-cpu`.
    pub cpu: &'static str,
    /// The command line of the image.
    pub append: String,
    /// Who loads the first stage.
    pub firmware: Firmware,
    /// The network device's model.
    pub nic: &'static str,
    /// What the network device is connected to: `n`, the user network, or what `arguments` bring.
    pub netdev: &'static str,
    /// Whatever else QEMU is to be given.
    pub arguments: Vec<OsString>,
    /// Whom it waits for.
    pub turn: Turn,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            app: App::default(),
            image: None,
            cores: 4,
            memory: 256,
            cpu: "max",
            append: String::new(),
            firmware: Firmware::Pvh,
            nic: "virtio-net-pci",
            netdev: "n",
            arguments: Vec::new(),
            turn: Turn::default(),
        }
    }
}

/// A running machine; dropping it ends it. When a test fails, what the machine said is printed.
pub struct Machine {
    emulator: KillOnDrop,
    serial: Arc<Serial>,
    rig_log: Option<PathBuf>,
    /// TCP, the application's HTTP.
    pub http: SocketAddr,
    /// UDP, the application's echo.
    pub echo: SocketAddr,
    /// TCP, the application's RESP. Bochs forwards none: port 0 there.
    pub resp: SocketAddr,
    /// TCP, the application's echo, if it has one; Bochs's machines are not reached there.
    pub tcp_echo: Option<SocketAddr>,
    /// TCP, the control plane.
    pub control: SocketAddr,
    /// Images and keys that this machine believes.
    pub prepared: &'static Prepared,
    /// Whatever runs the tests.
    _turn: File,
}

impl Setup {
    /// Boots version 1.0.0, and returns when it answers.
    ///
    /// # Panics
    /// If it does not in time.
    #[must_use]
    pub fn boot(&self) -> Machine {
        let machine = self.start();
        machine.wait_line("instar: serving generation=1 ");
        machine.wait_until("the first answer", |status| status["state"] == "serving");
        machine
    }

    /// Starts the machine, and returns at once.
    ///
    /// # Panics
    /// If there is no emulator.
    #[must_use]
    pub fn start(&self) -> Machine {
        let prepared = self.app.prepared();
        let turn = turn(self.turn);
        // All are held until all are chosen: one that is given back may be the next one chosen.
        let held = [0; 4].map(|_| TcpListener::bind(ANY).expect("a free port"));
        let [http, resp, control, tcp_echo] = [0, 1, 2, 3].map(|index: usize| free(held[index].local_addr()));
        drop(held);
        let echo = free(UdpSocket::bind(ANY).and_then(|port| port.local_addr()));
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", self.cpu])
            .args(["-smp", &self.cores.to_string(), "-m", &self.memory.to_string()])
            .args([
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
                "-serial",
                "stdio",
            ])
            .arg("-netdev")
            .arg(format!(
                "user,id=n,hostfwd=tcp:{http}-:80,hostfwd=udp:{echo}-:7,hostfwd=tcp:{tcp_echo}-:7,\
                  hostfwd=tcp:{resp}-:6379,\
                 hostfwd=tcp:{control}-:7700"
            ))
            .args([
                "-device",
                &format!(
                    "{},netdev={},mac=52:54:00:12:34:56,romfile=",
                    self.nic, self.netdev
                ),
            ])
            .args(self.load(prepared))
            .args(&self.arguments);
        let mut emulator = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu-system-x86_64 starts (Debian: apt-get install qemu-system-x86)");
        let output = emulator.stdout.take().expect("it is piped");
        Machine {
            emulator: KillOnDrop::new(emulator),
            serial: Serial::of(output),
            rig_log: None,
            http,
            echo,
            resp,
            tcp_echo: Some(tcp_echo),
            control,
            prepared,
            _turn: turn,
        }
    }

    /// Where the image comes from.
    fn load(&self, prepared: &Prepared) -> Vec<OsString> {
        let image = self.image.as_ref().unwrap_or(&prepared.old_path);
        let firmware: &[&str] = match self.firmware {
            Firmware::Pvh => {
                let mut arguments: Vec<OsString> =
                    vec!["-kernel".into(), prepared.first_stage.clone().into()];
                arguments.extend(["-initrd".into(), image.into()]);
                arguments.extend(["-append".into(), (&self.append).into()]);
                return arguments;
            }
            Firmware::GrubBios => &[],
            Firmware::GrubUefi => &["-bios", "/usr/share/ovmf/OVMF.fd"],
        };
        let disk = scratch("grub.iso");
        disk::make(&disk, &prepared.first_stage, image, &self.append).expect("a boot medium");
        firmware
            .iter()
            .map(OsString::from)
            .chain(["-cdrom".into(), disk.into()])
            .collect()
    }
}

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Waits for the turn of a machine of this kind; it lasts until the file is closed.
///
/// # Panics
/// Without a place for the file.
#[must_use]
pub fn turn(of: Turn) -> File {
    let path = scratch_directory().join(match of {
        Turn::Busy => "turn",
        Turn::Patient => "turn-of-the-patient",
    });
    let file = File::create(&path).expect("a lock file");
    file.lock().expect("the lock");
    file
}

fn free(port: io::Result<SocketAddr>) -> SocketAddr {
    port.expect("a free port")
}

impl Machine {
    /// Waits for a line that contains `words`, and returns it; lines that are there already count.
    ///
    /// # Panics
    /// If none comes in time, or the machine ends.
    pub fn wait_line(&self, words: &str) -> String {
        self.serial
            .wait(words, DEADLINE)
            .unwrap_or_else(|| panic!("the machine did not say: {words}"))
    }

    /// Waits until the emulator has ended, as it does when the machine is reset.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_end(&self) {
        assert!(self.serial.wait_end(DEADLINE), "the machine was not reset");
    }

    /// What the machine has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.serial.text()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.emulator.kill();
        if thread::panicking() {
            eprintln!("--- what the machine said ---\n{}---", self.said());
        }
    }
}

/// A file of this test's own.
#[must_use]
pub fn scratch(name: &str) -> PathBuf {
    scratch_directory().join(format!("{}-{name}", std::process::id()))
}

fn scratch_directory() -> PathBuf {
    let directory = xtask::workspace::out_dir().join("machine-tests");
    fs::create_dir_all(&directory).expect("a place for scratch files");
    directory
}

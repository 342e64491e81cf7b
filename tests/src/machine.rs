//! A machine: an emulator that boots an image, with forwarded ports and a serial line that is read along.
//!
//! Nothing here waits for time to pass: it waits for a line or for an answer, with a generous deadline.

use crate::{
    broken::orders::Facts,
    clients::{self, Answer},
    prepared::{PREPARED, Prepared},
};
use serde_json::Value;
use serial::Serial;
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

mod disk;
mod serial;

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

/// How a machine is made.
#[derive(Clone, Debug)]
pub struct Setup {
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
    /// Whatever else QEMU is to be given.
    pub arguments: Vec<OsString>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            cores: 4,
            memory: 256,
            cpu: "max",
            append: String::new(),
            firmware: Firmware::Pvh,
            nic: "virtio-net-pci",
            arguments: Vec::new(),
        }
    }
}

/// A running machine; dropping it ends it. When a test fails, what the machine said is printed.
pub struct Machine {
    emulator: Child,
    serial: Arc<Serial>,
    /// TCP, the application's HTTP.
    pub http: SocketAddr,
    /// UDP, the application's echo.
    pub echo: SocketAddr,
    /// TCP, the control plane.
    pub control: SocketAddr,
    /// Images and keys that this machine believes.
    pub prepared: &'static Prepared,
    /// One machine at a time, whatever runs the tests: two would measure each other.
    _turn: File,
}

impl Setup {
    /// Boots `hello` 1.0.0, and returns when it answers.
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
        let prepared = &*PREPARED;
        let turn = turn();
        let [http, control] = [0; 2].map(|_| free(TcpListener::bind(ANY).and_then(|port| port.local_addr())));
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
                "user,id=n,hostfwd=tcp:{http}-:80,hostfwd=udp:{echo}-:7,hostfwd=tcp:{control}-:7700"
            ))
            .args([
                "-device",
                &format!("{},netdev=n,mac=52:54:00:12:34:56,romfile=", self.nic),
            ])
            .args(self.load(prepared))
            .args(&self.arguments);
        let mut emulator = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu-system-x86_64 starts (Debian: apt-get install qemu-system-x86)");
        let serial = Arc::new(Serial::default());
        let output = emulator.stdout.take().expect("it is piped");
        let reader = Arc::clone(&serial);
        thread::spawn(move || reader.read(output));
        Machine {
            emulator,
            serial,
            http,
            echo,
            control,
            prepared,
            _turn: turn,
        }
    }

    /// Where the image comes from.
    fn load(&self, prepared: &Prepared) -> Vec<OsString> {
        let firmware: &[&str] = match self.firmware {
            Firmware::Pvh => {
                let mut arguments: Vec<OsString> =
                    vec!["-kernel".into(), prepared.first_stage.clone().into()];
                arguments.extend(["-initrd".into(), prepared.old_path.clone().into()]);
                arguments.extend(["-append".into(), (&self.append).into()]);
                return arguments;
            }
            Firmware::GrubBios => &[],
            Firmware::GrubUefi => &["-bios", "/usr/share/ovmf/OVMF.fd"],
        };
        let disk = disk::make(prepared, &self.append);
        firmware
            .iter()
            .map(OsString::from)
            .chain(["-cdrom".into(), disk.into()])
            .collect()
    }
}

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Waits for the turn of this machine; it lasts until the file is closed.
fn turn() -> File {
    let path = scratch_directory().join("turn");
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

    /// What the machine has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.serial.text()
    }

    /// `/v1/status`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_status(&self, patience: Duration) -> io::Result<Value> {
        let answer = clients::request_within(self.control, "GET", "/v1/status", b"", patience)?;
        match answer.status {
            200 => Ok(answer.json()),
            other => Err(io::Error::other(format!("status {other}: {}", answer.body))),
        }
    }

    /// `/v1/status` of a machine that serves.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn status(&self) -> Value {
        self.try_status(clients::PATIENCE)
            .expect("the machine tells its status")
    }

    /// Asks until the status is as it should be.
    ///
    /// # Panics
    /// If it is not in time: with the last one.
    pub fn wait_until(&self, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        let mut last = None;
        while Instant::now() < deadline && !self.serial.ended() {
            // A connection that is opened between two instars is answered late, if at all: ask anew before that.
            let status = self.try_status(Duration::from_secs(2));
            match status {
                Ok(status) if right(&status) => return status,
                other => last = Some(other),
            }
        }
        panic!("{what} did not come; last: {last:?}");
    }

    /// Sends an image.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn push(&self, image: &[u8]) -> Answer {
        clients::request(self.control, "PUT", "/v1/image", image).expect("an answer to a push")
    }

    /// Sends an order.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn order(&self, order: &[u8]) -> Answer {
        clients::request(self.control, "POST", "/v1/orders", order).expect("an answer to an order")
    }

    /// What an order must say now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let status = self.status();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Facts {
            host: text(&status["host_id"]),
            generation: status["generation"].as_u64().unwrap_or_default(),
            nonce: text(&status["nonce"]),
            image: text(&status["staged"]["sha256"]),
        }
    }

    /// Stages an image that is right.
    ///
    /// # Panics
    /// If it is refused.
    pub fn stage(&self, image: &[u8]) -> Value {
        let answer = self.push(image);
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["staged"].clone()
    }

    /// Orders what is staged, and returns the successor's status. The order itself is returned too.
    ///
    /// # Panics
    /// If the order is refused, or no successor comes.
    pub fn replace(&self) -> (Value, Vec<u8>) {
        let facts = self.facts();
        let order = facts.replace(&self.prepared.operator);
        let answer = self.order(&order);
        assert_eq!(answer.status, 202, "{}", answer.body);
        let next = facts.generation + 1;
        // Asking while nobody is there costs seconds of retransmission: the serial line tells sooner.
        self.wait_line(&format!("instar: serving generation={next} "));
        // Until then it is on probation, and takes no other image.
        let committed = |status: &Value| status["generation"] == next && status["state"] == "serving";
        (self.wait_until("the successor, committed", committed), order)
    }

    /// Shows that the application serves: over TCP, UDP and the control plane.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_serves(&self) {
        clients::echo(self.echo, b"are you there?").expect("an echo");
        let answer = clients::request(self.http, "GET", "/", b"").expect("an answer from the application");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let status = self.status();
        assert!(
            ["serving", "staged"].contains(&status["state"].as_str().unwrap_or_default()),
            "{status}"
        );
    }

    /// What must be the same after a refusal as before it.
    #[must_use]
    pub fn traces(&self) -> Value {
        traces(&self.status())
    }

    /// The instar's own chunks: image, stacks, heap.
    #[must_use]
    pub fn own_chunks(&self) -> u64 {
        self.status()["memory"]["chunks"]["own"]
            .as_u64()
            .unwrap_or_default()
    }

    /// Shows that all that came since there were `before` own chunks has cost no more than what the heap keeps for
    /// connections that have ended, but not long ago.
    ///
    /// # Panics
    /// If it has.
    pub fn assert_bounded(&self, before: u64) {
        let now = self.own_chunks();
        assert!(
            now <= before + 8,
            "the instar has grown from {before} chunks to {now}"
        );
    }

    /// Waits until nothing is left of a client that did not end its request.
    pub fn wait_for_traces(&self, before: &Value) {
        self.wait_until("the state before", |status| traces(status) == *before);
    }
}

fn traces(status: &Value) -> Value {
    let chunks = &status["memory"]["chunks"];
    let count = |owner: &str| chunks[owner].as_u64().unwrap_or_default();
    // The heap may grow by a chunk now and then, and keeps it: what is free or the instar's own is one number here, and
    // [`Machine::assert_bounded`] looks at the other.
    serde_json::json!({
        "generation": status["generation"],
        "state": status["state"],
        "staged": status["staged"],
        "chunks": {
            "total": count("total"),
            "staged": count("staged"),
            "predecessor": count("predecessor"),
            "free or own": count("free") + count("own"),
        },
        "cores": status["cores"],
    })
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
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

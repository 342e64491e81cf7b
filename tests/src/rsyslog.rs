//! Debian's rsyslog as a syslog server for one test: it parses what machines send, and writes the fields that it found.

use crate::machine::{DEADLINE, scratch};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};
use xtask::machine::{KillOnDrop, spawn};

/// A message, by the properties that rsyslog found in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// HOSTNAME.
    pub host: String,
    /// APP-NAME.
    pub app: String,
    /// PROCID: the generation.
    pub generation: u32,
    /// MSGID: who says it.
    pub target: String,
    /// From 0, "emergency", to 7, "debug".
    pub severity: u32,
    /// By its name.
    pub facility: String,
    /// 1 for RFC 5424.
    pub version: String,
    /// As it was sent.
    pub time: String,
    /// The structured data as text.
    pub data: String,
    /// With its byte-order mark.
    pub text: String,
}

impl Message {
    /// The value of a parameter of the structured data.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.data.split_once(&format!(" {name}=\""))?;
        rest.split_once('"').map(|(value, _)| value)
    }

    /// Its number within its instar.
    #[must_use]
    pub fn number(&self) -> u32 {
        let number = self
            .parameter("sequenceId")
            .and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("no number: {self:?}"))
    }
}

/// A server that comes and goes, always at the same port. It lasts as long as the test.
pub struct Rsyslog {
    /// Its port on this computer; a machine with user-mode networking reaches it at 10.0.2.2.
    pub port: u16,
    /// Keeps the port ours while no server listens there. Connections to it are refused, since it does not listen.
    _held: Socket,
    directory: PathBuf,
    running: Option<KillOnDrop>,
}

impl Rsyslog {
    /// Takes a port, on which nobody listens yet.
    ///
    /// # Panics
    /// Without a port, or a directory to write to.
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // The server sets the same, so that it may listen there.
        held.set_reuse_address(true).expect("an option");
        held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .expect("a port");
        let address = held.local_addr().expect("an address");
        let directory = scratch(&format!("rsyslog-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a directory");
        Self {
            port: address.as_socket().expect("an IPv4 address").port(),
            _held: held,
            directory,
            running: None,
        }
    }

    /// The word for a machine's command line.
    #[must_use]
    pub fn append(&self) -> String {
        format!("instar.syslog=10.0.2.2:{}", self.port)
    }

    /// Starts the server, and returns when it listens.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(&mut self) {
        let file = |name: &str| self.directory.join(name);
        let text = format!(
            r#"global(workDirectory="{directory}")
module(load="imtcp")
template(name="fields" type="list" option.jsonf="on") {{
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="generation" name="procid" format="jsonf")
  property(outname="target" name="msgid" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="severity" name="syslogseverity" format="jsonf")
  property(outname="facility" name="syslogfacility-text" format="jsonf")
  property(outname="version" name="protocol-version" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}}
ruleset(name="machines") {{ action(type="omfile" file="{directory}/messages" template="fields") }}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="machines")
"#,
            directory = self.directory.display(),
            port = self.port,
        );
        let configuration = file("rsyslog.conf");
        fs::write(&configuration, text).expect("written");
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command
            .arg("-n")
            .arg("-f")
            .arg(configuration)
            .arg("-i")
            .arg(file("pid"))
            .stdin(Stdio::null());
        let running = spawn(command).expect("rsyslogd starts (Debian: apt-get install rsyslog)");
        self.running = Some(KillOnDrop::new(running));
        // It is written last, when the port is open.
        let listens = file("pid");
        self.wait("the server does not listen", || listens.exists().then_some(()));
    }

    /// Ends the server at once; what it has received and not written is lost.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
        // Its own mark, which makes the next one take it for running.
        let _ = fs::remove_file(self.directory.join("pid"));
    }

    /// All that was received so far, in its order.
    ///
    /// # Panics
    /// If rsyslog writes something else than asked for.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        let text = fs::read_to_string(self.directory.join("messages")).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(message).collect()
    }

    /// All bytes that were written.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.directory.join("messages")).unwrap_or_default()
    }

    /// Waits for a message with `words`, and returns it.
    ///
    /// # Panics
    /// If none comes in time.
    pub fn wait_for(&self, words: &str) -> Message {
        self.wait(&format!("the machine did not report: {words}"), || {
            let mut messages = self.messages().into_iter();
            messages.find(|message| message.text.contains(words))
        })
    }

    /// Waits until the messages that came are enough.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn wait_until(&self, what: &str, enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        self.wait(what, || Some(self.messages()).filter(|messages| enough(messages)))
    }

    fn wait<T>(&self, what: &str, answer: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = answer() {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "{what}; what came: {:#?}",
                self.messages()
            );
            // Another process writes a file: it is looked at again and again.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Default for Rsyslog {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.stop();
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn message(line: &str) -> Message {
    let fields: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| text(name).parse().unwrap_or_else(|_| panic!("{name}: {line}"));
    Message {
        host: text("host"),
        app: text("app"),
        generation: number("generation"),
        target: text("target"),
        severity: number("severity"),
        facility: text("facility"),
        version: text("version"),
        time: text("time"),
        data: text("data"),
        text: text("text"),
    }
}

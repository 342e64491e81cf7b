//! A Prometheus for one test: it scrapes one machine, and answers questions.

use crate::{
    clients,
    machine::{DEADLINE, Serial, scratch},
};
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use xtask::{machine::KillOnDrop, unpack};

/// A running Prometheus; dropping it ends it and removes what it kept.
pub struct Prometheus {
    // Declared before what it writes to.
    process: KillOnDrop,
    log: Arc<Serial>,
    address: SocketAddr,
    data: PathBuf,
}

impl Prometheus {
    /// Scrapes `target` four times a second from now on.
    ///
    /// # Panics
    /// If it is not there or does not start.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let (file, data) = (scratch("prometheus.yml"), scratch("prometheus"));
        let job = format!("  - job_name: instar\n    static_configs: [{{targets: [\"{target}\"]}}]\n");
        let global = "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\nscrape_configs:\n";
        fs::write(&file, [global, &job].concat()).expect("a place for the scrape file");
        let mut process = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            // A port that is free; which one, its log says.
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Prometheus starts");
        let output = process.stderr.take().expect("it is piped");
        let process = KillOnDrop::new(process);
        let log = Serial::of(output);
        let wait = |words| {
            let line = log.wait(words, DEADLINE);
            line.unwrap_or_else(|| panic!("Prometheus did not say: {words}: {}", log.text()))
        };
        let line = wait("\"Listening on\"");
        let address = line
            .rsplit_once("address=")
            .map(|(_, address)| address.trim().parse());
        let address = address.expect("an address").expect("an address");
        wait("ready to receive web requests");
        Self {
            process,
            log,
            address,
            data,
        }
    }

    /// What it says to a question in its own language: a list of series with their values.
    ///
    /// # Panics
    /// If it does not answer, or the question is none.
    #[must_use]
    pub fn query(&self, question: &str) -> Vec<Value> {
        let path = format!("/api/v1/query?query={}", encoded(question));
        let answer = clients::request(self.address, "GET", &path, b"").expect("Prometheus answers");
        assert_eq!(answer.status, 200, "{question}: {}", answer.body);
        let json = answer.json();
        json["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Asks until there is an answer, and returns it: a comparison that holds is one, one that does not is none.
    ///
    /// # Panics
    /// If there is none in time.
    pub fn wait_for(&self, question: &str) -> Vec<Value> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.query(question);
            if !answer.is_empty() {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "it never was so that {question}: {:?}\n{}",
                self.query("{job=\"instar\"}"),
                self.log.text()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has been told of a metric besides its values: `type`, `unit`, `help`.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn metadata(&self, metric: &str) -> Value {
        let path = format!("/api/v1/metadata?metric={metric}");
        let answer = clients::request(self.address, "GET", &path, b"").expect("Prometheus answers");
        answer.json()["data"][metric][0].clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// What `promtool check metrics` has to say about a page: nothing, if all is well.
///
/// # Errors
/// What it said, or that it ended with an error.
///
/// # Panics
/// If it does not start.
pub fn check_metrics(page: &str) -> Result<(), String> {
    let mut promtool = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut input = promtool.stdin.take().expect("it is piped");
    // It reads all before it says a word.
    input.write_all(page.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() && said.is_empty() {
        Ok(())
    } else {
        Err(format!("{}: {said}", output.status))
    }
}

fn program(name: &str) -> PathBuf {
    unpack::find(name).unwrap_or_else(|| panic!("{name} is there (cargo xtask test fetches it)"))
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").expect("a string takes all");
        encoded
    })
}

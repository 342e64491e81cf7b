//! A browser without a window: Debian's Chromium, led by WebDriver (W3C, "WebDriver"), which is JSON over HTTP.

use crate::machine::DEADLINE;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use xtask::{
    http::{self, Limits},
    machine::{KillOnDrop, spawn},
    workspace,
};

/// Keys as WebDriver writes them ("Keyboard actions").
pub mod keys {
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
    /// Escape.
    pub const ESCAPE: &str = "\u{e00c}";
    /// The arrow that points down.
    pub const DOWN: &str = "\u{e015}";
    /// The arrow that points up.
    pub const UP: &str = "\u{e013}";
}

/// A browser; dropping it ends it.
pub struct Browser {
    driver: KillOnDrop,
    address: SocketAddr,
    session: String,
    profile: PathBuf,
}

impl Browser {
    /// Starts one, with a profile of its own.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        let profile = directory().join(format!("profile-{}", std::process::id()));
        fs::create_dir_all(&profile).expect("a place for a profile");
        let mut command = Command::new("chromedriver");
        // Port 0: it chooses a free one, and says which.
        command
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env("HOME", &profile)
            .env("TMPDIR", &profile);
        let mut child =
            spawn(command).expect("chromedriver starts (Debian: apt-get install chromium-driver)");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        let driver = KillOnDrop::new(child);
        let port = said
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, rest) = line.split_once("started successfully on port ")?;
                rest.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver says where it listens");
        let mut browser = Self {
            driver,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            session: String::new(),
            profile,
        };
        let arguments = [
            "--headless=new".to_owned(),
            // Tests may run as root, in a container without namespaces. Only our own page is opened.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-background-networking".to_owned(),
            "--no-first-run".to_owned(),
            "--hide-scrollbars".to_owned(),
            // Ends with chromedriver, whatever ends that.
            "--remote-debugging-pipe".to_owned(),
            format!("--user-data-dir={}", browser.profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let answer = browser.ask("POST", "/session", &wanted);
        browser.session = answer["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// Opens an address.
    pub fn open(&self, address: &str) {
        self.command("/url", &json!({"url": address}));
    }

    /// Runs a script's body, and returns what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs the script until what it returns is neither false, null, zero nor empty, and returns that.
    ///
    /// # Panics
    /// If that is not so in time: with the page's text.
    pub fn wait_for(&self, what: &str, script: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            let value = self.run(script);
            if !matches!(&value, Value::Null | Value::Bool(false)) && value != 0 && value != "" {
                return value;
            }
            // Each question costs the browser time that it needs to draw.
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!(
            "{what} did not come; the page says:\n{}",
            self.run("return document.body.innerText")
        );
    }

    /// Presses and releases keys, one after the other, wherever the focus is.
    pub fn press(&self, keys: &[&str]) {
        let both = |key: &&str| {
            [
                json!({"type": "keyDown", "value": key}),
                json!({"type": "keyUp", "value": key}),
            ]
        };
        let actions: Vec<Value> = keys.iter().flat_map(both).collect();
        self.command(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}),
        );
    }

    /// One command of Chromium's own protocol.
    pub fn chromium(&self, command: &str, parameters: &Value) -> Value {
        self.command(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// Light or dark.
    pub fn prefer_scheme(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.chromium("Emulation.setEmulatedMedia", &features);
    }

    /// The page's size in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Writes the whole page as a picture to `target/instar/browser/NAME.png`.
    ///
    /// # Panics
    /// If there is no picture.
    pub fn picture(&self, name: &str) {
        let answer = self.chromium("Page.captureScreenshot", &json!({"captureBeyondViewport": true}));
        let bytes = STANDARD
            .decode(answer["data"].as_str().expect("a picture"))
            .expect("base64");
        fs::write(directory().join(format!("{name}.png")), bytes).expect("a file");
    }

    /// What the console was told since the last time.
    ///
    /// # Panics
    /// If the driver does not know.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("/se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().expect("a list");
        entries.iter().map(Value::to_string).collect()
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let limits = Limits {
            idle: DEADLINE,
            ..Limits::patient()
        };
        let body = body.to_string();
        let kind = [("Content-Type", "application/json; charset=utf-8")];
        let answer = http::send(self.address, method, path, &kind, body.as_bytes(), limits, |_| ());
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!(answer.status, 200, "{method} {path} {body}: {}", value["value"]);
        value["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Deleting the session ends the browser; what fails here is ended with the driver.
        let path = format!("/session/{}", self.session);
        _ = http::send(self.address, "DELETE", &path, &[], b"", Limits::patient(), |_| ());
        self.driver.kill();
        _ = fs::remove_dir_all(&self.profile);
    }
}

fn directory() -> PathBuf {
    let directory: &Path = &workspace::out_dir();
    directory.join("browser")
}

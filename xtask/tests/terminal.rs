//! `cargo xtask collect` in a terminal: the live view comes, and when it ends the terminal is as it was.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// What is sent to end it.
enum End {
    Key(&'static [u8]),
    Signal(&'static str),
}

/// Runs the live view in a pseudo-terminal until it has drawn itself, ends it, and returns all that the terminal got.
fn run(end: &End) -> String {
    // `script` (Debian: bsdutils, which is always there) makes the terminal; stty tells its settings.
    let program = env!("CARGO_BIN_EXE_xtask");
    let inner = format!("echo pid=$$.; exec {program} collect --listen 127.0.0.1:0");
    let outer = format!(
        "stty rows 30 cols 100; echo settings=$(stty -g).; sh -c '{inner}'; echo settings=$(stty -g).; echo ended=$?."
    );
    let mut script = Command::new("script")
        .args(["-q", "-c", &outer, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script starts");
    let mut keys = script.stdin.take().expect("it is piped");
    let mut screen = script.stdout.take().expect("it is piped");
    let mut text = Vec::new();
    let mut told = false;
    let mut piece = [0; 4096];
    loop {
        let length = screen.read(&mut piece).expect("the terminal's output");
        if length == 0 {
            break;
        }
        text.extend_from_slice(&piece[..length]);
        let so_far = String::from_utf8_lossy(&text);
        if !told && so_far.contains("OTEL_EXPORTER_OTLP_ENDPOINT") {
            told = true;
            match end {
                End::Key(key) => keys.write_all(key).expect("the terminal takes a key"),
                End::Signal(signal) => {
                    let pid = so_far
                        .split("pid=")
                        .nth(1)
                        .and_then(|rest| rest.split('.').next());
                    let sent = Command::new("kill")
                        .args(["-s", signal, pid.expect("a pid")])
                        .status();
                    assert!(sent.expect("kill starts").success());
                }
            }
        }
        if so_far.contains("ended=") {
            break;
        }
    }
    drop(keys);
    script.wait().expect("script ends");
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn the_terminal_is_left_as_it_was() {
    for end in [
        End::Key(b"q"),
        End::Key(b"\x03"),
        End::Signal("TERM"),
        End::Signal("HUP"),
    ] {
        let text = run(&end);
        let (alone, back) = ("\x1b[?1049h", "\x1b[?1049l");
        let from = text.find(alone).expect("a screen of its own");
        let to = text
            .find(back)
            .unwrap_or_else(|| panic!("not given back: {text:?}"));
        let settings = |part: &str| Some(part.split_once("settings=")?.1.split_once('.')?.0.to_owned());
        let (before, after) = (settings(&text[..from]), settings(&text[to..]));
        assert!(before.is_some() && before == after, "{before:?}, then {after:?}");
        assert!(
            text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"),
            "the cursor is seen again"
        );
    }
}

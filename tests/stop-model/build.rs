//! Copies the stop protocol's source for the model: as it is, and with one mistake each. A mistake that finds nothing to
//! change fails the build, so that a broken variant is never the original by accident.

use std::{env, fs, path::Path};

const SOURCES: &str = "../../libos/src/cpu/";

/// Name of the variant, what is taken out, what is put in its place.
const MISTAKES: [(&str, &str, &str); 3] = [
    (
        "report_before_flush",
        "\
        cores.flush(me);
        // The report: not before the flush has finished.
        self.awaited.fetch_and(!bit, Ordering::SeqCst);",
        "\
        self.awaited.fetch_and(!bit, Ordering::SeqCst);
        cores.flush(me);",
    ),
    (
        "set_after_interrupt",
        "\
        asked.store(others.bits(), Ordering::SeqCst);
        for core in others.iter() {
            cores.interrupt(core);
        }",
        "\
        for core in others.iter() {
            cores.interrupt(core);
        }
        asked.store(others.bits(), Ordering::SeqCst);",
    ),
    ("stopper_keeps_its_lines", "cores.flush(self.me);", ""),
];

fn main() {
    let protocol = source("stop/protocol.rs");
    write("original", &protocol);
    write("core_id", &source("core_id.rs"));
    for (name, right, wrong) in MISTAKES {
        assert_eq!(
            protocol.matches(right).count(),
            1,
            "{name}: the place was not found"
        );
        write(name, &protocol.replace(right, wrong));
    }
}

/// The text of a file, without the documentation of the file itself, which an included file may not have.
fn source(name: &str) -> String {
    let path = format!("{SOURCES}{name}");
    println!("cargo::rerun-if-changed={path}");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines()
        .filter(|line| !line.starts_with("//!"))
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn write(name: &str, text: &str) {
    let directory = env::var_os("OUT_DIR").expect("cargo's directory");
    let path = Path::new(&directory).join(name).with_extension("rs");
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

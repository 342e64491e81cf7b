//! Python's packages that the tests use, in an environment of their own under `target/`.

use super::{Tool, ensure_by};
use crate::exit::{Exit, Failure};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What the tests need from PyPI: OTLP's official message types. The version is fixed, so that a test fails by our doing
/// only.
const PACKAGES: &str = "opentelemetry-proto==1.45.2\n";

/// Debian's Python cannot make an environment without this package.
const VENV: Tool = Tool {
    program: "python3 (with venv)",
    package: "python3-venv",
};

/// Sees to it that the environment is there, with all packages; returns its interpreter.
///
/// # Errors
/// With [`Exit::MissingProgram`] where it is not there and `may_install` is false, or making it failed.
pub fn ensure(may_install: bool) -> Result<PathBuf> {
    let directory = workspace::out_dir().join("python");
    let python = directory.join("bin/python");
    let requirements = directory.join("requirements.txt");
    fs::create_dir_all(workspace::out_dir()).context("no place for Python's packages")?;
    // Tests run side by side, and each may be the first.
    let turn = fs::File::create(workspace::out_dir().join("python.lock"))?;
    turn.lock()?;
    // Written last: an environment without it was not finished.
    if fs::read_to_string(&requirements).is_ok_and(|text| text == PACKAGES) {
        return Ok(python);
    }
    if !may_install {
        let what = "the tests' Python packages are missing, and --no-install forbids to install them";
        let failure = Failure::new(Exit::MissingProgram, what);
        return Err(failure.hint("install them with: cargo xtask test").into());
    }
    ensure_by(&[VENV], may_install, |_| !can_make_environments())?;
    eprintln!("installing Python packages into {}", directory.display());
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&directory))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(&python).args(pip).args(PACKAGES.lines()))?;
    fs::write(&requirements, PACKAGES)?;
    Ok(python)
}

fn can_make_environments() -> bool {
    let mut python = Command::new("python3");
    python
        .args(["-c", "import ensurepip, venv"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// Runs a command with its output on standard error: standard output is for results.
fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let what = format!("installing Python packages failed: {command:?}");
    let failure = Failure::new(Exit::MissingProgram, what);
    Err(failure
        .hint("see above; a network with a package index is needed once")
        .into())
}

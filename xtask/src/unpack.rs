//! Programs of Debian packages that would start a service if they were installed: the package is fetched and unpacked into
//! `target`, and nothing on this computer changes.

use crate::exit::{Exit, Failure};
use crate::install;
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A package whose programs need nothing of it but themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What is looked for, below `/usr/bin`.
    pub programs: &'static [&'static str],
}

/// Prometheus, which scrapes a machine, and promtool, which judges what is scraped.
pub const PROMETHEUS: Package = Package {
    name: "prometheus",
    programs: &["prometheus", "promtool"],
};

/// What the tests need.
pub const FOR_TESTS: &[Package] = &[PROMETHEUS];

/// Where `program` is: installed, or unpacked.
pub fn find(program: &str) -> Option<PathBuf> {
    install::find(program).or_else(|| {
        let packages = fs::read_dir(directory()).ok()?.flatten();
        let mut candidates = packages.map(|package| package.path().join("usr/bin").join(program));
        candidates.find(|candidate| candidate.is_file())
    })
}

/// Sees to it that the programs of all `packages` are there.
///
/// # Errors
/// With [`Exit::MissingProgram`], and what to do, where one is missing and `may_fetch` is false, or it could not be fetched.
pub fn ensure(packages: &[Package], may_fetch: bool) -> Result<()> {
    for package in packages {
        if package.programs.iter().all(|program| find(program).is_some()) {
            continue;
        }
        let (name, programs) = (package.name, package.programs.join(", "));
        let needed = |why: &str| {
            let failure = Failure::new(Exit::MissingProgram, format!("{programs} is missing{why}"));
            let hint = format!("install Debian's package {name}, or put these programs of it into PATH");
            Err(failure.hint(hint).into())
        };
        if !may_fetch {
            return needed(", and --no-install forbids to fetch it");
        }
        if install::find("apt-get").is_none() {
            return needed(", and this is no Debian");
        }
        eprintln!("{programs} is missing; fetching the package {name}, which is not installed");
        // A machine that was never updated knows no packages.
        let fetched = fetch(name)? || (install::update()? && fetch(name)?);
        if !fetched || package.programs.iter().any(|program| find(program).is_none()) {
            return needed(", and fetching it failed (see above)");
        }
    }
    Ok(())
}

fn directory() -> PathBuf {
    workspace::out_dir().join("unpacked")
}

/// Fetches a package and unpacks it; whether that worked.
fn fetch(package: &str) -> Result<bool> {
    // Beside its place until it is whole.
    let unfinished = directory().join(format!(".{package}-{}", std::process::id()));
    fs::create_dir_all(&unfinished).with_context(|| format!("could not make {}", unfinished.display()))?;
    let done = fetch_into(package, &unfinished);
    if matches!(done, Ok(true)) {
        // Whoever was faster has the same.
        let _ = fs::rename(unfinished.join("root"), directory().join(package));
    }
    let _ = fs::remove_dir_all(&unfinished);
    done
}

fn fetch_into(package: &str, place: &Path) -> Result<bool> {
    let mut download = Command::new("apt-get");
    download.args(["download", package]);
    if !run(download.current_dir(place))? {
        return Ok(false);
    }
    let files = fs::read_dir(place)?.flatten().map(|file| file.path());
    let Some(file) = files
        .into_iter()
        .find(|path| path.extension().is_some_and(|it| it == "deb"))
    else {
        return Ok(false);
    };
    let mut unpack = Command::new("dpkg-deb");
    run(unpack.arg("-x").arg(file).arg(place.join("root")))
}

/// Runs a command with its output on standard error: standard output is for results.
fn run(command: &mut Command) -> Result<bool> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("could not start {}", command.get_program().display()))?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::exit_of;

    #[test]
    fn what_may_not_be_fetched_is_named() {
        let missing = Package {
            name: "no-such-package",
            programs: &["no-such-program-anywhere"],
        };
        let error = ensure(&[missing], false).expect_err("it is missing");
        assert_eq!(exit_of(&error), Exit::MissingProgram);
        let failure = error.downcast_ref::<Failure>().expect("a failure");
        assert!(failure.hint.contains("no-such-package"), "{}", failure.hint);
        assert!(find("sh").is_some(), "installed");
    }
}

//! Where things are: the workspace's root, what is built and where it goes, and the source's revision.

use crate::exit::{Exit, Failure};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace that this program was built from.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo puts what it builds for the host.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where images, keys and the first stage go.
pub fn out_dir() -> PathBuf {
    target().join("instar")
}

/// Where cargo builds for the bare machine, apart from the host's builds so that neither disturbs the other.
pub fn metal_dir() -> PathBuf {
    target().join("metal")
}

/// The first stage that `build-app` made last.
pub fn first_stage() -> PathBuf {
    out_dir().join("first-stage")
}

/// The directory of the development keys.
pub fn dev_keys_dir() -> PathBuf {
    out_dir().join("keys")
}

/// An application under `apps/`.
#[derive(Clone, Debug)]
pub struct App {
    /// Its package's name.
    pub name: String,
    /// Its package's version.
    pub version: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// The applications of this workspace.
///
/// # Errors
/// If `cargo metadata` fails.
pub fn apps() -> Result<Vec<App>> {
    apps_below("apps")
}

fn apps_below(directory: &str) -> Result<Vec<App>> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .context("could not start `cargo metadata`")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::new(Exit::Build, format!("`cargo metadata` failed: {}", text.trim())).into());
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("`cargo metadata` printed something unexpected")?;
    let apps = root().join(directory);
    Ok(metadata
        .packages
        .into_iter()
        .filter(|p| p.manifest_path.starts_with(&apps))
        .map(|p| App {
            name: p.name,
            version: p.version,
        })
        .collect())
}

/// The application called `name`: one of [`apps`], or one that is there for tests only, under `tests/apps/`.
///
/// # Errors
/// If there is none of that name; the error lists those that exist.
pub fn app(name: &str) -> Result<App> {
    let apps = apps()?;
    let tests = apps_below("tests/apps")?;
    if let Some(app) = apps.iter().chain(&tests).find(|a| a.name == name) {
        return Ok(app.clone());
    }
    let names: Vec<_> = apps.iter().map(|a| a.name.as_str()).collect();
    Err(
        Failure::new(Exit::Usage, format!("there is no application called `{name}`"))
            .hint(format!(
                "applications live in apps/; there are: {}",
                names.join(", ")
            ))
            .into(),
    )
}

/// The cargo that runs us, in the workspace's root.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // Cargo sets these for us (`cargo run`); the cargo below must not take them for its own.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_PKG_NAME",
    ] {
        cargo.env_remove(name);
    }
    cargo
}

/// The source's revision in a few letters, with `-dirty` if it was changed since; empty if nobody knows.
pub fn revision() -> String {
    let describe = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"])
        .current_dir(root())
        .output();
    match describe {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => String::new(),
    }
}

/// Where cargo unpacks the crates of each registry. A panic names its source file, and an image is to name it the same
/// way, and a short one, wherever it is built.
pub fn registries() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let sources = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let mut found: Vec<_> = sources
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// A lock that is held while something below [`out_dir`] is built: tests build side by side.
///
/// # Errors
/// If the lock file cannot be made.
pub fn lock() -> Result<File> {
    let dir = out_dir();
    fs::create_dir_all(&dir).with_context(|| format!("could not create {}", dir.display()))?;
    let path = dir.join(".lock");
    let file = File::create(&path).with_context(|| format!("could not create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("could not lock {}", path.display()))?;
    Ok(file)
}

/// Writes `path` as a whole or not at all: whoever reads it meanwhile sees the old or the new, never a part.
///
/// # Errors
/// If the directory cannot be written to.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(dir) = path.parent()
        && !dir.as_os_str().is_empty()
    {
        fs::create_dir_all(dir).with_context(|| format!("could not create {}", dir.display()))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    fs::write(&part, bytes).with_context(|| format!("could not write {}", part.display()))?;
    fs::rename(&part, path).with_context(|| format!("could not write {}", path.display()))
}

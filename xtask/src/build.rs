//! Building for the bare machine with the stock toolchain and the host's target: no nightly, no extra target.

use crate::elf_check::{self, ElfSummary};
use crate::exit::{Exit, Failure};
use crate::image::{self, Manifest};
use crate::keys::{self, Role};
use crate::workspace;
use anyhow::{Context, Result};
use minisign::{PublicKey, SecretKey};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The only target: the host's own. Given explicitly, so that the flags below reach neither build scripts nor
/// procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The cargo profile for what runs on the bare machine.
const PROFILE: &str = "metal";

/// Flags for every crate of an image. `no-redzone`: interrupts must not have to step over what a function keeps below
/// its stack pointer. The last is for size: SHA-256 without unrolled rounds where the processor has no instructions for it.
const IMAGE_FLAGS: &[&str] = &[
    "--cfg=metal",
    "-Crelocation-model=pic",
    "-Cno-redzone=yes",
    "--cfg=sha2_backend_soft=\"compact\"",
];

/// How an image is linked: position-independent without a dynamic linker, laid out by `libos/link.ld`.
/// `nocombreloc`: hermit-entry refuses DT_RELACOUNT. `icf=all`: equal functions once; no code of ours compares their
/// addresses. (lld, which is the toolchain's own linker, knows it.)
const IMAGE_LINK: &[&str] = &[
    "-nostdlib",
    "-nostartfiles",
    "-static-pie",
    "-Wl,-z,nocombreloc",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,--no-dynamic-linker",
    "-Wl,--gc-sections",
    "-Wl,--icf=all",
];

/// Which byte of an ELF names the operating system it is for, and what stands there for none (System V gABI, ELF header).
const EI_OSABI: usize = 7;
const STANDALONE: u8 = 0xff;

/// An image's linker script, from the workspace's root.
const IMAGE_SCRIPT: &str = "libos/link.ld";

/// Flags for every crate of the first stage, which runs where it was linked to.
const FIRST_STAGE_FLAGS: &[&str] = &["--cfg=metal", "-Crelocation-model=static", "-Cno-redzone=yes"];

/// How the first stage is linked.
const FIRST_STAGE_LINK: &[&str] = &[
    "-nostdlib",
    "-nostartfiles",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,--gc-sections",
];

/// The first stage's linker script, from the workspace's root.
const FIRST_STAGE_SCRIPT: &str = "loader/link.ld";

/// The first stage's program.
const FIRST_STAGE: &str = "first-stage";

/// What to build, and what to sign it with.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The application's package, under `apps/` or `tests/apps/`.
    pub app: String,
    /// The version in the manifest; the package's own if none is given.
    pub version: Option<String>,
    /// The security version in the manifest.
    pub security_version: u64,
    /// Features of the application's package, separated by commas or blanks.
    pub features: Option<String>,
    /// Without the package's default features.
    pub no_default_features: bool,
    /// What the manifest sets unless the machine's command line does.
    pub environment: Vec<(String, String)>,
    /// The release key's secret file; the development key if none is given.
    pub key: Option<PathBuf>,
    /// The operator's public key that the first stage carries; the development key if none is given.
    pub operator_key: Option<PathBuf>,
    /// Where the image goes; `target/instar/APP-VERSION.tar` if nothing is given.
    pub output: Option<PathBuf>,
}

impl BuildOptions {
    /// `app` with the package's version and the development keys.
    pub fn new(app: &str) -> Self {
        Self {
            app: app.to_owned(),
            ..Self::default()
        }
    }

    /// The same with this version.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }
}

/// An image that was built.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// The archive.
    pub path: PathBuf,
    /// The size of the archive.
    pub image_bytes: u64,
    /// What was signed.
    pub manifest: Manifest,
    /// What the ELF looks like.
    pub elf: ElfSummary,
    /// The first stage that trusts the keys it was built with.
    pub first_stage: PathBuf,
}

/// The default path of an image.
pub fn image_path(app: &str, version: &str) -> PathBuf {
    workspace::out_dir().join(format!("{app}-{version}.tar"))
}

/// Builds the application and the first stage, and packs and signs the image.
///
/// # Errors
/// If a build fails, the ELF breaks a rule, or a key or the output cannot be used.
pub fn build_app(options: &BuildOptions) -> Result<BuiltImage> {
    let app = workspace::app(&options.app)?;
    let version = options.version.as_deref().unwrap_or(&app.version);
    check_version(version)?;
    check_environment(&options.environment)?;
    let (release, operator) = keys_of(options)?;
    let elf = build_elf(
        &app.name,
        options.features.as_deref(),
        !options.no_default_features,
    )?;
    let first_stage = build_first_stage(&keys::public_of(&release)?, &operator)?;
    let summary = check_elf(&app.name, &elf)?;
    let mut manifest = Manifest::new(
        &app.name,
        version,
        &workspace::revision(),
        options.security_version,
        &elf,
    );
    manifest.environment = options.environment.iter().cloned().collect();
    let archive = image::pack(&manifest, &elf, &release)?;
    let path = options
        .output
        .clone()
        .unwrap_or_else(|| image_path(&app.name, version));
    workspace::write_whole(&path, &archive)?;
    Ok(BuiltImage {
        path,
        image_bytes: archive.len() as u64,
        manifest,
        elf: summary,
        first_stage,
    })
}

/// Versions become part of file names and of lines of text.
fn check_version(version: &str) -> Result<()> {
    let fits = (1..=64).contains(&version.len())
        && version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".+-_".contains(c));
    if fits {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("`{version}` is no version"))
        .hint("a version has 1 to 64 letters, digits, dots, pluses, hyphens and underscores, like 1.2.0")
        .into())
}

/// What the loader would refuse, and a key that is given twice.
fn check_environment(environment: &[(String, String)]) -> Result<()> {
    let fits = |(key, value): &(String, String)| {
        (1..=64).contains(&key.len())
            && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && value.len() <= 1024
            && !value.chars().any(char::is_control)
            && environment.iter().filter(|(other, _)| other == key).count() == 1
    };
    match environment.iter().find(|pair| !fits(pair)) {
        None if environment.len() <= 32 => Ok(()),
        // Not the value: it may be a secret, though an image is not the place for one.
        bad => Err(Failure::new(
            Exit::Usage,
            format!(
                "the environment cannot be put into a manifest{}",
                bad.map_or(String::new(), |(key, _)| format!(": {key}"))
            ),
        )
        .hint("at most 32 keys, each once, with values of up to 1024 bytes without control characters")
        .into()),
    }
}

fn keys_of(options: &BuildOptions) -> Result<(SecretKey, PublicKey)> {
    let development = if options.key.is_none() || options.operator_key.is_none() {
        Some(keys::development()?)
    } else {
        None
    };
    let path = |given: &Option<PathBuf>, made: fn(&Path) -> PathBuf| {
        given
            .clone()
            .unwrap_or_else(|| made(development.as_deref().unwrap_or(Path::new("."))))
    };
    let release = keys::read_secret(&path(&options.key, |dir| Role::Release.secret_path(dir)))?;
    let operator = keys::read_public(&path(&options.operator_key, |dir| {
        Role::Operator.public_path(dir)
    }))?;
    Ok((release, operator))
}

fn check_elf(app: &str, elf: &[u8]) -> Result<ElfSummary> {
    elf_check::check(elf).map_err(|why| {
        Failure::new(
            Exit::Build,
            format!("the ELF of `{app}` breaks the image's rules: {why}"),
        )
        .hint(format!(
            "see docs/interfaces.md, \"The image\", and the linker script {IMAGE_SCRIPT}"
        ))
        .into()
    })
}

/// The ELF of the application `app`, as it goes into an image, with these features besides the default ones or instead of them.
///
/// # Errors
/// If cargo fails.
pub fn build_elf(app: &str, features: Option<&str>, default_features: bool) -> Result<Vec<u8>> {
    let mut arguments = vec!["-p", app, "--bin", app];
    if let Some(features) = features {
        arguments.extend(["--features", features]);
    }
    if !default_features {
        arguments.push("--no-default-features");
    }
    let mut elf = cargo_build(app, &arguments, IMAGE_FLAGS, IMAGE_LINK, IMAGE_SCRIPT, &[])?;
    // No linker option sets it, and Hermit's loaders warn without it.
    if let Some(os_abi) = elf.get_mut(EI_OSABI) {
        *os_abi = STANDALONE;
    }
    Ok(elf)
}

/// Builds the first stage with its roots of trust, and puts it to `target/instar/first-stage`.
///
/// # Errors
/// If cargo fails.
pub fn build_first_stage(release: &PublicKey, operator: &PublicKey) -> Result<PathBuf> {
    let keys = [
        ("INSTAR_RELEASE_KEY", release.to_base64()),
        ("INSTAR_OPERATOR_KEY", operator.to_base64()),
    ];
    let arguments = ["-p", "loader", "--bin", FIRST_STAGE];
    let elf = cargo_build(
        FIRST_STAGE,
        &arguments,
        FIRST_STAGE_FLAGS,
        FIRST_STAGE_LINK,
        FIRST_STAGE_SCRIPT,
        &keys,
    )?;
    let path = workspace::first_stage();
    workspace::write_whole(&path, &elf)?;
    Ok(path)
}

/// Runs `cargo build` for the bare machine and returns the bytes of the program called `name`.
fn cargo_build(
    name: &str,
    arguments: &[&str],
    flags: &[&str],
    link: &[&str],
    script: &str,
    variables: &[(&str, String)],
) -> Result<Vec<u8>> {
    // Held until the program has been read: another build with other features would replace it.
    let _lock = workspace::lock()?;
    let script = workspace::root().join(script);
    if !script.is_file() {
        return Err(Failure::new(
            Exit::Build,
            format!("the linker script {} is missing", script.display()),
        )
        .hint("it is part of the source; is this checkout complete?")
        .into());
    }
    let output = workspace::cargo()
        .args(["build", "--profile", PROFILE, "--target", TARGET])
        .args(["--message-format=json-render-diagnostics", "--target-dir"])
        // A directory for each set of flags: in a common one cargo would build everything anew at each change.
        .arg(workspace::metal_dir().join(if name == FIRST_STAGE { FIRST_STAGE } else { "image" }))
        .args(arguments)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            encode_flags(flags, link, &script, &workspace::registries()),
        )
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("could not start `cargo build`")?;
    if !output.status.success() {
        return Err(Failure::new(
            Exit::Build,
            format!("building `{name}` for the bare machine failed"),
        )
        .hint("what cargo said about it stands above")
        .into());
    }
    let program = find_program(&String::from_utf8_lossy(&output.stdout), name)
        .ok_or_else(|| Failure::new(Exit::Build, format!("cargo built no program called `{name}`")))?;
    fs::read(&program).with_context(|| format!("could not read {}", program.display()))
}

/// `CARGO_ENCODED_RUSTFLAGS`: flags separated by 0x1f, since a path may hold blanks.
fn encode_flags(flags: &[&str], link: &[&str], script: &Path, registries: &[PathBuf]) -> String {
    let mut all: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    all.extend(link.iter().map(|argument| format!("-Clink-arg={argument}")));
    all.push(format!("-Clink-arg=-Wl,-T,{}", script.display()));
    all.extend(
        registries
            .iter()
            .map(|path| format!("--remap-path-prefix={}/=", path.display())),
    );
    all.join("\u{1f}")
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The program called `name` among cargo's messages, one JSON object a line.
fn find_program(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|m| m.reason == "compiler-artifact" && m.target.as_ref().is_some_and(|t| t.name == name))
        .find_map(|m| m.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_encoded_one_by_one() {
        let text = encode_flags(
            &["--cfg=metal"],
            &["-nostdlib"],
            Path::new("/with blank/link.ld"),
            &["/r/x".into()],
        );
        let flags: Vec<_> = text.split('\u{1f}').collect();
        assert_eq!(
            flags,
            [
                "--cfg=metal",
                "-Clink-arg=-nostdlib",
                "-Clink-arg=-Wl,-T,/with blank/link.ld",
                "--remap-path-prefix=/r/x/="
            ]
        );
    }

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"libos"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"hello"},"executable":"/t/hello"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(find_program(messages, "hello"), Some(PathBuf::from("/t/hello")));
        assert_eq!(find_program(messages, "libos"), None);
    }

    #[test]
    fn environments_fit_into_a_manifest() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert!(check_environment(&[pair("OTEL_SERVICE_NAME", "kv"), pair("instar.syslog", "")]).is_ok());
        for bad in [
            vec![pair("", "a")],
            vec![pair("A", "a\nb")],
            vec![pair("A", "a"), pair("A", "b")],
            vec![pair("A", &"a".repeat(1025))],
            (0..33).map(|number| pair(&number.to_string(), "")).collect(),
        ] {
            assert!(check_environment(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_plain() {
        for good in ["1.0.0", "1.1.0-rc.1+b_2"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["", "../x", "a b", "1\n2"] {
            assert!(check_version(bad).is_err(), "{bad:?}");
        }
    }
}

//! `build-app`.

use crate::build::{self, BuildOptions, BuiltImage};
use crate::exit::Exit;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Options {
    /// The application: a package under apps/
    app: String,
    /// The version in the image's manifest [default: the package's]
    #[arg(long, value_name = "V")]
    version: Option<String>,
    /// The release key's secret file [default: the development key, made on first use]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The operator's public key (file or base64) for the first stage [default: the development key]
    #[arg(long, value_name = "PUB")]
    operator_key: Option<PathBuf>,
    /// The security version; no machine goes below the highest that it has committed to
    #[arg(long, value_name = "N", default_value_t = 0)]
    security_version: u64,
    /// Features of the application's package, or of the library OS: libos/NAME
    #[arg(long, value_name = "F")]
    features: Option<String>,
    /// Without default features: the library OS's exporters are among them
    #[arg(long)]
    no_default_features: bool,
    /// What the manifest sets unless the machine's command line does: OTEL_* and instar.syslog; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    environment: Vec<(String, String)>,
    /// Where the image goes [default: target/instar/APP-V.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object instead of the path
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    let json = options.json;
    let built = build::build_app(&BuildOptions {
        app: options.app,
        version: options.version,
        security_version: options.security_version,
        features: options.features,
        no_default_features: options.no_default_features,
        environment: options.environment,
        key: options.key,
        operator_key: options.operator_key,
        output: options.output,
    })?;
    if json {
        println!("{}", describe(&built));
    } else {
        eprintln!(
            "{} {}: ELF {} bytes ({} in memory, {} relocations), image {} bytes",
            built.manifest.name,
            built.manifest.version,
            built.elf.file_bytes,
            built.elf.memory_bytes,
            built.elf.relocations,
            built.image_bytes
        );
        println!("{}", built.path.display());
    }
    Ok(Exit::Ok)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("it is not KEY=VALUE".into()),
    }
}

fn describe(built: &BuiltImage) -> serde_json::Value {
    json!({
        "image": built.path,
        "first_stage": built.first_stage,
        "image_bytes": built.image_bytes,
        "name": built.manifest.name,
        "version": built.manifest.version,
        "revision": built.manifest.revision,
        "security_version": built.manifest.security_version,
        "environment": built.manifest.environment,
        "elf_bytes": built.elf.file_bytes,
        "memory_bytes": built.elf.memory_bytes,
        "relocations": built.elf.relocations,
        "sha256": built.manifest.elf.sha256,
    })
}

//! What every machine test starts from: the images of an application, built and signed once, and the keys.

use crate::image::{Parts, keys};
use minisign::SecretKey;
use std::{fs, path::PathBuf, sync::LazyLock};
use xtask::{
    build::{self, BuildOptions},
    keys::{self as files, Role},
};

/// Two versions of one application, and whoever signs.
pub struct Prepared {
    /// The first stage that trusts the keys below.
    pub first_stage: PathBuf,
    /// Version 1.0.0, as a file to boot.
    pub old_path: PathBuf,
    /// Version 1.0.0.
    pub old: Vec<u8>,
    /// Version 1.1.0.
    pub new: Vec<u8>,
    /// Version 1.1.0, taken apart: to break.
    pub parts: Parts,
    /// Says what may run.
    pub release: SecretKey,
    /// Says who may ask.
    pub operator: SecretKey,
    /// A key that no machine knows.
    pub stranger: SecretKey,
}

/// Which application a machine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum App {
    /// What it takes to serve.
    #[default]
    Hello,
    /// The same, and it misbehaves when told to: `tests/apps/trial`.
    Trial,
    /// It takes, keeps and releases private memory: `tests/apps/vault`.
    Vault,
    /// A key-value server: version 1.1.0 writes record format 2.
    Kv,
    /// It keeps records and regions: `tests/apps/keeper`.
    Keeper,
}

impl App {
    /// Its images; built when first asked for.
    #[must_use]
    pub fn prepared(self) -> &'static Prepared {
        static HELLO: LazyLock<Prepared> = LazyLock::new(|| prepare("hello"));
        static TRIAL: LazyLock<Prepared> = LazyLock::new(|| prepare("trial"));
        static VAULT: LazyLock<Prepared> = LazyLock::new(|| prepare("vault"));
        static KEEPER: LazyLock<Prepared> = LazyLock::new(|| prepare("keeper"));
        static KV: LazyLock<Prepared> = LazyLock::new(|| prepare_with("kv", Some("format-2")));
        match self {
            Self::Hello => &HELLO,
            Self::Trial => &TRIAL,
            Self::Vault => &VAULT,
            Self::Kv => &KV,
            Self::Keeper => &KEEPER,
        }
    }
}

fn prepare(app: &str) -> Prepared {
    prepare_with(app, None)
}

/// The newer version with features of its package.
fn prepare_with(app: &str, features: Option<&str>) -> Prepared {
    let image = |version: &str, features: Option<&str>| {
        let options = BuildOptions {
            features: features.map(str::to_owned),
            ..BuildOptions::new(app).version(version)
        };
        build::build_app(&options).unwrap_or_else(|error| panic!("{app} does not build: {error:#}"))
    };
    let (old, new) = (image("1.0.0", None), image("1.1.0", features));
    let read = |path: &PathBuf| fs::read(path).expect("the image is there");
    let directory = files::development().expect("development keys");
    let secret = |role: Role| files::read_secret(&role.secret_path(&directory)).expect("a secret key");
    let bytes = read(&new.path);
    Prepared {
        first_stage: new.first_stage,
        old: read(&old.path),
        old_path: old.path,
        parts: Parts::of(&bytes),
        new: bytes,
        release: secret(Role::Release),
        operator: secret(Role::Operator),
        stranger: keys().sk,
    }
}

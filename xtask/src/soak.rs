//! The soak: one machine, and a long series of orders that go well, are refused, or bring a successor that fails. What comes next is
//! drawn from a seed. After each step the same must hold, whatever happened.

mod draw;
mod invariants;

use crate::build::{self, BuildOptions};
use crate::control;
use crate::failing;
use crate::http::Limits;
use crate::image::{self, Manifest};
use crate::keys::{self, Role};
use crate::machine::Machine;
use crate::scene;
use anyhow::{Context, Result, bail, ensure};
use draw::{BadOrder, Damage, Draw, Step};
use invariants::Expected;
use minisign::SecretKey;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// The application: it fails as its version says (`libos/src/trial.rs`).
const APP: &str = "trial";

/// How long a replacement may take to its end, on the slowest computer.
const REPLACEMENT: Duration = Duration::from_secs(120);

/// How the soak is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many steps.
    pub count: u32,
    /// What they are drawn from.
    pub seed: u64,
    /// How many cores.
    pub cores: u32,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many steps there were of each kind.
    pub steps: BTreeMap<&'static str, u32>,
    /// Replacements that were committed.
    pub committed: u32,
    /// Replacements that were given back.
    pub rolled_back: u32,
    /// Requests that were refused.
    pub refused: u32,
    /// From noticing a failure until the predecessor served, in milliseconds: each one that was given back.
    pub recovery_ms: Vec<f64>,
}

/// The machine, the keys, and what is expected of it.
struct Soak {
    machine: Machine,
    elf: Vec<u8>,
    release: SecretKey,
    operator: SecretKey,
    stranger: SecretKey,
    expected: Expected,
    report: Report,
}

/// Runs it; `tell` hears of every step.
///
/// # Errors
/// If an invariant does not hold: the error says which, after which step, and how to see it again.
pub fn run(plan: Plan, mut tell: impl FnMut(u32, &str)) -> Result<Report> {
    let mut soak = Soak::start(plan.cores)?;
    let mut draw = Draw::new(plan.seed);
    for number in 1..=plan.count {
        let step = draw.step(plan.cores, soak.expected.floor);
        tell(number, &step.to_string());
        soak.step(number, &step).with_context(|| {
            format!(
                "step {number}, {step}; again: cargo xtask soak --seed {} --count {number} --smp {}\n{}",
                plan.seed,
                plan.cores,
                soak.machine.last_words()
            )
        })?;
    }
    Ok(soak.report)
}

impl Soak {
    fn start(cores: u32) -> Result<Self> {
        let built = build::build_app(&BuildOptions::new(APP).version("1.0.0"))?;
        let keys = keys::development()?;
        let mut machine = Machine::builder(&built.first_stage, &built.path)
            .cores(cores)
            .start()?;
        machine.wait_ready(scene::BOOT)?;
        let image = fs::read(&built.path).context("the image is gone")?;
        let mut soak = Self {
            machine,
            elf: failing::elf_of(&image)?,
            release: keys::read_secret(&Role::Release.secret_path(&keys))?,
            operator: keys::read_secret(&Role::Operator.secret_path(&keys))?,
            stranger: minisign::KeyPair::generate_unencrypted_keypair()?.sk,
            expected: Expected::default(),
            report: Report::default(),
        };
        let status = soak.wait("the machine serves", |status| status["state"] == "serving")?;
        soak.expected = Expected::of(&status);
        Ok(soak)
    }

    fn control(&self) -> SocketAddr {
        self.machine.addresses().control
    }

    /// Asks until the status is right.
    fn wait(&self, what: &str, right: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + REPLACEMENT;
        let mut last = None;
        while Instant::now() < deadline {
            match control::raw_status(self.control(), Limits::short()) {
                Ok(status) if right(&status) => return Ok(status),
                Ok(status) => last = Some(status),
                Err(_) => {}
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("{what}: that did not come; the last status was {last:?}")
    }

    fn step(&mut self, number: u32, step: &Step) -> Result<()> {
        *self.report.steps.entry(step.name()).or_default() += 1;
        match step {
            Step::Good {
                slow,
                security_version,
            } => {
                let version = format!("2.{number}.0{}", if *slow { "-slow.before-commit" } else { "" });
                self.push(&version, *security_version)?;
                self.replace("")?;
                self.committed(version, *security_version)?;
            }
            Step::Fails {
                how,
                security_version,
                probation_ms,
            } => {
                let version = format!("2.{number}.0-{how}");
                self.push(&version, *security_version)?;
                self.replace(&probation_ms.map_or_else(String::new, |ms| format!("probation_ms = {ms}\n")))?;
                self.rolled_back(&version)?;
            }
            Step::Ordered {
                commit,
                security_version,
            } => {
                let version = format!("2.{number}.0");
                self.push(&version, *security_version)?;
                self.replace("commit = \"order\"\n")?;
                let generation = self.expected.generation + 1;
                self.wait("the successor, on trial", |status| {
                    status["generation"] == generation
                })?;
                let action = if *commit { "commit" } else { "rollback" };
                let order = self.order(action, "", &self.operator, None)?;
                let answer = self.post("/v1/orders", &order)?;
                ensure!(answer == 202, "the order to {action} was answered with {answer}");
                if *commit {
                    self.committed(version, *security_version)?;
                } else {
                    self.rolled_back(&version)?;
                }
            }
            Step::BadImage(damage) => {
                let image = self.damaged(number, damage)?;
                let answer = self.put(&image)?;
                ensure!(
                    (400..500).contains(&answer),
                    "the image was answered with {answer}"
                );
                self.report.refused += 1;
            }
            Step::BadOrder(bad) => {
                self.push(&format!("2.{number}.0"), self.expected.floor)?;
                let order = match bad {
                    BadOrder::Nonce => self.order("replace", "", &self.operator, Some("0".repeat(32)))?,
                    BadOrder::Stranger => self.order("replace", "", &self.stranger, None)?,
                    BadOrder::Action => self.order("explode", "", &self.operator, None)?,
                    BadOrder::Probation => {
                        self.order("replace", "probation_ms = 1\n", &self.operator, None)?
                    }
                    BadOrder::Commit => self.order("commit", "", &self.operator, None)?,
                    BadOrder::Noise(bytes) => bytes.clone(),
                };
                let answer = self.post("/v1/orders", &order)?;
                ensure!(
                    (400..500).contains(&answer),
                    "the order was answered with {answer}"
                );
                self.report.refused += 1;
            }
        }
        self.expected
            .check(&self.machine, |what, right| self.wait(what, right))
    }

    /// A good image with a hole in it.
    fn damaged(&self, number: u32, damage: &Damage) -> Result<Vec<u8>> {
        let version = format!("2.{number}.0");
        let floor = self.expected.floor;
        let mut image = self.image(&version, floor, &self.release)?;
        match damage {
            Damage::Bit(at) => {
                let at = at % (8 * image.len() as u64);
                image[(at / 8) as usize] ^= 1 << (at % 8);
            }
            // Not the archive's end itself, of which a reader needs one block.
            Damage::Cut(at) => image.truncate((at % (image.len() as u64 - 1024)) as usize),
            Damage::Noise(bytes) => image.clone_from(bytes),
            Damage::Stranger => image = self.image(&version, floor, &self.stranger)?,
            Damage::BelowFloor => image = self.image(&version, floor - 1, &self.release)?,
        }
        Ok(image)
    }

    fn image(&self, version: &str, security_version: u64, key: &SecretKey) -> Result<Vec<u8>> {
        let manifest = Manifest::new(APP, version, "", security_version, &self.elf);
        image::pack(&manifest, &self.elf, key)
    }

    fn push(&self, version: &str, security_version: u64) -> Result<()> {
        let answer = self.put(&self.image(version, security_version, &self.release)?)?;
        ensure!(answer == 201, "a good image was answered with {answer}");
        Ok(())
    }

    fn put(&self, image: &[u8]) -> Result<u16> {
        failing::send(self.control(), "PUT", "/v1/image", image)
    }

    fn post(&self, path: &str, body: &[u8]) -> Result<u16> {
        failing::send(self.control(), "POST", path, body)
    }

    fn order(&self, action: &str, more: &str, key: &SecretKey, nonce: Option<String>) -> Result<Vec<u8>> {
        let mut status = control::raw_status(self.control(), Limits::patient())?;
        if let Some(nonce) = nonce {
            status["nonce"] = nonce.into();
        }
        failing::order(&status, action, &self.elf, more, key)
    }

    fn replace(&self, more: &str) -> Result<()> {
        let order = self.order("replace", more, &self.operator, None)?;
        let answer = self.post("/v1/orders", &order)?;
        ensure!(answer == 202, "a good order was answered with {answer}");
        Ok(())
    }

    fn committed(&mut self, version: String, security_version: u64) -> Result<()> {
        let expected = &mut self.expected;
        expected.generation += 1;
        expected.version = version;
        expected.floor = expected.floor.max(security_version);
        let generation = expected.generation;
        self.wait("the successor, committed", |status| {
            status["generation"] == generation && status["state"] == "serving"
        })?;
        self.report.committed += 1;
        Ok(())
    }

    fn rolled_back(&mut self, version: &str) -> Result<()> {
        let generation = self.expected.generation;
        let status = self.wait("the predecessor, back", |status| {
            let last = &status["last_replacement"];
            last["to"] == *version && status["state"] == "serving" && status["generation"] == generation
        })?;
        let last = &status["last_replacement"];
        ensure!(
            last["outcome"] == "rolled-back",
            "the outcome is {}",
            last["outcome"]
        );
        ensure!(
            last["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
            "there is no reason"
        );
        self.report.recovery_ms.extend(last["recovery_ms"].as_f64());
        self.report.rolled_back += 1;
        Ok(())
    }
}

//! A successor that fails, under the eyes of clients that ask all the time: what `demo --successor` shows and `bench back` repeats.

use crate::build::{self, BuildOptions, BuiltImage};
use crate::client::{EchoClient, EchoRecord};
use crate::control;
use crate::exit::{Exit, Failure};
use crate::http::{self, Limits};
use crate::image::{self, Manifest};
use crate::keys::{self, Role};
use crate::machine::Machine;
use crate::scene;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use minisign::SecretKey;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// The application that fails as its version says (`libos/src/trial.rs`).
const APP: &str = "trial";

/// What is sent.
const TYPE: [(&str, &str); 1] = [("Content-Type", "application/x-tar")];

/// How long a trial may take to its end.
const TRIAL: Duration = Duration::from_secs(60);

/// How often the machine's clock is read to tell it from this computer's.
const READINGS: u32 = 8;

/// How long answers that are under way when the client stops may still take.
const GRACE: Duration = Duration::from_millis(200);

/// How a successor fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Successor {
    /// It panics
    Panic,
    /// It meets a page fault
    Fault,
    /// Its first core loops for ever, with interrupts on
    Hang,
    /// The same with interrupts off
    Deaf,
    /// Its application says that it is not well
    Unhealthy,
    /// It does not fail; an order sends it back
    Order,
}

impl Successor {
    /// For people and scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fault => "fault",
            Self::Hang => "hang",
            Self::Deaf => "deaf",
            Self::Unhealthy => "unhealthy",
            Self::Order => "order",
        }
    }

    /// The version that makes it fail so, once it serves.
    fn version(self) -> String {
        match self {
            Self::Unhealthy => "1.1.0-unhealthy.before-commit".to_owned(),
            Self::Order => "1.1.0".to_owned(),
            other => format!("1.1.0-{}.after", other.name()),
        }
    }
}

/// What is booted, and what a failing successor is made of.
#[derive(Debug)]
pub struct Cast {
    /// 1.0.0.
    pub first: BuiltImage,
    elf: Vec<u8>,
    release: SecretKey,
    operator: SecretKey,
}

impl Cast {
    /// Builds it, with the development keys.
    ///
    /// # Errors
    /// If building fails.
    pub fn build() -> Result<Self> {
        let first = build::build_app(&BuildOptions::new(APP).version("1.0.0"))?;
        let keys = keys::development()?;
        let image = fs::read(&first.path).context("the image is gone")?;
        Ok(Self {
            elf: elf_of(&image)?,
            first,
            release: keys::read_secret(&Role::Release.secret_path(&keys))?,
            operator: keys::read_secret(&Role::Operator.secret_path(&keys))?,
        })
    }
}

/// The program in an image.
///
/// # Errors
/// If there is none.
pub(crate) fn elf_of(image: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Archive::new(image);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path_bytes() == image::MEMBERS[2].as_bytes() {
            let mut elf = Vec::new();
            entry.read_to_end(&mut elf)?;
            return Ok(elf);
        }
    }
    bail!("the image has no ELF")
}

/// An order for the machine that has this status: `more` are lines behind the fixed ones.
///
/// # Errors
/// If the key is damaged.
pub(crate) fn order(
    status: &Value,
    action: &str,
    elf: &[u8],
    more: &str,
    key: &SecretKey,
) -> Result<Vec<u8>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let text = format!(
        "format = 1\naction = \"{action}\"\nhost = \"{}\"\ngeneration = {}\nnonce = \"{}\"\nimage = \"{}\"\n{more}",
        text(&status["host_id"]),
        status["generation"],
        text(&status["nonce"]),
        image::sha256(elf),
    );
    let signature = keys::sign(key, text.as_bytes(), action)?;
    image::archive(&[
        ("order.toml", text.as_bytes()),
        ("order.toml.minisig", signature.as_bytes()),
    ])
}

/// Sends an image or an order, and tells the status code.
///
/// # Errors
/// If there is no answer.
pub(crate) fn send(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<u16> {
    Ok(http::send(to, method, path, &TYPE, body, Limits::patient(), |_| {})?.status)
}

/// A failed replacement as its clients and the machine saw it.
#[derive(Debug)]
pub struct Seen {
    /// The successor's version.
    pub version: String,
    /// `last_replacement` of the status at the end.
    pub told: Value,
    /// Cores that run at the end.
    pub cores: u64,
    /// The echo client's record.
    pub echo: EchoRecord,
    /// From the moment at which the machine noticed the failure until the predecessor's first answer arrived here, in
    /// milliseconds; `None` if the clients heard nothing of it.
    pub outside: Option<f64>,
    /// How wrong `outside` may be, because the machine's clock is read through the network.
    pub uncertainty: f64,
}

impl Seen {
    /// From that moment until the predecessor accepted connections, as the machine saw it.
    pub fn inside(&self) -> Option<f64> {
        self.told["recovery_ms"].as_f64()
    }
}

/// Lets a successor fail while clients ask; `calm` is how long they ask before and after. `tell` hears what happens next.
///
/// # Errors
/// If the machine refuses, does not answer, or does not go back.
pub fn give_back_under_load(
    machine: &Machine,
    cast: &Cast,
    successor: Successor,
    calm: Duration,
    mut tell: impl FnMut(&str),
) -> Result<Seen> {
    let at = machine.addresses();
    let version = successor.version();
    let manifest = Manifest::new(APP, &version, "", 0, &cast.elf);
    let image = image::pack(&manifest, &cast.elf, &cast.release)?;
    let echo = EchoClient::start(at.echo, scene::interval(machine.rig()))
        .context("could not start the echo client")?;
    thread::sleep(calm);
    tell(&format!("pushing {version} and ordering the replacement"));
    accepted(send(at.control, "PUT", "/v1/image", &image)?, 201)?;
    let before = control::raw_status(at.control, Limits::patient())?;
    let more = match successor {
        Successor::Order => "commit = \"order\"\n",
        _ => "",
    };
    let replace = order(&before, "replace", &cast.elf, more, &cast.operator)?;
    accepted(send(at.control, "POST", "/v1/orders", &replace)?, 202)?;
    if successor == Successor::Order {
        let on_trial = wait(at.control, |status| status["generation"] != before["generation"])?;
        tell("the successor serves; ordering it back");
        let back = order(&on_trial, "rollback", &cast.elf, "", &cast.operator)?;
        accepted(send(at.control, "POST", "/v1/orders", &back)?, 202)?;
    }
    let earlier = before["last_replacement"]["trace_id"].clone();
    let after = wait(at.control, |status| {
        let last = &status["last_replacement"];
        status["generation"] == before["generation"]
            && status["state"] == "serving"
            && last["trace_id"] != earlier
    })?;
    tell("the predecessor serves again");
    thread::sleep(calm);
    let (offset, uncertainty) = clock(at.control, &echo)?;
    let echo = echo.stop(GRACE);
    let told = after["last_replacement"].clone();
    let rollback = told["spans"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|span| span["name"] == "rollback");
    let outside = rollback.and_then(|span| {
        let here = |value: &Value| u64::try_from(value.as_i64()? + offset).ok();
        answered_after(&echo, here(&span["start_ns"])?, here(&span["end_ns"])?)
    });
    Ok(Seen {
        version,
        told,
        cores: after["cores"]["online"].as_u64().unwrap_or_default(),
        echo,
        outside,
        uncertainty,
    })
}

/// From `noticed` until the end of the silence in which the way back (until `back`) lies, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
fn answered_after(echo: &EchoRecord, noticed: u64, back: u64) -> Option<f64> {
    let silence = echo.longest_gap(noticed..back.max(noticed + 1))?;
    Some(silence.end_ns.saturating_sub(noticed) as f64 / 1e6)
}

fn accepted(status: u16, expected: u16) -> Result<()> {
    if status == expected {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!("the machine answered {status} instead of {expected}"),
    )
    .into())
}

/// Asks until the status is right.
fn wait(control: SocketAddr, right: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + TRIAL;
    while Instant::now() < deadline {
        match control::raw_status(control, Limits::short()) {
            Ok(status) if right(&status) => return Ok(status),
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
    Err(Failure::new(
        Exit::NoAnswer,
        format!("the trial did not end within {} s", TRIAL.as_secs()),
    )
    .into())
}

/// What is to be added to the machine's clock to have the client's, in nanoseconds, and how wrong that may be, in milliseconds: half
/// of the quickest answer's time.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
fn clock(control: SocketAddr, echo: &EchoClient) -> Result<(i64, f64)> {
    let mut best: Option<(u64, i64)> = None;
    for _ in 0..READINGS {
        let asked = echo.now_ns();
        let status = control::raw_status(control, Limits::patient())?;
        let took = echo.now_ns() - asked;
        let machine = status["machine_ns"].as_i64().unwrap_or_default();
        let offset = i64::try_from(asked + took / 2).unwrap_or(i64::MAX) - machine;
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, offset));
        }
    }
    let (took, offset) = best.unwrap_or_default();
    Ok((offset, took as f64 / 2e6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Sample;

    #[test]
    fn the_silence_around_the_way_back_counts_from_the_notice() {
        let answers = [10, 20, 30, 130, 140, 145, 400, 410];
        let samples = answers.map(|at| Sample {
            sent_ns: at * 1_000_000 - 1,
            answered_ns: Some(at * 1_000_000),
        });
        let echo = EchoRecord {
            samples: samples.into(),
            ..EchoRecord::default()
        };
        // The blackout of the jump ends at 130; the failure is noticed at 380, and the predecessor is back at 395.
        assert_eq!(answered_after(&echo, 380_000_000, 395_000_000), Some(20.0));
        // Nobody answers any more.
        assert_eq!(answered_after(&echo, 500_000_000, 510_000_000), None);
    }
}

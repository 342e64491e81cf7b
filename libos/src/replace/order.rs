//! The order: a signed request to replace the running image (`docs/interfaces.md`, "The order").
//!
//! What is read here is the text whose signature has been verified already. The operator's key says who may ask; host,
//! generation and nonce bind the request to one machine and one moment, so that it cannot be used twice or elsewhere.

use alloc::string::{String, ToString};
use core::hint::black_box;

use loader::toml::{Document, TomlError};

use super::error::{Code, Refusal};
use super::{from_hex, hex};

/// Largest `order.toml`, in bytes.
pub const MAX_ORDER: usize = 4096;

/// The only format there is.
const FORMAT: u32 = 1;

/// Shortest trial that can be ordered, in milliseconds.
pub const MIN_PROBATION_MS: u64 = 1000;
/// Longest trial that can be ordered, in milliseconds.
pub const MAX_PROBATION_MS: u64 = 600_000;
/// The trial's length where the order does not say, in milliseconds.
pub const DEFAULT_PROBATION_MS: u64 = 30_000;

/// Who says that a successor stays: `commit` in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitBy {
    /// The successor itself, when it has found itself healthy.
    #[default]
    Auto,
    /// The operator, by a second order.
    Order,
}

impl CommitBy {
    /// The name in an order.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Order => "order",
        }
    }
}

/// How a successor is put on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// How long it has for it, in nanoseconds from its first instruction; without a commit by then it goes back.
    pub deadline_ns: u64,
    /// Who commits.
    pub commit: CommitBy,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            deadline_ns: DEFAULT_PROBATION_MS * 1_000_000,
            commit: CommitBy::default(),
        }
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Jump into the staged image.
    Replace {
        /// SHA-256 of the staged ELF.
        image: [u8; 32],
        /// What it has to stand.
        trial: Trial,
    },
    /// The running image, which is on trial, stays.
    Commit,
    /// The running image, which is on trial, gives the machine back.
    Rollback,
}

impl Action {
    /// The name in an order and in the answer to it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replace { .. } => "replace",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
        }
    }
}

/// A well-formed order. Whether it is meant for this machine and this moment, [`Order::check`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is asked for.
    pub action: Action,
    /// The host it is meant for.
    pub host: String,
    /// The generation it is meant for.
    pub generation: u32,
    /// The nonce of the moment it was written for.
    pub nonce: [u8; 16],
}

/// What an order has to fit.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The machine's host id.
    pub host_id: &'a str,
    /// The running generation.
    pub generation: u32,
    /// The present nonce.
    pub nonce: &'a Nonce,
    /// SHA-256 of the staged ELF; `None`: nothing is staged.
    pub staged: Option<&'a [u8; 32]>,
}

impl Order {
    /// Reads `order.toml`.
    ///
    /// # Errors
    /// `bad-order`: larger than [`MAX_ORDER`], not TOML, a key missing, of the wrong kind or out of its limits, an unknown format
    /// or action.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_ORDER {
            return Err(bad("order.toml is larger than 4096 bytes"));
        }
        let unreadable =
            |error: TomlError| bad("order.toml cannot be read: ".to_string() + &error.to_string());
        let toml = Document::parse(bytes).map_err(unreadable)?;
        let text = |key| toml.text(key).map_err(unreadable);
        if toml.number("format") != Ok(FORMAT) {
            return Err(bad("this machine knows order format 1 only"));
        }
        let action = match text("action")? {
            "replace" => Action::Replace {
                image: from_hex(text("image")?)
                    .ok_or_else(|| bad("image is not 64 lower-case hex digits"))?,
                trial: trial(&toml)?,
            },
            "commit" => Action::Commit,
            "rollback" => Action::Rollback,
            _ => {
                return Err(bad(
                    "this machine knows the actions \"replace\", \"commit\" and \"rollback\"",
                ));
            }
        };
        Ok(Self {
            action,
            host: text("host")?.to_string(),
            generation: toml.number("generation").map_err(unreadable)?,
            nonce: from_hex(text("nonce")?).ok_or_else(|| bad("nonce is not 32 lower-case hex digits"))?,
        })
    }

    /// Whether the order is for this machine, now. Whoever acts on it spends the nonce first ([`Nonce::spend`]).
    ///
    /// # Errors
    /// `wrong-host`, `wrong-generation`, `wrong-nonce`, `nothing-staged`, `wrong-image`, in this order.
    pub fn check(&self, expected: &Expected) -> Result<(), Refusal> {
        if self.host != expected.host_id {
            let message = "the order is for host ".to_string() + &self.host + ", this is " + expected.host_id;
            return Err(Refusal::new(Code::WrongHost, message));
        }
        if self.generation != expected.generation {
            let message = "the order is for generation ".to_string()
                + &self.generation.to_string()
                + ", running is "
                + &expected.generation.to_string();
            return Err(Refusal::new(Code::WrongGeneration, message));
        }
        if !expected.nonce.matches(&self.nonce) {
            return Err(Refusal::new(
                Code::WrongNonce,
                "the order's nonce has been used or was never given out",
            ));
        }
        let Action::Replace { image, .. } = self.action else {
            return Ok(());
        };
        let Some(staged) = expected.staged else {
            return Err(Refusal::new(
                Code::NothingStaged,
                "no image is staged to replace the running one",
            ));
        };
        if image != *staged {
            let message = "the order names image ".to_string() + &hex(&image) + ", staged is " + &hex(staged);
            return Err(Refusal::new(Code::WrongImage, message));
        }
        Ok(())
    }
}

/// What a `replace` order says of the trial.
fn trial(toml: &Document<'_>) -> Result<Trial, Refusal> {
    let deadline_ms = match toml.number("probation_ms") {
        Err(TomlError::Missing(_)) => DEFAULT_PROBATION_MS,
        Ok(ms @ MIN_PROBATION_MS..=MAX_PROBATION_MS) => ms,
        _ => {
            return Err(bad(
                "probation_ms is not a number of milliseconds from 1000 to 600000",
            ));
        }
    };
    let commit = match toml.text("commit") {
        Err(TomlError::Missing(_)) | Ok("auto") => CommitBy::Auto,
        Ok("order") => CommitBy::Order,
        _ => return Err(bad("commit is neither \"auto\" nor \"order\"")),
    };
    Ok(Trial {
        deadline_ns: deadline_ms * 1_000_000,
        commit,
    })
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadOrder, message)
}

/// A number that one order may repeat, once. The caller brings the random bytes.
#[derive(Clone, Debug)]
pub struct Nonce {
    bytes: [u8; 16],
    spent: bool,
}

impl Nonce {
    /// A fresh nonce from 16 random bytes. To replace one on demand, put a new one in its place.
    #[must_use]
    pub const fn new(random: [u8; 16]) -> Self {
        Self {
            bytes: random,
            spent: false,
        }
    }

    /// 32 lower-case hex digits, for `/v1/status`.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.bytes)
    }

    /// From now on no order fits.
    pub const fn spend(&mut self) {
        self.spent = true;
    }

    /// Whether `given` is this nonce, not yet spent. Takes the same time for every `given`, so that the answer's delay
    /// does not tell how many bytes were right.
    #[must_use]
    pub fn matches(&self, given: &[u8; 16]) -> bool {
        let mut difference = u8::from(self.spent);
        for (ours, theirs) in self.bytes.iter().zip(given) {
            difference = black_box(difference | (ours ^ theirs));
        }
        difference == 0
    }
}

#[cfg(test)]
mod tests;

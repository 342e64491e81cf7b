//! Orders: signed requests to change something (docs/interfaces.md, "The order").

use crate::image::{archive, toml_string};
use crate::keys;
use anyhow::Result;
use clap::ValueEnum;
use minisign::SecretKey;
use std::fmt::Write as _;

/// The members' names, in the order in which they stand in the archive.
pub const MEMBERS: [&str; 2] = ["order.toml", "order.toml.minisig"];

/// Who says that a successor stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CommitBy {
    /// The successor itself, when it has found itself healthy
    Auto,
    /// An order: `cargo xtask commit`
    Order,
}

/// How a successor is put on trial; what is `None` is the machine's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// How long it has to be committed.
    pub probation_ms: Option<u64>,
    /// Who commits.
    pub commit: Option<CommitBy>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Jump into the staged image.
    Replace {
        /// SHA-256 of the staged ELF.
        image: String,
        /// What it has to stand.
        trial: Trial,
    },
    /// The image on trial stays.
    Commit,
    /// The image on trial gives the machine back.
    Rollback,
}

impl Action {
    /// The name in an order.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Replace { .. } => "replace",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
        }
    }
}

/// What is asked of which machine, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub action: Action,
    /// `host_id` of the status.
    pub host: String,
    /// `generation` of the status.
    pub generation: u64,
    /// `nonce` of the status.
    pub nonce: String,
}

impl Order {
    /// As TOML, in a fixed order.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "format = 1\naction = {}\nhost = {}\ngeneration = {}\nnonce = {}\n",
            toml_string(self.action.name()),
            toml_string(&self.host),
            self.generation,
            toml_string(&self.nonce),
        );
        if let Action::Replace { image, trial } = &self.action {
            _ = writeln!(text, "image = {}", toml_string(image));
            if let Some(ms) = trial.probation_ms {
                _ = writeln!(text, "probation_ms = {ms}");
            }
            if let Some(by) = trial.commit {
                let by = match by {
                    CommitBy::Auto => "auto",
                    CommitBy::Order => "order",
                };
                _ = writeln!(text, "commit = {}", toml_string(by));
            }
        }
        text
    }

    /// Signed by the operator's `key`, as it is sent.
    ///
    /// # Errors
    /// If the key is damaged.
    pub fn pack(&self, key: &SecretKey) -> Result<Vec<u8>> {
        let text = self.to_toml();
        let signature = keys::sign(
            key,
            text.as_bytes(),
            &format!("{} generation {}", self.action.name(), self.generation),
        )?;
        archive(&[(MEMBERS[0], text.as_bytes()), (MEMBERS[1], signature.as_bytes())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_documented_text() {
        let order = Order {
            action: Action::Replace {
                image: "a".repeat(64),
                trial: Trial::default(),
            },
            host: "52:54:00:12:34:56".to_owned(),
            generation: 1,
            nonce: "0".repeat(32),
        };
        let text_of = |action: Action| {
            let order = Order {
                action,
                ..order.clone()
            };
            order.to_toml()
        };
        let head = |action: &str| {
            let nonce = "0".repeat(32);
            format!(
                "format = 1\naction = \"{action}\"\nhost = \"52:54:00:12:34:56\"\ngeneration = 1\nnonce = \"{nonce}\"\n"
            )
        };
        assert_eq!(text_of(Action::Commit), head("commit"));
        assert_eq!(text_of(Action::Rollback), head("rollback"));
        let trial = Trial {
            probation_ms: Some(5000),
            commit: Some(CommitBy::Order),
        };
        let image = "b".repeat(64);
        assert_eq!(
            text_of(Action::Replace {
                image: image.clone(),
                trial
            }),
            head("replace") + &format!("image = \"{image}\"\nprobation_ms = 5000\ncommit = \"order\"\n")
        );
        assert_eq!(
            order.to_toml(),
            format!(
                "format = 1\naction = \"replace\"\nhost = \"52:54:00:12:34:56\"\ngeneration = 1\nnonce = \"{}\"\nimage = \"{}\"\n",
                "0".repeat(32),
                "a".repeat(64)
            )
        );
        let key = minisign::KeyPair::generate_unencrypted_keypair()
            .expect("a key pair")
            .sk;
        let packed = order.pack(&key).expect("packed");
        let names: Vec<_> = tar::Archive::new(packed.as_slice())
            .entries()
            .expect("entries")
            .map(|e| e.expect("an entry").path_bytes().into_owned())
            .collect();
        assert_eq!(names, MEMBERS.map(|m| m.as_bytes().to_vec()));
    }
}

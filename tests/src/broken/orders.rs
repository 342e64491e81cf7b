//! Orders, good and broken.

use super::{Case, Refusal, archive::noise};
use crate::image::{Member, pack, sign};
use minisign::SecretKey;

/// What a good order must say: from `/v1/status`.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `host_id`.
    pub host: String,
    /// `generation`.
    pub generation: u64,
    /// `nonce`.
    pub nonce: String,
    /// `staged.sha256`.
    pub image: String,
}

impl Facts {
    /// The text of `order.toml`.
    #[must_use]
    pub fn text(&self, action: &str) -> String {
        let Self {
            host,
            generation,
            nonce,
            image,
        } = self;
        format!(
            "format = 1\naction = \"{action}\"\nhost = \"{host}\"\ngeneration = {generation}\n\
             nonce = \"{nonce}\"\nimage = \"{image}\"\n"
        )
    }

    /// Any order, with more lines.
    #[must_use]
    pub fn order(&self, action: &str, more: &str, operator: &SecretKey) -> Vec<u8> {
        signed(&(self.text(action) + more), operator)
    }

    /// The order to replace: what is to be posted.
    #[must_use]
    pub fn replace(&self, operator: &SecretKey) -> Vec<u8> {
        signed(&self.text("replace"), operator)
    }
}

fn signed(text: &str, key: &SecretKey) -> Vec<u8> {
    archive(text, &sign(text.as_bytes(), key))
}

fn archive(text: &str, signature: &str) -> Vec<u8> {
    pack(&[
        Member::file("order.toml", text.as_bytes()),
        Member::file("order.toml.minisig", signature.as_bytes()),
    ])
}

/// The keys that orders may come from.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// Who may ask.
    pub operator: &'a SecretKey,
    /// Says what may run, but not when.
    pub release: &'a SecretKey,
    /// Nobody.
    pub stranger: &'a SecretKey,
}

/// Every broken order. `facts` are those of a machine on which an image is staged.
#[must_use]
pub fn cases(facts: &Facts, keys: Keys<'_>) -> Vec<Case> {
    let operator = keys.operator;
    let mut cases = wrong_facts(facts, operator);
    let text = facts.text("replace");
    let good = facts.replace(operator);
    let signature = sign(text.as_bytes(), operator);
    let key: &[Refusal] = &[(403, "wrong-key")];
    let forged: &[Refusal] = &[(403, "wrong-signature")];
    let archive_error: &[Refusal] = &[(400, "bad-order"), (400, "bad-archive"), (400, "truncated")];
    let too_large: &[Refusal] = &[(413, "too-large"), (400, "bad-order"), (400, "bad-archive")];
    let format: &[Refusal] = &[(400, "bad-signature-format")];
    let text_error: &[Refusal] = &[(400, "bad-order")];
    cases.extend([
        Case::new("order: of a stranger", facts.replace(keys.stranger), key),
        Case::new("order: of the release key", facts.replace(keys.release), key),
        Case::new(
            "order: changed after signing",
            archive(&text.replace("format", "Format"), &signature),
            forged,
        ),
        Case::new(
            "order: a blank more",
            archive(&format!("{text} "), &signature),
            forged,
        ),
        Case::new(
            "order: without a signature",
            pack(&[Member::file("order.toml", text.as_bytes())]),
            archive_error,
        ),
        Case::new("order: an empty signature", archive(&text, ""), format),
        Case::new(
            "order: a signature of noise",
            archive(&text, "untrusted comment: x\nAAAA\n"),
            format,
        ),
        Case::new(
            "order: cut in the middle",
            good[..good.len() / 2].to_vec(),
            archive_error,
        ),
        Case::new("order: noise", noise(2048, 11), archive_error),
        Case::new("order: a mebibyte of zeros", vec![0; 1 << 20], too_large),
        Case::new(
            "order: JSON",
            b"{\"action\": \"replace\"}".to_vec(),
            archive_error,
        ),
        Case::new("order: not TOML", signed("action = = x", operator), text_error),
        Case::new("order: empty text", signed("", operator), text_error),
        Case::new(
            "order: to commit what is not on trial",
            signed(&facts.text("commit"), operator),
            &[(409, "not-on-trial")],
        ),
        Case::new(
            "order: to roll back what is not on trial",
            signed(&facts.text("rollback"), operator),
            &[(409, "not-on-trial")],
        ),
        Case::new(
            "order: a stranger's rollback",
            signed(&facts.text("rollback"), keys.stranger),
            key,
        ),
        Case::new(
            "order: a trial that is too short",
            signed(&format!("{text}probation_ms = 999\n"), operator),
            text_error,
        ),
        Case::new(
            "order: a trial without an end",
            signed(&format!("{text}probation_ms = 600001\n"), operator),
            text_error,
        ),
        Case::new(
            "order: committed by nobody",
            signed(&format!("{text}commit = \"never\"\n"), operator),
            text_error,
        ),
        Case::new(
            "order: an unknown action",
            signed(&facts.text("explode"), operator),
            text_error,
        ),
        Case::new(
            "order: another format",
            signed(&text.replace("format = 1", "format = 2"), operator),
            text_error,
        ),
    ]);
    cases.extend(
        ["format", "action", "host", "generation", "nonce", "image"].map(|missing| {
            let text: String = text
                .lines()
                .filter(|line| !line.starts_with(missing))
                .map(|line| format!("{line}\n"))
                .collect();
            Case::new(
                format!("order: without {missing}"),
                signed(&text, operator),
                text_error,
            )
        }),
    );
    cases
}

/// Well-formed and well signed, but for another machine, another moment or another image.
fn wrong_facts(facts: &Facts, operator: &SecretKey) -> Vec<Case> {
    let turned: String = facts.nonce.chars().rev().collect();
    let nonces: &[Refusal] = &[(403, "wrong-nonce"), (400, "bad-order")];
    let generations: &[Refusal] = &[(403, "wrong-generation"), (400, "bad-order")];
    let changed: [(&str, Facts, &[Refusal]); 9] = [
        (
            "of a foreign host",
            Facts {
                host: "52:54:00:ff:ff:ff".into(),
                ..facts.clone()
            },
            &[(403, "wrong-host")],
        ),
        (
            "of any host",
            Facts {
                host: "*".into(),
                ..facts.clone()
            },
            &[(403, "wrong-host")],
        ),
        (
            "of a later generation",
            Facts {
                generation: facts.generation + 1,
                ..facts.clone()
            },
            generations,
        ),
        (
            "of an earlier generation",
            Facts {
                generation: facts.generation - 1,
                ..facts.clone()
            },
            generations,
        ),
        (
            "of the last generation there is",
            Facts {
                generation: i64::MAX as u64,
                ..facts.clone()
            },
            generations,
        ),
        (
            "with another nonce",
            Facts {
                nonce: turned,
                ..facts.clone()
            },
            nonces,
        ),
        (
            "with half a nonce",
            Facts {
                nonce: facts.nonce[..16].into(),
                ..facts.clone()
            },
            nonces,
        ),
        (
            "with no nonce",
            Facts {
                nonce: String::new(),
                ..facts.clone()
            },
            nonces,
        ),
        (
            "of another image",
            Facts {
                image: "0".repeat(64),
                ..facts.clone()
            },
            &[(409, "wrong-image")],
        ),
    ];
    let case = |(name, facts, expected): (&str, Facts, &[Refusal])| {
        Case::new(format!("order: {name}"), facts.replace(operator), expected)
    };
    changed.into_iter().map(case).collect()
}

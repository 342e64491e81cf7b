//! Every bad input that a machine must refuse, with a name, and with the answer it must give.
//!
//! - [`flips`]: a single wrong bit, and ends that come too early
//! - [`archive`]: tar garbage
//! - [`signed`]: wrong signatures, and correctly signed manifests that say nonsense
//! - [`elves`]: correctly signed programs that must not run all the same
//! - [`sample`]: a program that may run, to break
//! - [`orders`]: orders that were not given to this machine, now

pub mod archive;
mod elf;
pub mod elves;
pub mod flips;
pub mod orders;
pub mod sample;
pub mod signed;

/// A status and an error code that answer a request.
pub type Refusal = (u16, &'static str);

/// A request body that must be refused.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is wrong with it.
    pub name: String,
    /// What is sent.
    pub body: Vec<u8>,
    /// The `Content-Length`, where it is not the body's: the answer must come before the rest would.
    pub claimed: Option<u64>,
    /// The answers that are right. More than one where two checks may each come first.
    pub expected: Vec<Refusal>,
}

impl Case {
    fn new(name: impl Into<String>, body: Vec<u8>, expected: &[Refusal]) -> Self {
        Self {
            name: name.into(),
            body,
            claimed: None,
            expected: expected.into(),
        }
    }

    /// What `Content-Length` says.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        self.claimed.unwrap_or(self.body.len() as u64)
    }

    /// Whether this answer is one of the right ones.
    #[must_use]
    pub fn accepts(&self, status: u16, code: &str) -> bool {
        self.expected.contains(&(status, code))
    }
}

/// A good image, and the keys: what all broken ones are made from.
#[derive(Clone, Copy)]
pub struct Forge<'a> {
    /// The good image.
    pub good: &'a crate::image::Parts,
    /// The key whose signature the machine believes.
    pub release: &'a minisign::SecretKey,
    /// A key that the machine does not know.
    pub stranger: &'a minisign::SecretKey,
}

/// Every broken image that is neither a flipped bit nor cut short. `limit` is the machine's `instar.max-image`.
#[must_use]
pub fn images(forge: Forge<'_>, limit: u64) -> Vec<Case> {
    let mut cases = archive::cases(forge.good);
    cases.extend(signed::signatures(forge));
    cases.extend(signed::manifests(forge, limit));
    cases.extend(elves::cases(forge));
    cases
}

#[cfg(test)]
mod tests;

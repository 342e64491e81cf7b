//! Reads an image while it streams in: the only way an image is read, from a socket as from memory.
//!
//! The order is the point. The manifest's signature is verified before the manifest is parsed, the manifest is
//! judged before the first byte of the program is handed out, and the program's digest is checked before the
//! end is announced.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::archive::{self, ArchiveError, BLOCK, MAX_END_BLOCKS};
use crate::hex::hex;
use crate::manifest::{self, Manifest, ManifestError};
use crate::signature::{self, PublicKey, SignatureError};

const MANIFEST: &str = "manifest.toml";
const SIGNATURE: &str = "manifest.toml.minisig";
const ELF: &str = "image.elf";
/// The longest signature file, in bytes.
pub const MAX_SIGNATURE: u64 = 1024;

/// What the machine accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The largest program, in bytes.
    pub elf_bytes: u64,
    /// The lowest security version.
    pub security_floor: u64,
}

/// What the next bytes meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// All input was taken; more is needed.
    NeedMore,
    /// The manifest's signature, the security floor and the size are all right: reserve memory now.
    Verified,
    /// The next bytes of the program. They are not to be used before [`Event::End`].
    Elf(&'a [u8]),
    /// The program is complete and has the digest that the manifest announced.
    End,
}

/// Why an image is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    /// Not the archive that it should be.
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    /// A member is larger than allowed.
    #[error("{member} has {found} bytes, at most {allowed} are allowed")]
    TooLarge {
        /// The member.
        member: &'static str,
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        allowed: u64,
    },
    /// The manifest is not vouched for by the release key.
    #[error("manifest: {0}")]
    Signature(#[from] SignatureError),
    /// The manifest is signed, but says nothing sensible.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// The image is known to be unsafe.
    #[error("security version {found} is below the machine's floor, {floor}")]
    BelowFloor {
        /// The image's security version.
        found: u64,
        /// The machine's floor.
        floor: u64,
    },
    /// The program is not the one that was signed.
    #[error(
        "the program's SHA-256 is {}, the manifest says {}",
        hex(found),
        hex(expected)
    )]
    Digest {
        /// What the manifest says.
        expected: [u8; 32],
        /// What arrived.
        found: [u8; 32],
    },
    /// Bytes behind the program that are not the end of an archive.
    #[error("{0}", TRAILING)]
    TrailingData,
    /// The stream ended too early.
    #[error("the image ended {at}")]
    Truncated {
        /// Where.
        at: &'static str,
    },
}

const TRAILING: &str = "behind image.elf there is more than the (at most 21) zero blocks that end an archive";

impl ImageError {
    /// The code of `docs/interfaces.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Archive(_) | Self::TrailingData => "bad-archive",
            Self::TooLarge { .. } => "too-large",
            Self::Signature(error) => error.code(),
            Self::Manifest(_) => "bad-manifest",
            Self::BelowFloor { .. } => "below-floor",
            Self::Digest { .. } => "digest-mismatch",
            Self::Truncated { .. } => "truncated",
        }
    }

    /// What whoever sent the image can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Archive(_) | Self::TrailingData => {
                "send a ustar archive of manifest.toml, manifest.toml.minisig and image.elf, in this order, as \
                 `cargo xtask build-app` writes it"
            }
            Self::TooLarge { .. } => "build a smaller program, or raise instar.max-image on the command line",
            Self::Signature(error) => error.hint(),
            Self::Manifest(_) => "write the manifest with `cargo xtask build-app`, then sign it again",
            Self::BelowFloor { .. } => "use an image with a newer security version",
            Self::Digest { .. } => {
                "the program was changed after signing or damaged on its way: send it again"
            }
            Self::Truncated { .. } => "send the whole image again",
        }
    }

    /// Code, message and hint in one line.
    pub fn line(&self) -> String {
        format!("{}: {self}; {}", self.code(), self.hint())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Member {
    Manifest,
    Signature,
    Elf,
}

impl Member {
    fn name(self) -> &'static str {
        match self {
            Self::Manifest => MANIFEST,
            Self::Signature => SIGNATURE,
            Self::Elf => ELF,
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    /// Collects the member's header in `buffer`.
    Header(Member),
    /// Collects a small member in `buffer`.
    Small(Member, usize),
    /// Skips so many zero bytes behind a small member.
    Padding(Member, usize),
    /// So many bytes of the program are still to come.
    Elf(u64),
    /// Only so many zero bytes may follow.
    Ended(usize),
    Failed(ImageError),
}

/// The reader: bytes in, [`Event`]s out. It holds a few KiB, whatever the size of the image.
#[derive(Clone, Debug)]
pub struct Reader {
    key: PublicKey,
    limits: Limits,
    state: State,
    buffer: Vec<u8>,
    text: Vec<u8>,
    manifest: Option<Manifest>,
    digest: Sha256,
}

impl Reader {
    /// A reader that accepts images signed by `release_key`.
    pub fn new(release_key: PublicKey, limits: Limits) -> Self {
        Self {
            key: release_key,
            limits,
            state: State::Header(Member::Manifest),
            buffer: Vec::new(),
            text: Vec::new(),
            manifest: None,
            digest: Sha256::new(),
        }
    }

    /// Takes bytes from the front of `input` and says what they meant. Call it again until it returns
    /// [`Event::NeedMore`]; after [`Event::End`] too, if there is more input: only an archive's end may follow.
    ///
    /// # Errors
    /// [`ImageError`], and the same one again at each further call.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Event<'a>, ImageError> {
        let result = self.step(input);
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Event<'a>, ImageError> {
        loop {
            match self.state.clone() {
                State::Header(member) => {
                    let Some(block) = self.collect(input, BLOCK) else {
                        return Ok(Event::NeedMore);
                    };
                    let block = block.first_chunk().ok_or(ArchiveError::Header {
                        expected: member.name(),
                    })?;
                    let size = archive::member(block, member.name())?;
                    self.state = self.announced(member, size)?;
                }
                State::Small(member, size) => {
                    let Some(bytes) = self.collect(input, size) else {
                        return Ok(Event::NeedMore);
                    };
                    self.state = State::Padding(member, archive::padding(size as u64));
                    if member == Member::Manifest {
                        self.text = bytes;
                    } else {
                        self.verify(&bytes)?;
                        return Ok(Event::Verified);
                    }
                }
                State::Padding(member, left) => {
                    let taken = take(input, left);
                    if !archive::zero(taken) {
                        return Err(ArchiveError::Padding {
                            member: member.name(),
                        }
                        .into());
                    }
                    if taken.len() < left {
                        self.state = State::Padding(member, left - taken.len());
                        return Ok(Event::NeedMore);
                    }
                    let next = if member == Member::Manifest {
                        Member::Signature
                    } else {
                        Member::Elf
                    };
                    self.state = State::Header(next);
                }
                State::Elf(0) => {
                    self.check_digest()?;
                    let size = self.manifest.as_ref().map_or(0, |manifest| manifest.elf.size);
                    self.state = State::Ended(archive::padding(size) + MAX_END_BLOCKS * BLOCK);
                    return Ok(Event::End);
                }
                State::Elf(left) => {
                    let taken = take(input, usize::try_from(left).unwrap_or(usize::MAX));
                    if taken.is_empty() {
                        return Ok(Event::NeedMore);
                    }
                    self.digest.update(taken);
                    self.state = State::Elf(left - taken.len() as u64);
                    return Ok(Event::Elf(taken));
                }
                State::Ended(left) => {
                    let taken = take(input, left);
                    if !archive::zero(taken) || !input.is_empty() {
                        return Err(ImageError::TrailingData);
                    }
                    self.state = State::Ended(left - taken.len());
                    return Ok(Event::NeedMore);
                }
                State::Failed(error) => return Err(error),
            }
        }
    }

    /// The stream ended.
    ///
    /// # Errors
    /// [`ImageError::Truncated`] unless [`Event::End`] was reached; the earlier error if there was one.
    pub fn finish(&self) -> Result<(), ImageError> {
        let at = match &self.state {
            State::Ended(_) => return Ok(()),
            State::Failed(error) => return Err(error.clone()),
            State::Elf(_) => "inside image.elf",
            State::Header(Member::Elf) | State::Padding(Member::Signature, _) => "before image.elf",
            State::Small(Member::Manifest, _) | State::Header(Member::Manifest) => {
                "before or in manifest.toml"
            }
            _ => "before or in manifest.toml.minisig",
        };
        Err(ImageError::Truncated { at })
    }

    /// The manifest, once its signature has been verified.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The manifest's text, once its signature has been verified.
    pub fn manifest_text(&self) -> Option<&str> {
        self.manifest.as_ref()?;
        str::from_utf8(&self.text).ok()
    }

    /// What follows a header that announces `size` bytes of `member`.
    fn announced(&self, member: Member, size: u64) -> Result<State, ImageError> {
        let name = member.name();
        let allowed = match member {
            Member::Manifest => manifest::MAX_BYTES as u64,
            Member::Signature => MAX_SIGNATURE,
            Member::Elf => {
                let expected = self.manifest.as_ref().map_or(0, |manifest| manifest.elf.size);
                if size != expected {
                    return Err(ArchiveError::Length {
                        member: name,
                        expected,
                        found: size,
                    }
                    .into());
                }
                return Ok(State::Elf(size));
            }
        };
        match usize::try_from(size) {
            Ok(bytes) if size <= allowed => Ok(State::Small(member, bytes)),
            _ => Err(ImageError::TooLarge {
                member: name,
                found: size,
                allowed,
            }),
        }
    }

    fn verify(&mut self, minisig: &[u8]) -> Result<(), ImageError> {
        signature::verify(&self.key, &self.text, minisig)?;
        let manifest = Manifest::parse(&self.text)?;
        let (found, floor) = (manifest.security_version, self.limits.security_floor);
        if found < floor {
            return Err(ImageError::BelowFloor { found, floor });
        }
        let (found, allowed) = (manifest.elf.size, self.limits.elf_bytes);
        if found > allowed {
            return Err(ImageError::TooLarge {
                member: ELF,
                found,
                allowed,
            });
        }
        self.manifest = Some(manifest);
        Ok(())
    }

    fn check_digest(&mut self) -> Result<(), ImageError> {
        let found: [u8; 32] = core::mem::take(&mut self.digest).finalize().into();
        match &self.manifest {
            Some(manifest) if manifest.elf.sha256 == found => Ok(()),
            Some(manifest) => Err(ImageError::Digest {
                expected: manifest.elf.sha256,
                found,
            }),
            // Not reachable: the program is read only after the manifest.
            None => Err(ImageError::Truncated {
                at: "before image.elf",
            }),
        }
    }

    /// Moves input to the buffer until it holds `size` bytes; then hands the buffer over.
    fn collect(&mut self, input: &mut &[u8], size: usize) -> Option<Vec<u8>> {
        let missing = size.saturating_sub(self.buffer.len());
        self.buffer.extend_from_slice(take(input, missing));
        (self.buffer.len() == size).then(|| core::mem::take(&mut self.buffer))
    }
}

/// Takes at most `most` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

#[cfg(test)]
mod tests;

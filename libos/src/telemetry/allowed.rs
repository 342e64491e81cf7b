//! The gate for free text: log messages, last words, reasons. Nothing that may be an address or a register's contents leaves a
//! machine in it, unless the image was built with the feature `export-addresses`. What has a name of its own passes by
//! [`names`](super::names), where only what is listed can be exported.
//!
//! Text is looked at word by word: letters and digits of ASCII, and hyphens between them. Replaced by `…` are
//!
//! - behind `0x`, five hexadecimal digits or more; but an offset in the image, `image+0x` and up to seven digits, stays: it is
//!   no secret, and says where in the program something happened;
//! - a word of 16 hexadecimal digits, which is how registers are printed;
//! - a word of 8 hexadecimal digits or more, letters among them; but one of 32, 40, 64 or 96 digits stays (a trace id or a nonce,
//!   Git's id of a revision, a SHA-256, a SHA-384), and so does a UUID;
//! - a word of more than 128 characters: no message needs it, and a dump looks like that.
//!
//! A panic's message is stricter: it may print any value ([`OnlyConstants`]).
//!
//! Nothing here allocates but what returns a `String`: a successor's last words pass here too.

use alloc::string::String;
use core::cell::Cell;
use core::fmt::{self, Write};
use core::ops::Range;

/// What stands for what was taken out.
const HIDDEN: &str = "…";

/// The longest word that is let through.
const LONGEST: usize = 128;

/// Most digits of an offset in an image: 256 MiB.
const OFFSET_DIGITS: usize = 7;

/// Lengths of identifiers in hexadecimal digits.
const IDENTIFIERS: [usize; 4] = [32, 40, 64, 96];

/// Where the hyphens of a UUID are (RFC 9562, section 4).
const UUID: (usize, [usize; 4]) = (36, [8, 13, 18, 23]);

/// Writes to `out` what of `text` may leave the machine.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, text: fmt::Arguments<'_>) -> fmt::Result {
    if cfg!(feature = "export-addresses") {
        return out.write_fmt(text);
    }
    filter(out, text)
}

/// What of `text` may leave the machine.
#[must_use]
pub fn format(text: fmt::Arguments<'_>) -> String {
    let mut allowed = String::new();
    // Writing to a `String` does not fail; what prints itself might, and then that is the end of it.
    let _ = write(&mut allowed, text);
    allowed
}

/// What of `text` may leave the machine.
#[must_use]
pub fn text(text: &str) -> String {
    format(format_args!("{text}"))
}

fn filter(out: &mut impl Write, text: fmt::Arguments<'_>) -> fmt::Result {
    let mut gate = Gate {
        out,
        word: [0; LONGEST],
        length: 0,
        before: Before::Anything,
    };
    let written = gate.write_fmt(text);
    gate.end_word().and(written)
}

/// What stands right before a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Anything,
    /// The word `image`, and then nothing.
    Image,
    /// `image+`.
    ImagePlus,
}

struct Gate<'a, W> {
    out: &'a mut W,
    /// The word that has not ended yet.
    word: [u8; LONGEST],
    /// Above [`LONGEST`]: it is too long, and what of it came last is not kept.
    length: usize,
    before: Before,
}

impl<W: Write> Write for Gate<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_ascii_alphanumeric() || character == '-' {
                if let Some(place) = self.word.get_mut(self.length) {
                    *place = character as u8;
                }
                self.length = (self.length + 1).min(LONGEST + 1);
                continue;
            }
            self.end_word()?;
            self.before = match (self.before, character) {
                (Before::Image, '+') => Before::ImagePlus,
                _ => Before::Anything,
            };
            self.out.write_char(character)?;
        }
        Ok(())
    }
}

impl<W: Write> Gate<'_, W> {
    fn end_word(&mut self) -> fmt::Result {
        let length = core::mem::take(&mut self.length);
        if length == 0 {
            return Ok(());
        }
        let before = core::mem::replace(&mut self.before, Before::Anything);
        let word = self.word;
        let Some(word) = word.get(..length).and_then(|word| str::from_utf8(word).ok()) else {
            return self.out.write_str(HIDDEN);
        };
        if word == "image" {
            self.before = Before::Image;
        }
        if is_uuid(word) {
            return self.out.write_str(word);
        }
        for (index, part) in word.split('-').enumerate() {
            if index > 0 {
                self.out.write_char('-')?;
            }
            self.part(part, index == 0 && before == Before::ImagePlus)?;
        }
        Ok(())
    }

    /// A word without hyphens. `is_offset`: behind `image+`.
    fn part(&mut self, part: &str, is_offset: bool) -> fmt::Result {
        if is_hex(part) && may_be_secret(part) {
            return self.out.write_str(HIDDEN);
        }
        let (mut rest, mut is_offset) = (part, is_offset && part.starts_with("0x"));
        while let Some(at) = rest.find("0x").or_else(|| rest.find("0X")) {
            let (before, digits) = rest.split_at(at + 2);
            let count = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
            self.out.write_str(before)?;
            let allowed = if is_offset { OFFSET_DIGITS } else { 4 };
            let shown = if count <= allowed {
                &digits[..count]
            } else {
                HIDDEN
            };
            self.out.write_str(shown)?;
            (rest, is_offset) = (&digits[count..], false);
        }
        self.out.write_str(rest)
    }
}

fn is_hex(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn may_be_secret(digits: &str) -> bool {
    let has_letter = digits.bytes().any(|byte| byte.is_ascii_alphabetic());
    let length = digits.len();
    length == 16 || length >= 8 && has_letter && !IDENTIFIERS.contains(&length)
}

fn is_uuid(word: &str) -> bool {
    let (length, hyphens) = UUID;
    let mut bytes = word.bytes().enumerate();
    word.len() == length
        && bytes.all(|(index, byte)| match hyphens.contains(&index) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        })
}

/// A message without what was put into it at run time: only text that lies in `constants`, the image's read-only memory, is
/// shown, and `…` for all other. An `expect("the store opens")` shows its words and the names in an error's `Debug`, an
/// `unwrap()` shows where, and neither shows a value.
pub struct OnlyConstants<T> {
    message: T,
    constants: Range<u64>,
}

impl<T: fmt::Display> OnlyConstants<T> {
    /// `constants`: addresses.
    pub fn new(message: T, constants: Range<u64>) -> Self {
        Self { message, constants }
    }
}

impl<T: fmt::Display> fmt::Display for OnlyConstants<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hides = Cell::new(false);
        let mut sieve = Sieve {
            out: f,
            constants: &self.constants,
            hides: &hides,
        };
        write!(sieve, "{}", self.message)?;
        sieve.show_hidden()
    }
}

struct Sieve<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    constants: &'a Range<u64>,
    /// Something was left out since the last constant.
    hides: &'a Cell<bool>,
}

impl Sieve<'_, '_> {
    fn show_hidden(&mut self) -> fmt::Result {
        match self.hides.replace(false) {
            true => self.out.write_str(HIDDEN),
            false => Ok(()),
        }
    }
}

impl Write for Sieve<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = text.as_ptr() as u64;
        let is_constant = self.constants.start <= start && start + text.len() as u64 <= self.constants.end;
        if !is_constant {
            self.hides.set(self.hides.get() || !text.is_empty());
            return Ok(());
        }
        self.show_hidden()?;
        self.out.write_str(text)
    }
}

#[cfg(test)]
mod tests;

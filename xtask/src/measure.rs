//! The measured chain (docs/interfaces.md, "The measured chain"), recomputed from the files of images.

use crate::control::Measurements;
use crate::exit::{Exit, Failure};
use crate::image::{Image, hex};
use sha2::{Digest, Sha384};

/// The chain's value before the first image.
pub const START: [u8; 48] = [0; 48];

/// What an image extends the chain by: the SHA-384 of its manifest's text.
pub fn digest(image: &Image) -> [u8; 48] {
    Sha384::digest(image.text.as_bytes()).into()
}

/// The chain after one more image.
pub fn extend(value: [u8; 48], digest: &[u8; 48]) -> [u8; 48] {
    Sha384::new()
        .chain_update(value)
        .chain_update(digest)
        .finalize()
        .into()
}

/// What the files say of a machine's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For each image that the machine lists, which of the files it is.
    pub files: Vec<Option<usize>>,
    /// The list begins with the cold boot: nothing is left that the files do not show.
    pub from_cold_boot: bool,
}

impl Verdict {
    /// Every image since the cold boot is one of the files.
    pub fn is_complete(&self) -> bool {
        self.from_cold_boot && self.files.iter().all(Option::is_some)
    }
}

/// Compares a machine's list with the digests of the files.
///
/// # Errors
/// If the list does not lead to the chain that the machine tells, or is no list.
pub fn check(told: &Measurements, files: &[[u8; 48]]) -> Result<Verdict, Failure> {
    let wrong = |what: String| {
        Failure::new(Exit::Failed, what)
            .hint("the machine's own list does not explain its chain: do not believe it")
    };
    let number = |text: &str, what: &str| {
        unhex(text).ok_or_else(|| wrong(format!("the machine's {what} `{text}` is not 96 hex digits")))
    };
    let base = number(&told.base, "base")?;
    let mut value = base;
    let mut found = Vec::with_capacity(told.events.len());
    for event in &told.events {
        let digest = number(&event.sha384, "sha384")?;
        value = extend(value, &digest);
        found.push(files.iter().position(|file| *file == digest));
    }
    if value != number(&told.chain, "chain")? {
        return Err(wrong(format!(
            "the machine's list leads to the chain {}, but it tells {}",
            hex(&value),
            told.chain
        )));
    }
    let from_cold_boot = told.whole && base == START && told.count == told.events.len() as u64;
    Ok(Verdict {
        files: found,
        from_cold_boot,
    })
}

fn unhex(text: &str) -> Option<[u8; 48]> {
    if text.len() != 96 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 48];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Measured;

    fn told(digests: &[[u8; 48]]) -> Measurements {
        // As docs/interfaces.md has it, over one piece of memory.
        let mut value = vec![0; 48];
        for digest in digests {
            value.extend_from_slice(digest);
            value = Sha384::digest(&value).to_vec();
        }
        Measurements {
            chain: hex(&value),
            count: digests.len() as u64,
            whole: true,
            base: hex(&START),
            events: digests
                .iter()
                .map(|digest| Measured {
                    sha384: hex(digest),
                    ..Measured::default()
                })
                .collect(),
        }
    }

    const A: [u8; 48] = [0xa; 48];
    const B: [u8; 48] = [0xb; 48];

    #[test]
    fn images_are_recognised() {
        let verdict = check(&told(&[A, B, A]), &[B, A]).expect("it adds up");
        assert_eq!(verdict.files, [Some(1), Some(0), Some(1)]);
        assert!(verdict.is_complete());
        let verdict = check(&told(&[A, B]), &[A]).expect("it adds up");
        assert_eq!(verdict.files, [Some(0), None]);
        assert!(!verdict.is_complete());
    }

    #[test]
    fn a_list_that_does_not_add_up_is_found_out() {
        let good = told(&[A, B]);
        let mut wrong = good.clone();
        wrong.events.swap(0, 1);
        assert!(check(&wrong, &[A, B]).is_err());
        let mut wrong = good.clone();
        wrong.events.pop();
        assert!(check(&wrong, &[A, B]).is_err());
        let mut wrong = good.clone();
        wrong.chain = "x".repeat(96);
        assert!(check(&wrong, &[A, B]).is_err());
        // An "é" has two bytes: not a boundary in the middle of it.
        wrong.chain = "é".repeat(48);
        assert!(check(&wrong, &[A, B]).is_err());
    }

    #[test]
    fn what_was_before_the_list_is_not_known() {
        let mut late = told(&[A]);
        late.whole = false;
        assert!(!check(&late, &[A]).expect("it adds up").is_complete());
        // A list whose beginning was dropped.
        let base = extend(START, &A);
        let cut = Measurements {
            base: hex(&base),
            chain: hex(&extend(base, &B)),
            count: 2,
            ..told(&[B])
        };
        let verdict = check(&cut, &[A, B]).expect("it adds up");
        assert_eq!((verdict.files, verdict.from_cold_boot), (vec![Some(1)], false));
    }
}

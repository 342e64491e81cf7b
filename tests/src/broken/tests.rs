//! The builders must build what they say: cases that are all different from the good one, and from each other.

use super::{Case, Forge, elves, flips, images, orders, sample, signed};
use crate::image::{Parts, keys, sha256};
use minisign::{PublicKey, SignatureBox};
use std::{collections::HashSet, io::Cursor};

struct Fixture {
    parts: Parts,
    release: minisign::SecretKey,
    stranger: minisign::SecretKey,
}

fn fixture() -> Fixture {
    let (release, stranger) = (keys().sk, keys().sk);
    Fixture {
        parts: Parts::signed(&sample::elf(), "1.0.0", &release),
        release,
        stranger,
    }
}

impl Fixture {
    fn forge(&self) -> Forge<'_> {
        Forge {
            good: &self.parts,
            release: &self.release,
            stranger: &self.stranger,
        }
    }
}

fn all_differ(good: &[u8], cases: &[Case]) {
    let mut bodies = HashSet::new();
    let mut names = HashSet::new();
    for case in cases {
        assert!(case.body != good, "{} is the good one", case.name);
        assert!(names.insert(&case.name), "{} is there twice", case.name);
        assert!(
            bodies.insert((&case.body, case.claimed)),
            "{} is like one before it",
            case.name
        );
        assert!(!case.expected.is_empty(), "{} expects nothing", case.name);
    }
}

#[test]
fn every_image_is_broken_in_its_own_way() {
    let fixture = fixture();
    let cases = images(fixture.forge(), 64 << 20);
    assert!(cases.len() > 150, "{}", cases.len());
    all_differ(&fixture.parts.pack(), &cases);
}

#[test]
fn flips_change_one_bit() {
    let fixture = fixture();
    let good = fixture.parts.pack();
    let mut cases: Vec<Case> = flips::manifest(&fixture.parts).collect();
    assert_eq!(cases.len(), fixture.parts.manifest.len() * 8);
    cases.extend(flips::signature(&fixture.parts));
    cases.extend(flips::untrusted_comment(&fixture.parts));
    assert_eq!(
        cases.len(),
        (fixture.parts.manifest.len() + fixture.parts.signature.len()) * 8
    );
    cases.extend(flips::elf_headers(&fixture.parts));
    cases.extend(flips::tar_headers(&fixture.parts));
    let names: HashSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    cases.extend(flips::elf_sample(&fixture.parts, 64));
    for case in &cases {
        // One in the content: that is the signature's business. One in a header: the checksum stays as it was.
        let pieces = case
            .body
            .chunks(512)
            .zip(good.chunks(512))
            .filter(|(a, b)| a != b);
        let bits: u32 = pieces
            .flat_map(|(a, b)| a.iter().zip(b))
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        let length = case.content_length() as usize;
        assert_eq!((bits, length), (1, good.len()), "{}", case.name);
    }
}

#[test]
fn truncation_covers_every_part() {
    let fixture = fixture();
    let good = fixture.parts.pack();
    let cases: Vec<Case> = flips::truncated(&fixture.parts).collect();
    all_differ(&good, &cases);
    assert!(cases.len() > 40, "{}", cases.len());
    assert!(cases.iter().all(|case| good.starts_with(&case.body)));
    assert!(cases.iter().any(|case| case.body.is_empty()));
    // The ELF is always cut, if only by a byte.
    let end = 512 * 3 + 512 * 2 + fixture.parts.elf.len();
    assert_eq!(cases.last().map(|case| case.body.len()), Some(end - 1));
}

#[test]
fn large_ones_are_not_sent_whole() {
    let fixture = fixture();
    let case = signed::larger_than_memory(fixture.forge(), 60 << 20);
    assert!(case.body.len() < 64 << 10);
    assert!(case.content_length() > 60 << 20);
    for case in images(fixture.forge(), 64 << 20) {
        assert!(case.body.len() < 1 << 20, "{}", case.name);
    }
}

#[test]
fn signed_elves_are_signed() {
    let fixture = fixture();
    let public = PublicKey::from_secret_key(&fixture.release).expect("a public key");
    for case in elves::cases(fixture.forge()) {
        let parts = Parts::of(&case.body);
        let signature = SignatureBox::from_string(&parts.signature).expect("a signature");
        minisign::verify(
            &public,
            &signature,
            Cursor::new(&parts.manifest),
            true,
            false,
            false,
        )
        .unwrap_or_else(|why| panic!("{}: {why}", case.name));
        assert!(parts.manifest.contains(&sha256(&parts.elf)), "{}", case.name);
    }
}

#[test]
fn every_order_is_broken_in_its_own_way() {
    let keys = [keys().sk, keys().sk, keys().sk];
    let facts = orders::Facts {
        host: "52:54:00:12:34:56".into(),
        generation: 3,
        nonce: "0123456789abcdef0123456789abcdef".into(),
        image: "a".repeat(64),
    };
    let keys = orders::Keys {
        operator: &keys[0],
        release: &keys[1],
        stranger: &keys[2],
    };
    let cases = orders::cases(&facts, keys);
    assert!(cases.len() > 25, "{}", cases.len());
    all_differ(&facts.replace(keys.operator), &cases);
}

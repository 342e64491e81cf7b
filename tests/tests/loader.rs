//! The loader library refuses every broken image with the right error, on the host: the same code as in the machine,
//! so that here all bits can be flipped, and in the machine a sample will do.

use loader::{
    elf,
    image::{Event, Limits, Reader},
    signature::PublicKey,
    signed,
};
use machine_tests::{
    broken::{self, Case, Forge, flips, orders, sample},
    image::{Parts, keys},
};
use minisign::KeyPair;

const LIMIT: u64 = 64 << 20;

struct Fixture {
    release: KeyPair,
    stranger: KeyPair,
    good: Parts,
}

fn fixture() -> Fixture {
    let release = keys();
    Fixture {
        good: Parts::signed(&sample::elf(), "1.0.0", &release.sk),
        stranger: keys(),
        release,
    }
}

fn key(pair: &KeyPair) -> PublicKey {
    PublicKey::from_base64(&pair.pk.to_base64()).expect("minisign's public key")
}

impl Fixture {
    /// Takes an image in as the machine does, in pieces of a TCP segment.
    fn receive(&self, image: &[u8]) -> Result<elf::Plan, &'static str> {
        let limits = Limits {
            elf_bytes: LIMIT,
            security_floor: 0,
        };
        let mut reader = Reader::new(key(&self.release), limits);
        let mut program = Vec::new();
        for mut piece in image.chunks(1460) {
            loop {
                match reader.next(&mut piece).map_err(|error| error.code())? {
                    Event::NeedMore => break,
                    Event::Elf(bytes) => program.extend_from_slice(bytes),
                    Event::Verified | Event::End => {}
                }
            }
        }
        reader.finish().map_err(|error| error.code())?;
        // The checks want the file at a multiple of 8, as the machine's chunks are.
        let mut room = vec![0u64; program.len().div_ceil(8)];
        let words = room.iter_mut().zip(program.chunks(8));
        words.for_each(|(word, bytes)| {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(eight);
        });
        // SAFETY: a `u64` has no padding and any bytes are valid as `u8`; the length is within the vector's.
        let aligned = unsafe { std::slice::from_raw_parts(room.as_ptr().cast::<u8>(), program.len()) };
        elf::check(aligned).map_err(|error| error.code())
    }

    fn all_refused(&self, cases: impl IntoIterator<Item = Case>) {
        let mut wrong = Vec::new();
        for case in cases {
            match self.receive(&case.body) {
                Err(code) if case.expected.iter().any(|&(_, right)| right == code) => {}
                verdict => wrong.push(format!("{}: {verdict:?}, not {:?}", case.name, case.expected)),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn the_good_one_is_accepted() {
    let fixture = fixture();
    let plan = fixture.receive(&fixture.good.pack()).expect("a good image");
    assert_eq!(plan.segments.len(), 3);
}

#[test]
fn every_broken_image_is_refused() {
    let fixture = fixture();
    let forge = Forge {
        good: &fixture.good,
        release: &fixture.release.sk,
        stranger: &fixture.stranger.sk,
    };
    fixture.all_refused(broken::images(forge, LIMIT));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let fixture = fixture();
    fixture.all_refused(flips::manifest(&fixture.good));
    fixture.all_refused(flips::signature(&fixture.good));
    fixture.all_refused(flips::tar_headers(&fixture.good));
    fixture.all_refused(flips::elf_headers(&fixture.good));
    fixture.all_refused(flips::elf_sample(&fixture.good, 1000));
}

/// The one part that no signature covers: the verdict may be either, but there must be one.
#[test]
fn flipped_bits_of_the_untrusted_comment_do_no_harm() {
    let fixture = fixture();
    for case in flips::untrusted_comment(&fixture.good) {
        if let Err(code) = fixture.receive(&case.body) {
            assert!(
                case.expected.iter().any(|&(_, right)| right == code),
                "{}: {code}",
                case.name
            );
        }
    }
}

#[test]
fn every_end_that_comes_too_early_is_noticed() {
    let fixture = fixture();
    fixture.all_refused(flips::truncated(&fixture.good));
}

#[test]
fn orders_are_signed_by_the_operator_or_refused() {
    let (operator, fixture) = (keys(), fixture());
    let facts = orders::Facts {
        host: "52:54:00:12:34:56".into(),
        generation: 1,
        nonce: "0123456789abcdef0123456789abcdef".into(),
        image: "a".repeat(64),
    };
    let good = facts.replace(&operator.sk);
    let key = key(&operator);
    let text = signed::open(&good, "order.toml", &key).expect("a good order");
    assert_eq!(text, facts.text("replace").as_bytes());
    let keys = orders::Keys {
        operator: &operator.sk,
        release: &fixture.release.sk,
        stranger: &fixture.stranger.sk,
    };
    for case in orders::cases(&facts, keys) {
        // What the text says is not the loader's business: well signed nonsense passes here.
        if let Err(error) = signed::open(&case.body, "order.toml", &key) {
            assert!(
                case.expected.iter().any(|&(_, right)| right == error.code()),
                "{}: {}, not {:?}",
                case.name,
                error.code(),
                case.expected
            );
        }
    }
}

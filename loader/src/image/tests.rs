use super::*;
use crate::testing::{self, Signer};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    elf_bytes: 1 << 20,
    security_floor: 2,
};

fn signer() -> Signer {
    Signer::new(1)
}

fn program() -> Vec<u8> {
    (0..3000_u32).map(|index| (index * 7) as u8).collect()
}

fn good() -> Vec<u8> {
    testing::image(&signer(), "hello", "1.0.0", 2, &program())
}

#[derive(Default, PartialEq, Debug)]
struct Seen {
    elf: Vec<u8>,
    verified: usize,
    ended: usize,
    result: Option<ImageError>,
}

/// Reads an image in pieces; checks that no byte of the program comes before the verification.
fn read_with(limits: Limits, bytes: &[u8], pieces: &[usize]) -> Seen {
    let mut reader = Reader::new(signer().public_key(), limits);
    let mut seen = Seen::default();
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let (mut input, later) = rest.split_at((*pieces.next().unwrap()).clamp(1, rest.len()));
        rest = later;
        loop {
            match reader.next(&mut input) {
                Ok(Event::NeedMore) => break,
                Ok(Event::Verified) => seen.verified += 1,
                Ok(Event::Elf(part)) => {
                    assert_eq!(seen.verified, 1);
                    assert!(reader.manifest().is_some());
                    seen.elf.extend_from_slice(part);
                }
                Ok(Event::End) => seen.ended += 1,
                Err(error) => {
                    assert_eq!(reader.next(&mut input), Err(error.clone()));
                    assert_eq!(reader.finish(), Err(error.clone()));
                    seen.result = Some(error);
                    return seen;
                }
            }
        }
        assert!(input.is_empty());
    }
    seen.result = reader.finish().err();
    seen
}

fn read(bytes: &[u8]) -> Seen {
    read_with(LIMITS, bytes, &[usize::MAX])
}

fn accepted() -> Seen {
    Seen {
        elf: program(),
        verified: 1,
        ended: 1,
        result: None,
    }
}

/// The comment of a signature that nobody has signed.
fn untrusted_comment(archive: &[u8]) -> core::ops::Range<usize> {
    let start = archive
        .windows(9)
        .position(|window| window == b"untrusted")
        .unwrap();
    start..start + archive[start..].iter().position(|byte| *byte == b'\n').unwrap()
}

#[test]
fn accepts_a_good_image() {
    assert_eq!(read(&good()), accepted());
}

#[test]
fn gives_the_manifest_only_after_verification() {
    let archive = good();
    let mut reader = Reader::new(signer().public_key(), LIMITS);
    let mut input = &archive[..1500];
    while reader.next(&mut input).unwrap() != Event::NeedMore {}
    assert_eq!((reader.manifest(), reader.manifest_text()), (None, None));
    let mut input = &archive[1500..];
    while reader.next(&mut input).unwrap() != Event::Verified {}
    assert_eq!(reader.manifest().unwrap().name, "hello");
    assert_eq!(
        Manifest::parse(reader.manifest_text().unwrap().as_bytes()).as_ref(),
        Ok(reader.manifest().unwrap())
    );
}

#[test]
fn refuses_with_the_agreed_code() {
    let with = |archive: &[u8], code: &str, verified: usize| {
        let seen = read(archive);
        assert_eq!(seen.result.as_ref().map(ImageError::code), Some(code), "{seen:?}");
        assert_eq!((seen.verified, seen.ended), (verified, 0));
        assert!(!seen.result.unwrap().hint().is_empty());
    };
    let key = signer();
    with(
        &testing::image(&Signer::new(9), "hello", "1", 2, &program()),
        "wrong-key",
        0,
    );
    with(
        &testing::image(&key, "hello", "1", 1, &program()),
        "below-floor",
        0,
    );
    with(
        &testing::image(&key, "Hello", "1", 2, &program()),
        "bad-manifest",
        0,
    );
    with(
        &testing::image(&key, "hello", "1", 2, &vec![0; (1 << 20) + 1]),
        "too-large",
        0,
    );

    let manifest = testing::manifest("hello", "1", 2, &program()).to_toml();
    let manifest = manifest.as_bytes();
    let minisig = key.sign(manifest);
    let image = |manifest: &[u8], minisig: &[u8], elf: &[u8]| {
        testing::archive(&[(MANIFEST, manifest), (SIGNATURE, minisig), (ELF, elf)])
    };
    with(&image(b"changed", &minisig, &program()), "wrong-signature", 0);
    with(
        &image(manifest, b"nonsense", &program()),
        "bad-signature-format",
        0,
    );
    with(
        &image(manifest, &key.sign_legacy(manifest), &program()),
        "bad-signature-format",
        0,
    );
    with(&image(manifest, &minisig, &program()[1..]), "bad-archive", 1);
    with(&image(&vec![b'#'; 4097], &minisig, &program()), "too-large", 0);
    with(&image(manifest, &vec![b'#'; 1025], &program()), "too-large", 0);
    let mut other = program();
    other[17] ^= 1;
    with(&image(manifest, &minisig, &other), "digest-mismatch", 1);
    with(
        &testing::archive(&[(SIGNATURE, &minisig), (MANIFEST, manifest)]),
        "bad-archive",
        0,
    );
    with(b"", "truncated", 0);
    with(&good()[..1700], "truncated", 0);
    with(&good()[..4000], "truncated", 1);
}

#[test]
fn accepts_the_end_of_an_archive_and_nothing_else() {
    let mut archive = good();
    archive.truncate(archive.len() - 2 * BLOCK);
    archive.extend([0; archive::MAX_END_BLOCKS * BLOCK]);
    assert_eq!(read(&archive), accepted());
    archive.push(0);
    assert_eq!(read(&archive).result, Some(ImageError::TrailingData));
    let more = testing::archive(&[(ELF, b"again")]);
    let mut archive = good();
    archive.extend(more);
    assert_eq!(read(&archive).result, Some(ImageError::TrailingData));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_do_not_matter(pieces in proptest::collection::vec(1_usize..700, 1..20)) {
        prop_assert_eq!(read_with(LIMITS, &good(), &pieces), accepted());
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
        let mut archive = good();
        let at = at.index(archive.len());
        archive[at] ^= 1 << bit;
        let seen = read(&archive);
        if untrusted_comment(&good()).contains(&at) {
            prop_assert!(seen.result.is_none() || seen.result.as_ref().unwrap().code() == "bad-signature-format");
        } else {
            prop_assert!(seen.result.is_some());
        }
    }

    #[test]
    fn any_truncation_is_noticed(at in any::<proptest::sample::Index>()) {
        let archive = good();
        // The archive's end, behind the program, may be missing.
        let size = archive.len() - 2 * BLOCK - archive::padding(3000);
        let seen = read(&archive[..at.index(size)]);
        prop_assert_eq!(seen.result.unwrap().code(), "truncated");
        prop_assert_eq!(seen.ended, 0);
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000), keep in 0_usize..2000) {
        prop_assert!(read(&bytes).result.is_some());
        let mut archive = good();
        archive.truncate(keep);
        archive.extend(bytes);
        prop_assert!(read(&archive).result.is_some());
    }
}

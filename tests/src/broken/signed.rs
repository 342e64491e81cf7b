//! Signatures that are wrong, and correctly signed manifests that say nonsense.

use super::{Case, Forge, Refusal};
use crate::image::{MEMBERS, Member, Parts, manifest_of, pack, sha256, sign};

const BAD_MANIFEST: &[Refusal] = &[(400, "bad-manifest")];

/// Signatures that are none, of another key, or of something else.
#[must_use]
pub fn signatures(forge: Forge<'_>) -> Vec<Case> {
    let Forge {
        good,
        release,
        stranger,
    } = forge;
    let case = |name: &str, signature: String, expected: &[Refusal]| {
        Case::new(
            name,
            Parts {
                signature,
                ..good.clone()
            }
            .pack(),
            expected,
        )
    };
    let format: &[Refusal] = &[(400, "bad-signature-format")];
    let lines: Vec<&str> = good.signature.lines().collect();
    let other = sign(b"something else", release);
    let other: Vec<&str> = other.lines().collect();
    vec![
        case("signature: empty", String::new(), format),
        case(
            "signature: not minisign's",
            "-----BEGIN PGP SIGNATURE-----\n".repeat(8),
            format,
        ),
        case(
            "signature: only its first two lines",
            lines[..2].join("\n") + "\n",
            format,
        ),
        case(
            "signature: a line too many",
            format!("{}more\n", good.signature),
            format,
        ),
        case(
            "signature: wrong key",
            sign(good.manifest.as_bytes(), stranger),
            &[(403, "wrong-key")],
        ),
        case(
            "signature: of something else",
            sign(b"something else", release),
            &[(403, "wrong-signature")],
        ),
        case(
            "signature: trusted comment of another signature",
            [lines[0], lines[1], "trusted comment: version 9", lines[3], ""].join("\n"),
            &[(403, "wrong-signature")],
        ),
        case(
            "signature: end of another signature",
            [lines[0], lines[1], lines[2], other[3], ""].join("\n"),
            &[(403, "wrong-signature")],
        ),
        case(
            "signature: of the ELF",
            sign(&good.elf, release),
            &[(403, "wrong-signature")],
        ),
    ]
}

/// Correctly signed manifests that say nonsense.
#[must_use]
pub fn manifests(forge: Forge<'_>, limit: u64) -> Vec<Case> {
    let Forge { good, release, .. } = forge;
    let image = |manifest: String| {
        let signature = sign(manifest.as_bytes(), release);
        Parts {
            manifest,
            signature,
            elf: good.elf.clone(),
        }
    };
    let case = |name: &str, manifest: String, expected: &[Refusal]| {
        Case::new(
            format!("signed manifest: {name}"),
            image(manifest).pack(),
            expected,
        )
    };
    let edit = |from: &str, to: &str| good.manifest.replacen(from, to, 1);
    let without = |key: &str| -> String {
        good.manifest
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let digest = sha256(&good.elf);
    let size = good.elf.len() as u64;
    let mut cases = vec![
        case("empty", String::new(), BAD_MANIFEST),
        case("not TOML", "format = = 1\n".into(), BAD_MANIFEST),
        case("another format", edit("format = 1", "format = 2"), BAD_MANIFEST),
        case(
            "format is text",
            edit("format = 1", "format = \"1\""),
            BAD_MANIFEST,
        ),
        case(
            "a size below zero",
            edit(&format!("size = {size}"), "size = -1"),
            BAD_MANIFEST,
        ),
        case("a digest too short", edit(&digest, &digest[..62]), BAD_MANIFEST),
        case(
            "a digest that is not hex",
            edit(&digest, &"g".repeat(64)),
            BAD_MANIFEST,
        ),
        case(
            "another ELF's digest",
            edit(&digest, &sha256(b"another")),
            &[(403, "digest-mismatch")],
        ),
        case(
            "a table a thousand deep",
            format!("{}x = {}\n", good.manifest, "[".repeat(1000)),
            BAD_MANIFEST,
        ),
    ];
    cases.extend(
        [
            "format",
            "name",
            "version",
            "security_version",
            "size",
            "sha256",
            "[elf]",
        ]
        .map(|key| case(&format!("without {key}"), without(key), BAD_MANIFEST)),
    );
    // Only the beginning is sent: the machine must not wait for the rest, nor make room for it.
    for (name, size) in [("above the limit", limit + 1), ("8 GiB less one", (8 << 30) - 1)] {
        let mut parts = image(manifest_of(size, &digest, "9.9.9"));
        parts.elf = vec![0; 4096];
        let mut members = parts.members();
        members[2].size = size;
        let body = pack(&members);
        let claimed = Some(body.len() as u64 - 4096 + size.next_multiple_of(512));
        cases.push(Case {
            claimed,
            ..Case::new(
                format!("signed manifest: an ELF {name}"),
                body,
                &[(413, "too-large")],
            )
        });
    }
    cases
}

/// An image that is allowed, but larger than the memory that the machine has: `bytes` is its size. Only its beginning
/// is in the case.
#[must_use]
pub fn larger_than_memory(forge: Forge<'_>, bytes: u64) -> Case {
    let manifest = manifest_of(bytes, &sha256(b""), "9.9.9");
    let signature = sign(manifest.as_bytes(), forge.release);
    let mut elf = Member::file(MEMBERS[2], &forge.good.elf);
    elf.size = bytes;
    let members = [
        Member::file(MEMBERS[0], manifest.as_bytes()),
        Member::file(MEMBERS[1], signature.as_bytes()),
        elf,
    ];
    let body = pack(&members);
    let claimed = Some(body.len() as u64 + bytes.next_multiple_of(512));
    Case {
        claimed,
        ..Case::new(
            "larger than memory",
            body,
            &[(503, "no-memory"), (413, "too-large")],
        )
    }
}

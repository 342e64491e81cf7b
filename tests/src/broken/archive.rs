//! Tar garbage.

use super::{Case, Refusal};
use crate::image::{Edit, MEMBERS, Member, Parts, pack};

const BAD: &[Refusal] = &[(400, "bad-archive")];
const BAD_OR_SHORT: &[Refusal] = &[(400, "bad-archive"), (400, "truncated")];
const BAD_OR_LARGE: &[Refusal] = &[(400, "bad-archive"), (413, "too-large")];

/// Bytes without a pattern, the same each time.
#[must_use]
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Archives that are none, or hold something else than an image.
#[must_use]
pub fn cases(good: &Parts) -> Vec<Case> {
    let mut cases = vec![
        Case::new("noise", noise(64 * 1024, 7), BAD),
        Case::new("less than a header", vec![b'x'; 100], BAD_OR_SHORT),
        Case::new("only zeros", vec![0; 64 * 1024], BAD_OR_SHORT),
        Case::new("an empty archive", pack(&[]), BAD_OR_SHORT),
        Case::new("JSON", b"{\"image\": 1}".repeat(100), BAD),
        Case::new("gzip", [&[0x1f, 0x8b, 8, 0], &*noise(2048, 9)].concat(), BAD),
        Case::new("the ELF alone", good.elf.clone(), BAD),
        Case::new(
            "something after the end",
            [good.pack(), noise(1024, 3)].concat(),
            BAD,
        ),
    ];
    cases.extend(checksums(good));
    cases.extend(order(good));
    cases.extend(kinds(good));
    cases.extend(sizes(good));
    cases.extend(names(good));
    cases
}

fn checksums(good: &Parts) -> Vec<Case> {
    let blocks = |bytes: usize| 512 + bytes.next_multiple_of(512);
    let second = blocks(good.manifest.len());
    let starts = [0, second, second + blocks(good.signature.len())];
    let broken = starts.iter().zip(MEMBERS).flat_map(|(&start, name)| {
        [
            ("wrong", b"0000001\0"),
            ("not octal", b"99zz99\0 "),
            ("empty", b"\0\0\0\0\0\0\0\0"),
        ]
        .map(|(what, checksum)| {
            let mut image = good.pack();
            image[start + 148..start + 156].copy_from_slice(checksum);
            Case::new(format!("{name}: checksum {what}"), image, BAD)
        })
    });
    broken.collect()
}

fn order(good: &Parts) -> Vec<Case> {
    let members = good.members();
    let pick = |order: &[usize]| {
        pack(
            &order
                .iter()
                .map(|&index| members[index].clone())
                .collect::<Vec<_>>(),
        )
    };
    let extra = Member::file("extra", b"x");
    vec![
        Case::new("no signature", pick(&[0, 2]), BAD),
        Case::new("no manifest", pick(&[1, 2]), BAD),
        Case::new("no ELF", pick(&[0, 1]), BAD_OR_SHORT),
        Case::new("the ELF first", pick(&[2, 0, 1]), BAD),
        Case::new("the signature first", pick(&[1, 0, 2]), BAD),
        Case::new("the manifest twice", pick(&[0, 0, 1, 2]), BAD),
        Case::new("the ELF twice", pick(&[0, 1, 2, 2]), BAD),
        Case::new("the image twice", pick(&[0, 1, 2, 0, 1, 2]), BAD),
        Case::new(
            "a member before the image",
            pack(&[std::slice::from_ref(&extra), &members].concat()),
            BAD,
        ),
        Case::new(
            "a member after the image",
            pack(&[&*members, &[extra]].concat()),
            BAD,
        ),
    ]
}

fn kinds(good: &Parts) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, name) in MEMBERS.into_iter().enumerate() {
        let kinds = [
            (b'1', "a hard link"),
            (b'2', "a symbolic link"),
            (b'3', "a device"),
            (b'5', "a directory"),
            (b'6', "a pipe"),
            (b'L', "a long name of GNU's"),
            (b'x', "a pax header"),
            (b'g', "a global pax header"),
            (0xff, "of no kind"),
        ];
        for (kind, what) in kinds {
            let mut members = good.members();
            members[index].kind = kind;
            cases.push(Case::new(format!("{name} is {what}"), pack(&members), BAD));
            // A link has no data of its own.
            if kind == b'1' || kind == b'2' {
                members[index].size = 0;
                members[index].data.clear();
                members[index].edit = Some(|header| header[157..168].copy_from_slice(b"/etc/passwd"));
                cases.push(Case::new(
                    format!("{name} is {what} to /etc/passwd"),
                    pack(&members),
                    BAD,
                ));
            }
        }
    }
    cases
}

fn sizes(good: &Parts) -> Vec<Case> {
    let mut cases = Vec::new();
    let edits: [(&str, Edit); 5] = [
        ("not octal", |header| {
            header[124..136].copy_from_slice(b"zzzzzzzzzzz\0")
        }),
        ("negative", |header| {
            header[124..136].copy_from_slice(b"-0000000001\0")
        }),
        ("empty", |header| header[124..136].fill(0)),
        ("8 GiB less one", |header| {
            header[124..136].copy_from_slice(b"77777777777\0")
        }),
        ("2^64 and more, in base 256", |header| header[124..136].fill(0xff)),
    ];
    for (index, name) in MEMBERS.into_iter().enumerate() {
        for (what, edit) in edits {
            let mut members = good.members();
            members[index].edit = Some(edit);
            let expected: &[Refusal] = &[
                (400, "bad-archive"),
                (413, "too-large"),
                (400, "truncated"),
                (400, "bad-manifest"),
                (400, "bad-signature-format"),
            ];
            cases.push(Case::new(
                format!("{name}: size {what}"),
                pack(&members),
                expected,
            ));
        }
    }
    for (index, size, limit) in [(0, 4097, "4 KiB"), (1, 1025, "1 KiB")] {
        let mut members = good.members();
        members[index].data.resize(size, b'\n');
        members[index].size = size as u64;
        cases.push(Case::new(
            format!("{} is larger than {limit}", MEMBERS[index]),
            pack(&members),
            BAD_OR_LARGE,
        ));
    }
    for (what, size) in [("shorter", good.elf.len() - 1), ("longer", good.elf.len() + 1)] {
        let mut members = good.members();
        members[2].data.resize(size, 0);
        members[2].size = size as u64;
        let expected: &[Refusal] = &[
            (400, "bad-archive"),
            (400, "bad-manifest"),
            (403, "digest-mismatch"),
        ];
        cases.push(Case::new(
            format!("the ELF is {what} than its manifest says"),
            pack(&members),
            expected,
        ));
    }
    cases
}

fn names(good: &Parts) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, name) in MEMBERS.into_iter().enumerate() {
        for wrong in [
            "",
            ".",
            name.to_uppercase().as_str(),
            &format!("./{name}"),
            &format!("/{name}"),
            &format!("../{name}"),
        ] {
            let mut members = good.members();
            members[index].name = wrong.into();
            cases.push(Case::new(
                format!("{name} is called {wrong:?}"),
                pack(&members),
                BAD,
            ));
        }
        let mut members = good.members();
        members[index].edit = Some(|header| header[345..349].copy_from_slice(b"/etc"));
        cases.push(Case::new(
            format!("{name} has a name prefix"),
            pack(&members),
            BAD,
        ));
        members[index].edit = Some(|header| header[0..100].fill(b'a'));
        cases.push(Case::new(
            format!("{name} has a name of 100 bytes without an end"),
            pack(&members),
            BAD,
        ));
        members[index].edit = Some(|header| header[0] = 0xff);
        cases.push(Case::new(
            format!("{name} has a name that is not text"),
            pack(&members),
            BAD,
        ));
        members[index].edit = Some(|header| header[257..265].fill(0));
        cases.push(Case::new(
            format!("{name} has a header from before ustar"),
            pack(&members),
            BAD,
        ));
    }
    cases
}

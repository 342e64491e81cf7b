//! Patterns as KEYS and SCAN take them: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before what is meant as it is.

/// Whether all of `text` fits. Takes at most length times length steps, whatever the pattern.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if the last star must stand for one byte more.
    let mut retry = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        let fits = match text.get(t) {
            None if p == pattern.len() => return true,
            None => None,
            Some(byte) => one(&pattern[p..], *byte),
        };
        if let Some(length) = fits {
            p += length;
            t += 1;
            continue;
        }
        match retry {
            Some((star, from)) if from < text.len() => {
                p = star;
                t = from + 1;
                retry = Some((star, t));
            }
            _ => return false,
        }
    }
}

/// The length of the pattern's first piece, if the byte fits it.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [b'[', ..] => class(pattern, byte),
        [plain, ..] => (plain == byte).then_some(1),
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let not = pattern.get(1) == Some(&b'^');
    let mut at = 1 + usize::from(not);
    let mut found = false;
    loop {
        match *pattern.get(at..)? {
            // Without its end it fits nothing.
            [] => return None,
            [b']', ..] => return (found != not).then_some(at + 1),
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                at += 2;
            }
            [from, b'-', to, ..] if to != b']' => {
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [plain, ..] => {
                found |= plain == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, text) in [
            ("*", ""),
            ("user:*", "user:1"),
            ("*:*:c", "a:b:b:c"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            ("\\*", "*"),
            ("[\\]]", "]"),
            ("a**b", "ab"),
        ] {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("user:*", "user"),
            ("h[^e]llo", "hello"),
            ("[", "["),
            ("[a", "a"),
            ("\\*", "a"),
            ("a*b", "abc"),
        ] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_end() {
        assert!(!matches(&b"a*".repeat(200), &b"a".repeat(199)));
    }

    proptest! {
        #[test]
        fn any_pattern_gets_an_answer(pattern in "[\\[\\]*?^a\\\\-]{0,12}", text in "[a-c]{0,12}") {
            let _ = matches(pattern.as_bytes(), text.as_bytes());
        }
    }
}

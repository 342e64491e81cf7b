//! Units: UCUM's, as OpenTelemetry writes them, and the words that Prometheus has for them ("Prometheus and OpenMetrics
//! Compatibility", "Metric Metadata").

/// The units that a metric may have, besides an annotation in braces, with Prometheus's word for each.
const WORDS: [(&str, &str); 14] = [
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("min", "minutes"),
    ("h", "hours"),
    ("d", "days"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("1", "ratio"),
];

/// Prometheus's word for `unit`, empty for what is only counted (`{request}`); `None` if there is no such unit.
pub(super) const fn word(unit: &str) -> Option<&'static str> {
    let bytes = unit.as_bytes();
    if let [b'{', inner @ .., b'}'] = bytes {
        return if is_annotation(inner) { Some("") } else { None };
    }
    let mut index = 0;
    while index < WORDS.len() {
        if equal(WORDS[index].0.as_bytes(), bytes) {
            return Some(WORDS[index].1);
        }
        index += 1;
    }
    None
}

const fn is_annotation(inner: &[u8]) -> bool {
    let mut index = 0;
    while index < inner.len() {
        if !inner[index].is_ascii_alphanumeric() && inner[index] != b'_' {
            return false;
        }
        index += 1;
    }
    !inner.is_empty() && inner.len() <= 32
}

/// `==`, which is not yet for constants.
const fn equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn units_have_words() {
        assert_eq!(word("s"), Some("seconds"));
        assert_eq!(word("By"), Some("bytes"));
        assert_eq!(word("{request}"), Some(""));
        for unit in ["", "S", "seconds", "{}", "{", "{a b}", "{\n}", "By/s", "{é}"] {
            assert_eq!(word(unit), None, "{unit}");
        }
    }
}

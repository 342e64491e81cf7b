//! The span in which somebody runs a verb: build pipelines name it in the environment (OpenTelemetry, "Environment variables as
//! context propagation carriers"), so that the machine's spans continue their trace.

/// The environment variable.
const VARIABLE: &str = "TRACEPARENT";

/// What the environment names, if it is a `traceparent` of W3C Trace Context.
pub fn of_environment() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|text| is_valid(text))
}

/// Whether this is `VERSION-TRACE-SPAN-FLAGS` in lower-case hexadecimal digits, with ids that are not all zero (W3C Trace
/// Context, section 3.2.2). A later version may say more.
fn is_valid(text: &str) -> bool {
    let fields: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags, more @ ..] = fields.as_slice() else {
        return false;
    };
    let digits = |field: &str, count| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        field.len() == count && field.bytes().all(digit)
    };
    let names = |field: &str, count| digits(field, count) && field.bytes().any(|byte| byte != b'0');
    let known = digits(version, 2) && *version != "ff" && (*version != "00" || more.is_empty());
    known && names(trace, 32) && names(span, 16) && digits(flags, 2) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn what_is_sent_is_a_traceparent() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_valid(good));
        assert!(is_valid(&format!("{}-more", good.replacen("00", "cc", 1))));
        for (part, wrong) in [
            ("00-", "ff-"),
            ("00-4", "00-G"),
            ("4bf9", "4BF9"),
            ("-01", ""),
            ("-01", "-01-more"),
            ("-01", "-01\r\nX: y"),
            ("-01", "-1"),
            ("00f067aa0ba902b7", "0000000000000000"),
            (
                "4bf92f3577b34da6a3ce929d0e0e4736",
                "00000000000000000000000000000000",
            ),
        ] {
            assert!(!is_valid(&good.replacen(part, wrong, 1)), "{wrong}");
        }
        // What would become another header.
        let smuggled = format!("{}-\r\nX: y", good.replacen("00", "cc", 1));
        assert!(!is_valid(&smuggled));
    }
}

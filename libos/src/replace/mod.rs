//! Receive → stage → quiesce → stop → jump, and what one instar leaves for the next.

pub(crate) mod bounded;
mod carry;
pub(crate) mod control;
mod early_flush;
pub mod envelope;
pub mod error;
pub mod handover;
pub mod health;
pub mod history;
mod jump;
pub mod machine;
pub mod measured;
pub mod order;
mod prepare;
pub(crate) mod probation;
mod probes;
mod receive;
mod report;
mod stage;
pub mod status;
pub(crate) mod successor;
pub mod timeline;
mod upgrade;

pub(crate) use loader::hex::hex;

/// Exactly `N` bytes from lower-case hex digits; `None` for any other text.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

const fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_there_and_back() {
        assert_eq!(hex(&[0x00, 0xa9, 0xff]), "00a9ff");
        assert_eq!(from_hex("00a9ff"), Some([0x00, 0xa9, 0xff]));
        for wrong in ["00a9f", "00a9f0f", "00a9fF", "00a9fg", "00a9\u{e9}", ""] {
            assert_eq!(from_hex::<3>(wrong), None, "{wrong}");
        }
    }
}

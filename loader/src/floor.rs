//! The floor of a cold boot: `instar.floor=N` on the command line. No image of a lower security version runs.

/// The key on the command line.
pub const KEY: &str = "instar.floor";

/// A floor that is no number. A machine that is asked for a floor must not start without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("instar.floor on the command line is not a number from 0 to 2^64 - 1")]
pub struct BadFloor;

/// The value of `instar.floor`.
///
/// # Errors
/// [`BadFloor`] if it is anything but decimal digits, or too large.
pub fn value(text: &str) -> Result<u64, BadFloor> {
    // `str::parse` alone would also take a leading plus sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadFloor);
    }
    text.parse().map_err(|_| BadFloor)
}

/// The floor that a command line asks for: the highest, if it is given more than once; 0 if it is not given.
///
/// # Errors
/// [`BadFloor`] if any of them is no number, or a word is the key alone.
pub fn asked_for(command_line: &str) -> Result<u64, BadFloor> {
    let mut floor = 0;
    for word in command_line.split_ascii_whitespace() {
        match word.split_once('=') {
            Some((KEY, text)) => floor = floor.max(value(text)?),
            None if word == KEY => return Err(BadFloor),
            _ => {}
        }
    }
    Ok(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_holds() {
        assert_eq!(asked_for(""), Ok(0));
        assert_eq!(asked_for("instar.log=debug instar.floor=7"), Ok(7));
        assert_eq!(asked_for("instar.floor=7\tinstar.floor=3"), Ok(7));
        assert_eq!(asked_for("instar.floor=18446744073709551615"), Ok(u64::MAX));
        assert_eq!(asked_for("xinstar.floor=x instar.floors=x floor=9"), Ok(0));
    }

    #[test]
    fn what_is_no_number_is_no_floor() {
        for line in [
            "instar.floor",
            "instar.floor=",
            "instar.floor=x",
            "instar.floor=-1",
            "instar.floor=+1",
            "instar.floor=0x1",
            "instar.floor=18446744073709551616",
            "instar.floor=x instar.floor=1",
            "instar.floor=1 instar.floor=x",
        ] {
            assert_eq!(asked_for(line), Err(BadFloor), "{line}");
        }
    }
}

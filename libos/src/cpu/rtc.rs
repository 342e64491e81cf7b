//! Wall-clock time from the battery-backed clock (MC146818), to the second.

use x86_64::instructions::port::Port;

/// Register numbers.
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;

const UPDATING: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;

/// Seconds since 1970 as the clock tells, taken to be UTC.
pub(super) fn unix_seconds() -> u64 {
    loop {
        let first = read_all();
        if read(STATUS_A) & UPDATING == 0 && first == read_all() {
            return decode(first, read(STATUS_B));
        }
    }
}

fn read_all() -> [u8; 6] {
    [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR].map(read)
}

fn read(register: u8) -> u8 {
    const NMI_OFF: u8 = 0;
    // SAFETY: the index and data ports of the clock; reading its time registers changes nothing.
    unsafe {
        Port::<u8>::new(0x70).write(register | NMI_OFF);
        Port::<u8>::new(0x71).read()
    }
}

/// `time` is seconds, minutes, hours, day, month, year of the century.
fn decode(time: [u8; 6], status_b: u8) -> u64 {
    const AFTERNOON: u8 = 1 << 7;
    let number = |value: u8| {
        u64::from(if status_b & BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 15)
        })
    };
    let [seconds, minutes, hours, day, month, year] = time;
    let mut hour = number(hours & !AFTERNOON);
    if status_b & HOURS_24 == 0 {
        hour = hour % 12 + if hours & AFTERNOON != 0 { 12 } else { 0 };
    }
    (days_since_1970(2000 + number(year), number(month), number(day)) * 24 + hour) * 3600
        + number(minutes) * 60
        + number(seconds)
}

/// Days from 1970-01-01 in the Gregorian calendar, for years from 1970 on. Counts from March, so that the leap day is
/// a year's last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    // 1970-01-01 on that count.
    days.saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(days_since_1970(2026, 11, 23), 20_780);
    }

    #[test]
    fn all_four_ways_to_write_an_hour() {
        let expected = 20_780 * 86_400 + 15 * 3600 + 4 * 60 + 59;
        assert_eq!(decode([0x59, 0x04, 0x15, 0x23, 0x11, 0x26], HOURS_24), expected);
        assert_eq!(decode([59, 4, 15, 23, 11, 26], HOURS_24 | BINARY), expected);
        assert_eq!(decode([0x59, 0x04, 0x83, 0x23, 0x11, 0x26], 0), expected);
        assert_eq!(decode([59, 4, 0x83, 23, 11, 26], BINARY), expected);
    }
}

//! Which instructions are events, and how an event is written.

use std::fmt;

/// What an instruction means to the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `WBINVD`: write back and invalidate this core's caches.
    Wbinvd,
    /// `WBNOINVD`: write back, but keep the lines. Not a flush in the sense of the promise.
    Wbnoinvd,
    /// The mark of an accepted order.
    Order,
    /// The mark where an image begins to stop its cores.
    Stop,
    /// The mark at the first instruction of an image.
    Enter,
}

/// `nop dword [rax + disp32]`: the displacement is the mark.
const MARK: [u8; 3] = [0x0f, 0x1f, 0x80];

impl Kind {
    /// The event that the instruction with these bytes is, if it is one.
    pub(crate) fn of(instruction: &[u8]) -> Option<Self> {
        if let Some(mark) = instruction.strip_prefix(&MARK) {
            return match mark {
                b"ORDR" => Some(Self::Order),
                b"STOP" => Some(Self::Stop),
                b"ENTR" => Some(Self::Enter),
                _ => None,
            };
        }
        // Prefixes change nothing but for F3, which makes it WBNOINVD (Intel SDM volume 2, WBNOINVD).
        let (prefixes, opcode) = instruction.split_at_checked(instruction.len().checked_sub(2)?)?;
        if opcode != [0x0f, 0x09] || !prefixes.iter().copied().all(is_prefix) {
            return None;
        }
        Some(if prefixes.contains(&0xf3) {
            Self::Wbnoinvd
        } else {
            Self::Wbinvd
        })
    }

    /// Whether the instruction takes long on hardware.
    #[cfg_attr(
        test,
        expect(dead_code, reason = "only the plugin asks, and a test program has no plugin")
    )]
    pub(crate) fn is_flush(self) -> bool {
        matches!(self, Self::Wbinvd | Self::Wbnoinvd)
    }
}

/// Legacy prefixes and REX (Intel SDM volume 2, 2.1.1 and 2.2.1).
fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wbinvd => "wbinvd",
            Self::Wbnoinvd => "wbnoinvd",
            Self::Order => "order",
            Self::Stop => "stop",
            Self::Enter => "enter",
        })
    }
}

/// An instruction worth a line: what it is and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// What it means.
    pub(crate) kind: Kind,
    /// Its virtual address, which is the physical one in all code that we watch.
    pub(crate) address: u64,
}

impl Site {
    /// The line for one execution of this instruction.
    pub(crate) fn line(self, sequence: u64, vcpu: u32) -> String {
        format!("{sequence} {} vcpu={vcpu} addr={:#x}\n", self.kind, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Site};

    #[test]
    fn flushes_are_told_apart() {
        assert_eq!(Kind::of(&[0x0f, 0x09]), Some(Kind::Wbinvd));
        assert_eq!(Kind::of(&[0xf3, 0x0f, 0x09]), Some(Kind::Wbnoinvd));
        assert_eq!(Kind::of(&[0x66, 0xf3, 0x48, 0x0f, 0x09]), Some(Kind::Wbnoinvd));
        assert_eq!(Kind::of(&[0x48, 0x0f, 0x09]), Some(Kind::Wbinvd));
    }

    #[test]
    fn the_marks_are_exact() {
        assert_eq!(Kind::of(b"\x0f\x1f\x80ORDR"), Some(Kind::Order));
        assert_eq!(Kind::of(b"\x0f\x1f\x80STOP"), Some(Kind::Stop));
        assert_eq!(Kind::of(b"\x0f\x1f\x80ENTR"), Some(Kind::Enter));
        assert_eq!(Kind::of(b"\x0f\x1f\x80ENTS"), None);
        assert_eq!(Kind::of(b"\x0f\x1f\x80ENTRY"), None);
        assert_eq!(Kind::of(b"\x0f\x1f\x84ORDR"), None);
    }

    #[test]
    fn nothing_else_is_an_event() {
        // CPUID, INVD, a MOV whose constant ends in 0f 09, an addressing form that does, one byte, none.
        for bytes in [
            &[0x0f, 0xa2][..],
            &[0x0f, 0x08],
            &[0xb8, 0x00, 0x00, 0x0f, 0x09],
            &[0x80, 0x0f, 0x09],
            &[0x09],
            &[],
        ] {
            assert_eq!(Kind::of(bytes), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_line_is_what_the_judge_reads() {
        let site = Site {
            kind: Kind::Wbinvd,
            address: 0x20_0040,
        };
        assert_eq!(site.line(7, 3), "7 wbinvd vcpu=3 addr=0x200040\n");
    }
}

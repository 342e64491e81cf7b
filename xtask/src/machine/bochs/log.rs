//! Bochs's log, read for flushes and for the moments at which images are entered. Pure.
//!
//! Bochs executes all cores in one thread and writes a line when something happens: the order of the lines is the order of
//! events, of all cores and devices, and no guest can change a line that has been written.
//!
//! A flush is the line that the emulated WBINVD writes. An image is entered where COM1 is set up anew (the divisor latch is
//! opened: 16550 datasheet, line control register, bit 7) and the first byte that is then sent is the stage code `E`: an image
//! does that first of all, and a running one never again.

/// A WBINVD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Bochs's time; cores take turns, so that a whole turn of all cores has one tick.
    pub tick: u64,
    /// The core that executed it.
    pub core: u32,
}

/// What happened up to the first output of an image, or up to the end of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// In the order in which they were executed.
    pub flushes: Vec<Flush>,
    /// When the image that ends this part wrote its first byte; `None`: the log ends here.
    pub entered: Option<u64>,
}

impl Part {
    /// The cores that flushed, in that order.
    pub fn cores(&self) -> Vec<u32> {
        self.flushes.iter().map(|flush| flush.core).collect()
    }
}

/// Divides `log` at each entry of an image. The last part has none.
///
/// A whole log has the firmware's part first (a BIOS flushes, too), then one for each instar. What follows the place that the
/// log had reached when an order was sent has the order's replacement first.
pub fn parts(log: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut part = Part::default();
    let mut line = Line::default();
    for (tick, event) in log.lines().filter_map(event) {
        match event {
            Event::Flush { core } => part.flushes.push(Flush { tick, core }),
            Event::Written { register, value } => {
                if line.sends(register, value) == Some(First(b'E')) {
                    part.entered = Some(tick);
                    parts.push(std::mem::take(&mut part));
                }
            }
        }
    }
    parts.push(part);
    parts
}

enum Event {
    Flush { core: u32 },
    Written { register: u16, value: u8 },
}

/// `TICKSd[DEVICE] MESSAGE`
fn event(line: &str) -> Option<(u64, Event)> {
    let (tick, rest) = line.split_once("d[")?;
    let (device, message) = rest.split_once("] ")?;
    let event = if let Some(core) = device.trim().strip_prefix("CPU") {
        if !message.starts_with("WBINVD:") {
            return None;
        }
        Event::Flush {
            core: core.parse().ok()?,
        }
    } else {
        let written = message.strip_prefix("com1 register write to  address: 0x")?;
        let (register, value) = written.split_once(" = 0x")?;
        Event::Written {
            register: u16::from_str_radix(register, 16).ok()?,
            value: u8::from_str_radix(value, 16).ok()?,
        }
    };
    Some((tick.parse().ok()?, event))
}

/// The first byte that was sent since COM1 was set up.
#[derive(PartialEq, Eq)]
struct First(u8);

/// COM1.
#[derive(Default)]
struct Line {
    latch: bool,
    fresh: bool,
}

impl Line {
    fn sends(&mut self, register: u16, value: u8) -> Option<First> {
        const DATA: u16 = 0x3f8;
        const CONTROL: u16 = 0x3fb;
        const LATCH: u8 = 1 << 7;
        match register {
            CONTROL => {
                self.latch = value & LATCH != 0;
                self.fresh |= self.latch;
                None
            }
            DATA if !self.latch => std::mem::take(&mut self.fresh).then_some(First(value)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a log that Bochs 2.7 wrote of a machine with four cores: the BIOS's flushes, the first stage's and the first
    /// image's first bytes, a replacement.
    const EXCERPT: &str = include_str!("excerpt.txt");

    #[test]
    fn a_log_is_divided_at_the_images() {
        let parts = parts(EXCERPT);
        let cores: Vec<_> = parts.iter().map(Part::cores).collect();
        assert_eq!(cores, [vec![0, 0], vec![1, 2, 3, 0], vec![]]);
        assert!(parts[0].entered < parts[1].entered && parts[2].entered.is_none());
        for part in &parts[..2] {
            assert!(part.flushes.iter().all(|flush| Some(flush.tick) <= part.entered));
        }
    }

    #[test]
    fn an_e_in_a_text_is_no_image() {
        let log = "00000000001d[SER   ] com1 register write to  address: 0x03fb = 0x80\n\
                   00000000002d[SER   ] com1 register write to  address: 0x03f8 = 0x45\n\
                   00000000003d[SER   ] com1 register write to  address: 0x03fb = 0x03\n\
                   00000000004d[SER   ] com1 register write to  address: 0x03f8 = 0x31\n\
                   00000000005d[SER   ] com1 register write to  address: 0x03f8 = 0x45\n\
                   00000000006d[CPU12 ] WBINVD: WB-Invalidate internal caches !\n";
        assert_eq!(
            parts(log),
            [Part {
                flushes: vec![Flush { tick: 6, core: 12 }],
                entered: None
            }]
        );
    }
}

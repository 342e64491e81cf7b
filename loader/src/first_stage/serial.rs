//! COM1, as little as it takes to say what happened: 115200 8N1, polled.

use core::arch::asm;
use core::fmt;

const PORT: u16 = 0x3f8;
/// So many looks at a full transmitter, then the byte is given up: a missing UART must not stop the boot.
const PATIENCE: u32 = 1 << 20;

/// COM1.
pub struct Serial;

impl Serial {
    /// Sets the line's speed and format. Bochs takes the word length seriously.
    pub fn init() {
        // Interrupts off; divisor latch on; divisor 1; 8N1 (latch off); FIFO on and cleared; DTR and RTS.
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 3)] {
            write(register, value);
        }
    }

    /// Writes a stage code.
    pub fn code(code: u8) {
        let mut patience = PATIENCE;
        // Line status register, transmitter holding register empty.
        while read(5) & 0x20 == 0 && patience > 0 {
            patience -= 1;
        }
        write(0, code);
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                Self::code(b'\r');
            }
            Self::code(byte);
        }
        Ok(())
    }
}

fn write(register: u16, value: u8) {
    // SAFETY: the ports 0x3f8 to 0x3ff belong to COM1 and touch no memory.
    unsafe { asm!("out dx, al", in("dx") PORT + register, in("al") value, options(nomem, nostack)) };
}

fn read(register: u16) -> u8 {
    let value;
    // SAFETY: the ports 0x3f8 to 0x3ff belong to COM1 and touch no memory.
    unsafe { asm!("in al, dx", in("dx") PORT + register, out("al") value, options(nomem, nostack)) };
    value
}

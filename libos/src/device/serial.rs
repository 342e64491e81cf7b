//! The serial line: a 16550 at COM1, 115200 baud, 8 data bits, no parity, one stop bit.

use core::fmt::{self, Write};

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};
use x86_64::instructions::port::Port;

const COM1: u16 = 0x3f8;

static LINE: Mutex<Option<Uart16550<PioBackend>>> = Mutex::new(None);

/// Sets the line up. Without a UART nothing is ever written.
pub fn init() {
    // SAFETY: COM1 is this module's; the first stage, which used it before, is gone.
    let Ok(mut uart) = (unsafe { Uart16550::new_port(COM1) }) else {
        return;
    };
    let config = Config {
        baud_rate: BaudRate::Baud115200,
        ..Config::default()
    };
    if uart.init(config).is_ok() {
        *LINE.lock() = Some(uart);
    }
}

/// Writes one stage code, without a lock: for the moments in which there is nothing else.
pub fn stage(code: u8) {
    // SAFETY: the transmit register; if it is full the byte is lost, which harms nobody.
    unsafe { Port::<u8>::new(COM1).write(code) };
}

/// Writes a line. Whole lines of different cores do not mix.
pub fn write(text: fmt::Arguments<'_>) {
    if let Some(uart) = LINE.lock().as_mut() {
        put(uart, text);
    }
}

/// Writes a line even if the core that holds the line will never let it go: for the last words.
pub fn write_anyway(text: fmt::Arguments<'_>) {
    for _ in 0..1_000_000 {
        if let Some(mut line) = LINE.try_lock() {
            if let Some(uart) = line.as_mut() {
                put(uart, text);
            }
            return;
        }
        core::hint::spin_loop();
    }
    // SAFETY: whoever held the lock has had the time of many lines; mixing two lines is better than silence.
    unsafe { LINE.force_unlock() };
    if let Some(uart) = LINE.lock().as_mut() {
        put(uart, text);
    }
}

fn put(uart: &mut Uart16550<PioBackend>, text: fmt::Arguments<'_>) {
    struct Newlines<'a>(&'a mut Uart16550<PioBackend>);
    impl Write for Newlines<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for byte in text.bytes() {
                if byte == b'\n' {
                    send(self.0, b'\r');
                }
                send(self.0, byte);
            }
            Ok(())
        }
    }
    // Writing to the UART does not fail.
    let _ = Newlines(uart).write_fmt(format_args!("{text}\n"));
}

/// Waits for room, and sends one byte. A look at a port takes much longer than an instruction, most of all where an emulator
/// answers it, and a byte takes 87 us: it is not looked at all the time.
fn send(uart: &mut Uart16550<PioBackend>, byte: u8) {
    while uart.try_send_byte(byte).is_err() {
        for _ in 0..64 {
            core::hint::spin_loop();
        }
    }
}

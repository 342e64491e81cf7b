//! Where `log` goes: the serial line, and the telemetry's log records.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::cpu::{stop, time};
use crate::device::serial;
use crate::replace::probation;

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // These tell at `info` what only their authors need.
        let chatty = ["virtio_drivers", "hermit_entry", "smoltcp"]
            .iter()
            .any(|name| metadata.target().starts_with(name));
        metadata.level() <= if chatty { Level::Warn } else { Level::Trace }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = time::now();
        let (seconds, micros) = (now.0 / 1_000_000_000, now.0 / 1000 % 1_000_000);
        serial::write(format_args!(
            "[{seconds:5}.{micros:06}] {:5} {}: {}",
            record.level(),
            record.target(),
            record.args()
        ));
        if probation::is_on_trial()
            && let Some(pen) = stop::pen()
        {
            pen.keep_line(format_args!(
                "{} {}: {}",
                record.level(),
                record.target(),
                record.args()
            ));
        }
        crate::telemetry::keep_record(now, record);
    }

    fn flush(&self) {}
}

/// Starts logging at `level`.
pub(super) fn init(level: LevelFilter) {
    static LOGGER: Logger = Logger;
    // Fails only if there is a logger already.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

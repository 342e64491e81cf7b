//! What the rest of the library OS asks of the exporter, in an image that has none.

/// Nothing is sent, so that nothing waits.
pub(crate) mod sink {
    use alloc::string::String;

    use crate::telemetry::counters::Counters;

    pub(crate) fn endpoint() -> Option<String> {
        None
    }

    pub(crate) fn counters() -> Counters {
        Counters::default()
    }

    pub(crate) fn delivered() -> u64 {
        0
    }

    pub(crate) fn dropped_records() -> u64 {
        0
    }
}

/// Traces are OTLP's only.
pub(crate) mod upgrade {
    use alloc::string::String;

    use crate::cpu::time::Instant;
    use crate::replace::handover::Handover;
    use crate::replace::machine::Machine;
    use crate::replace::timeline::Timeline;
    #[cfg(feature = "syslog")]
    use crate::telemetry::span::Context;

    #[expect(dead_code, reason = "only a span would tell it")]
    pub(crate) struct Successor {
        pub name: String,
        pub version: String,
        pub elf_bytes: u64,
    }

    #[cfg(feature = "syslog")]
    pub(crate) fn under_way() -> Option<Context> {
        None
    }

    pub(crate) fn begins(_: &Timeline) {}

    pub(crate) fn replacement_begins(_: &Machine) {}

    pub(crate) fn replacement_failed(_: &Machine, _: &Timeline, _: &Successor, _: &str) {}

    pub(crate) fn committed(_: &Handover, _: &Timeline, _: Instant) {}

    pub(crate) fn tell_committed(_: &Machine) {}
}

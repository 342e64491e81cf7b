//! The allow-list: every attribute and every metric that may leave the machine.
//!
//! An [`Attribute`] cannot be made outside this file, and only an [`Attribute`] can be exported, so this list is
//! complete by construction. There are two exceptions. What the operator wrote into `OTEL_RESOURCE_ATTRIBUTES` comes from
//! outside the machine and tells nobody anything new. And an application has metrics of its own ([`super::instruments`]):
//! their names are part of the signed image, their values are numbers, and they have no attributes. Nothing here may carry memory
//! contents or addresses.
//!
//! Names and units follow OpenTelemetry's semantic conventions where these have one (a test compares); our own begin
//! with `instar.`.

/// The name of an attribute that may be exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute(&'static str);

impl Attribute {
    /// The name as it is sent.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// The attribute of this name, if it may be exported: for names that cross the jump as text.
    pub fn named(name: &str) -> Option<Attribute> {
        ALL.iter().copied().find(|attribute| attribute.0 == name)
    }
}

/// How a metric behaves over time (OpenTelemetry metrics data model, "Metric points").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only ever grows, from the instar's start: a monotonic cumulative sum.
    Counter,
    /// Grows and shrinks, and adding up machines makes sense: a cumulative sum.
    UpDownCounter,
    /// A reading that is not worth adding up.
    Gauge,
    /// How often something measured was how large: cumulative counts by explicit bounds.
    Histogram,
}

/// A metric that may be exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    pub(super) description: &'static str,
}

impl Metric {
    /// The name as it is sent.
    pub const fn name(self) -> &'static str {
        self.name
    }
    /// The unit in UCUM, as the semantic conventions write it.
    pub const fn unit(self) -> &'static str {
        self.unit
    }
    /// How it behaves over time.
    pub const fn kind(self) -> Kind {
        self.kind
    }
    /// What it tells, in a sentence.
    pub const fn description(self) -> &'static str {
        self.description
    }
}

// The description is both the constant's documentation and a row of the manual (`docs/telemetry.md`). An image that does not
// ask for the list of attributes does not contain it; a metric's description is what Prometheus shows as its help.
macro_rules! attributes {
    ($($constant:ident = $name:literal, $description:literal;)*) => {
        $(#[doc = $description] pub const $constant: Attribute = Attribute($name);)*
        const ALL: &[Attribute] = &[$($constant),*];
        /// Every attribute with its description, for the manual.
        pub const ATTRIBUTES: &[(Attribute, &str)] = &[$(($constant, $description)),*];
    };
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$unit:literal], $description:literal;)*) => {
        $(#[doc = $description]
        pub const $constant: Metric = Metric {
            name: $name,
            unit: $unit,
            kind: Kind::$kind,
            description: $description,
        };)*
        /// Every metric of the library OS, for the manual.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

attributes! {
    SERVICE_NAME = "service.name", "The application's name: `OTEL_SERVICE_NAME`, else the image's.";
    SERVICE_VERSION = "service.version", "The image's version.";
    SERVICE_INSTANCE_ID = "service.instance.id", "A UUID, new in each instar.";
    HOST_ID = "host.id", "The machine's name towards the operator: `instar.host-id`, else its MAC address.";
    OS_TYPE = "os.type", "`instar`.";
    TELEMETRY_SDK_NAME = "telemetry.sdk.name", "`instar`.";
    TELEMETRY_SDK_LANGUAGE = "telemetry.sdk.language", "`rust`.";
    TELEMETRY_SDK_VERSION = "telemetry.sdk.version", "The library OS's version.";
    VCS_REVISION = "vcs.ref.head.revision", "The source revision of the image, when its manifest has one.";
    IMAGE_NAME = "instar.image.name", "The image's name, as its manifest has it.";
    GENERATION = "instar.generation", "Counted from 1 at cold boot, one more with each replacement.";
    PLATFORM_ROLE = "instar.platform.role", "`host`, `tdx-guest` or `sev-guest`.";
    PARTIAL_WRITE_ERRATUM = "instar.platform.partial_write_erratum", "Whether a partial write to a TDX private page poisons it on this part.";
    TDX_KEYIDS = "instar.tdx.keyids", "Number of TDX KeyIDs that the BIOS set aside, where there is such a register.";
    TDX_FIRST_KEYID = "instar.tdx.first_keyid", "The first TDX KeyID, where there is one.";
    TDX_MODULE = "instar.tdx.module", "The TDX module's version, `unknown` or `none`; only where TDX is enabled by the BIOS.";
    MKTME_KEYIDS = "instar.mktme.keyids", "Number of MKTME KeyIDs, where there is such a register.";
    SME = "instar.sme", "`absent`, `present` or `active`, on a host.";
    MEASUREMENT = "instar.measurement", "The chain of the images that this machine has run since its cold boot: SHA-384, in hex digits.";
    FROM_VERSION = "instar.replacement.from", "The version that was replaced.";
    TO_VERSION = "instar.replacement.to", "The version that replaced it.";
    OUTCOME = "instar.replacement.outcome", "How a replacement ended: `committed`, `rolled-back`, `failed`.";
    ELF_BYTES = "instar.image.elf_bytes", "Size of the image's ELF, in bytes.";
    FLUSH_POLICY = "instar.flush.policy", "`auto`, `always` or `never`.";
    FLUSHED = "instar.flush.done", "Whether caches were written back before the jump.";
    FLUSH_CYCLES = "instar.flush.cycles", "Duration of one core's flush, in its time-stamp counter's cycles.";
    CORE = "cpu.logical_number", "A core's number, from 0.";
    CORES = "instar.cores", "Number of cores that took part.";
    ERROR_TYPE = "error.type", "The error's code, as the control plane has it.";
    CPU_MODE = "cpu.mode", "`system` (at work) or `idle` (halted).";
    MEMORY_STATE = "system.memory.state", "`free` or `used`.";
    CHUNK_STATE = "instar.chunk.state", "`free`, `own`, `staged`, `predecessor`, `private` or `preserved`.";
    PRIVATE_PURPOSE = "instar.private.purpose", "Whom private memory is for: `module` (the TDX module) or `td` (a guest).";
    PRIVATE_PAGES_RESET = "instar.private.pages_reset", "Private pages of 4 KiB that were reset before the jump.";
    DIRECTION = "network.io.direction", "`receive` or `transmit`.";
    TRANSPORT = "network.transport", "`tcp`.";
    CONNECTION_STATE = "network.connection.state", "A TCP socket's state, as RFC 9293 has it: `listen`, `established`, `time_wait` and so on.";
    KEYID_KIND = "instar.keyid.kind", "`mktme` or `tdx`.";
    FLUSH_MOMENT = "instar.flush.moment", "`stop` (nobody is served meanwhile) or `early` (before that).";
    SIGNAL = "instar.telemetry.signal", "`metrics`, `logs` or `traces`.";
    STEP = "instar.telemetry.step", "`encode` or `send`.";
    RESULT = "instar.telemetry.result", "`delivered`, `rejected` (by the collector) or `dropped` (here).";
}

metrics! {
    UPTIME = Gauge "system.uptime" ["s"], "Time since this instar was entered.";
    MEMORY_USAGE = UpDownCounter "system.memory.usage" ["By"], "The machine's memory by state.";
    MEMORY_LIMIT = UpDownCounter "system.memory.limit" ["By"], "The machine's memory.";
    CPU_TIME = Counter "system.cpu.time" ["s"], "Time that each core has spent at work and halted.";
    CPU_COUNT = UpDownCounter "system.cpu.logical.count" ["{cpu}"], "Cores online.";
    NETWORK_IO = Counter "system.network.io" ["By"], "Bytes received and transmitted.";
    NETWORK_PACKETS = Counter "system.network.packet.count" ["{packet}"], "Packets received and transmitted.";
    NETWORK_DROPS = Counter "system.network.packet.dropped" ["{packet}"], "Packets dropped though they had no error.";
    NETWORK_ERRORS = Counter "system.network.errors" ["{error}"], "Frames that the network card received damaged or too long, or did not take.";
    CONNECTIONS = UpDownCounter "system.network.connection.count" ["{connection}"], "TCP sockets by state.";
    TASKS = UpDownCounter "instar.tasks" ["{task}"], "Tasks by the core that runs them: those that have not ended, and those that somebody still refers to.";
    CHUNKS = UpDownCounter "instar.chunks" ["{chunk}"], "Chunks of memory by state.";
    PRIVATE_PAGES = UpDownCounter "instar.private.pages" ["{page}"], "Private pages of 4 KiB, by purpose.";
    KEYIDS = Gauge "instar.keyids" ["{keyid}"], "KeyIDs as the BIOS has divided them, where there is such a register.";
    HEAP_SIZE = UpDownCounter "instar.heap.size" ["By"], "The heap's size.";
    HEAP_USAGE = UpDownCounter "instar.heap.usage" ["By"], "What of the heap is used.";
    MACHINE_CHECKS = Counter "instar.machine_checks" ["{error}"], "Machine-check errors since cold boot that the machine has survived.";
    NMIS = Counter "instar.nmis" ["{interrupt}"], "Non-maskable interrupts since cold boot: those of a stop, and those that nobody here sent.";
    SECURITY_FLOOR = Gauge "instar.security_floor" ["{version}"], "The security version below which the machine takes no image.";
    REPLACEMENTS = Counter "instar.replacements" ["{replacement}"], "Replacements by outcome: the committed ones since cold boot, the others since this instar was entered, which went on after them.";
    BLACKOUT = Gauge "instar.replacement.blackout" ["s"], "How long nobody answered in the newest committed replacement, once that is known.";
    FLUSH_DURATION = Histogram "instar.flush.duration" ["s"], "Duration of a core's cache flush, in the replacements that this instar took part in: the one that brought it here, and those that it went on after.";
    EXPORTS = Counter "instar.telemetry.requests" ["{request}"], "Export requests by signal and result.";
    EXPORT_RETRIES = Counter "instar.telemetry.retries" ["{request}"], "Export requests that were sent again.";
    REJECTED_ITEMS = Counter "instar.telemetry.rejected_items" ["{item}"], "Points, records and spans that the collector refused in requests it accepted.";
    DROPPED_RECORDS = Counter "instar.telemetry.dropped_records" ["{record}"], "Log records dropped before they became part of a request, since more than 128 had come.";
    EXPORT_CYCLES = Counter "instar.telemetry.cycles" ["{cycle}"], "Cycles of the time-stamp counter that export requests took to encode (traces: not measured) and to send, waiting not included.";
    EXPORT_QUEUE = UpDownCounter "instar.telemetry.queue.usage" ["By"], "Bytes that wait for the collector.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_semantic_conventions::{attribute, metric};

    #[test]
    fn names_agree_with_the_semantic_conventions() {
        let ours = [
            (SERVICE_NAME, attribute::SERVICE_NAME),
            (SERVICE_VERSION, attribute::SERVICE_VERSION),
            (SERVICE_INSTANCE_ID, attribute::SERVICE_INSTANCE_ID),
            (HOST_ID, attribute::HOST_ID),
            (OS_TYPE, attribute::OS_TYPE),
            (TELEMETRY_SDK_NAME, attribute::TELEMETRY_SDK_NAME),
            (TELEMETRY_SDK_LANGUAGE, attribute::TELEMETRY_SDK_LANGUAGE),
            (TELEMETRY_SDK_VERSION, attribute::TELEMETRY_SDK_VERSION),
            (VCS_REVISION, attribute::VCS_REF_HEAD_REVISION),
            (CORE, attribute::CPU_LOGICAL_NUMBER),
            (ERROR_TYPE, attribute::ERROR_TYPE),
            (CPU_MODE, attribute::CPU_MODE),
            (MEMORY_STATE, attribute::SYSTEM_MEMORY_STATE),
            (TRANSPORT, attribute::NETWORK_TRANSPORT),
            (CONNECTION_STATE, attribute::NETWORK_CONNECTION_STATE),
            (DIRECTION, attribute::NETWORK_IO_DIRECTION),
        ];
        for (attribute, convention) in ours {
            assert_eq!(attribute.name(), convention);
        }
        let conventional = ATTRIBUTES
            .iter()
            .filter(|(attribute, _)| !attribute.name().starts_with("instar."));
        assert_eq!(
            conventional.count(),
            ours.len(),
            "an attribute that is neither ours nor compared"
        );

        let ours = [
            (UPTIME, metric::SYSTEM_UPTIME),
            (MEMORY_USAGE, metric::SYSTEM_MEMORY_USAGE),
            (MEMORY_LIMIT, metric::SYSTEM_MEMORY_LIMIT),
            (CPU_TIME, metric::SYSTEM_CPU_TIME),
            (CPU_COUNT, metric::SYSTEM_CPU_LOGICAL_COUNT),
            (NETWORK_IO, metric::SYSTEM_NETWORK_IO),
            (NETWORK_PACKETS, metric::SYSTEM_NETWORK_PACKET_COUNT),
            (NETWORK_DROPS, metric::SYSTEM_NETWORK_PACKET_DROPPED),
            (NETWORK_ERRORS, metric::SYSTEM_NETWORK_ERRORS),
            (CONNECTIONS, metric::SYSTEM_NETWORK_CONNECTION_COUNT),
        ];
        for (metric, convention) in ours {
            assert_eq!(metric.name(), convention);
        }
        let conventional = METRICS
            .iter()
            .filter(|metric| !metric.name().starts_with("instar."));
        assert_eq!(
            conventional.count(),
            ours.len(),
            "a metric that is neither ours nor compared"
        );
    }

    #[test]
    fn names_are_unique_and_found() {
        for (index, (attribute, description)) in ATTRIBUTES.iter().enumerate() {
            assert!(!description.is_empty());
            assert_eq!(Attribute::named(attribute.name()), Some(*attribute));
            assert!(ATTRIBUTES[..index].iter().all(|(other, _)| other != attribute));
        }
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(metric.description().ends_with('.'), "{}", metric.name());
            assert!(METRICS[..index].iter().all(|other| other.name() != metric.name()));
        }
        assert_eq!(Attribute::named("user.password"), None);
    }
}

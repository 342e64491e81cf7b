//! Log records (OTLP, `logs.v1`; severities of the logs data model).

use alloc::vec::Vec;
use prost::Message;

use super::proto::{
    AnyValue, InstrumentationScope, LogRecord, LogsRequest, Resource, ResourceLogs, ScopeLogs, Value,
};
use super::records::{MAX_MESSAGE, shortened};
use super::span::Context;

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When, in nanoseconds since the cold boot.
    pub machine_ns: u64,
    /// How bad.
    pub level: log::Level,
    /// Who says it: becomes the instrumentation scope.
    pub target: &'a str,
    /// What is said.
    pub message: &'a str,
    /// The replacement that it belongs to: its root span.
    pub trace: Option<Context>,
}

/// The body of a logs request: an `ExportLogsServiceRequest` with the records in their order, by scope.
/// `boot_unix_ns` is the time of the cold boot in Unix nanoseconds, `now_unix_ns` the present. Empty without records.
pub fn body(boot_unix_ns: u64, now_unix_ns: u64, resource: &Resource, records: &[Record]) -> Vec<u8> {
    let mut scope_logs: Vec<ScopeLogs> = Vec::new();
    for record in records {
        let named = |logs: &&mut ScopeLogs| {
            logs.scope
                .as_ref()
                .is_some_and(|scope| scope.name == record.target)
        };
        let encoded = encodable(record, boot_unix_ns, now_unix_ns);
        match scope_logs.iter_mut().find(named) {
            Some(logs) => logs.log_records.push(encoded),
            None => scope_logs.push(ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: record.target.into(),
                }),
                log_records: alloc::vec![encoded],
            }),
        }
    }
    if scope_logs.is_empty() {
        return Vec::new();
    }
    let resource_logs = alloc::vec![ResourceLogs {
        resource: Some(resource.clone()),
        scope_logs
    }];
    LogsRequest { resource_logs }.encode_to_vec()
}

fn encodable(record: &Record, boot_unix_ns: u64, now_unix_ns: u64) -> LogRecord {
    // SeverityNumber: TRACE 1, DEBUG 5, INFO 9, WARN 13, ERROR 17.
    let severity_number = match record.level {
        log::Level::Trace => 1,
        log::Level::Debug => 5,
        log::Level::Info => 9,
        log::Level::Warn => 13,
        log::Level::Error => 17,
    };
    let message = shortened(record.message.into(), MAX_MESSAGE);
    LogRecord {
        time_unix_nano: boot_unix_ns.saturating_add(record.machine_ns),
        observed_time_unix_nano: now_unix_ns,
        severity_number,
        severity_text: record.level.as_str().into(),
        body: Some(AnyValue {
            value: Some(Value::Text(message)),
        }),
        flags: record.trace.map_or(0, |trace| trace.flags.into()),
        trace_id: record
            .trace
            .map(|trace| trace.trace_id.bytes().to_vec())
            .unwrap_or_default(),
        span_id: record
            .trace
            .map(|trace| trace.span_id.bytes().to_vec())
            .unwrap_or_default(),
    }
}

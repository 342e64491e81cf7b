//! Log records (logs data model).

use super::Judge;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

impl Judge<'_> {
    pub(super) fn logs(&mut self, body: &ExportLogsServiceRequest) {
        self.demand(!body.resource_logs.is_empty(), "logs", "an empty request");
        for part in &body.resource_logs {
            self.resource("logs", part.resource.as_ref());
            for scope in &part.scope_logs {
                self.scope("logs", scope.scope.as_ref());
                self.demand(!scope.log_records.is_empty(), "logs", "a scope without records");
                for record in &scope.log_records {
                    let text = super::shown(record.body.as_ref());
                    let place = format!("log record {text}");
                    self.moment(&place, "its time", record.time_unix_nano);
                    self.moment(&place, "its observed time", record.observed_time_unix_nano);
                    self.demand(
                        record.time_unix_nano <= record.observed_time_unix_nano,
                        &place,
                        "it was observed before it happened",
                    );
                    self.demand(
                        (1..=24).contains(&record.severity_number),
                        &place,
                        "its severity is not from 1 to 24",
                    );
                    self.text(&place, "its severity's text", &record.severity_text);
                    match record.body.as_ref().and_then(|any| any.value.as_ref()) {
                        Some(value) => self.value(&place, "its body", value),
                        None => self.complain(&place, "it has no body"),
                    }
                    self.attributes(&place, &record.attributes, false);
                    self.optional_id(&place, "trace id", &record.trace_id, 16);
                    self.optional_id(&place, "span id", &record.span_id, 8);
                }
            }
        }
    }

    fn optional_id(&mut self, place: &str, name: &str, id: &[u8], length: usize) {
        let right = id.is_empty() || super::spans::is_id(id, length);
        self.demand(right, place, &format!("its {name} is {}", super::hex(id)));
    }
}

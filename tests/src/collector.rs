//! An OpenTelemetry collector for one test: takes OTLP over HTTP, and remembers spans, log records and metrics.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::status::StatusCode,
};
use prost::Message;
use socket2::{Domain, Socket, Type};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

/// A span, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// 32 hex digits.
    pub trace: String,
    /// 16 hex digits.
    pub id: String,
    /// 16 hex digits; empty without a parent.
    pub parent: String,
    /// `flags`.
    pub flags: u32,
    /// Its name.
    pub name: String,
    /// The instar that it is of.
    pub generation: i64,
    /// That one's version.
    pub version: String,
    /// That one's UUID.
    pub instance: String,
    /// What that one says the machine is.
    pub role: String,
    /// Since 1970.
    pub start_ns: u64,
    /// Since 1970.
    pub end_ns: u64,
    /// Whether it ended with an error.
    pub failed: bool,
    /// `error.type`, of a span that ended with an error.
    pub error: Option<String>,
    /// `cpu.logical_number`, where it is told.
    pub core: Option<i64>,
    /// `instar.private.pages_reset`, where it is told.
    pub pages_reset: Option<i64>,
}

/// A log record, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The trace that it belongs to, 32 hex digits; empty without one.
    pub trace: String,
    /// The span, 16 hex digits; empty without one.
    pub span: String,
    /// The instar that reported it.
    pub generation: i64,
    /// What it says.
    pub message: String,
}

/// A collector that is away: its port is held, and refuses connections.
pub struct Away {
    socket: Socket,
    /// As [`Collector::port`].
    pub port: u16,
}

impl Away {
    /// Holds a port.
    ///
    /// # Panics
    /// Without one.
    #[must_use]
    pub fn hold() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a port");
        let address = socket.local_addr().expect("an address").as_socket();
        let port = address.expect("an address of IPv4").port();
        Self { socket, port }
    }

    /// The word for a machine's command line.
    #[must_use]
    pub fn append(&self) -> String {
        append(self.port)
    }

    /// It is there from now on.
    ///
    /// # Panics
    /// If the port cannot be listened on.
    #[must_use]
    pub fn arrive(self) -> Collector {
        self.socket.listen(128).expect("the port is ours");
        Collector::on(self.socket.into())
    }
}

fn append(port: u16) -> String {
    format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{port}")
}

/// A collector that listens; it lasts as long as the test.
pub struct Collector {
    /// Its port on this computer; a machine with user-mode networking reaches it at 10.0.2.2.
    pub port: u16,
    received: Arc<Received>,
}

#[derive(Default)]
struct Received {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Clone, Debug, Default)]
struct State {
    spans: Vec<Span>,
    logs: Vec<Log>,
    requests: BTreeMap<String, usize>,
    broken: Vec<String>,
    metrics: Vec<ExportMetricsServiceRequest>,
    /// All bodies, one behind the other.
    bytes: Vec<u8>,
}

impl Collector {
    /// Listens from now on.
    ///
    /// # Panics
    /// Without a port.
    #[must_use]
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let received = Arc::new(Received::default());
        let shared = Arc::clone(&received);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(client, &shared));
            }
        });
        Self { port, received }
    }

    /// The word for a machine's command line.
    #[must_use]
    pub fn append(&self) -> String {
        append(self.port)
    }

    /// Waits until the spans that came are enough, and returns them.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn wait_for_spans(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        self.wait(what, |state| enough(&state.spans)).spans
    }

    /// Waits until the log records that came are enough, and returns them.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn wait_for_logs(&self, what: &str, enough: impl Fn(&[Log]) -> bool) -> Vec<Log> {
        self.wait(what, |state| enough(&state.logs)).logs
    }

    /// Waits until the metrics that came are enough, and returns them in their order.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn wait_for_metrics(
        &self,
        what: &str,
        enough: impl Fn(&[ExportMetricsServiceRequest]) -> bool,
    ) -> Vec<ExportMetricsServiceRequest> {
        self.wait(what, |state| enough(&state.metrics)).metrics
    }

    fn wait(&self, what: &str, enough: impl Fn(&State) -> bool) -> State {
        let deadline = Instant::now() + crate::machine::DEADLINE;
        let mut state = self.received.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !enough(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come; what came: {:#?}", state);
            state = self
                .received
                .more
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        assert!(state.broken.is_empty(), "{:?}", state.broken);
        state.clone()
    }

    /// Whether these bytes were in a body that came.
    #[must_use]
    pub fn has_received(&self, bytes: &[u8]) -> bool {
        let state = self.received.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes.windows(bytes.len()).any(|window| window == bytes)
    }

    /// All bodies that came, one behind the other.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let state = self.received.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes.clone()
    }

    /// How often each path was posted to.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, usize> {
        self.received
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .requests
            .clone()
    }
}

/// Answers requests until the client hangs up.
fn serve(client: TcpStream, received: &Received) -> io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if client.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        client.read_exact(&mut body)?;
        let path = head
            .first()
            .and_then(|line| line.split(' ').nth(1))
            .unwrap_or_default()
            .to_owned();
        received.take(path, &body);
        client.get_mut().write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
        )?;
    }
}

impl Received {
    fn take(&self, path: String, body: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if path == "/v1/traces" {
            match ExportTraceServiceRequest::decode(body) {
                Ok(request) => state.spans.extend(spans(&request)),
                Err(error) => state.broken.push(error.to_string()),
            }
        }
        if path == "/v1/logs" {
            match ExportLogsServiceRequest::decode(body) {
                Ok(request) => state.logs.extend(logs(&request)),
                Err(error) => state.broken.push(error.to_string()),
            }
        }
        if path == "/v1/metrics" {
            match ExportMetricsServiceRequest::decode(body) {
                Ok(request) => state.metrics.push(request),
                Err(error) => state.broken.push(error.to_string()),
            }
        }
        state.bytes.extend_from_slice(body);
        *state.requests.entry(path).or_default() += 1;
        self.more.notify_all();
    }
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in &request.resource_spans {
        let attributes = resource
            .resource
            .as_ref()
            .map_or(&[][..], |resource| &resource.attributes);
        let generation = integer(attributes, "instar.generation").unwrap_or_default();
        let named = |name| text(attributes, name).unwrap_or_default();
        spans.extend(
            resource
                .scope_spans
                .iter()
                .flat_map(|scope| &scope.spans)
                .map(|span| Span {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    flags: span.flags,
                    name: span.name.clone(),
                    generation,
                    version: named("service.version"),
                    instance: named("service.instance.id"),
                    role: named("instar.platform.role"),
                    start_ns: span.start_time_unix_nano,
                    end_ns: span.end_time_unix_nano,
                    failed: span
                        .status
                        .as_ref()
                        .is_some_and(|status| status.code() == StatusCode::Error),
                    error: text(&span.attributes, "error.type"),
                    core: integer(&span.attributes, "cpu.logical_number"),
                    pages_reset: integer(&span.attributes, "instar.private.pages_reset"),
                }),
        );
    }
    spans
}

fn logs(request: &ExportLogsServiceRequest) -> Vec<Log> {
    let mut logs = Vec::new();
    for resource in &request.resource_logs {
        let attributes = resource
            .resource
            .as_ref()
            .map_or(&[][..], |resource| &resource.attributes);
        let generation = integer(attributes, "instar.generation").unwrap_or_default();
        let records = resource.scope_logs.iter().flat_map(|scope| &scope.log_records);
        logs.extend(records.map(|record| Log {
            trace: hex(&record.trace_id),
            span: hex(&record.span_id),
            generation,
            message: match record.body.as_ref().and_then(|body| body.value.as_ref()) {
                Some(Value::StringValue(text)) => text.clone(),
                _ => String::new(),
            },
        }));
    }
    logs
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn integer(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(value) => Some(*value),
        _ => None,
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(value) => Some(value.clone()),
        _ => None,
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

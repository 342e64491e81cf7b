//! An OpenTelemetry collector for one test: takes OTLP over HTTP, and remembers the spans.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message;
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

/// A span, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// 32 hex digits.
    pub trace: String,
    /// Its name.
    pub name: String,
    /// The instar that reported it.
    pub generation: i64,
    /// What that one says the machine is.
    pub role: String,
    /// Since 1970.
    pub start_ns: u64,
    /// Since 1970.
    pub end_ns: u64,
    /// `error.type`, of a span that ended with an error.
    pub error: Option<String>,
    /// `instar.private.pages_reset`, where it is told.
    pub pages_reset: Option<i64>,
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

#[derive(Clone, Default)]
struct State {
    spans: Vec<Span>,
    requests: BTreeMap<String, usize>,
    broken: Vec<String>,
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
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
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
        format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:{}", self.port)
    }

    /// Waits until the spans that came are enough, and returns them.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn wait_for_spans(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let deadline = Instant::now() + crate::machine::DEADLINE;
        let mut state = self.received.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !enough(&state.spans) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{what} did not come; what came: {:#?}",
                state.spans
            );
            state = self
                .received
                .more
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        assert!(state.broken.is_empty(), "{:?}", state.broken);
        state.spans.clone()
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
        let role = text(attributes, "instar.platform.role").unwrap_or_default();
        spans.extend(
            resource
                .scope_spans
                .iter()
                .flat_map(|scope| &scope.spans)
                .map(|span| Span {
                    trace: span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect(),
                    name: span.name.clone(),
                    generation,
                    role: role.clone(),
                    start_ns: span.start_time_unix_nano,
                    end_ns: span.end_time_unix_nano,
                    error: text(&span.attributes, "error.type"),
                    pages_reset: integer(&span.attributes, "instar.private.pages_reset"),
                }),
        );
    }
    spans
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

//! What a request is answered: as OTLP/HTTP asks ("OTLP/HTTP Response"), or wrongly on purpose.

use super::decode::{self, Signal};
use super::fault::Fault;
use super::http::{Request, response_head};
use super::received::Arrival;
use super::server::Shared;
use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::trace::v1 as trace;
use prost::Message;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

/// Answers one request; whether another may follow.
pub(super) fn answer(request: &Request, stream: &mut TcpStream, shared: &Shared) -> io::Result<bool> {
    let keep_alive = request.keep_alive;
    let refuse = |stream: &mut TcpStream, status: u16, headers: &[(&str, &str)], why: &str| {
        shared.count(|received| received.malformed += 1);
        // OTLP/HTTP, "Failures": the body is a google.rpc.Status.
        let body = RpcStatus {
            code: 3,
            message: why.into(),
        }
        .encode_to_vec();
        stream.write_all(response_head(status, headers, body.len() as u64, keep_alive).as_bytes())?;
        stream.write_all(&body).map(|()| keep_alive)
    };
    let Some(signal) = Signal::of_path(&request.path) else {
        return refuse(
            stream,
            404,
            &[],
            "the paths are /v1/metrics, /v1/logs and /v1/traces",
        );
    };
    if request.method != "POST" {
        return refuse(stream, 405, &[("Allow", "POST")], "the method is POST");
    }
    if request.content_type != "application/x-protobuf"
        || !["", "identity"].contains(&&*request.content_encoding)
    {
        return refuse(
            stream,
            415,
            &[],
            "the content type is application/x-protobuf, uncompressed",
        );
    }
    let Ok((items, invalid)) = decode::items(signal, &request.body) else {
        return refuse(stream, 400, &[], "the body is not this signal's export request");
    };
    let fault = shared.fault();
    let mut hasher = DefaultHasher::new();
    request.body.hash(&mut hasher);
    let arrival = Arrival {
        at: Instant::now(),
        path: signal.path(),
        head_bytes: request.head_bytes,
        body_bytes: request.body.len(),
        body: hasher.finish(),
        status: fault.status(),
    };
    shared.count(|received| {
        received.arrived(arrival);
        if fault.takes_items() {
            received.accepted += 1;
            received.take(items);
        }
    });
    let rejected = if let Fault::PartialSuccess(rejected) = fault {
        rejected
    } else {
        invalid
    };
    let mut counted = Counted { stream, shared };
    misbehave(fault, &mut counted, &success(signal, rejected), keep_alive)
}

/// A connection whose written bytes are counted.
struct Counted<'a> {
    stream: &'a mut TcpStream,
    shared: &'a Shared,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.shared.answered(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn misbehave(fault: Fault, stream: &mut Counted<'_>, body: &[u8], keep_alive: bool) -> io::Result<bool> {
    let length = body.len() as u64;
    let ordinary = response_head(200, &[], length, keep_alive);
    match fault {
        Fault::None | Fault::PartialSuccess(_) => {
            stream.write_all(&[ordinary.as_bytes(), body].concat())?;
            return Ok(keep_alive);
        }
        Fault::Status(status, retry_after) => {
            let seconds = retry_after.map(|seconds| seconds.to_string());
            let headers: Vec<_> = seconds
                .iter()
                .map(|seconds| ("Retry-After", seconds.as_str()))
                .collect();
            stream.write_all(response_head(status, &headers, 0, keep_alive).as_bytes())?;
            return Ok(keep_alive);
        }
        Fault::Redirect(target) => {
            stream.write_all(response_head(307, &[("Location", &target)], 0, keep_alive).as_bytes())?;
            return Ok(keep_alive);
        }
        Fault::Refuse | Fault::Reset => {}
        // Until the other side has had enough, or this one is ended.
        Fault::NeverAnswer => while stream.stream.read(&mut [0; 512])? != 0 {},
        Fault::HalfAnswer => {
            stream.write_all(response_head(200, &[], 100, keep_alive).as_bytes())?;
            stream.write_all(&[0; 50])?;
        }
        Fault::SlowBytes(pause) => {
            for byte in [ordinary.as_bytes(), body].concat() {
                stream.write_all(&[byte])?;
                thread::sleep(pause);
            }
        }
        Fault::HugeAnswer(bytes) => {
            stream.write_all(response_head(200, &[], bytes, keep_alive).as_bytes())?;
            io::copy(&mut io::repeat(0).take(bytes), stream)?;
        }
        Fault::Garbage => stream.write_all(b"\x15\x03\x01\x00\x02\x02\x16 this is not HTTP\r\n\r\n")?,
    }
    Ok(false)
}

/// A success as OTLP has it: an empty message, or a partial success.
fn success(signal: Signal, rejected: i64) -> Vec<u8> {
    if rejected == 0 {
        return Vec::new();
    }
    let error_message = String::from("spans need a trace id of 16 bytes and a span id of 8, not all zero");
    match signal {
        Signal::Metrics => {
            let partial = metrics::ExportMetricsPartialSuccess {
                rejected_data_points: rejected,
                error_message,
            };
            metrics::ExportMetricsServiceResponse {
                partial_success: Some(partial),
            }
            .encode_to_vec()
        }
        Signal::Logs => {
            let partial = logs::ExportLogsPartialSuccess {
                rejected_log_records: rejected,
                error_message,
            };
            logs::ExportLogsServiceResponse {
                partial_success: Some(partial),
            }
            .encode_to_vec()
        }
        Signal::Traces => {
            let partial = trace::ExportTracePartialSuccess {
                rejected_spans: rejected,
                error_message,
            };
            trace::ExportTraceServiceResponse {
                partial_success: Some(partial),
            }
            .encode_to_vec()
        }
    }
}

/// `google.rpc.Status`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

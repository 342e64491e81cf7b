//! What is answered.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use serde::Serialize;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    kind: &'static str,
    headers: String,
    body: Cow<'static, [u8]>,
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: Reason<'a>,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'a str,
    message: &'a str,
    hint: &'a str,
}

impl Response {
    /// An answer of this content type.
    pub fn bytes(status: u16, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Response {
            status,
            kind: content_type,
            headers: String::new(),
            body: body.into(),
        }
    }

    /// Text, UTF-8.
    pub fn text(status: u16, body: &str) -> Self {
        Response::bytes(status, "text/plain; charset=utf-8", Vec::from(body))
    }

    /// JSON, already written.
    pub fn json(status: u16, body: &str) -> Self {
        Response::bytes(status, "application/json", Vec::from(body))
    }

    /// `{"error":{"code":…,"message":…,"hint":…}}`: every refusal of Instar.
    pub fn refusal(status: u16, code: &str, message: &str, hint: &str) -> Self {
        let refusal = Refusal {
            error: Reason { code, message, hint },
        };
        // Strings can always be written as JSON.
        let body = serde_json::to_vec(&refusal).unwrap_or_default();
        Response::bytes(status, "application/json", body)
    }

    /// Adds a header; one with a line break is left out.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if !name.contains(['\r', '\n', ':']) && !value.contains(['\r', '\n']) {
            for part in [name, ": ", value, "\r\n"] {
                self.headers.push_str(part);
            }
        }
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The bytes before the body.
    pub(super) fn head(&self, close: bool) -> Vec<u8> {
        let mut head = String::with_capacity(160);
        // Writing into a string does not fail.
        let _ = write!(head, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        if !self.is_bare() {
            let _ = write!(
                head,
                "Content-Type: {}\r\nContent-Length: {}\r\n",
                self.kind,
                self.body.len()
            );
        }
        head.push_str(&self.headers);
        head.push_str(if close {
            "Connection: close\r\n\r\n"
        } else {
            "\r\n"
        });
        head.into_bytes()
    }

    /// No body follows and none is announced (RFC 9110, 6.4.1).
    pub(super) fn is_bare(&self) -> bool {
        matches!(self.status, 100..200 | 204 | 304)
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Answer",
    }
}

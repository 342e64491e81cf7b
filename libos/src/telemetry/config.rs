//! The operator's settings: `OTEL_*` keys of the command line (OpenTelemetry, "OTLP exporter" and "SDK configuration").

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use thiserror::Error;

use super::Signal;
use super::percent::decode;

/// The port of OTLP/HTTP.
pub const DEFAULT_PORT: u16 = 4318;

/// The port of syslog over TCP. RFC 6587 names none; IANA's list has `syslog-conn` there (RFC 3195), and gives 514, which some
/// use, to `shell`.
pub const SYSLOG_PORT: u16 = 601;

/// Most headers or attributes that are taken; a command line has no room for more.
pub const MAX_PAIRS: usize = 32;

/// Where the collector is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// An address.
    Address(Ipv4Addr),
    /// A name, to be asked of DNS before each connection.
    Name(String),
}

/// `OTEL_EXPORTER_OTLP_ENDPOINT`, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Where the collector is.
    pub host: Host,
    /// TCP port.
    pub port: u16,
    /// What stands before the signal's path; without a slash at its end, often empty.
    pub base_path: String,
    /// Host and port as the `Host` header wants them (RFC 9110, section 7.2).
    pub authority: String,
}

/// `instar.syslog`, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Where the server is.
    pub host: Host,
    /// TCP port.
    pub port: u16,
    /// `HOST:PORT`.
    pub name: String,
}

/// Why an endpoint or a server cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum EndpointError {
    /// TLS is not built in.
    #[error(
        "https is not supported: export to an http:// collector beside this machine, which may forward by TLS"
    )]
    Https,
    /// No `http://` in front.
    #[error("an endpoint begins with http://")]
    Scheme,
    /// `user:password@`.
    #[error("user and password do not belong into the endpoint: use OTEL_EXPORTER_OTLP_HEADERS")]
    UserInfo,
    /// An address in brackets.
    #[error("IPv6 addresses are not supported")]
    Ipv6,
    /// Neither an address nor a name.
    #[error("the host is neither an IPv4 address nor a DNS name")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A query, a fragment, or something that is not printable ASCII.
    #[error("the path may hold neither blanks, '?' nor '#'")]
    Path,
}

/// Parses `http://HOST[:PORT][/PATH]`.
pub fn endpoint(text: &str) -> Result<Endpoint, EndpointError> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => return Err(EndpointError::Https),
        _ => return Err(EndpointError::Scheme),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(EndpointError::UserInfo);
    }
    if authority.starts_with('[') {
        return Err(EndpointError::Ipv6);
    }
    let (host_text, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port_number(port)?),
        None => (authority, DEFAULT_PORT),
    };
    if !path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#')
    {
        return Err(EndpointError::Path);
    }
    let mut authority = String::from(authority);
    if !authority.contains(':') {
        authority.push_str(":4318");
    }
    Ok(Endpoint {
        host: host(host_text)?,
        port,
        base_path: path.trim_end_matches('/').into(),
        authority,
    })
}

impl Endpoint {
    /// The endpoint as it is used: with its port.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.authority, self.base_path)
    }

    /// The request's target for a signal: "the path of the signal is appended" (OTLP exporter, "Endpoint URLs").
    pub fn target(&self, signal: Signal) -> String {
        let mut target = self.base_path.clone();
        target.push_str(signal.path());
        target
    }
}

/// Parses `HOST[:PORT]`.
pub fn server(text: &str) -> Result<Server, EndpointError> {
    if text.starts_with('[') {
        return Err(EndpointError::Ipv6);
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, port_number(port)?),
        None => (text, SYSLOG_PORT),
    };
    Ok(Server {
        host: host(name)?,
        port,
        name: format!("{name}:{port}"),
    })
}

fn port_number(text: &str) -> Result<u16, EndpointError> {
    // `parse` alone would take "+80".
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(EndpointError::Port),
    }
}

fn host(text: &str) -> Result<Host, EndpointError> {
    if let Ok(address) = text.parse() {
        return Ok(Host::Address(address));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
    };
    // A last label of digits only is a mistyped address, never a name (RFC 1123, section 2.1).
    let numeric = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let name = text.strip_suffix('.').unwrap_or(text);
    if text.len() <= 253 && !numeric && name.split('.').all(label) {
        Ok(Host::Name(text.into()))
    } else {
        Err(EndpointError::Host)
    }
}

/// Why a list of `key=value` pairs cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PairsError {
    /// No `=`, or nothing before it.
    #[error("not a list of key=value, separated by commas")]
    Pair,
    /// A `%` without two digits, or not UTF-8.
    #[error("a value is not percent-encoded UTF-8")]
    Encoding,
    /// A header's name or value holds what HTTP forbids.
    #[error("a header holds a character that HTTP forbids")]
    Header,
    /// A header that the exporter writes itself.
    #[error("Host, User-Agent, Connection, Transfer-Encoding and Content-* are the exporter's own headers")]
    Reserved,
    /// More than [`MAX_PAIRS`].
    #[error("more than 32 pairs")]
    TooMany,
}

/// Parses `OTEL_RESOURCE_ATTRIBUTES`: `key=value` separated by commas, both percent-decoded, blanks around them dropped
/// (the format of W3C Baggage). One bad pair spoils the list, as the specification asks.
pub fn resource_attributes(text: &str) -> Result<Vec<(String, String)>, PairsError> {
    let mut pairs = Vec::new();
    for pair in text
        .split(',')
        .map(str::trim_ascii)
        .filter(|pair| !pair.is_empty())
    {
        let (key, value) = pair.split_once('=').ok_or(PairsError::Pair)?;
        let key = decode(key.trim_ascii()).ok_or(PairsError::Encoding)?;
        let value = decode(value.trim_ascii()).ok_or(PairsError::Encoding)?;
        if key.is_empty() {
            return Err(PairsError::Pair);
        }
        if pairs.len() == MAX_PAIRS {
            return Err(PairsError::TooMany);
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// Parses `OTEL_EXPORTER_OTLP_HEADERS`: as [`resource_attributes`], and each pair a header that HTTP allows (RFC 9110,
/// section 5), so that no value can end its line and begin another.
pub fn headers(text: &str) -> Result<Vec<(String, String)>, PairsError> {
    let pairs = resource_attributes(text)?;
    for (name, value) in &pairs {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !name.bytes().all(token)
            || !value
                .bytes()
                .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
        {
            return Err(PairsError::Header);
        }
        let is = |own: &str| name.eq_ignore_ascii_case(own);
        let content = name
            .get(..8)
            .is_some_and(|start| start.eq_ignore_ascii_case("content-"));
        if content || is("host") || is("connection") || is("transfer-encoding") || is("user-agent") {
            return Err(PairsError::Reserved);
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn endpoints() {
        let full = endpoint("http://10.0.2.2:80/otel/").expect("valid");
        assert_eq!(full.host, Host::Address(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!((full.port, full.base_path.as_str()), (80, "/otel"));
        assert_eq!(full.target(Signal::Traces), "/otel/v1/traces");
        let short = endpoint("HTTP://collector.example").expect("valid");
        assert_eq!(short.host, Host::Name("collector.example".into()));
        assert_eq!(
            (short.port, short.authority.as_str()),
            (4318, "collector.example:4318")
        );
        assert_eq!(short.target(Signal::Logs), "/v1/logs");
        assert_eq!(short.url(), "http://collector.example:4318");
        assert_eq!(full.url(), "http://10.0.2.2:80/otel");
    }

    #[test]
    fn refused_endpoints() {
        for (text, error) in [
            ("https://a", EndpointError::Https),
            ("a:4318", EndpointError::Scheme),
            ("grpc://a", EndpointError::Scheme),
            ("http://u:p@a", EndpointError::UserInfo),
            ("http://[::1]:4318", EndpointError::Ipv6),
            ("http://", EndpointError::Host),
            ("http://1.2.3.400", EndpointError::Host),
            ("http://a b", EndpointError::Host),
            ("http://a..b", EndpointError::Host),
            ("http://a\r\nX: y", EndpointError::Port),
            ("http://a:0", EndpointError::Port),
            ("http://a:+80", EndpointError::Port),
            ("http://a:65536", EndpointError::Port),
            ("http://a/x?y", EndpointError::Path),
            ("http://a/x y", EndpointError::Path),
            ("http://a/\r\nX:y", EndpointError::Path),
        ] {
            assert_eq!(endpoint(text), Err(error), "{text}");
        }
    }

    #[test]
    fn servers() {
        let named = server("logs.example").expect("valid");
        assert_eq!((named.host, named.port), (Host::Name("logs.example".into()), 601));
        let numbered = server("10.0.2.2:5514").expect("valid");
        assert_eq!((numbered.port, numbered.name.as_str()), (5514, "10.0.2.2:5514"));
        for (text, error) in [
            ("", EndpointError::Host),
            ("a b", EndpointError::Host),
            ("tcp://a", EndpointError::Port),
            ("a:", EndpointError::Port),
            ("a:0", EndpointError::Port),
            ("[::1]:601", EndpointError::Ipv6),
            ("10.0.2.256", EndpointError::Host),
        ] {
            assert_eq!(server(text), Err(error), "{text}");
        }
    }

    #[test]
    fn header_lists() {
        let parsed = headers("authorization=Bearer%20abc, x-scope = a%3Db ,").expect("valid");
        assert_eq!(parsed[0], ("authorization".into(), "Bearer abc".into()));
        assert_eq!(parsed[1], ("x-scope".into(), "a=b".into()));
        assert_eq!(headers(""), Ok(Vec::new()));
        assert_eq!(headers("a=b%0d%0aX:y"), Err(PairsError::Header));
        assert_eq!(headers("a b=c"), Err(PairsError::Header));
        assert_eq!(headers("Content-Length=1"), Err(PairsError::Reserved));
        assert_eq!(headers("=c"), Err(PairsError::Pair));
        assert_eq!(headers("c"), Err(PairsError::Pair));
        assert_eq!(headers("c=%f"), Err(PairsError::Encoding));
        assert_eq!(headers(&"a=b,".repeat(33)), Err(PairsError::TooMany));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = endpoint(&text);
            let _ = headers(&text);
        }

        #[test]
        fn what_is_accepted_has_no_line_break(text in "http://[ -~\r\n]{0,40}") {
            if let Ok(endpoint) = endpoint(&text) {
                prop_assert!(!endpoint.authority.contains(['\r', '\n', ' ']));
                prop_assert!(!endpoint.base_path.contains(['\r', '\n', ' ']));
            }
        }
    }
}

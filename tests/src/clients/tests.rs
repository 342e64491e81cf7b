//! The clients against a small server that misbehaves on demand.

use super::{Answer, Rest, answers, begin, disappear, echo, request};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// Serves one connection.
fn server<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (
        address,
        thread::spawn(move || serve(listener.accept().expect("a client").0)),
    )
}

const REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 71\r\n\r\n\
    {\"error\":{\"code\":\"bad-archive\",\"message\":\"no header\",\"hint\":\"use tar\"}}";

#[test]
fn a_refusal_is_read_before_the_body_is_sent() {
    let (to, server) = server(|mut client| {
        let mut some = [0; 100];
        client.read_exact(&mut some).expect("the head");
        client.write_all(REFUSAL.as_bytes()).expect("answered");
        client.shutdown(std::net::Shutdown::Write).expect("ended");
        // Takes nothing more, and stays until the client has gone.
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
    });
    let answer = request(to, "PUT", "/v1/image", &vec![0; 8 << 20]).expect("an answer");
    assert_eq!(answer.refusal(), Ok((400, "bad-archive".into())));
    server.join().expect("the server is well");
}

#[test]
fn a_refusal_without_a_hint_is_none() {
    let text =
        "HTTP/1.1 403 Forbidden\r\n\r\n{\"error\":{\"code\":\"wrong-key\",\"message\":\"no\",\"hint\":\"\"}}";
    let (answer, length) = Answer::parse(text.as_bytes()).expect("an answer");
    assert_eq!((answer.status, length), (403, text.len()));
    assert!(answer.refusal().is_err());
}

#[test]
fn pipelined_answers_are_told_apart() {
    let (to, server) = server(|mut client| {
        let one = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        client.write_all(one.repeat(3).as_bytes()).expect("answered");
    });
    let mut stream = super::connect(to).expect("connected");
    assert_eq!(answers(&mut stream, 3).expect("answers").len(), 3);
    server.join().expect("the server is well");
}

#[test]
fn an_answer_cut_short_is_none() {
    let (to, server) = server(|mut client| {
        client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")
            .expect("answered");
    });
    let error = request(to, "GET", "/", b"").expect_err("no answer");
    assert!(
        matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
        ),
        "{error}"
    );
    server.join().expect("the server is well");
}

#[test]
fn dripping_lasts_until_the_answer() {
    let (to, server) = server(|mut client| {
        let mut three = [0; 8];
        client.read_exact(&mut three).expect("a beginning and two drops");
        client
            .write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            .expect("answered");
        three
    });
    let answer = begin(to, b"PUT /v", Rest::Drip(100), super::PATIENCE).expect("no error");
    assert_eq!(answer.map(|answer| answer.status), Some(408));
    assert_eq!(&server.join().expect("the server is well"), b"PUT /vxx");
}

#[test]
fn silence_is_bounded() {
    let (to, server) = server(|client| client);
    let error = begin(to, b"PUT", Rest::Silence, Duration::from_millis(10)).expect_err("nobody answered");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(server.join());
}

#[test]
fn who_disappears_resets() {
    let (to, server) = server(|mut client| {
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect_err("reset").kind()
    });
    disappear(to, b"PUT /v1/image").expect("gone");
    assert_eq!(
        server.join().expect("the server is well"),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn an_echo_is_the_same_bytes() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let to = socket.local_addr().expect("an address");
    let server = thread::spawn(move || {
        let mut datagram = [0; 100];
        for answer in [&b"other"[..], b"hello"] {
            let (_, from) = socket.recv_from(&mut datagram).expect("a datagram");
            socket.send_to(answer, from).expect("sent");
        }
    });
    echo(to, b"hello").expect("echoed the second time");
    server.join().expect("the server is well");
}

//! The smallest useful application: HTTP on port 80, UDP echo on port 7, and which version of it you are talking to.
#![no_main]
#![cfg_attr(metal, no_std)]

extern crate alloc;

use alloc::format;

use libos::http::{self, Request, Response};
use libos::net::UdpSocket;
use libos::telemetry::Counter;
use libos::{start, task};

libos::main!(main);

static REQUESTS: Counter = Counter::new("hello.requests", "{request}", "HTTP requests answered.");

async fn main() {
    task::spawn(echo()).detach();
    if let Err(error) = http::serve(80, answer).await {
        log::error!("no HTTP: {error}");
    }
}

async fn answer(request: Request) -> Response {
    REQUESTS.add(1);
    let me = start::identity();
    match request.path() {
        "/" => Response::text(
            200,
            &format!(
                "{} {}, generation {}\n",
                me.manifest().name,
                me.manifest().version,
                me.generation
            ),
        ),
        _ => Response::text(404, "there is only /\n"),
    }
}

async fn echo() {
    let mut socket = match UdpSocket::bind(7) {
        Ok(socket) => socket,
        Err(error) => return log::error!("no echo: {error}"),
    };
    let mut datagram = [0; 1500];
    loop {
        match socket.recv_from(&mut datagram).await {
            Ok((length, sender)) => {
                if let Err(error) = socket.send_to(&datagram[..length], sender).await {
                    log::warn!("echo to {sender}: {error}");
                }
            }
            Err(error) => log::warn!("echo: {error}"),
        }
    }
}

//! For tests of whole machines: like `hello` it serves HTTP on port 80 and UDP echo on port 7, and TCP echo on port 7
//! besides; on request one of its cores misbehaves as broken software or hardware would.
//!
//! | request | what |
//! |---|---|
//! | `GET /` | version and generation |
//! | `GET /counters` | `nmis=N machine_checks=N`, since the cold boot |
//! | `POST /hear-nmis` | every core takes the NMI that the machine's NMI button sends |
//! | `POST /plant?turned=HEX` | a thousand copies of 32 bytes, given with every bit turned over, stay on the heap |
//! | `GET /occurrences?turned=HEX` | how often they lie anywhere in the machine's memory |
//! | `POST /misbehave?core=N&how=HOW` | see [`misbehave`] |
//!
//! As a successor it fails where its version says: see `libos::trial`.
#![no_main]
#![cfg_attr(metal, no_std)]

extern crate alloc;

#[path = "../../echo.rs"]
mod echo;
mod misbehave;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use libos::cpu::{self, CoreId, machine_check};
use libos::http::{self, Request, Response};
use libos::net::{TcpListener, TcpStream};
use libos::{start, task, trial};

libos::main!(main);

async fn main() {
    libos::replace::health::check(health);
    task::spawn(echo::serve()).detach();
    task::spawn(tcp_echo()).detach();
    if let Err(error) = http::serve(80, answer).await {
        log::error!("no HTTP: {error}");
    }
}

/// As the version says: `-unhealthy.before-commit`; `-slow.before-commit`, which is well after a while; `-late.before-commit`, which never answers.
async fn health() -> Result<(), String> {
    let version = &start::identity().manifest().version;
    if version.contains("-unhealthy.") {
        return Err("as the version says".into());
    }
    if version.contains("-slow.") {
        task::sleep(core::time::Duration::from_millis(300)).await;
    }
    if version.contains("-late.") {
        core::future::pending::<()>().await;
    }
    Ok(())
}

async fn answer(request: Request) -> Response {
    let me = start::identity();
    match (request.method(), request.path()) {
        ("GET", "/") => Response::text(
            200,
            &format!(
                "{} {}, generation {}\n",
                me.manifest().name,
                me.manifest().version,
                me.generation
            ),
        ),
        ("GET", "/counters") => Response::text(
            200,
            &format!("nmis={} machine_checks={}\n", cpu::nmis(), machine_check::count()),
        ),
        ("POST", "/hear-nmis") => {
            misbehave::hear_nmis().await;
            Response::text(200, "every core hears\n")
        }
        ("POST", "/plant") => match marker(&request) {
            Some(turned) => {
                let planted: Vec<[u8; 32]> = (0..1000).map(|_| turned.map(|byte| !byte)).collect();
                Vec::leak(planted);
                Response::text(200, "planted\n")
            }
            None => Response::text(400, "plant?turned=HEX\n"),
        },
        ("GET", "/occurrences") => match marker(&request) {
            Some(turned) => Response::text(200, &format!("{}\n", trial::occurrences(turned).await)),
            None => Response::text(400, "occurrences?turned=HEX\n"),
        },
        ("POST", "/misbehave") => match (parameter(&request, "core"), parameter(&request, "how")) {
            (Some(core), Some(how)) => begin(core, how),
            _ => Response::text(400, "misbehave?core=N&how=HOW\n"),
        },
        _ => Response::text(404, "there is no such page\n"),
    }
}

fn parameter<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let mut pairs = request.query().split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|pair| pair.0 == name).map(|pair| pair.1)
}

fn marker(request: &Request) -> Option<[u8; 32]> {
    let text = parameter(request, "turned")?;
    let mut marker = [0; 32];
    for (byte, at) in marker.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(marker)
}

fn begin(core: &str, how: &str) -> Response {
    let Some(core) = core.parse().ok().and_then(CoreId::new) else {
        return Response::text(400, "there is no such core\n");
    };
    match misbehave::begin(core, how) {
        true => Response::text(200, "as you say\n"),
        false => Response::text(400, "there is no such misbehaviour\n"),
    }
}

/// Its connections are kept across a replacement that fails.
async fn tcp_echo() {
    let mut listener = match TcpListener::bind(7) {
        Ok(listener) => listener,
        Err(error) => return log::error!("no TCP echo: {error}"),
    };
    loop {
        let stream = listener.accept().await;
        task::spawn(echo_stream(stream)).detach();
    }
}

async fn echo_stream(mut stream: TcpStream) {
    let mut piece = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        if stream.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}

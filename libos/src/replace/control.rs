//! The control plane: `GET /v1/status`, `PUT /v1/image`, `POST /v1/orders` on TCP 7700 (`docs/interfaces.md`).

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use loader::signature::PublicKey;
use loader::signed;
use log::{info, warn};

use super::error::{Code, Refusal};
use super::handover::Handover;
use super::machine::{Activity, Machine, State};
use super::order::{Nonce, Order};
use super::receive::Receiver;
use super::stage::stage;
use super::status::{self, AcceptedAnswer, StagedAnswer, mac_text};
use super::timeline::{Phase, Timeline};
use super::{report, upgrade};
use crate::clock::{Clock, SpawnHere};
use crate::confidential::{self, policy::decide};
use crate::cpu::{random, time};
use crate::http::{BodyError, Request, Response};
use crate::net::{self, ListenOptions, TcpListener};
use crate::start::{Start, identity};
use crate::task::{spawn, timeout};

/// The control plane's port.
const PORT: u16 = 7700;
/// What an image has besides its ELF: headers, manifest, signature, padding.
const IMAGE_OVERHEAD: u64 = 32 * 1024;
const MAX_ORDER_ARCHIVE: usize = 16 * 1024;
/// How long an order may take to come.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);
const PIECE: usize = 16 * 1024;

/// Makes this instar's control plane. Called once, when the network is up.
pub(crate) fn install(start: &Start, handover: Option<&Handover>, mac: [u8; 6]) -> &'static Machine {
    let Some(network) = net::default_network() else {
        unreachable!("the network is up")
    };
    let key = |text: &str, what: &str| {
        PublicKey::from_base64(text).unwrap_or_else(|error| panic!("the loader gave no {what} key: {error}"))
    };
    let parameters = &start.parameters;
    let keys = (
        key(&parameters.release_key, "release"),
        key(&parameters.operator_key, "operator"),
    );
    let flush = decide(start.options.flush, confidential::platform());
    let host_id = identity().host_id.clone().unwrap_or_else(|| mac_text(mac));
    let state = State {
        // A successor is not asked for more before its own replacement is committed.
        activity: if start.predecessor.is_some() {
            Activity::Replacing
        } else {
            Activity::Serving
        },
        staged: None,
        nonce: Nonce::new(random::bytes()),
        last: None,
        // What boots cold is committed: there is nothing to go back to.
        floor: start
            .predecessor
            .as_ref()
            .map_or(identity().manifest().security_version, |predecessor| {
                predecessor.floor
            }),
        replacements: handover.map_or(0, |handover| handover.replacements),
        failures: 0,
        rolled_back: 0,
    };
    Box::leak(Box::new(Machine::new(
        start, network, keys, host_id, flush, state,
    )))
}

/// Answers for ever.
pub(crate) async fn serve(machine: &'static Machine) {
    match TcpListener::bind_on(machine.network, PORT, ListenOptions::CONTROL) {
        Ok(listener) => {
            net::http::serve(listener, Clock, SpawnHere, move |request| {
                answer(machine, request)
            })
            .await;
        }
        Err(error) => warn!("no control plane: port {PORT}: {error}"),
    }
}

async fn answer(machine: &'static Machine, mut request: Request) -> Response {
    let result = match (request.method(), request.path()) {
        ("GET" | "HEAD", "/v1/status") => Ok(Response::json(200, &report::status(machine))),
        ("PUT", "/v1/image") => image(machine, &mut request).await,
        ("POST", "/v1/orders") => order(machine, &mut request).await,
        (_, "/v1/status" | "/v1/image" | "/v1/orders") => Err(Refusal::new(
            Code::MethodNotAllowed,
            format!("{} does not take {}", request.path(), request.method()),
        )),
        _ => Err(Refusal::new(Code::NotFound, "there is nothing at this path")),
    };
    result.unwrap_or_else(|refusal| {
        if refusal.status != 404 && refusal.status != 405 {
            warn!(
                "refused {} {}: {}: {}",
                request.method(),
                request.path(),
                refusal.code,
                refusal.message
            );
        }
        Response::refusal(refusal.status, refusal.code, &refusal.message, refusal.hint)
    })
}

async fn image(machine: &'static Machine, request: &mut Request) -> Result<Response, Refusal> {
    let length = length(request)?;
    let max_image = machine.options.max_image;
    if length > max_image.saturating_add(IMAGE_OVERHEAD) {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("the image has {length} bytes, at most {max_image} are allowed"),
        ));
    }
    let mut receiver = Receiver::new(machine);
    let mut piece = vec![0; PIECE];
    loop {
        let patience = receiver.deadline() - time::now();
        let count = timeout(patience, request.read_body(&mut piece))
            .await
            .map_err(|_| {
                Refusal::new(
                    Code::TimedOut,
                    "the image came too slowly: less than 64 KiB a second, or no signature in 10 s",
                )
            })?;
        match count.map_err(body_refusal)? {
            0 => break,
            count => receiver.feed(&piece[..count])?,
        }
    }
    let received = receiver.finish()?;
    let staged = stage(received)?;
    info!("staged {} {}", staged.manifest.name, staged.manifest.version);
    let answer = status::json(&StagedAnswer {
        staged: report::staged(&staged),
    });
    // The one that was staged before is freed here, outside the lock.
    drop(machine.with(|state| state.staged.replace(staged)));
    Ok(Response::json(201, &answer))
}

async fn order(machine: &'static Machine, request: &mut Request) -> Result<Response, Refusal> {
    let length = length(request)?;
    if length > MAX_ORDER_ARCHIVE as u64 {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("the order has {length} bytes, at most {MAX_ORDER_ARCHIVE} are allowed"),
        ));
    }
    let mut archive = Vec::with_capacity(length as usize);
    let mut piece = vec![0; 1024];
    let deadline = time::now() + ORDER_PATIENCE;
    loop {
        let count = timeout(deadline - time::now(), request.read_body(&mut piece))
            .await
            .map_err(|_| Refusal::new(Code::TimedOut, "the order took longer than 10 s to come"))?;
        match count.map_err(body_refusal)? {
            0 => break,
            count => archive.extend_from_slice(&piece[..count]),
        }
    }
    let document = signed::open(&archive, "order.toml", &machine.operator_key)
        .map_err(|error| Refusal::with_hint(error.code(), format!("{error}"), error.hint()))?;
    let order = Order::parse(document)?;
    let staged = machine.accept(&order)?;
    mark_order();
    let trace_id = random::bytes();
    let mut timeline = Timeline::new(
        trace_id,
        random::bytes(),
        identity().manifest().version.clone(),
        staged.manifest.version.clone(),
    );
    let generation = identity().generation;
    for (phase, (start, end)) in [
        (Phase::Receive, staged.receive),
        (Phase::Verify, staged.verify),
        (Phase::Stage, staged.stage),
    ] {
        timeline.record(phase, generation, start.0, end.0);
    }
    spawn(upgrade::replace(machine, staged, timeline)).detach();
    Ok(Response::json(
        202,
        &status::json(&AcceptedAnswer::new(order.action, generation, &trace_id)),
    ))
}

/// The mark "an order was accepted" for an emulator's instruction trace (`docs/interfaces.md`).
fn mark_order() {
    #[cfg(metal)]
    // SAFETY: an instruction without effect: nop dword [rax + "ORDR"].
    unsafe {
        core::arch::asm!(
            ".byte 0x0f, 0x1f, 0x80",
            ".ascii \"ORDR\"",
            options(nomem, nostack, preserves_flags)
        );
    }
}

fn length(request: &Request) -> Result<u64, Refusal> {
    request
        .content_length()
        .ok_or_else(|| Refusal::new(Code::LengthRequired, "the request has no Content-Length"))
}

fn body_refusal(error: BodyError) -> Refusal {
    let code = match error {
        BodyError::TimedOut { .. } => Code::TimedOut,
        BodyError::Truncated { .. } => Code::Truncated,
    };
    Refusal::new(code, format!("{error}"))
}

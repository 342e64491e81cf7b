//! The control plane: `GET /v1/status`, `GET /v1/measurements`, `PUT /v1/image`, `POST /v1/orders` on TCP 7700 (`docs/interfaces.md`).

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
use super::history::History;
use super::machine::{Activity, Machine, State};
use super::measured::{Event, Measurements};
use super::order::{Action, Nonce, Order, Trial};
use super::receive::Receiver;
use super::stage::stage;
use super::status::{self, AcceptedAnswer, StagedAnswer, mac_text};
use super::timeline::{Phase, Timeline};
use super::{hex, probation, probes, report, upgrade};
use crate::clock::{Clock, SpawnHere};
use crate::confidential::{self, policy::decide};
use crate::cpu::{random, stop, time};
use crate::http::{BodyError, Request, Response};
use crate::net::{self, ListenOptions, TcpListener};
use crate::start::{Start, identity};
use crate::task::{spawn, timeout};
use crate::telemetry;
use crate::telemetry::span::{Context, traceparent};

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
    let me = identity();
    if let Some(pen) = stop::pen() {
        let handed = start.predecessor.as_ref().map(|predecessor| predecessor.floor);
        let security_version = me.manifest().security_version;
        pen.header()
            .raise_floor(first_floor(handed, start.options.floor, security_version));
    }
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
        replacements: handover.map_or(0, |handover| handover.replacements),
        failures: 0,
        rolled_back: 0,
        measurements: Measurements::at_start(
            start.predecessor.is_none(),
            parameters.measurement,
            handover.map(|handover| handover.measurements.clone()),
            Event::new(me.manifest(), &parameters.manifest, me.generation),
        ),
        history: History::of(handover.map_or_else(Vec::new, |handover| handover.history.clone())),
    };
    Box::leak(Box::new(Machine::new(
        start, network, keys, host_id, flush, state,
    )))
}

/// The floor that an instar begins with, besides the one in the pen: what its predecessor `handed` over, if it had one, and
/// what the command line `asked` for. What boots cold is committed, since there is nothing to go back to, so that its own
/// security version counts; a successor's does not before its commit.
fn first_floor(handed: Option<u64>, asked: u64, own: u64) -> u64 {
    handed.unwrap_or(own).max(asked)
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
        ("GET" | "HEAD", "/v1/measurements") => Ok(Response::json(200, &report::measurements(machine))),
        ("PUT", "/v1/image") => image(machine, &mut request).await,
        ("POST", "/v1/orders") => order(machine, &mut request).await,
        (_, "/v1/status" | "/v1/measurements" | "/v1/image" | "/v1/orders") => Err(Refusal::new(
            Code::MethodNotAllowed,
            format!("{} does not take {}", request.path(), request.method()),
        )),
        _ => probes::answer(machine, &request)
            .await
            .unwrap_or_else(|| Err(Refusal::new(Code::NotFound, "there is nothing at this path"))),
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
    let mut staged = stage(received)?;
    staged.client = client(request);
    info!("staged {} {}", staged.manifest.name, staged.manifest.version);
    let answer = status::json(&StagedAnswer {
        staged: report::staged(&staged),
    });
    // The one that was staged before is freed here, outside the lock.
    drop(machine.with(|state| state.staged.replace(staged)));
    Ok(Response::json(201, &answer))
}

/// The client's span, if it says which: one `traceparent` that is right (W3C Trace Context, section 3.2).
fn client(request: &Request) -> Option<Context> {
    let mut headers = request
        .headers()
        .filter(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    let (_, value) = headers.next()?;
    let only = headers.next().is_none();
    only.then(|| traceparent(core::str::from_utf8(value).ok()?))
        .flatten()
}

async fn order(machine: &'static Machine, request: &mut Request) -> Result<Response, Refusal> {
    let begun = time::now();
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
    let trace_id = match order.action {
        Action::Replace { trial, .. } => replace(machine, &order, trial, (begun, client(request)))?,
        Action::Commit => machine.decide(&order, probation::order_commit)?,
        Action::Rollback => machine.decide(&order, probation::order_rollback)?,
    };
    Ok(Response::json(
        202,
        &status::json(&AcceptedAnswer::new(
            order.action,
            identity().generation,
            &trace_id,
        )),
    ))
}

/// Begins to replace this instar by what is staged. Returns the replacement's trace. `request`: when it began, and who sent
/// it.
fn replace(
    machine: &'static Machine,
    order: &Order,
    trial: Trial,
    request: (time::Instant, Option<Context>),
) -> Result<[u8; 16], Refusal> {
    let (begun, client) = request;
    let staged = machine.accept(order)?;
    mark_order();
    let mut timeline = Timeline::begin(
        client.or(staged.client),
        (random::bytes(), random::bytes()),
        identity().manifest().version.clone(),
        staged.manifest.version.clone(),
    );
    let generation = identity().generation;
    for (phase, (start, end)) in [
        (Phase::Receive, staged.receive),
        (Phase::Verify, staged.verify),
        (Phase::Stage, staged.stage),
        (Phase::Order, (begun, time::now())),
    ] {
        timeline.record(phase, generation, start.0, end.0);
    }
    telemetry::upgrade::begins(&timeline);
    info!(
        "order accepted: replace by image {}",
        hex(&staged.manifest.elf.sha256)
    );
    let trace_id = timeline.trace_id;
    spawn(upgrade::replace(machine, staged, timeline, trial)).detach();
    Ok(trace_id)
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

#[cfg(test)]
mod tests {
    use super::first_floor;

    #[test]
    fn only_a_committed_image_raises_the_floor() {
        assert_eq!(first_floor(None, 0, 3), 3, "cold: there is nothing to go back to");
        assert_eq!(first_floor(None, 5, 3), 5, "what was given to the first stage");
        assert_eq!(first_floor(Some(1), 0, 9), 1, "a successor is on trial");
        assert_eq!(first_floor(Some(4), 2, 9), 4);
        assert_eq!(
            first_floor(Some(0), 2, 9),
            2,
            "the predecessor did not know of the word"
        );
    }
}

//! An upgrade in its three steps: push the image, order the replacement, wait for the successor.

use crate::control::{self, Accepted, Staged, Status};
use crate::exit::{Exit, Failure};
use crate::http::Limits;
use crate::image::Image;
use crate::order::Order;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use minisign::SecretKey;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// How long the successor may take to answer, unless somebody says otherwise.
pub const SUCCESSOR: Duration = Duration::from_secs(30);

/// How long the timeline's last figures may take once it is decided that the successor stays.
const TIMELINE: Duration = Duration::from_millis(500);

/// Between two questions whether the successor is there. Not shorter: the question itself takes the machine's time.
const POLL: Duration = Duration::from_millis(10);

/// Pushes `image`, with a progress bar if there is a terminal to draw it on.
///
/// # Errors
/// If the machine refuses or does not answer.
pub fn push(address: SocketAddr, image: &Image) -> Result<Staged> {
    let total = image.bytes.len() as u64;
    let bar = progress_bar(
        total,
        &format!("{} {}", image.manifest.name, image.manifest.version),
    );
    let staged = control::push(address, &image.bytes, Limits::patient(), |sent| {
        bar.set_position(sent as u64)
    });
    bar.finish_and_clear();
    let doing = format!(
        "pushing {} {} to {address}",
        image.manifest.name, image.manifest.version
    );
    staged.map_err(|e| e.during(&doing).into())
}

fn progress_bar(total: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(total);
    let style = "pushing {msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar.set_message(what.to_owned());
    bar
}

/// Orders the machine to replace itself with the staged image whose ELF has the digest `sha256`.
/// Returns the machine's last word as well as its status before.
///
/// # Errors
/// If the machine refuses or does not answer.
pub fn order(address: SocketAddr, sha256: &str, key: &SecretKey) -> Result<(Status, Accepted)> {
    let doing = format!("ordering {address} to replace its image");
    let before = control::status(address, Limits::patient()).map_err(|e| e.during(&doing))?;
    let order = Order {
        action: "replace".to_owned(),
        host: before.host_id.clone(),
        generation: before.generation,
        nonce: before.nonce.clone(),
        image: sha256.to_owned(),
    };
    let accepted =
        control::order(address, &order.pack(key)?, Limits::patient()).map_err(|e| e.during(&doing))?;
    Ok((before, accepted))
}

/// Where a machine stands after an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The predecessor still answers.
    Under,
    /// The successor answers, and may still go back.
    Pending,
    /// The successor stays; how long its first answer took is not known. Perhaps nobody asks it anything.
    Decided,
    /// The successor stays, and tells the whole timeline.
    Done,
    /// The predecessor is back.
    WentBack,
}

fn progress(before: &Status, now: &Status) -> Progress {
    let told = now.last_replacement.as_ref();
    if now.generation > before.generation {
        return match told {
            None => Progress::Pending,
            Some(told) if told.outcome.is_empty() || told.outcome == "pending" => Progress::Pending,
            Some(told) if told.blackout_ms.is_none() => Progress::Decided,
            Some(_) => Progress::Done,
        };
    }
    let trace = |status: &Status| status.last_replacement.as_ref().map(|told| told.trace_id.clone());
    if told.is_some() && trace(now) != trace(before) && now.state != "replacing" {
        return Progress::WentBack;
    }
    Progress::Under
}

/// Waits until the successor of the instar that said `before` answers and stays, and a little for the rest of its
/// timeline. If it neither stays nor goes back within `limit`, its last status (`pending`) is what is returned.
///
/// # Errors
/// If nobody answers within `limit`, the predecessor stays, or it came back.
pub fn await_successor(address: SocketAddr, before: &Status, limit: Duration) -> Result<Status> {
    let deadline = Instant::now() + limit;
    let mut successor = None;
    let mut decided = None;
    let mut last = None;
    loop {
        thread::sleep(POLL);
        if let Ok(now) = control::status(address, Limits::short()) {
            match progress(before, &now) {
                Progress::Done => return Ok(now),
                Progress::WentBack => return Err(went_back(address, &now).into()),
                Progress::Decided => {
                    decided.get_or_insert_with(Instant::now);
                    successor = Some(now);
                }
                Progress::Pending => successor = Some(now),
                Progress::Under => last = Some(now),
            }
        }
        let over = Instant::now() >= deadline;
        match successor.take() {
            Some(status) if over || decided.is_some_and(|at| at.elapsed() >= TIMELINE) => return Ok(status),
            None if over => return Err(missing(address, last, limit).into()),
            status => successor = status,
        }
    }
}

fn went_back(address: SocketAddr, now: &Status) -> Failure {
    let outcome = now
        .last_replacement
        .as_ref()
        .map_or("", |told| told.outcome.as_str());
    if outcome == "failed" {
        let what = format!(
            "{address} did not jump: {} {} serves on as generation {}, the image still staged",
            now.image.name, now.image.version, now.generation
        );
        return Failure::new(Exit::Failed, what)
            .hint("its serial line and its telemetry say what stood in the way");
    }
    let what = format!(
        "{address} replaced its image and went back ({outcome}): {} {} serves on as generation {}",
        now.image.name, now.image.version, now.generation
    );
    Failure::new(Exit::WentBack, what).hint("its serial line and its telemetry say why the successor failed")
}

fn missing(address: SocketAddr, last: Option<Status>, limit: Duration) -> Failure {
    let seconds = limit.as_secs();
    match last {
        Some(status) => Failure::new(
            Exit::NoAnswer,
            format!(
                "{address} took the order, but {} {} (generation {}, {}) still answers after {seconds} s",
                status.image.name, status.image.version, status.generation, status.state
            ),
        )
        .hint("`cargo xtask status` shows what it does now"),
        None => Failure::new(
            Exit::NoAnswer,
            format!("{address} took the order, but its successor did not answer within {seconds} s"),
        )
        .hint("the machine's serial line shows where it stands; it may still come back by itself"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Replacement;

    fn at(generation: u64, trace: Option<&str>, outcome: &str, blackout_ms: Option<f64>) -> Status {
        let last_replacement = trace.map(|trace| Replacement {
            trace_id: trace.to_owned(),
            outcome: outcome.to_owned(),
            blackout_ms,
            ..Replacement::default()
        });
        Status {
            generation,
            last_replacement,
            state: "serving".to_owned(),
            ..Status::default()
        }
    }

    #[test]
    fn a_successor_is_done_when_it_stays_and_its_timeline_is_whole() {
        let before = at(3, Some("old"), "committed", Some(1.0));
        assert_eq!(progress(&before, &before), Progress::Under);
        assert_eq!(
            progress(&before, &at(4, Some("new"), "pending", Some(1.0))),
            Progress::Pending
        );
        assert_eq!(
            progress(&before, &at(4, Some("new"), "committed", None)),
            Progress::Decided
        );
        assert_eq!(
            progress(&before, &at(4, Some("new"), "committed", Some(1.0))),
            Progress::Done
        );
        assert_eq!(
            progress(&before, &at(3, Some("new"), "rolled-back", None)),
            Progress::WentBack
        );
        let fresh = at(1, None, "", None);
        assert_eq!(progress(&fresh, &fresh), Progress::Under);
        assert_eq!(progress(&fresh, &at(2, None, "", None)), Progress::Pending);
    }
}

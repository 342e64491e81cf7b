//! An upgrade in its three steps: push the image, order the replacement, wait for the successor.

use crate::control::{self, Accepted, Staged, Status};
use crate::exit::{Exit, Failure};
use crate::http::Limits;
use crate::image::Image;
use crate::order::{Action, Order, Trial};
use crate::trace_context;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use minisign::SecretKey;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// How long the successor may take to answer, unless somebody says otherwise.
pub const SUCCESSOR: Duration = Duration::from_secs(30);

/// How long a successor is on trial if the order does not say (docs/interfaces.md, "The order").
pub const PROBATION: Duration = Duration::from_secs(30);

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
    let trace = trace_context::of_environment();
    let staged = control::push(
        address,
        &image.bytes,
        trace.as_deref(),
        Limits::patient(),
        |sent| bar.set_position(sent as u64),
    );
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

/// The order to replace the image by the one that was pushed.
pub fn replace_by(staged: &Staged, trial: Trial) -> Action {
    Action::Replace {
        image: staged.sha256.clone(),
        trial,
    }
}

/// Orders the machine to do something. Returns the machine's last word as well as its status before.
///
/// # Errors
/// If the machine refuses or does not answer.
pub fn order(address: SocketAddr, action: &Action, key: &SecretKey) -> Result<(Status, Accepted)> {
    let what = match action {
        Action::Replace { .. } => "replace its image",
        Action::Commit => "commit its image",
        Action::Rollback => "give the machine back to the image before",
    };
    let doing = format!("ordering {address} to {what}");
    let before = control::status(address, Limits::patient()).map_err(|e| e.during(&doing))?;
    let order = Order {
        action: action.clone(),
        host: before.host_id.clone(),
        generation: before.generation,
        nonce: before.nonce.clone(),
    };
    let trace = trace_context::of_environment();
    let accepted = control::order(address, &order.pack(key)?, trace.as_deref(), Limits::patient())
        .map_err(|e| e.during(&doing))?;
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
    /// The machine was reset, and has booted its first image.
    Restarted,
}

fn progress(before: &Status, now: &Status) -> Progress {
    let told = now.last_replacement.as_ref();
    if now.machine_ns < before.machine_ns {
        return Progress::Restarted;
    }
    if now.generation > before.generation {
        return match told {
            None => Progress::Pending,
            Some(told) if told.outcome.is_empty() || told.outcome == "pending" => Progress::Pending,
            Some(told) if told.blackout_ms.is_none() => Progress::Decided,
            Some(_) => Progress::Done,
        };
    }
    // The trace alone does not tell: a pipeline that tries again may have one for both.
    let which = |status: &Status| {
        let told = status.last_replacement.as_ref()?;
        Some((told.trace_id.clone(), told.span_id.clone()))
    };
    if told.is_some() && which(now) != which(before) && now.state != "replacing" {
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
                Progress::Restarted => return Err(restarted(address, &now).into()),
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
    let why = reason(now).map_or_else(|| outcome.to_owned(), |reason| format!("{outcome}: {reason}"));
    let what = format!(
        "{address} replaced its image and went back ({why}): {} {} serves on as generation {}",
        now.image.name, now.image.version, now.generation
    );
    Failure::new(Exit::WentBack, what).hint("its serial line and its telemetry say why the successor failed")
}

/// Why the last replacement was not committed, if the machine tells.
fn reason(now: &Status) -> Option<&str> {
    let last = now.last_replacement.as_ref()?;
    let past = now
        .history
        .iter()
        .rfind(|past| past.trace_id == last.trace_id && past.span_id == last.span_id)?;
    past.reason.as_deref()
}

fn restarted(address: SocketAddr, now: &Status) -> Failure {
    let what = format!(
        "{address} was reset: {} {} has booted cold, and what the machine kept in memory is lost",
        now.image.name, now.image.version
    );
    Failure::new(Exit::Failed, what).hint("its serial line shows what the image before did last")
}

/// Insists that a successor is not on trial any more.
///
/// # Errors
/// If it still is after `limit`, in which it was waited for.
pub fn decided(address: SocketAddr, after: Status, limit: Duration) -> Result<Status> {
    let outcome = after.last_replacement.as_ref().map(|told| told.outcome.as_str());
    if outcome != Some("pending") {
        return Ok(after);
    }
    let what = format!(
        "{address}: {} {} (generation {}) is still on trial after {} s",
        after.image.name,
        after.image.version,
        after.generation,
        limit.as_secs()
    );
    Err(Failure::new(Exit::NoAnswer, what)
        .hint("`cargo xtask commit` and `cargo xtask rollback` end a trial; `cargo xtask status` shows what it does now")
        .into())
}

/// Where a trial stands after the order `action`; `None`: nothing has come of it yet.
fn trial_ended(
    address: SocketAddr,
    before: &Status,
    now: &Status,
    action: &Action,
) -> Option<Result<(), Failure>> {
    let committed = now
        .last_replacement
        .as_ref()
        .is_some_and(|told| told.outcome == "committed");
    let back = now.generation < before.generation;
    if now.machine_ns < before.machine_ns {
        return Some(Err(restarted(address, now)));
    }
    match action {
        Action::Rollback if back => Some(Ok(())),
        Action::Rollback if committed => Some(Err(Failure::new(
            Exit::Failed,
            format!(
                "{address}: {} {} was committed",
                now.image.name, now.image.version
            ),
        )
        .hint("it stays; to have another image, push one"))),
        Action::Commit if back => Some(Err(went_back(address, now))),
        Action::Commit if committed => Some(Ok(())),
        _ => None,
    }
}

/// Waits until the trial of the image that said `before` has ended as ordered.
///
/// # Errors
/// If it ends otherwise, or not within `limit`.
pub fn await_end_of_trial(
    address: SocketAddr,
    before: &Status,
    action: &Action,
    limit: Duration,
) -> Result<Status> {
    let deadline = Instant::now() + limit;
    let mut last = None;
    loop {
        if let Ok(now) = control::status(address, Limits::short()) {
            match trial_ended(address, before, &now, action) {
                Some(ended) => return Ok(ended.map(|()| now)?),
                None => last = Some(now),
            }
        }
        if Instant::now() >= deadline {
            return Err(missing(address, last, limit).into());
        }
        thread::sleep(POLL);
    }
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
        let mut again = at(3, Some("old"), "rolled-back", None);
        again.last_replacement.as_mut().expect("told").span_id = "another".to_owned();
        assert_eq!(
            progress(&before, &again),
            Progress::WentBack,
            "another replacement of the same trace"
        );
        let cold = |machine_ns| Status {
            machine_ns,
            ..at(1, None, "", None)
        };
        assert_eq!(progress(&cold(9), &cold(3)), Progress::Restarted);
        let fresh = at(1, None, "", None);
        assert_eq!(progress(&fresh, &fresh), Progress::Under);
        assert_eq!(progress(&fresh, &at(2, None, "", None)), Progress::Pending);
    }
    const MACHINE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7700);

    #[test]
    fn a_rollback_says_why() {
        let mut now = at(3, Some("new"), "rolled-back", None);
        now.history = vec![control::Past {
            trace_id: "new".to_owned(),
            reason: Some("panic: oh".to_owned()),
            ..control::Past::default()
        }];
        let failure = went_back(MACHINE, &now);
        assert_eq!(failure.exit, Exit::WentBack);
        assert!(
            failure.what.contains("rolled-back: panic: oh"),
            "{}",
            failure.what
        );
        let failed = went_back(MACHINE, &at(3, Some("new"), "failed", None));
        assert_eq!(failed.exit, Exit::Failed);
    }

    #[test]
    fn a_trial_without_an_end_is_no_success() {
        let limit = Duration::from_secs(1);
        assert!(decided(MACHINE, at(4, Some("new"), "committed", None), limit).is_ok());
        let error = decided(MACHINE, at(4, Some("new"), "pending", None), limit).expect_err("on trial");
        assert_eq!(crate::exit::exit_of(&error), Exit::NoAnswer);
    }

    #[test]
    fn an_ordered_end_is_told_from_another() {
        let before = at(4, Some("new"), "pending", None);
        let ended = |now: &Status, action: &Action| {
            let ended = trial_ended(MACHINE, &before, now, action);
            ended.map(|result| result.map_err(|failure| failure.exit))
        };
        let (committed, back) = (
            at(4, Some("new"), "committed", None),
            at(3, Some("new"), "rolled-back", None),
        );
        for action in [Action::Commit, Action::Rollback] {
            assert_eq!(ended(&before, &action), None);
        }
        assert_eq!(ended(&committed, &Action::Commit), Some(Ok(())));
        assert_eq!(ended(&back, &Action::Commit), Some(Err(Exit::WentBack)));
        assert_eq!(ended(&back, &Action::Rollback), Some(Ok(())));
        assert_eq!(ended(&committed, &Action::Rollback), Some(Err(Exit::Failed)));
    }
}

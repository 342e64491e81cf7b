//! What monitoring asks the control plane: `GET /livez`, `GET /readyz`, `GET /metrics` (`docs/interfaces.md`).

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::error::{Code, Refusal};
use super::health;
use super::machine::Machine;
use crate::http::{Request, Response};
use crate::task::timeout;
use crate::telemetry::allowed;

const PATHS: &[&str] = &[
    "/livez",
    "/readyz",
    #[cfg(feature = "prometheus")]
    "/metrics",
];
/// How long the application's check may take while somebody waits for the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The answer to a path of monitoring's; `None`: it is none.
pub(super) async fn answer(
    machine: &'static Machine,
    request: &Request,
) -> Option<Result<Response, Refusal>> {
    let (method, path) = (request.method(), request.path());
    if !matches!(method, "GET" | "HEAD") && PATHS.contains(&path) {
        let message = format!("{path} does not take {method}");
        return Some(Err(Refusal::new(Code::MethodNotAllowed, message)));
    }
    Some(Ok(match path {
        "/livez" => Response::text(200, "alive\n"),
        "/readyz" => match unready(machine).await {
            None => Response::text(200, "ready\n"),
            Some(why) => Response::text(503, &format!("not ready: {}\n", one_line(&allowed::text(&why)))),
        },
        #[cfg(feature = "prometheus")]
        "/metrics" => crate::telemetry::scrape(machine, request),
        _ => return None,
    }))
}

/// Why nobody should be sent here; `None`: all is well.
///
/// From the beginning of quiesce until the successor answers nobody serves new clients. A successor, and what boots cold, is ready
/// when it answers here and the application says that it is well: on trial or not, it serves.
async fn unready(machine: &Machine) -> Option<String> {
    if !machine.network().accepts() {
        return Some("this instar is being replaced, and its successor does not serve yet".into());
    }
    match timeout(PATIENCE, health::ask()).await {
        Ok(Ok(())) => None,
        Ok(Err(reason)) => Some(format!("the application says: {reason}")),
        Err(_) => Some("the application has not said within 1 s whether it is well".into()),
    }
}

/// As the one line that a person, or a log, gets to see.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(one_line("no\r\ndatabase"), "no  database");
    }
}

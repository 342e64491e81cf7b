//! An upgrade under the eyes of clients that ask all the time: what `demo` shows and `bench` repeats.

use crate::build::{self, BuildOptions, BuiltImage};
use crate::client::{AskRecord, Asker, EchoClient, EchoRecord, Gap};
use crate::control::{self, Accepted, Status};
use crate::exit::{Exit, Failure};
use crate::http::Limits;
use crate::image::Image;
use crate::keys::{self, Role};
use crate::machine::{Machine, Rig};
use crate::order::Trial;
use crate::upgrade;
use anyhow::{Context, Result};
use minisign::SecretKey;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Between two echo requests: as often as the machine can answer.
pub const fn interval(rig: &Rig) -> Duration {
    match rig {
        Rig::Qemu(_) => Duration::from_micros(200),
        Rig::Bochs(_) => Duration::from_millis(20),
    }
}

/// How long a machine may take to boot. Emulated, on a host that does other things besides.
pub const BOOT: Duration = Duration::from_secs(60);

/// How long answers that are under way when the client stops may still take.
const GRACE: Duration = Duration::from_millis(500);

/// The two images of the main job, and who may order them.
#[derive(Debug)]
pub struct Cast {
    /// What is booted.
    pub first: BuiltImage,
    /// What replaces it.
    pub second: BuiltImage,
    /// The second image, read.
    pub push: Image,
    /// The operator's secret key.
    pub operator: SecretKey,
}

impl Cast {
    /// Builds 1.0.0 and 1.1.0 of an application that serves UDP echo and HTTP, with the development keys.
    ///
    /// # Errors
    /// If building fails.
    pub fn build(app: &str) -> Result<Self> {
        let first = build::build_app(&BuildOptions::new(app).version("1.0.0"))?;
        let second = build::build_app(&BuildOptions::new(app).version("1.1.0"))?;
        let push = Image::read(&second.path)?;
        let operator = keys::read_secret(&Role::Operator.secret_path(&keys::development()?))?;
        Ok(Self {
            first,
            second,
            push,
            operator,
        })
    }
}

/// The moments that divide the record, in nanoseconds from the clients' start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moments {
    /// The push begins.
    pub push_ns: u64,
    /// The image is staged.
    pub staged_ns: u64,
    /// The order goes out.
    pub order_ns: u64,
    /// The successor has been heard of.
    pub successor_ns: u64,
    /// The clients stop.
    pub end_ns: u64,
}

/// An upgrade as its clients saw it.
#[derive(Debug)]
pub struct Seen {
    /// The echo client's record.
    pub echo: EchoRecord,
    /// The HTTP client's record.
    pub http: AskRecord,
    /// What divides them.
    pub moments: Moments,
    /// The machine's answer to the order.
    pub accepted: Accepted,
    /// Before the order.
    pub before: Status,
    /// At the end.
    pub after: Status,
}

impl Seen {
    /// The blackout as seen from outside: the longest silence between two answers in the whole record.
    pub fn blackout(&self) -> Option<Gap> {
        self.echo.longest_gap(0..u64::MAX)
    }

    /// Before anything happens, while the image is received, verified and staged, and once the successor serves.
    pub fn windows(&self) -> [(&'static str, Range<u64>); 3] {
        let moments = self.moments;
        // After a blackout there may be a backlog; the successor's own time begins with its first answer.
        let served = self
            .blackout()
            .map_or(moments.successor_ns, |gap| gap.end_ns.min(moments.end_ns));
        [
            ("before", 0..moments.push_ns),
            ("staging", moments.push_ns..moments.staged_ns),
            ("after", served..moments.end_ns),
        ]
    }
}

/// Measures how long after `started` the machine's echo service gives its first answer.
///
/// # Errors
/// If it gives none.
pub fn first_answer(machine: &mut Machine) -> Result<Duration> {
    machine.wait_for_network(BOOT)?;
    let client = EchoClient::start(machine.addresses().echo, Duration::from_millis(1))
        .context("could not start the echo client")?;
    let deadline = Instant::now() + BOOT;
    loop {
        if client.wait_for_answers(1, Duration::from_millis(200)) {
            let ns = client.first_answer_ns().unwrap_or_default();
            return Ok(client.started().duration_since(machine.started()) + Duration::from_nanos(ns));
        }
        if machine.ended()?.is_some() || Instant::now() >= deadline {
            let what = format!("the machine gave no first answer; {}", machine.last_words());
            return Err(Failure::new(Exit::NoAnswer, what).into());
        }
    }
}

/// Upgrades `machine`, which serves already, while clients ask; `calm` is how long they ask before and after.
/// `tell` hears what happens next.
///
/// # Errors
/// If the machine refuses, does not answer, or goes back.
pub fn upgrade_under_load(
    machine: &mut Machine,
    cast: &Cast,
    calm: Duration,
    mut tell: impl FnMut(&str),
) -> Result<Seen> {
    let at = machine.addresses();
    let echo =
        EchoClient::start(at.echo, interval(machine.rig())).context("could not start the echo client")?;
    let http = Asker::start(at.http, "/", echo.started()).context("could not start the HTTP client")?;
    ask_for(&echo, calm, machine)?;
    tell("pushing the new image");
    let push_ns = echo.now_ns();
    let staged = upgrade::push(at.control, &cast.push)?;
    let staged_ns = echo.now_ns();
    tell("ordering the replacement");
    let (before, accepted, order_ns) = {
        let sent_at = echo.now_ns();
        let (before, accepted) = upgrade::order(
            at.control,
            &upgrade::replace_by(&staged, Trial::default()),
            &cast.operator,
        )?;
        (before, accepted, sent_at)
    };
    let after = upgrade::await_successor(at.control, &before, upgrade::SUCCESSOR)?;
    let successor_ns = echo.now_ns();
    tell("the successor serves");
    ask_for(&echo, calm, machine)?;
    let end_ns = echo.now_ns();
    let (http, echo) = (http.stop(), echo.stop(GRACE));
    // By now the timeline's last figures are known, if they ever will be.
    let after = control::status(at.control, Limits::patient()).unwrap_or(after);
    let moments = Moments {
        push_ns,
        staged_ns,
        order_ns,
        successor_ns,
        end_ns,
    };
    Ok(Seen {
        echo,
        http,
        moments,
        accepted,
        before,
        after,
    })
}

/// Lets the clients ask for `time`, and sees to it that they are answered.
fn ask_for(echo: &EchoClient, time: Duration, machine: &Machine) -> Result<()> {
    let before = echo.answered();
    std::thread::sleep(time);
    // On a busy host answers come late; that none comes is another matter.
    if echo.answered() == before && !echo.wait_for_answers(1, Duration::from_secs(10)) {
        let what = format!("the echo service does not answer; {}", machine.last_words());
        return Err(Failure::new(Exit::NoAnswer, what).into());
    }
    Ok(())
}

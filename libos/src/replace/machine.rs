//! What the control plane knows and does, one request or order at a time.

use alloc::format;
use alloc::string::String;

use loader::boot::OwnedParameters;
use loader::measure::Chain;
use loader::signature::PublicKey;
use log::info;
use spin::Mutex;

use super::error::{Code, Refusal};
use super::history::History;
use super::measured::Measurements;
use super::order::{Expected, Nonce, Order};
use super::stage::Staged;
use super::timeline::{Outcome, Timeline};
use crate::command_line::CommandLine;
use crate::confidential::policy::FlushDecision;
use crate::cpu::{random, stop, time::Instant};
use crate::net::Shared;
use crate::start::{Start, identity};

/// What the machine is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activity {
    /// Nothing besides serving.
    Serving,
    /// An image comes in.
    Receiving,
    /// An order is being carried out.
    Replacing,
}

/// This instar, as its control plane sees it.
pub struct Machine {
    state: Mutex<State>,
    pub(super) parameters: OwnedParameters,
    pub(super) options: CommandLine,
    pub(super) network: &'static Shared,
    pub(super) release_key: PublicKey,
    pub(super) operator_key: PublicKey,
    /// When this instar's first instruction ran.
    pub(super) entered: Instant,
    host_id: String,
    flush: FlushDecision,
}

/// What changes.
pub(super) struct State {
    pub activity: Activity,
    pub staged: Option<Staged>,
    pub nonce: Nonce,
    /// The replacement that brought this instar here, or one that failed since.
    pub last: Option<Timeline>,
    /// Replacements since the cold boot that reached a commit.
    pub replacements: u64,
    /// Replacements that failed before the jump.
    pub failures: u64,
    /// Replacements whose successor gave the machine back to this instar.
    pub rolled_back: u64,
    /// What this machine has run since its cold boot.
    pub measurements: Measurements,
    /// How the last replacements ended.
    pub history: History,
}

impl Machine {
    pub(super) fn new(
        start: &Start,
        network: &'static Shared,
        keys: (PublicKey, PublicKey),
        host_id: String,
        flush: FlushDecision,
        state: State,
    ) -> Self {
        let (release_key, operator_key) = keys;
        let (parameters, options, entered) = (start.parameters.clone(), start.options.clone(), start.entered);
        Self {
            state: Mutex::new(state),
            parameters,
            options,
            entered,
            network,
            release_key,
            operator_key,
            host_id,
            flush,
        }
    }

    /// What orders call this machine.
    pub fn host_id(&self) -> &str {
        &self.host_id
    }

    /// Whether this machine flushes before a jump, and why.
    pub fn flush_decision(&self) -> &FlushDecision {
        &self.flush
    }

    /// What the command line asks for.
    pub fn options(&self) -> &CommandLine {
        &self.options
    }

    /// When this instar's first instruction ran.
    pub fn entered(&self) -> Instant {
        self.entered
    }

    /// How long nobody answered in the newest committed replacement, in nanoseconds; `None` until it is known.
    pub fn last_blackout_ns(&self) -> Option<u64> {
        self.with(|state| {
            state
                .history
                .past()
                .iter()
                .rev()
                .find_map(|past| past.blackout_ns)
        })
    }

    /// The network that it serves on.
    pub fn network(&self) -> &'static Shared {
        self.network
    }

    /// Replacements: committed since the cold boot; failed before the jump, and given back, in this instar.
    pub fn replacements(&self) -> (u64, u64, u64) {
        self.with(|state| (state.replacements, state.failures, state.rolled_back))
    }

    /// Images of a lower security version are refused. It lies in the pen, which no image is loaded over.
    pub fn floor(&self) -> u64 {
        stop::pen().map_or(0, |pen| pen.header().floor())
    }

    /// The chain of what this machine has run.
    pub fn measurement(&self) -> Chain {
        self.with(|state| state.measurements.chain())
    }

    /// Looks at or changes the state. No await, and no call that takes long.
    pub(super) fn with<R>(&self, action: impl FnOnce(&mut State) -> R) -> R {
        action(&mut self.state.lock())
    }

    /// The right to receive an image, if nobody else has it.
    pub(super) fn begin_receiving(&'static self) -> Result<Receiving, Refusal> {
        self.with(|state| match state.activity {
            Activity::Serving => {
                state.activity = Activity::Receiving;
                Ok(Receiving(self))
            }
            Activity::Receiving => Err(Refusal::new(Code::Busy, "another image is being received")),
            Activity::Replacing => Err(Refusal::new(Code::Busy, "this instar is being replaced")),
        })
    }

    /// Takes a signed order that ends a trial, as `end` does it. Returns the trace of the replacement that is on trial.
    pub(super) fn decide(
        &self,
        order: &Order,
        end: impl FnOnce(&Self) -> Result<(), Refusal>,
    ) -> Result<[u8; 16], Refusal> {
        let trace_id = self.with(|state| {
            order.check(&self.expected(state))?;
            // Whatever comes of it, it does not come again.
            state.nonce = Nonce::new(random::bytes());
            Ok(state.last.as_ref().map_or([0; 16], |last| last.trace_id))
        })?;
        end(self)?;
        info!("order accepted: {}", order.action.name());
        Ok(trace_id)
    }

    fn expected<'a>(&'a self, state: &'a State) -> Expected<'a> {
        Expected {
            host_id: &self.host_id,
            generation: identity().generation,
            nonce: &state.nonce,
            staged: state.staged.as_ref().map(|staged| &staged.manifest.elf.sha256),
        }
    }

    /// Takes a signed order. From then on this machine replaces itself with what it returns.
    pub(super) fn accept(&self, order: &Order) -> Result<Staged, Refusal> {
        self.with(|state| {
            if state.activity != Activity::Serving {
                return Err(Refusal::new(
                    Code::Busy,
                    "an image is being received, or another order carried out",
                ));
            }
            order.check(&self.expected(state))?;
            let floor = self.floor();
            if let Some(staged) = &state.staged
                && staged.manifest.security_version < floor
            {
                // It was staged before the floor rose.
                let version = staged.manifest.security_version;
                let message =
                    format!("the staged image has security version {version}, the floor is {floor}");
                return Err(Refusal::new(Code::BelowFloor, message));
            }
            state.nonce = Nonce::new(random::bytes());
            let staged = state
                .staged
                .take()
                .ok_or_else(|| Refusal::new(Code::NothingStaged, "no image is staged"))?;
            state.activity = Activity::Replacing;
            Ok(staged)
        })
    }

    /// The replacement ended, and this instar serves on: with the image still staged, if it has not run.
    pub(super) fn take_back(&self, staged: Option<Staged>, timeline: Timeline) {
        crate::telemetry::flushes::count(&timeline);
        self.with(|state| {
            match timeline.outcome {
                Outcome::RolledBack => state.rolled_back += 1,
                _ => state.failures += 1,
            }
            state.staged = staged;
            state.history.note(&timeline, &timeline.reason);
            state.last = Some(timeline);
            state.activity = Activity::Serving;
        });
    }
}

/// Somebody is sending an image. Dropping it ends that.
pub(super) struct Receiving(&'static Machine);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.with(|state| state.activity = Activity::Serving);
    }
}

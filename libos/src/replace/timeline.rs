//! What happened when during one replacement, as both images saw it: one trace, one part of the handover.
//!
//! All times are nanoseconds of machine time: since the cold boot, one clock for every instar.

mod moments;
mod view;

pub use moments::Moments;
pub(super) use view::milliseconds;
pub use view::{LastReplacement, PhasesMs};

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};

use super::bounded;
use crate::telemetry::span::{Context, RANDOM, SAMPLED, SpanId, TraceId};

/// Most spans a timeline keeps.
pub const MAX_SPANS: usize = 64;
/// Most cores whose flush a timeline keeps.
pub const MAX_FLUSHES: usize = 1024;
/// Longest reason, in bytes.
pub const MAX_REASON: usize = 4096;
/// Longest version, in bytes.
pub const MAX_VERSION: usize = 64;

/// A closed set whose members are numbers in a record. A number from a newer writer must not spoil the whole record,
/// so it becomes `Unknown`.
macro_rules! numbered {
    ($(#[$of:meta])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $doc])* $variant,)*
            /// Written by a newer version that knows more.
            Unknown,
        }

        impl $name {
            /// All that are known here, with what each means, for the manual.
            pub const ALL: &[(Self, &str)] = &[$((Self::$variant, concat!($($doc),*)),)*];

            /// The name in `/v1/status` and in telemetry.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown => "unknown",
                }
            }

            const fn number(self) -> u8 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Unknown => u8::MAX,
                }
            }

            const fn from_number(number: u64) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    _ => Self::Unknown,
                }
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
                encoder.u8(self.number())?;
                Ok(())
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                decoder.u64().map(Self::from_number)
            }
        }
    };
}

numbered! {
    /// One part of a replacement.
    Phase {
        /// The image comes in over the network.
        Receive = 0, "receive";
        /// Signature and digest.
        Verify = 1, "verify";
        /// Loaded at its final address.
        Stage = 2, "stage";
        /// Not ready any more, the application hands over, the network is switched off.
        Quiesce = 3, "quiesce";
        /// The other cores stop.
        Stop = 4, "stop";
        /// Caches are written back.
        Flush = 5, "flush";
        /// From the predecessor's last instruction to the successor's first.
        Jump = 6, "jump";
        /// The successor's own start, up to its first task.
        Start = 7, "start";
        /// The successor wakes the other cores.
        Cores = 8, "cores";
        /// The network is up again.
        Network = 9, "network";
        /// From there to the end of the first answer.
        FirstAnswer = 10, "first_answer";
        /// The successor takes the predecessor's memory over.
        Commit = 11, "commit";
        /// Caches are written back while the predecessor still serves.
        EarlyFlush = 12, "early_flush";
        /// Private pages are reset.
        Reset = 13, "reset";
        /// The successor is on trial: from the jump until its commit, or until it gives the machine back.
        Probation = 14, "probation";
        /// From there until the predecessor served again.
        Rollback = 15, "rollback";
        /// The order's request, up to its acceptance.
        Order = 16, "order";
    }
}

numbered! {
    /// How a replacement ended.
    Outcome {
        /// It has not ended.
        Pending = 0, "pending";
        /// The successor proved itself.
        Committed = 1, "committed";
        /// The successor gave the machine back.
        RolledBack = 2, "rolled-back";
        /// It ended before the jump.
        Failed = 3, "failed";
    }
}

/// One phase, as the instar of `generation` saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Span {
    /// Which phase.
    #[n(0)]
    pub name: Phase,
    /// Who saw it.
    #[n(1)]
    pub generation: u32,
    /// Machine time of its start.
    #[n(2)]
    pub start_ns: u64,
    /// Machine time of its end.
    #[n(3)]
    pub end_ns: u64,
    /// It did not come to its end: that is when the successor could not go on.
    #[cbor(n(4), default)]
    pub cut_off: bool,
}

/// The span of another machine that the root is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Parent {
    /// Its id.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub span_id: [u8; 8],
    /// The `trace-flags` that came with it.
    #[n(1)]
    pub flags: u8,
}

/// One core's cache flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CoreFlush {
    /// The core's number.
    #[n(0)]
    pub core: u32,
    /// Machine time of its start.
    #[n(1)]
    pub start_ns: u64,
    /// Machine time of its end.
    #[n(2)]
    pub end_ns: u64,
    /// Time stamp counter cycles that it took.
    #[n(3)]
    pub cycles: u64,
}

/// The story of one replacement.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Timeline {
    /// The trace id of all spans (W3C Trace Context).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub trace_id: [u8; 16],
    /// The span id of the span that all others are part of.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub root_span: [u8; 8],
    /// The predecessor's version.
    #[cbor(
        n(2),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_VERSION>"
    )]
    pub from: String,
    /// The successor's version.
    #[cbor(
        n(3),
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_VERSION>"
    )]
    pub to: String,
    /// The phases, in the order in which they ended.
    #[cbor(
        n(4),
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_SPANS>"
    )]
    pub spans: Vec<Span>,
    /// The flush of each core; empty when the policy did not flush.
    #[cbor(
        n(5),
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_FLUSHES>"
    )]
    pub flushes: Vec<CoreFlush>,
    /// How it ended.
    #[n(6)]
    pub outcome: Outcome,
    /// The flush of each core while the predecessor still served.
    #[cbor(
        n(7),
        default,
        encode_with = "bounded::write_list",
        decode_with = "bounded::list::<_, _, MAX_FLUSHES>"
    )]
    pub early_flushes: Vec<CoreFlush>,
    /// Private pages of 4 KiB that were reset before the jump.
    #[cbor(n(8), default)]
    pub private_pages_reset: u64,
    /// Why it failed before the jump, or why the successor gave the machine back; empty otherwise.
    #[cbor(
        n(9),
        default,
        encode_with = "bounded::write_text",
        decode_with = "bounded::text::<_, MAX_REASON>"
    )]
    pub reason: String,
    /// What the client's `traceparent` named; `None`: the trace began in this machine.
    #[n(10)]
    pub parent: Option<Parent>,
}

impl Timeline {
    /// A timeline in which nothing has happened yet.
    #[must_use]
    pub const fn new(trace_id: [u8; 16], root_span: [u8; 8], from: String, to: String) -> Self {
        let outcome = Outcome::Pending;
        Self {
            trace_id,
            root_span,
            from,
            to,
            spans: Vec::new(),
            flushes: Vec::new(),
            outcome,
            early_flushes: Vec::new(),
            private_pages_reset: 0,
            reason: String::new(),
            parent: None,
        }
    }

    /// One that goes on with the client's trace, if it has one. `random` are bytes for ids.
    #[must_use]
    pub fn begin(client: Option<Context>, random: ([u8; 16], [u8; 8]), from: String, to: String) -> Self {
        let trace_id = client.map_or(TraceId::new(random.0), |client| client.trace_id);
        let mut timeline = Self::new(trace_id.bytes(), SpanId::new(random.1).bytes(), from, to);
        timeline.parent = client.map(|client| Parent {
            span_id: client.span_id.bytes(),
            flags: client.flags,
        });
        timeline
    }

    /// The span that all others are part of. Always "sampled", whatever the client's flags say: a replacement is rare, and
    /// its trace is looked for when something has gone wrong.
    #[must_use]
    pub fn root(&self) -> Context {
        Context {
            trace_id: TraceId::new(self.trace_id),
            span_id: SpanId::new(self.root_span),
            flags: SAMPLED | self.parent.map_or(RANDOM, |parent| parent.flags & RANDOM),
        }
    }

    /// Whether both are about the same replacement. The trace does not tell: a pipeline may have one for many.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        (self.trace_id, self.root_span) == (other.trace_id, other.root_span)
    }

    /// Adds a phase; one above [`MAX_SPANS`] is left out, so that the record can still be handed over.
    pub fn record(&mut self, name: Phase, generation: u32, start_ns: u64, end_ns: u64) {
        self.push(name, generation, start_ns, end_ns, false);
    }

    /// Adds a phase that did not come to its end.
    pub fn record_cut_off(&mut self, name: Phase, generation: u32, start_ns: u64, end_ns: u64) {
        self.push(name, generation, start_ns, end_ns, true);
    }

    fn push(&mut self, name: Phase, generation: u32, start_ns: u64, end_ns: u64, cut_off: bool) {
        if self.spans.len() < MAX_SPANS {
            self.spans.push(Span {
                name,
                generation,
                start_ns,
                end_ns: end_ns.max(start_ns),
                cut_off,
            });
        }
    }

    /// Adds each core's flush in the stop, and the phase that they make up. Nothing if there are none.
    pub fn record_flushes(&mut self, generation: u32, flushes: Vec<CoreFlush>) {
        let first = flushes.iter().map(|flush| flush.start_ns).min();
        let last = flushes.iter().map(|flush| flush.end_ns).max();
        if let (Some(first), Some(last)) = (first, last) {
            self.record(Phase::Flush, generation, first, last);
        }
        self.flushes = flushes;
    }

    /// How long a phase took, in nanoseconds, with all its spans; `None`: it has not been recorded.
    #[must_use]
    pub fn phase_ns(&self, phase: Phase) -> Option<u64> {
        let mut total = None;
        for span in self.spans.iter().filter(|span| span.name == phase) {
            let length = span.end_ns.saturating_sub(span.start_ns);
            total = Some(total.unwrap_or(0_u64).saturating_add(length));
        }
        total
    }

    /// How long nobody answered, in nanoseconds: from the end of quiesce, when the network goes off, to the end of the
    /// first answer. `None` until both are known.
    #[must_use]
    pub fn blackout_ns(&self) -> Option<u64> {
        let end_of = |phase| {
            self.spans
                .iter()
                .rev()
                .find(|span| span.name == phase)
                .map(|span| span.end_ns)
        };
        end_of(Phase::FirstAnswer)?.checked_sub(end_of(Phase::Quiesce)?)
    }
}

#[cfg(test)]
mod tests;

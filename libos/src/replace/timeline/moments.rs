//! From what a successor has reached to the phases of its story.

use super::{Phase, Timeline};

/// When a successor reached what, in nanoseconds of machine time; `None`: it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Its first instruction.
    pub entered: Option<u64>,
    /// It began to set the network up.
    pub network_start: Option<u64>,
    /// The network was up.
    pub network_up: Option<u64>,
    /// It called the other cores.
    pub cores_called: Option<u64>,
    /// The last one was online.
    pub cores_online: Option<u64>,
    /// The first answer left.
    pub first_answer: Option<u64>,
}

impl Timeline {
    /// Adds what came after the stop: the jump, by the instar of `predecessor`, and what its successor did. With `ended`, the
    /// moment at which the successor could go on no more, a phase that was under way ends there, cut off.
    pub fn record_successor(
        &mut self,
        predecessor: u32,
        jump_ns: u64,
        moments: &Moments,
        ended: Option<u64>,
    ) {
        let Moments {
            entered,
            network_start,
            network_up,
            cores_called,
            cores_online,
            first_answer,
        } = *moments;
        let me = predecessor + 1;
        for (phase, generation, start, end) in [
            (
                Phase::Jump,
                predecessor,
                Some(jump_ns),
                entered.map(|at| at.max(jump_ns)),
            ),
            (Phase::Start, me, entered, network_start),
            (Phase::Network, me, network_start, network_up),
            (Phase::FirstAnswer, me, network_up, first_answer),
            (Phase::Cores, me, cores_called, cores_online),
        ] {
            match (start, end, ended) {
                (Some(start), Some(end), _) => self.record(phase, generation, start, end),
                (Some(start), None, Some(ended)) => self.record_cut_off(phase, generation, start, ended),
                _ => {}
            }
        }
        if let Some(ended) = ended {
            self.record_cut_off(Phase::Probation, me, jump_ns, ended);
        }
    }
}

//! Everything that a successor is told, written into its memory before anything is switched off.

use alloc::format;
use alloc::vec::Vec;

use loader::boot::{self, Parameters, Region};

use super::envelope::HEADER;
use super::error::{Code, Refusal};
use super::handover::{self, CHUNK_LIST_BYTES, Handover, MAX_RANGES, PARAMETER_BYTES};
use super::machine::Machine;
use super::measured::{Event, Measurements};
use super::order::{CommitBy, Trial};
use super::probation;
use super::stage::Staged;
use super::timeline::Timeline;
use crate::cpu::{stop, time};
use crate::memory::{self, CHUNK, chunks::Owner, regions};
use crate::net::Kept;
use crate::start::identity;

/// What the successor is told, written.
pub(super) struct Prepared {
    /// Address of its boot information.
    pub boot_info: u64,
    /// Where the list of this instar's memory goes, in the last moment.
    pub chunk_list: u64,
    /// What this machine has run, with the successor.
    pub measurements: Measurements,
    /// Where the successor leaves what it hands back, if there is room.
    pub returned: Option<Region>,
}

/// Writes everything that the successor is told into its memory, but for the list of this instar's.
pub(super) fn prepare(
    machine: &Machine,
    staged: &mut Staged,
    timeline: &Timeline,
    quiesce: time::Instant,
    (trial, kept): (Trial, &[Kept]),
) -> Result<Prepared, Refusal> {
    let failed = |message| Refusal::new(Code::StopFailed, message);
    let event = Event::new(&staged.manifest, &staged.manifest_text, identity().generation + 1);
    let measurements = machine.with(|state| state.measurements.extended(event));
    let area = staged.layout.parameters.clone();
    let chunk_list = area.start + PARAMETER_BYTES / 2 - CHUNK_LIST_BYTES;
    let ranges = memory::ranges_of(Owner::Own).len();
    // A few more may come until the jump.
    if ranges + 16 > MAX_RANGES {
        return Err(failed(format!(
            "this instar's memory lies in {ranges} pieces, and a successor reads {MAX_RANGES}"
        )));
    }
    let trial = stop::pen()
        .filter(|pen| pen.has_way_back())
        .map(|_| handover::Trial {
            ends_ns: time::now().0.saturating_add(trial.deadline_ns),
            hang_ns: probation::HANG.as_nanos() as u64,
            by_order: trial.commit == CommitBy::Order,
            chunks_at: chunk_list,
        });
    let handover = Handover::compose(machine, timeline, quiesce, trial, &measurements, kept);
    let record = handover::encode(&handover).map_err(|error| failed(format!("{error}")))?;
    let base = staged.chunks.range().start;
    let area_bytes = &mut staged.chunks.bytes()[(area.start - base) as usize..(area.end - base) as usize];
    // `encode` sees to it that the record fits.
    // The record lies in the upper half of the area, the device tree in the lower.
    let (tree_part, record_part) = area_bytes.split_at_mut((PARAMETER_BYTES / 2) as usize);
    let (tree_part, _list) = tree_part.split_at_mut((PARAMETER_BYTES / 2 - CHUNK_LIST_BYTES) as usize);
    record_part[..record.len()].copy_from_slice(&record);
    let record_start = area.start + PARAMETER_BYTES / 2;
    let record_place = Region {
        start: record_start,
        end: record_start + record.len() as u64,
    };
    let returned = probation::return_place(record_place);
    if let Some(place) = returned {
        // What an earlier successor handed back may still be there.
        let at = (place.start - record_start) as usize;
        record_part[at..at + HEADER].fill(0);
    }
    let own = machine_region(&staged.layout.own);
    let memory = memory_for_successor(&machine.parameters.memory, &handover)?;
    let parameters = Parameters {
        memory: &memory,
        // A copy that the first stage made lies in the first instar's memory, which is wiped.
        rsdp: machine.parameters.rsdp.filter(|rsdp| *rsdp < CHUNK),
        command_line: &machine.parameters.command_line,
        own,
        manifest: &staged.manifest_text,
        release_key: &machine.parameters.release_key,
        operator_key: &machine.parameters.operator_key,
        handover: Some(record_place),
        measurement: Some(measurements.chain()),
    };
    boot::write(&parameters, &staged.loaded, tree_part, area.start)
        .map(|written| Prepared {
            boot_info: written.boot_info_address,
            chunk_list,
            measurements,
            returned,
        })
        .map_err(|error| failed(format!("{error}")))
}

/// All memory but what is handed over: a successor that does not know of that must not know of it as memory either.
fn memory_for_successor(memory: &[Region], handover: &Handover) -> Result<Vec<Region>, Refusal> {
    let private = handover.private.iter().map(|it| it.start..it.end);
    let preserved = handover.preserved.iter().map(|it| it.start..it.end);
    carved(memory, &private.chain(preserved).collect::<Vec<_>>())
}

fn carved(memory: &[Region], handed: &[core::ops::Range<u64>]) -> Result<Vec<Region>, Refusal> {
    let left = regions::carve(memory, handed);
    if left.len() > boot::MAX_REGIONS {
        let message = format!(
            "the memory that is handed over leaves the rest in {} pieces, and a successor reads {}",
            left.len(),
            boot::MAX_REGIONS
        );
        return Err(Refusal::new(Code::PrivatePages, message));
    }
    Ok(left)
}

fn machine_region(range: &core::ops::Range<u64>) -> Region {
    Region {
        start: range.start,
        end: range.end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(start: u64, end: u64) -> core::ops::Range<u64> {
        start * CHUNK..end * CHUNK
    }

    #[test]
    fn a_successor_is_not_given_what_is_handed_over_as_memory() {
        let region = |start, end| Region { start, end };
        let memory = [region(0, 0x9f000), region(0x10_0000, 20 * CHUNK)];
        let left = carved(&memory, &[handed(5, 7), handed(19, 20)]);
        let expected = [
            region(0, 0x9f000),
            region(0x10_0000, 5 * CHUNK),
            region(7 * CHUNK, 19 * CHUNK),
        ];
        assert_eq!(left.as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn more_pieces_than_a_successor_reads_are_refused_before_the_jump() {
        let memory = [Region {
            start: 0,
            end: 4096 * CHUNK,
        }];
        let holes =
            |count: usize| -> Vec<_> { (1..=count as u64).map(|at| handed(2 * at, 2 * at + 1)).collect() };
        let most = boot::MAX_REGIONS - 1;
        assert!(carved(&memory, &holes(most)).is_ok());
        let refused = carved(&memory, &holes(most + 1)).expect_err("too many");
        assert_eq!(refused.code, "private-pages");
    }
}

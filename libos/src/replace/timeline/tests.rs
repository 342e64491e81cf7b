//! One replacement's story, told and repeated.

use super::*;
use alloc::string::ToString;

fn timeline() -> Timeline {
    let mut timeline = Timeline::new([0xab; 16], [0xcd; 8], "1.0.0".to_string(), "1.1.0".to_string());
    timeline.record(Phase::Receive, 1, 1_000_000, 2_000_000);
    timeline.record(Phase::Receive, 1, 3_000_000, 3_500_000);
    timeline.record(Phase::Quiesce, 1, 4_000_000, 5_000_000);
    timeline.record(Phase::Start, 2, 6_000_000, 7_000_000);
    timeline.private_pages_reset = 512;
    timeline.flushes.push(CoreFlush {
        core: 1,
        start_ns: 5_100_000,
        end_ns: 5_200_000,
        cycles: 300_000,
    });
    timeline
}

#[test]
fn blackout_is_from_the_end_of_quiesce_to_the_first_answer() {
    let mut timeline = timeline();
    assert_eq!(timeline.blackout_ns(), None);
    timeline.record(Phase::FirstAnswer, 2, 7_000_000, 9_250_000);
    assert_eq!(timeline.blackout_ns(), Some(4_250_000));
}

#[test]
fn times_that_cannot_be_do_no_harm() {
    let mut timeline = timeline();
    timeline.record(Phase::FirstAnswer, 2, u64::MAX, 0);
    timeline.record(Phase::Stop, 2, 0, u64::MAX);
    timeline.record(Phase::Stop, 2, 0, u64::MAX);
    assert_eq!(timeline.blackout_ns(), None);
    assert_eq!(timeline.phase_ns(Phase::FirstAnswer), Some(0));
    assert_eq!(timeline.phase_ns(Phase::Stop), Some(u64::MAX));
}

#[test]
fn phases_are_summed_and_unknown_ones_are_null() {
    let phases = timeline().phases_ms();
    assert_eq!(
        (phases.receive, phases.quiesce, phases.flush),
        (Some(1.5), Some(1.0), None)
    );
}

#[test]
fn spans_have_a_limit() {
    let mut timeline = timeline();
    for at in 0..100 {
        timeline.record(Phase::Commit, 2, at, at);
    }
    assert_eq!(timeline.spans.len(), MAX_SPANS);
}

#[test]
fn the_json_is_the_documented_one() {
    let mut timeline = timeline();
    timeline.outcome = Outcome::Committed;
    timeline.spans.truncate(1);
    let json = serde_json::to_string(&timeline.last_replacement()).expect("serialises");
    assert_eq!(
        json,
        "{\"trace_id\":\"abababababababababababababababab\",\"from\":\"1.0.0\",\"to\":\"1.1.0\",\
         \"outcome\":\"committed\",\"reason\":null,\"recovery_ms\":null,\"phases_ms\":{\"receive\":1.0,\"verify\":null,\"stage\":null,\
         \"early_flush\":null,\"quiesce\":null,\"reset\":null,\"stop\":null,\"flush\":null,\"start\":null,\"network\":null,\"first_answer\":null},\
         \"blackout_ms\":null,\"private_pages_reset\":512,\"flush\":[{\"core\":1,\"cycles\":300000,\"ns\":100000}],\"early_flush\":[],\
         \"spans\":[{\"name\":\"receive\",\"generation\":1,\"start_ns\":1000000,\"end_ns\":2000000}]}"
    );
}

#[test]
fn numbers_are_what_crosses_the_jump() {
    for number in 0..=16 {
        let phase = Phase::from_number(number);
        assert_eq!(phase == Phase::Unknown, number == 16);
        assert!(phase == Phase::Unknown || u64::from(phase.number()) == number);
    }
    let newer = [0x18, 200];
    assert_eq!(
        minicbor::decode::<Phase>(&newer).expect("decodes"),
        Phase::Unknown
    );
    assert_eq!(
        minicbor::decode::<Outcome>(&newer).expect("decodes"),
        Outcome::Unknown
    );
}

#[test]
fn cbor_goes_there_and_back() {
    let timeline = timeline();
    let mut bytes = Vec::new();
    minicbor::encode(&timeline, crate::replace::bounded::Memory(&mut bytes)).expect("encodes");
    assert_eq!(minicbor::decode::<Timeline>(&bytes).expect("decodes"), timeline);
    // An older writer's map ends before the count of reset pages: key 08, and 512 as 19 02 00; then the reason,
    // key 09, and an empty text.
    let older = [&[0xa8], &bytes[1..bytes.len() - 6]].concat();
    let read: Timeline = minicbor::decode(&older).expect("decodes");
    assert_eq!(read.private_pages_reset, 0);
}

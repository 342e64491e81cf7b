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
    // From a record, not from `record`.
    timeline.spans.push(Span {
        name: Phase::FirstAnswer,
        generation: 2,
        start_ns: u64::MAX,
        end_ns: 0,
        cut_off: false,
    });
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
        "{\"trace_id\":\"abababababababababababababababab\",\"span_id\":\"cdcdcdcdcdcdcdcd\",\"from\":\"1.0.0\",\"to\":\"1.1.0\",\
         \"outcome\":\"committed\",\"reason\":null,\"recovery_ms\":null,\"phases_ms\":{\"receive\":1.0,\"verify\":null,\"stage\":null,\"order\":null,\
         \"early_flush\":null,\"quiesce\":null,\"reset\":null,\"stop\":null,\"flush\":null,\"jump\":null,\"start\":null,\"network\":null,\"first_answer\":null,\
         \"cores\":null,\"probation\":null,\"commit\":null,\"rollback\":null},\
         \"blackout_ms\":null,\"private_pages_reset\":512,\"flush\":[{\"core\":1,\"cycles\":300000,\"ns\":100000}],\"early_flush\":[],\
         \"spans\":[{\"name\":\"receive\",\"generation\":1,\"start_ns\":1000000,\"end_ns\":2000000,\"cut_off\":false}]}"
    );
}

#[test]
fn numbers_are_what_crosses_the_jump() {
    for number in 0..=17 {
        let phase = Phase::from_number(number);
        assert_eq!(phase == Phase::Unknown, number == 17);
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
    let mut timeline = timeline();
    timeline.record_cut_off(Phase::Network, 2, 7_000_000, 8_000_000);
    timeline.parent = Some(Parent {
        span_id: [0xef; 8],
        flags: 1,
    });
    let encoded = |timeline: &Timeline| {
        let mut bytes = Vec::new();
        minicbor::encode(timeline, crate::replace::bounded::Memory(&mut bytes)).expect("encodes");
        bytes
    };
    assert_eq!(
        minicbor::decode::<Timeline>(&encoded(&timeline)).expect("decodes"),
        timeline
    );
    // An older writer's map ends before the count of reset pages: key 08, and 512 as 19 02 00; then the reason,
    // key 09, and an empty text. Its spans have four fields.
    timeline.parent = None;
    timeline.spans.clear();
    let bytes = encoded(&timeline);
    let end = bytes
        .windows(6)
        .position(|bytes| bytes == [8, 0x19, 2, 0, 9, 0x60])
        .expect("it is there");
    let older = [&[0xa8], &bytes[1..end]].concat();
    let read: Timeline = minicbor::decode(&older).expect("decodes");
    assert_eq!((read.private_pages_reset, read.parent), (0, None));
    let span: Span = minicbor::decode(&[0xa4, 0, 4, 1, 1, 2, 5, 3, 9]).expect("decodes");
    assert_eq!((span.name, span.end_ns, span.cut_off), (Phase::Stop, 9, false));
}

#[test]
fn a_clients_trace_is_gone_on_with() {
    let begin = |client| {
        Timeline::begin(
            client,
            ([1; 16], [2; 8]),
            "1.0.0".to_string(),
            "1.1.0".to_string(),
        )
    };
    let own = begin(None);
    assert_eq!((own.trace_id, own.root_span, own.parent), ([1; 16], [2; 8], None));
    // Ours is random, and says so.
    assert_eq!(own.root().flags, SAMPLED | RANDOM);
    let client = |flags| Context {
        trace_id: TraceId::new([3; 16]),
        span_id: SpanId::new([4; 8]),
        flags,
    };
    let theirs = begin(Some(client(0)));
    assert_eq!((theirs.trace_id, theirs.root_span), ([3; 16], [2; 8]));
    assert_eq!(theirs.parent.map(|parent| parent.span_id), Some([4; 8]));
    // Told though the client does not sample it; what else a later version's flags say is not ours to say.
    assert_eq!(theirs.root().flags, SAMPLED);
    assert_eq!(begin(Some(client(0xff))).root().flags, SAMPLED | RANDOM);
    assert!(theirs.is_of(&begin(Some(client(1)))));
    let mut again = theirs.clone();
    again.root_span = [5; 8];
    assert!(!theirs.is_of(&again), "two replacements of one pipeline");
}

/// Phase, generation, begin, end, cut off.
type Row = (Phase, u32, u64, u64, bool);

fn rows(moments: &Moments, ended: Option<u64>) -> Vec<Row> {
    let mut timeline = Timeline::new([1; 16], [1; 8], String::new(), String::new());
    timeline.record_successor(1, 10, moments, ended);
    let row = |span: &Span| {
        (
            span.name,
            span.generation,
            span.start_ns,
            span.end_ns,
            span.cut_off,
        )
    };
    timeline.spans.iter().map(row).collect()
}

#[test]
fn what_a_successor_was_at_when_it_ended_is_cut_off() {
    use Phase::{Cores, FirstAnswer, Jump, Network, Probation, Start};
    let mut moments = Moments::default();
    let trial = (Probation, 2, 10, 90, true);
    assert_eq!(rows(&moments, Some(90)), [(Jump, 1, 10, 90, true), trial]);
    moments.entered = Some(11);
    let jump = (Jump, 1, 10, 11, false);
    assert_eq!(rows(&moments, Some(90)), [jump, (Start, 2, 11, 90, true), trial]);
    moments.network_start = Some(20);
    let start = (Start, 2, 11, 20, false);
    assert_eq!(
        rows(&moments, Some(90)),
        [jump, start, (Network, 2, 20, 90, true), trial]
    );
    moments.network_up = Some(30);
    moments.cores_called = Some(31);
    let network = (Network, 2, 20, 30, false);
    let under_way = [(FirstAnswer, 2, 30, 90, true), (Cores, 2, 31, 90, true)];
    assert_eq!(
        rows(&moments, Some(90)),
        [[jump, start, network].as_slice(), &under_way, &[trial]].concat()
    );
    moments.cores_online = Some(40);
    moments.first_answer = Some(35);
    let done = [
        jump,
        start,
        network,
        (FirstAnswer, 2, 30, 35, false),
        (Cores, 2, 31, 40, false),
    ];
    assert_eq!(rows(&moments, Some(90)), [&done[..], &[trial]].concat());
    assert_eq!(rows(&moments, None), done, "nothing ended: nothing is cut off");
}

#[test]
fn an_end_is_never_before_the_beginning() {
    let mut moments = Moments {
        entered: Some(5),
        cores_called: Some(50),
        cores_online: Some(40),
        ..Moments::default()
    };
    moments.network_start = Some(3);
    for (name, _, start, end, _) in rows(&moments, Some(1)) {
        assert!(start <= end, "{name:?}");
    }
}

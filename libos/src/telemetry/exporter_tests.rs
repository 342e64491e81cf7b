use super::exporter::{Action, Exporter, Failure, Policy};
use super::queue::{Limit, Limits};
use super::{Signal, proto};
use proptest::prelude::*;
use prost::Message;

const SECOND: u64 = 1_000_000_000;

fn exporter() -> Exporter {
    Exporter::new(Limits::default(), Policy::default(), 42)
}

fn sent(action: Action) -> (Signal, u8, u32) {
    match action {
        Action::Send {
            signal,
            body,
            attempt,
        } => (signal, body[0], attempt),
        other => panic!("expected to send, got {other:?}"),
    }
}

fn wait(action: Action) -> u64 {
    match action {
        Action::WaitUntil(until) => until,
        other => panic!("expected to wait, got {other:?}"),
    }
}

#[test]
fn oldest_first_one_at_a_time() {
    let mut exporter = exporter();
    assert_eq!(exporter.next(0), Action::Idle);
    exporter.push(Signal::Traces, vec![1]);
    exporter.push(Signal::Metrics, vec![2]);
    assert_eq!(sent(exporter.next(0)), (Signal::Traces, 1, 1));
    assert_eq!(exporter.next(0), Action::Idle, "one request in flight");
    exporter.on_response(1, 200, None, &[]);
    assert_eq!(sent(exporter.next(1)), (Signal::Metrics, 2, 1));
    exporter.on_response(2, 200, None, &[]);
    assert_eq!(exporter.next(2), Action::Idle);
    assert_eq!(exporter.counters().delivered, [1, 0, 1]);
    exporter.on_response(3, 200, None, &[]);
    assert_eq!(exporter.counters().delivered, [1, 0, 1], "nothing was under way");
}

#[test]
fn retries_only_what_the_specification_allows() {
    for status in [100, 301, 307, 400, 401, 404, 408, 413, 415, 500, 501, 505, 999] {
        let mut exporter = exporter();
        exporter.push(Signal::Logs, vec![1]);
        exporter.next(0);
        exporter.on_response(0, status, Some(1), &[]);
        assert_eq!(exporter.next(0), Action::Idle, "{status}");
        assert_eq!(exporter.counters().rejected, [0, 1, 0], "{status}");
    }
    for status in [429, 502, 503, 504] {
        let mut exporter = exporter();
        exporter.push(Signal::Logs, vec![1]);
        exporter.next(0);
        exporter.on_response(0, status, None, &[]);
        let until = wait(exporter.next(0));
        assert!((SECOND / 2..=SECOND).contains(&until), "{status}: {until}");
        assert_eq!(wait(exporter.next(until - 1)), until);
        assert_eq!(sent(exporter.next(until)), (Signal::Logs, 1, 2), "{status}");
        assert_eq!(exporter.counters().retries, 1);
    }
}

#[test]
fn pauses_double_up_to_a_bound_and_end_with_success() {
    let mut exporter = exporter();
    exporter.push(Signal::Logs, vec![1]);
    let mut now = 0;
    let mut longest = 0;
    for failures in 0..10 {
        sent(exporter.next(now));
        exporter.on_failure(now, Failure::Connect);
        let until = wait(exporter.next(now));
        let full = (SECOND << failures).min(15 * SECOND);
        assert!(
            (full / 2..=full).contains(&(until - now)),
            "failure {failures}: {}",
            until - now
        );
        longest = longest.max(until - now);
        now = until;
    }
    assert!(longest > 7 * SECOND);
    sent(exporter.next(now));
    exporter.on_response(now, 200, None, &[]);
    exporter.push(Signal::Logs, vec![2]);
    sent(exporter.next(now));
    exporter.on_failure(now, Failure::Connect);
    assert!(wait(exporter.next(now)) <= now + SECOND);
    exporter.network_is_up();
    sent(exporter.next(now));
}

#[test]
fn retry_after_is_honoured_within_bounds() {
    for (asked, least, most) in [
        (7, 7 * SECOND, 7 * SECOND),
        (0, SECOND / 2, SECOND),
        (u32::MAX, 3600 * SECOND, 3600 * SECOND),
    ] {
        let mut exporter = exporter();
        exporter.push(Signal::Traces, vec![1]);
        exporter.next(0);
        exporter.on_response(0, 429, Some(asked), &[]);
        let until = wait(exporter.next(0));
        assert!((least..=most).contains(&until), "{asked}: {until}");
    }
}

#[test]
fn a_busy_signal_does_not_hold_up_the_others() {
    let mut exporter = exporter();
    exporter.push(Signal::Traces, vec![1]);
    exporter.push(Signal::Logs, vec![2]);
    exporter.next(0);
    exporter.on_response(0, 503, None, &[]);
    assert_eq!(sent(exporter.next(0)), (Signal::Logs, 2, 1));
    exporter.on_response(0, 200, None, &[]);
    let until = wait(exporter.next(0));
    assert_eq!(sent(exporter.next(until)), (Signal::Traces, 1, 2));
}

#[test]
fn partial_success_is_delivered_and_counted() {
    let mut exporter = exporter();
    let answer = proto::ExportResponse {
        partial_success: Some(proto::PartialSuccess { rejected: 3 }),
    };
    for (body, rejected_items) in [(answer.encode_to_vec(), 3), (vec![0xff; 9], 3)] {
        exporter.push(Signal::Logs, vec![1]);
        exporter.next(0);
        exporter.on_response(0, 200, None, &body);
        assert_eq!(exporter.next(0), Action::Idle);
        assert_eq!(exporter.counters().rejected_items, rejected_items);
    }
    assert_eq!(exporter.counters().delivered, [0, 2, 0]);
    let negative = proto::ExportResponse {
        partial_success: Some(proto::PartialSuccess { rejected: -1 }),
    };
    exporter.push(Signal::Logs, vec![1]);
    exporter.next(0);
    exporter.on_response(0, 200, None, &negative.encode_to_vec());
    assert_eq!(exporter.counters().rejected_items, 3);
}

#[test]
fn official_partial_success_is_understood() {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };
    let answer = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 5,
            error_message: "no".into(),
        }),
    };
    let mut exporter = exporter();
    exporter.push(Signal::Traces, vec![1]);
    exporter.next(0);
    exporter.on_response(0, 200, None, &answer.encode_to_vec());
    assert_eq!(exporter.counters().rejected_items, 5);
}

#[test]
fn gives_up_on_what_the_collector_cannot_take_but_not_on_an_absent_collector() {
    let mut exporter = exporter();
    exporter.push(Signal::Logs, vec![1]);
    sent(exporter.next(0));
    exporter.on_response(0, 503, None, &[]);
    sent(exporter.next(3599 * SECOND));
    exporter.on_failure(3599 * SECOND, Failure::TimedOut);
    assert_eq!(exporter.counters().dropped, [0; 3]);
    sent(exporter.next(3700 * SECOND));
    exporter.on_failure(3700 * SECOND, Failure::Interrupted);
    assert_eq!(exporter.counters().dropped, [0, 1, 0]);
    assert_eq!(exporter.next(3700 * SECOND), Action::Idle);

    exporter.push(Signal::Traces, vec![2]);
    let mut now = 4000 * SECOND;
    for _ in 0..100 {
        sent(exporter.next(now));
        exporter.on_failure(now, Failure::Connect);
        now += 3600 * SECOND;
    }
    assert_eq!(sent(exporter.next(now)), (Signal::Traces, 2, 101));
    exporter.on_failure(now, Failure::NotHttp);
    assert_eq!(exporter.counters().rejected, [0, 0, 1]);
}

#[test]
fn what_is_under_way_crosses_the_jump() {
    let mut exporter = exporter();
    exporter.push(Signal::Traces, vec![1]);
    exporter.push(Signal::Logs, vec![2]);
    exporter.next(0);
    let left = exporter.undelivered(1024);
    assert_eq!(left, [(Signal::Traces, vec![1]), (Signal::Logs, vec![2])]);
    let mut successor = self::exporter();
    for (signal, body) in left {
        successor.push(signal, body);
    }
    assert_eq!(sent(successor.next(0)), (Signal::Traces, 1, 1));
}

#[derive(Clone, Debug)]
enum Event {
    Push(usize, usize),
    Next,
    Response(u16, Option<u32>, Vec<u8>),
    Failure(u8),
    Time(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let status = prop_oneof![Just(200u16), Just(429), Just(503), Just(400), any::<u16>()];
    let body = prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        (0usize..3, 1usize..400).prop_map(|(signal, size)| Event::Push(signal, size)),
        Just(Event::Next),
        Just(Event::Next),
        (status, any::<Option<u32>>(), body)
            .prop_map(|(status, after, body)| Event::Response(status, after, body)),
        (0u8..4).prop_map(Event::Failure),
        prop_oneof![0..100 * SECOND, any::<u64>()].prop_map(Event::Time),
    ]
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_bounds(events in prop::collection::vec(event(), 0..300), seed: u64) {
        let limits = Limits([Limit { bytes: 1000, items: 5 }; 3]);
        let mut exporter = Exporter::new(limits, Policy::default(), seed);
        let (mut now, mut latest, mut pushed, mut in_flight) = (0u64, 0u64, 0u64, false);
        for event in events {
            if matches!(event, Event::Next | Event::Response(..) | Event::Failure(_)) {
                latest = latest.max(now);
            }
            match event {
                Event::Push(index, size) => {
                    pushed += 1;
                    exporter.push(Signal::from_index(index).expect("in range"), vec![1; size]);
                }
                Event::Next => match exporter.next(now) {
                    Action::Send { .. } => {
                        prop_assert!(!in_flight, "two requests in flight");
                        in_flight = true;
                    }
                    Action::WaitUntil(until) => {
                        prop_assert!(!in_flight && until > latest, "waits for the past");
                    }
                    Action::Idle => prop_assert!(in_flight || exporter.counters().queued == 0),
                },
                Event::Response(status, after, body) => {
                    exporter.on_response(now, status, after, &body);
                    in_flight = false;
                }
                Event::Failure(kind) => {
                    let kinds = [Failure::Connect, Failure::Interrupted, Failure::TimedOut, Failure::NotHttp];
                    exporter.on_failure(now, kinds[usize::from(kind)]);
                    in_flight = false;
                }
                // Some of these go back; the exporter's own time must not.
                Event::Time(time) => now = time / 2,
            }
            let counters = exporter.counters();
            prop_assert!(counters.queued_bytes <= 3000 && counters.queued <= 15);
            let settled: u64 = [counters.delivered, counters.rejected, counters.dropped].iter().flatten().sum();
            prop_assert_eq!(settled + counters.queued, pushed, "each request is in exactly one place");
        }
    }
}

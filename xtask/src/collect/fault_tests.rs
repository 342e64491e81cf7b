use super::tests::{ANY, connect, export, log, post, read_answer};
use super::*;
use std::io::{Read, Write};
use std::time::Instant;

#[test]
fn faults() {
    let collector = Collector::start(ANY).expect("starts");
    let send = |fault: Fault| {
        collector.set_fault(fault).expect("set");
        post(&collector, "/v1/logs", &log(1, "x"))
    };
    let (status, head, _) = send(Fault::Status(429, Some(7))).expect("answered");
    assert!(status == 429 && head.contains("Retry-After: 7\r\n"), "{head}");
    assert_eq!(send(Fault::Status(400, None)).expect("answered").0, 400);
    assert_eq!(send(Fault::Status(503, None)).expect("answered").0, 503);
    let (status, head, _) = send(Fault::Redirect("http://elsewhere/".into())).expect("answered");
    assert!(
        status == 307 && head.contains("Location: http://elsewhere/\r\n"),
        "{head}"
    );
    assert!(send(Fault::HalfAnswer).is_err());
    assert!(send(Fault::Reset).is_err());
    assert!(send(Fault::Garbage).is_err());
    assert_eq!(
        collector.received().logs().count(),
        0,
        "nothing taken by faults that refuse"
    );
    let begin = Instant::now();
    assert_eq!(
        send(Fault::SlowBytes(Duration::from_millis(2)))
            .expect("answered")
            .0,
        200
    );
    assert!(begin.elapsed() > Duration::from_millis(100));
    assert_eq!(
        send(Fault::HugeAnswer(3 << 20)).expect("answered").2.len(),
        3 << 20
    );
    let (_, _, body) = send(Fault::PartialSuccess(3)).expect("answered");
    assert!(!body.is_empty());
    collector.set_fault(Fault::NeverAnswer).expect("set");
    let mut stream = connect(&collector);
    stream.write_all(&export("/v1/logs", &log(1, "x"))).expect("sent");
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set");
    assert!(stream.read(&mut [0]).is_err(), "silence");
    assert_eq!(collector.received().logs().count(), 2);
}

#[test]
fn goes_away_and_returns_to_the_same_address() {
    let collector = Collector::start_with(ANY, Fault::Refuse).expect("starts");
    for round in 1..=3 {
        assert!(post(&collector, "/v1/logs", &log(1, "x")).is_err());
        collector.set_fault(Fault::None).expect("returns");
        let mut stream = connect(&collector);
        stream.write_all(&export("/v1/logs", &log(1, "x"))).expect("sent");
        assert_eq!(read_answer(&mut stream).expect("answered").0, 200);
        collector.set_fault(Fault::Refuse).expect("goes");
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "open connections end");
        assert_eq!(collector.received().logs().count(), round);
    }
    let address = collector.address();
    drop(collector);
    let again = Collector::start(&address.to_string()).expect("the port is free again");
    assert!(
        again
            .wait_for(|received| received.logs().count() > 0, Duration::from_millis(50))
            .is_err()
    );
}

//! Records there and back, and every way to spoil one.

use core::net::Ipv4Addr;

use alloc::string::ToString;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::memory::chunks::CHUNK_BYTES;
use crate::replace::history::{History, MAX_REASON};
use crate::replace::measured::{Event, MAX_EVENTS};
use crate::replace::timeline::{CoreFlush, Outcome, Parent, Phase, Span};

fn record() -> Handover {
    let mut timeline = Timeline::new([7; 16], [9; 8], "1.0.0".to_string(), "1.1.0".to_string());
    timeline.record(Phase::Receive, 1, 1_000, 2_000);
    timeline.flushes.push(CoreFlush {
        core: 1,
        start_ns: 1,
        end_ns: 2,
        cycles: 3,
    });
    Handover {
        format: FORMAT,
        generation: 1,
        predecessor: Predecessor {
            name: "hello".to_string(),
            version: "1.0.0".to_string(),
            instance_id: [3; 16],
        },
        unix_at_boot: 1_700_000_000_000_000_000,
        tsc_at_boot: 12_345,
        tsc_hz: 2_000_000_000,
        apic_hz: 1_000_000_000,
        floor: 2,
        host_id: "52:54:00:12:34:56".to_string(),
        network: Some(NetworkRecord {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: [Ipv4Addr::new(10, 0, 2, 3)].to_vec(),
            leased: true,
            neighbours: [NeighbourRecord {
                address: Ipv4Addr::new(10, 0, 2, 2),
                mac: [0x52; 6],
            }]
            .to_vec(),
        }),
        pen: PenPlace {
            base: 0x1_0000,
            bytes: 0x2_0000,
            version: 1,
        },
        cores: [
            HandedCore {
                apic_id: 0,
                online: true,
            },
            HandedCore {
                apic_id: 2,
                online: false,
            },
        ]
        .to_vec(),
        predecessor_chunks: [ChunkRange {
            start: CHUNK_BYTES,
            end: 4 * CHUNK_BYTES,
        }]
        .to_vec(),
        timeline,
        quiesce_ns: 5_000,
        undelivered: [(2, [1, 2, 3].to_vec()), (0, Vec::new())].to_vec(),
        replacements: 4,
        private: [private(7, 8), private(8, 11)].to_vec(),
        trial: Some(Trial {
            ends_ns: 30_000_000_000,
            hang_ns: 2_000_000_000,
            by_order: true,
            chunks_at: 0x1234_5000,
        }),
        measurements: Measurements::default().extended(event("1.0.0")),
        history: history(1).past().to_vec(),
        kept: [kept(40_000)].to_vec(),
        state: [stashed("clock", 3), stashed("users", 40)].to_vec(),
        preserved: [preserved(12, 14), preserved(14, 15)].to_vec(),
        left_behind: [1, 2, 0],
    }
}

fn stashed(name: &str, bytes: usize) -> Stashed {
    Stashed {
        name: name.to_string(),
        version: 2,
        bytes: alloc::vec![0x5a; bytes],
    }
}

/// Preserved memory from one chunk to before another.
fn preserved(start: u64, end: u64) -> PreservedRange {
    PreservedRange {
        start: start * CHUNK_BYTES,
        end: end * CHUNK_BYTES,
        name: alloc::format!("region {start}"),
        version: 1,
    }
}

fn kept(remote_port: u16) -> KeptRecord {
    KeptRecord {
        address: Ipv4Addr::new(10, 0, 2, 2),
        remote_port,
        local_port: 7,
    }
}

fn event(version: &str) -> Event {
    Event {
        name: "hello".to_string(),
        version: version.to_string(),
        generation: 1,
        manifest: [0xee; 48],
    }
}

/// So many replacements that failed.
fn history(count: u8) -> History {
    let mut history = History::default();
    for number in 0..count {
        let longest = "x".repeat(MAX_VERSION);
        let mut timeline = Timeline::new([number; 16], [0; 8], longest.clone(), longest);
        timeline.outcome = Outcome::Failed;
        history.note(&timeline, &"x".repeat(MAX_REASON));
    }
    history
}

/// Private memory from one chunk to before another.
fn private(start: u64, end: u64) -> PrivateRange {
    PrivateRange {
        start: start * CHUNK_BYTES,
        end: end * CHUNK_BYTES,
        key_id: 32,
        purpose: 1,
    }
}

fn impossible(change: impl FnOnce(&mut Handover)) -> HandoverError {
    let mut handover = record();
    change(&mut handover);
    encode(&handover).expect_err("its reader would refuse it")
}

/// A record around any body, with the right sum.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; HEADER], body].concat();
    envelope::seal(MAGIC, &mut bytes).expect("small");
    bytes
}

/// The head of a map of so many fields.
fn head(fields: u64) -> Vec<u8> {
    let mut head = Vec::new();
    Encoder::new(bounded::Memory(&mut head))
        .map(fields)
        .expect("memory takes it");
    head
}

#[test]
fn there_and_back() {
    let handover = record();
    let bytes = encode(&handover).expect("encodes");
    assert_eq!(decode(&bytes), Ok(handover.clone()));
    let more = [&bytes[..], &[0xaa; 100]].concat();
    assert_eq!(decode(&more), Ok(handover), "it may stand in a larger page");
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = encode(&record()).expect("encodes");
    for at in 0..bytes.len() * 8 {
        let mut spoilt = bytes.clone();
        spoilt[at / 8] ^= 1 << (at % 8);
        assert!(decode(&spoilt).is_err(), "bit {at}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = encode(&record()).expect("encodes");
    for length in 0..bytes.len() {
        assert_eq!(
            decode(&bytes[..length]),
            Err(HandoverError::Truncated),
            "{length}"
        );
    }
}

#[test]
fn headers_say_what_is_wrong() {
    let good = encode(&record()).expect("encodes");
    assert_eq!(decode(b"not a record, not at all"), Err(HandoverError::Magic));
    let mut long = good.clone();
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        decode(&long),
        Err(HandoverError::TooLarge(u32::MAX as usize + HEADER))
    );
    assert!(matches!(decode(&sealed(&[])), Err(HandoverError::Malformed(_))));
    assert!(matches!(
        decode(&sealed(&good[HEADER..good.len() - 1])),
        Err(HandoverError::Malformed(_))
    ));
    let trailing = [&good[HEADER..], &[0]].concat();
    assert!(matches!(
        decode(&sealed(&trailing)),
        Err(HandoverError::Malformed(_))
    ));
}

#[test]
fn a_newer_record_is_read_if_it_may_be() {
    // A newer writer has two fields more, one of them deep.
    let good = encode(&record()).expect("encodes");
    let mut decoder = Decoder::new(&good[HEADER..]);
    let fields = decoder.map().expect("a map").expect("with a count");
    let newer = [
        &head(fields + 2)[..],
        &good[HEADER + decoder.position()..],
        &[0x18, 200, 0x82, 1, 0xa1, 0x61, b'x', 0xf6],
        &[0x18, 201, 0x9f, 1, 0xff],
    ];
    assert_eq!(decode(&sealed(&newer.concat())), Ok(record()));
    // Format 2 is not guessed at, even if nothing else is known.
    assert_eq!(decode(&sealed(&[0xa1, 0, 2])), Err(HandoverError::Format(2)));
}

#[test]
fn what_has_a_default_may_be_missing_and_nothing_else() {
    // Each field of the body by itself, as the bytes of its key and value.
    let good = encode(&record()).expect("encodes");
    let body = &good[HEADER..];
    let mut decoder = Decoder::new(body);
    let mut starts = Vec::new();
    let fields = decoder.map().expect("a map").expect("with a count");
    for _ in 0..fields {
        starts.push(decoder.position());
        decoder
            .skip()
            .and_then(|()| decoder.skip())
            .expect("key and value");
    }
    starts.push(body.len());
    for field in 0..starts.len() - 1 {
        let without = [
            &head(fields - 1)[..],
            &body[starts[0]..starts[field]],
            &body[starts[field + 1]..],
        ]
        .concat();
        let optional = matches!(field, 9 | 14..);
        assert_eq!(
            decode(&sealed(&without)).is_ok(),
            optional,
            "without field {field}"
        );
    }
}

#[test]
fn a_phase_of_a_newer_version_does_not_spoil_the_record() {
    let mut handover = record();
    handover.timeline.spans.push(Span {
        name: Phase::Unknown,
        generation: 1,
        start_ns: 1,
        end_ns: 2,
        cut_off: true,
    });
    handover.timeline.outcome = Outcome::Unknown;
    assert_eq!(encode(&handover).and_then(|bytes| decode(&bytes)), Ok(handover));
}

#[test]
fn what_cannot_be_is_not_even_written() {
    use HandoverError::Impossible;
    let network =
        |change: fn(&mut NetworkRecord)| impossible(|it| change(it.network.as_mut().expect("there is one")));
    assert_eq!(impossible(|it| it.generation = 0), Impossible("generation"));
    assert_eq!(
        impossible(|it| it.generation = u32::MAX),
        Impossible("generation")
    );
    assert_eq!(impossible(|it| it.tsc_hz = 0), Impossible("clock frequency"));
    assert_eq!(impossible(|it| it.apic_hz = 0), Impossible("clock frequency"));
    assert_eq!(impossible(|it| it.pen.base += 1), Impossible("pen"));
    assert_eq!(impossible(|it| it.pen.bytes = u64::MAX), Impossible("pen"));
    assert_eq!(impossible(|it| it.cores.clear()), Impossible("list of cores"));
    assert_eq!(
        impossible(|it| it.cores[1].apic_id = 0),
        Impossible("list of cores")
    );
    assert_eq!(
        impossible(|it| it.predecessor_chunks[0].start += 1),
        Impossible("chunk")
    );
    assert_eq!(
        impossible(|it| it.predecessor_chunks[0].end = 0),
        Impossible("chunk")
    );
    let private_memory = |change: fn(&mut Vec<PrivateRange>)| impossible(|it| change(&mut it.private));
    for wrong in [
        private_memory(|it| it[0].start += 4096),
        private_memory(|it| it[1].end -= 4096),
        private_memory(|it| it[0].end = it[0].start),
        private_memory(|it| it.swap(0, 1)),
        private_memory(|it| it[0].end = 9 * CHUNK_BYTES),
        private_memory(|it| it[0].key_id = 0),
        private_memory(|it| it[0].start = 3 * CHUNK_BYTES),
    ] {
        assert_eq!(wrong, Impossible("private memory"));
    }
    let preserved_memory = |change: fn(&mut Vec<PreservedRange>)| impossible(|it| change(&mut it.preserved));
    for wrong in [
        preserved_memory(|it| it[0].start += 4096),
        preserved_memory(|it| it[1].end -= 4096),
        preserved_memory(|it| it[0].end = it[0].start),
        preserved_memory(|it| it.swap(0, 1)),
        preserved_memory(|it| it[0].end = 15 * CHUNK_BYTES),
        preserved_memory(|it| it[0].start = 10 * CHUNK_BYTES),
        preserved_memory(|it| *it = [preserved(3, 5)].to_vec()),
    ] {
        assert_eq!(wrong, Impossible("preserved memory"));
    }
    assert_eq!(
        impossible(|it| it.state[1].name = it.state[0].name.clone()),
        Impossible("state")
    );
    assert_eq!(
        impossible(|it| it.state[0].bytes = alloc::vec![0; crate::state::MAX_BYTES - 10]),
        Impossible("state")
    );
    assert_eq!(network(|it| it.mac[0] = 1), Impossible("hardware address"));
    assert_eq!(network(|it| it.prefix = 33), Impossible("network address"));
    assert_eq!(
        network(|it| it.address = Ipv4Addr::BROADCAST),
        Impossible("network address")
    );
    assert_eq!(
        network(|it| it.gateway = Some(Ipv4Addr::UNSPECIFIED)),
        Impossible("gateway")
    );
    assert_eq!(
        network(|it| it.dns = [Ipv4Addr::BROADCAST].to_vec()),
        Impossible("name server")
    );
    assert_eq!(
        network(|it| it.neighbours[0].mac = [0xff; 6]),
        Impossible("neighbour")
    );
    assert_eq!(impossible(|it| it.format = 2), HandoverError::Format(2));
}

#[test]
fn nothing_above_its_limit_is_written() {
    let malformed = |change: fn(&mut Handover)| matches!(impossible(change), HandoverError::Malformed(_));
    assert!(malformed(|it| it.host_id = "x".repeat(MAX_HOST_ID + 1)));
    assert!(malformed(
        |it| it.predecessor.version = "x".repeat(MAX_VERSION + 1)
    ));
    assert!(malformed(|it| it.private = (100..=100 + MAX_RECORDS as u64)
        .map(|at| private(at, at + 1))
        .collect()));
    assert!(malformed(|it| it.kept = (0..=MAX_KEPT as u16).map(kept).collect()));
    assert!(malformed(|it| it.cores = (0..2000)
        .map(|apic_id| HandedCore {
            apic_id,
            online: true
        })
        .collect()));
    assert!(malformed(
        |it| it.undelivered = alloc::vec![(0, Vec::new()); MAX_UNDELIVERED + 1]
    ));
    assert!(malformed(
        |it| it.history = alloc::vec![history(1).past()[0].clone(); MAX_PAST + 1]
    ));
    assert!(malformed(
        |it| it.undelivered = [(0, alloc::vec![0; MAX_UNDELIVERED_BYTES + 1])].to_vec()
    ));
    let large = impossible(|it| it.undelivered = alloc::vec![(0, alloc::vec![0; MAX_UNDELIVERED_BYTES]); 2]);
    assert!(matches!(large, HandoverError::TooLarge(_)));
}

#[test]
fn the_largest_machine_fits() {
    let mut handover = record();
    // As `compose` does it: telemetry gets what the application's state has left.
    let each = crate::state::MAX_BYTES / crate::state::MAX_RECORDS;
    handover.state = (10..10 + crate::state::MAX_RECORDS)
        .map(|number| stashed(&alloc::format!("{number}"), each - 2))
        .collect();
    let left = MAX_UNDELIVERED_BYTES - state::records::size(&handover.state);
    handover.undelivered = alloc::vec![(1, alloc::vec![0; left / MAX_UNDELIVERED]); MAX_UNDELIVERED];
    let region = |at: u64| PreservedRange {
        name: alloc::format!("{at:032}"),
        version: u32::MAX,
        ..preserved((1 << 31) + at * 2, (1 << 31) + at * 2 + 1)
    };
    handover.preserved = (0..MAX_PRESERVED as u64).map(region).collect();
    for _ in 0..MAX_EVENTS + 1 {
        handover.measurements = handover.measurements.extended(event(&"x".repeat(MAX_VERSION)));
    }
    handover.history = history(MAX_PAST as u8).past().to_vec();
    handover.cores = (0..512)
        .map(|apic_id| HandedCore {
            apic_id,
            online: true,
        })
        .collect();
    let chunk = |at: u64| ChunkRange {
        start: at * CHUNK_BYTES,
        end: (at + 1) * CHUNK_BYTES,
    };
    handover.predecessor_chunks = (1..=MAX_RANGES as u64).map(chunk).collect();
    handover.private = (0..MAX_RECORDS as u64)
        .map(|at| PrivateRange {
            key_id: u32::MAX,
            purpose: u8::MAX,
            ..private((1 << 30) + at * 2, (1 << 30) + at * 2 + 1)
        })
        .collect();
    handover.kept = alloc::vec![kept(u16::MAX); MAX_KEPT];
    for at in 0..100 {
        handover
            .timeline
            .record(Phase::Commit, 1, u64::MAX - at, u64::MAX);
    }
    let flush = CoreFlush {
        core: 511,
        start_ns: u64::MAX,
        end_ns: u64::MAX,
        cycles: u64::MAX,
    };
    handover.timeline.flushes = alloc::vec![flush; 512];
    assert!(encode(&handover).and_then(|bytes| decode(&bytes)) == Ok(handover));
}

fn network() -> impl Strategy<Value = NetworkRecord> {
    let host = || (1_u8..127, any::<[u8; 3]>()).prop_map(|(a, b)| Ipv4Addr::new(a, b[0], b[1], b[2]));
    let mac = || any::<[u8; 5]>().prop_map(|m| [2, m[0], m[1], m[2], m[3], m[4]]);
    let neighbour = (host(), mac()).prop_map(|(address, mac)| NeighbourRecord { address, mac });
    let lists = (vec(host(), 0..=MAX_DNS), vec(neighbour, 0..5));
    (
        mac(),
        host(),
        0_u8..=32,
        proptest::option::of(host()),
        lists,
        any::<bool>(),
    )
        .prop_map(
            |(mac, address, prefix, gateway, (dns, neighbours), leased)| NetworkRecord {
                mac,
                address,
                prefix,
                gateway,
                dns,
                leased,
                neighbours,
            },
        )
}

prop_compose! {
    fn handover()(
        numbers in any::<[u64; 6]>(), generation in 1..u32::MAX, hz in (1..u64::MAX, 1..u64::MAX),
        texts in ("\\PC{0,16}", "\\PC{0,16}", "\\PC{0,16}"), network in proptest::option::of(network()),
        cores in proptest::collection::btree_set(any::<u32>(), 1..40), online in any::<bool>(),
        chunks in vec((1_u64..1 << 30, 1_u64..1 << 20), 0..20),
        spans in vec((0_u8..18, any::<u32>(), any::<u64>(), any::<u64>(), any::<bool>()), 0..=64),
        client in proptest::option::of((any::<[u8; 8]>(), any::<u8>())),
        undelivered in vec((any::<u8>(), vec(any::<u8>(), 0..50)), 0..20),
        private in vec((0_u64..10, 1_u64..1 << 10, 1..=u32::MAX, any::<u8>()), 0..20),
        kept in vec((any::<[u8; 4]>(), any::<u16>(), any::<u16>()), 0..=MAX_KEPT),
    ) -> Handover {
        let mut handover = record();
        let [unix_at_boot, tsc_at_boot, floor, quiesce_ns, replacements, pen] = numbers;
        handover.timeline.parent = client.map(|(span_id, flags)| Parent { span_id, flags });
        handover.timeline.spans = spans.into_iter().map(|(phase, generation, start_ns, end_ns, cut_off)| {
            let name = minicbor::decode(&[phase]).expect("any number is a phase");
            Span { name, generation, start_ns, end_ns, cut_off }
        }).collect();
        handover.predecessor.name = texts.0;
        handover.predecessor.version = texts.1;
        let base = (pen >> 13 << 12) + 4096;
        let range = |(at, count): (u64, u64)| ChunkRange { start: at * CHUNK_BYTES, end: (at + count) * CHUNK_BYTES };
        // Behind everything that may be the predecessor's.
        let mut at = 1 << 32;
        let private = private.into_iter().map(|(gap, count, key_id, purpose)| {
            let start = at + gap;
            at = start + count;
            PrivateRange { key_id, purpose, ..super::tests::private(start, at) }
        }).collect();
        Handover {
            private,
            kept: kept.into_iter().map(|(address, remote_port, local_port)| KeptRecord {
                address: address.into(), remote_port, local_port,
            }).collect(),
            generation, unix_at_boot, tsc_at_boot, floor, quiesce_ns, replacements, network, undelivered,
            tsc_hz: hz.0, apic_hz: hz.1, host_id: texts.2,
            pen: PenPlace { base, ..handover.pen },
            cores: cores.into_iter().map(|apic_id| HandedCore { apic_id, online }).collect(),
            predecessor_chunks: chunks.into_iter().map(range).collect(),
            ..handover
        }
    }
}

proptest! {
    #[test]
    fn any_record_goes_there_and_back(handover in handover()) {
        let bytes = encode(&handover).expect("all values are possible");
        prop_assert_eq!(decode(&bytes), Ok(handover));
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
        let _ = decode(&sealed(&bytes));
    }

    /// The sum is right, and the body is not what its writer wrote: no panic, and what is read is possible.
    #[test]
    fn any_change_of_the_body_is_an_answer(
        handover in handover(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&handover).expect("all values are possible");
        for (at, byte) in changes {
            let at = HEADER + at.index(bytes.len() - HEADER);
            bytes[at] = byte;
        }
        envelope::seal(MAGIC, &mut bytes).expect("no larger than it was");
        if let Ok(read) = decode(&bytes) {
            prop_assert!(encode(&read).is_ok());
        }
    }
}

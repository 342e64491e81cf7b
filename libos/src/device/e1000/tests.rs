//! The driver against a card that is played, well or badly.

mod fake;

use alloc::vec;
use core::sync::atomic::Ordering;

use super::registers::*;
use super::*;
use fake::{BOCHS, BUS_MASTER, HARDWARE, Kind, MAC, OTHER, QEMU, Shared};

/// As `unwrap`, which wants the card to be `Debug`.
fn error(result: Result<E1000<Shared>, NetworkError>) -> NetworkError {
    match result {
        Ok(_) => panic!("the card was accepted"),
        Err(error) => error,
    }
}

fn sent(card: &mut E1000<Shared>, frame: &[u8]) {
    card.transmit(frame.len(), |buffer| buffer.copy_from_slice(frame));
}

#[test]
fn any_card_receives_and_sends() {
    for kind in [HARDWARE, BOCHS, QEMU] {
        let fake = Shared::new(kind);
        let mut card = fake.start().expect("it starts");
        assert_eq!(card.mac(), MAC);
        assert_eq!(
            (fake.get(RAL0), fake.get(RAH0)),
            (0x1200_5452, 0x8000_5634),
            "the receive address"
        );
        assert!(card.receive().is_none());
        assert!(fake.arrive(b"a frame"));
        let (buffer, range) = card.receive().expect("a frame");
        assert_eq!(&buffer[range], b"a frame");
        card.recycle(buffer);
        assert!(card.receive().is_none());
        sent(&mut card, b"an answer");
        assert_eq!(fake.0.borrow().sent, [b"an answer"]);
    }
}

#[test]
fn the_card_is_cut_off_from_memory_until_it_knows_its_rings() {
    for kind in [HARDWARE, BOCHS, QEMU] {
        let fake = Shared::new(kind);
        // A predecessor's ring, or the firmware's.
        fake.set(RDBAL, 0x1000);
        fake.set(RCTL, RECEIVING);
        let card = fake.start().expect("it starts");
        assert_eq!(fake.0.borrow().events[0], (BUS_MASTER, 0), "before all else");
        assert_eq!(fake.writes(BUS_MASTER), [0, 1]);
        let on = fake.last(BUS_MASTER, 1);
        for (register, value) in [
            (RDBAL, card.receive.address() as u32),
            (TDBAL, card.transmit.address() as u32),
            (RDT, RECEIVE as u32 - 1),
            (TDT, 0),
        ] {
            assert!(fake.last(register, value) < on, "{register:#x}");
        }
        assert_eq!(fake.get(RCTL), RECEIVING);
    }
}

#[test]
fn dropping_it_stops_it() {
    for kind in [HARDWARE, BOCHS, QEMU] {
        let fake = Shared::new(kind);
        drop(fake.start());
        let reset = fake
            .writes(CTRL)
            .last()
            .is_some_and(|value| value & ctrl::RESET != 0);
        assert!(reset, "the last thing is a reset");
        assert!(!fake.0.borrow().bus_master);
        assert_eq!(fake.get(TCTL) & tctl::ENABLE, 0);
        assert!(!fake.arrive(b"too late"));
        if !kind.keeps_receiving {
            assert_eq!(fake.get(RCTL) & rctl::ENABLE, 0, "not by bus mastering alone");
        }
        let cut_off = fake.last(BUS_MASTER, 0);
        let last_reset = fake.0.borrow().events.iter().rposition(|event| event.0 == CTRL);
        assert!(Some(cut_off) < last_reset, "no reset in the middle of a transfer");
    }
}

#[test]
fn where_a_write_to_rctl_costs_a_second_a_successor_does_without() {
    let fake = Shared::new(QEMU);
    for _ in 0..3 {
        drop(fake.start());
    }
    assert_eq!(fake.writes(RCTL), [RECEIVING]);
}

#[test]
fn the_link_is_not_negotiated_anew() {
    let fake = Shared::new(HARDWARE);
    fake.set(CTRL, ctrl::PHY_RESET | ctrl::FORCE_SPEED);
    let _card = fake.start().expect("it starts");
    assert!(
        fake.writes(CTRL).iter().all(|value| value & ctrl::PHY_RESET == 0),
        "the PHY keeps its link"
    );
    let wanted = ctrl::SET_LINK_UP | ctrl::AUTO_SPEED;
    assert_eq!(fake.get(CTRL) & (wanted | ctrl::FORCE_SPEED), wanted);
}

#[test]
fn only_a_card_that_did_reset_is_waited_for() {
    let pause = |kind| {
        let fake = Shared::new(kind);
        let _card = fake.start().expect("it starts");
        fake.0.borrow().paused
    };
    assert!(pause(HARDWARE) >= Duration::from_millis(5));
    assert!(pause(QEMU) < Duration::from_millis(1));
}

#[test]
fn a_reset_that_never_ends_is_an_error() {
    let fake = Shared::new(Kind {
        ends_reset: false,
        ..HARDWARE
    });
    assert_eq!(error(fake.start()), NetworkError::Reset);
    assert!(!fake.0.borrow().bus_master);
    assert!(fake.0.borrow().paused < Duration::from_millis(20));
}

#[test]
fn without_an_eeprom_the_address_is_what_somebody_has_set() {
    let silent = Kind {
        answers: false,
        ..BOCHS
    };
    let fake = Shared::new(silent);
    assert_eq!(error(fake.start()), NetworkError::NoAddress);
    assert!(fake.0.borrow().paused < Duration::from_millis(100));
    fake.set(RAL0, 2);
    fake.set(RAH0, 0x900);
    assert_eq!(fake.start().expect("it starts").mac(), OTHER);
    // A group's address and an empty EEPROM are none either.
    for eeprom in [[0; 6], [0xff; 6], [1, 0, 0, 0, 0, 9]] {
        let fake = Shared::new(Kind { eeprom, ..BOCHS });
        assert_eq!(error(fake.start()), NetworkError::NoAddress, "{eeprom:?}");
    }
}

#[test]
fn a_full_ring_drops_and_goes_on_over_its_end() {
    let fake = Shared::new(HARDWARE);
    let mut card = fake.start().expect("it starts");
    for round in 0..5_u8 {
        let taken = (0..=255).filter(|&n| fake.arrive(&[round, n])).count();
        assert_eq!(taken, RECEIVE - 1, "one descriptor stays unused");
        for n in 0..255 {
            let (buffer, range) = card.receive().expect("a frame");
            assert_eq!(&buffer[range], [round, n]);
            card.recycle(buffer);
        }
        assert!(card.receive().is_none());
    }
}

#[test]
fn buffers_may_come_back_late_and_in_any_order() {
    let fake = Shared::new(HARDWARE);
    let mut card = fake.start().expect("it starts");
    for _ in 0..10 {
        let mut held = Vec::new();
        while fake.arrive(b"x") {}
        while let Some((buffer, _)) = card.receive() {
            held.push(buffer);
        }
        assert_eq!(held.len(), RECEIVE - 1);
        assert!(!fake.arrive(b"x"), "it has no buffer");
        while let Some(buffer) = held.pop() {
            card.recycle(buffer);
        }
        assert!(card.receive().is_none());
    }
}

#[test]
fn buffers_go_back_together_when_nothing_more_is_there() {
    let fake = Shared::new(QEMU);
    let mut card = fake.start().expect("it starts");
    let before = fake.writes(RDT).len();
    for _ in 0..100 {
        assert!(fake.arrive(b"x"));
    }
    for _ in 0..100 {
        let (buffer, _) = card.receive().expect("a frame");
        card.recycle(buffer);
    }
    assert_eq!(fake.writes(RDT).len(), before);
    assert!(card.receive().is_none());
    assert_eq!(fake.writes(RDT)[before..], [99]);
    assert!(card.receive().is_none());
    assert_eq!(fake.writes(RDT).len(), before + 1, "nothing new to tell");
}

#[test]
fn a_card_that_does_not_send_is_full_at_some_time() {
    let fake = Shared::new(HARDWARE);
    let mut card = fake.start().expect("it starts");
    fake.0.borrow_mut().sends = false;
    let mut count = 0;
    while card.can_transmit() {
        sent(&mut card, &[count]);
        count += 1;
    }
    assert_eq!(usize::from(count), TRANSMIT - 1);
    // Lost, and nothing that waits is overwritten.
    sent(&mut card, b"lost");
    fake.0.borrow_mut().sends = true;
    fake.0.borrow_mut().send();
    assert!(card.can_transmit());
    for n in count..200 {
        assert!(card.can_transmit());
        sent(&mut card, &[n]);
    }
    let frames: Vec<_> = (0..200).map(|n| vec![n]).collect();
    assert_eq!(fake.0.borrow().sent, frames);
    // A card that never sends is not waited for without end.
    fake.0.borrow_mut().sends = false;
    sent(&mut card, b"never");
    let before = fake.0.borrow().paused;
    drop(card);
    assert!(fake.0.borrow().paused - before < Duration::from_millis(20));
}

#[test]
fn frames_longer_than_a_buffer_are_not_sent_beyond_it() {
    let fake = Shared::new(HARDWARE);
    let mut card = fake.start().expect("it starts");
    assert_eq!(card.transmit(9000, |buffer| buffer.len()), BUFFER);
    assert_eq!(fake.0.borrow().sent[0].len(), BUFFER);
}

#[test]
fn damaged_and_overlong_frames_are_dropped_and_counted() {
    let fake = Shared::new(HARDWARE);
    let mut card = fake.start().expect("it starts");
    for error in [1, 2, 4, 16, 128, 255] {
        assert!(fake.arrive_as(b"damaged", 3, error, 7));
    }
    for length in [0, BUFFER + 1, 0xffff] {
        assert!(fake.arrive_as(b"of that length?", 3, 0, length));
    }
    // A frame in three parts, as from a card that does not know a limit.
    for status in [1, 1, 3] {
        assert!(fake.arrive_as(b"part", status, 0, 4));
    }
    // Checksums inside a frame are the network stack's matter.
    assert!(fake.arrive_as(b"good", 3, 32 | 64, 4));
    let (buffer, range) = card.receive().expect("the last one");
    assert_eq!(&buffer[range], b"good");
    assert_eq!(card.dropped, 10);
    card.recycle(buffer);
    assert!(card.receive().is_none());
    assert_eq!(
        (0..RECEIVE).filter(|_| fake.arrive(b"x")).count(),
        RECEIVE - 1,
        "no buffer is lost"
    );
}

#[test]
fn whatever_the_card_writes_nothing_panics() {
    let fake = Shared::new(BOCHS);
    let mut card = fake.start().expect("it starts");
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        {
            let fake = fake.0.borrow();
            let base = if noise & 1 == 0 { RDBAL } else { TDBAL };
            let [_, word] = fake.descriptor(base, (noise >> 58) as u32);
            word.store(noise.rotate_left(17), Ordering::Relaxed);
        }
        if let Some((buffer, range)) = card.receive() {
            assert!(range.end <= BUFFER);
            card.recycle(buffer);
        }
        card.can_transmit();
        fake.0.borrow_mut().sends = false;
        sent(&mut card, b"x");
    }
}

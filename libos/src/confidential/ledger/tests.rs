use super::*;
use crate::confidential::platform::{Host, Role, SevGuest, Sme, TdxHost, Vendor};
use proptest::collection::vec;
use proptest::prelude::*;

fn machine(role: Role) -> Platform {
    Platform {
        vendor: Vendor::Intel,
        hypervisor: false,
        role,
        movdir64b: true,
        wbnoinvd: false,
        partial_write_erratum: false,
    }
}

fn host(tdx: Option<(u32, u32)>) -> Platform {
    machine(Role::Host(Host {
        tdx: tdx.map(|(mktme_keyids, tdx_keyids)| TdxHost {
            mktme_keyids,
            tdx_keyids,
        }),
        sme: Sme::Absent,
    }))
}

fn record(first: u64, pages: u64, key: u32, fate: Fate) -> Record {
    Record {
        range: first * PAGE_BYTES..(first + pages) * PAGE_BYTES,
        key: KeyId(key),
        purpose: Purpose::Td,
        fate,
        held: true,
    }
}

#[test]
fn a_key_is_one_of_the_platforms_tdx_keyids() {
    let platform = host(Some((31, 32)));
    assert_eq!(KeyId::new(32, &platform), Ok(KeyId(32)));
    assert_eq!(KeyId::new(63, &platform), Ok(KeyId(63)));
    for number in [0, 1, 31, 64, u32::MAX] {
        let (first, last) = (32, 63);
        assert_eq!(
            KeyId::new(number, &platform),
            Err(KeyIdError::NotPrivate { number, first, last })
        );
    }
}

#[test]
fn without_tdx_no_key_is_private() {
    for (tdx, tdx_keyids) in [(None, 0), (Some((63, 0)), 0), (Some((62, 1)), 1)] {
        let error = KeyId::new(63, &host(tdx)).expect_err("TDX is off");
        assert_eq!(error, KeyIdError::NoTdx { tdx_keyids });
        assert!(error.to_string().contains("enable TDX in the BIOS"), "{error}");
    }
    let sev = Role::SevGuest(SevGuest {
        encrypted_state: true,
        nested_paging: true,
    });
    for role in [Role::TdxGuest, sev] {
        assert_eq!(KeyId::new(63, &machine(role)), Err(KeyIdError::Guest));
    }
}

#[test]
fn what_is_recorded_is_found_and_counted() {
    let mut ledger = Ledger::new();
    ledger.add(record(100, 10, 40, Fate::Reset)).expect("free");
    ledger.add(record(20, 5, 41, Fate::HandOver)).expect("free");
    ledger
        .add(record(25, 5, 41, Fate::HandOver))
        .expect("free, next to it");
    assert_eq!(ledger.pages(Fate::Reset), 10);
    assert_eq!(ledger.pages(Fate::HandOver), 10);
    assert_eq!(ledger.pages_under(KeyId(40)), 10);
    assert_eq!(ledger.pages_for(Purpose::Td), 20);
    assert_eq!(ledger.to_hand_over(), [record(20, 10, 41, Fate::HandOver)]);
    ledger
        .get_mut(20 * PAGE_BYTES)
        .expect("recorded")
        .set_fate(Fate::Reset);
    assert_eq!(ledger.to_hand_over(), [record(25, 5, 41, Fate::HandOver)]);
    assert_eq!(
        ledger.remove(25 * PAGE_BYTES),
        Ok(record(25, 5, 41, Fate::HandOver))
    );
    assert_eq!(
        ledger.remove(25 * PAGE_BYTES),
        Err(LedgerError::Unknown(25 * PAGE_BYTES))
    );
    assert_eq!(ledger.records().len(), 2);
}

#[test]
fn another_key_or_purpose_is_not_merged() {
    let mut ledger = Ledger::new();
    let of_the_module = Record {
        purpose: Purpose::Module,
        ..record(2, 1, 41, Fate::HandOver)
    };
    for record in [
        record(0, 1, 40, Fate::HandOver),
        record(1, 1, 41, Fate::HandOver),
        of_the_module,
    ] {
        ledger.add(record).expect("free");
    }
    assert_eq!(ledger.to_hand_over(), ledger.records());
}

#[test]
fn errors_say_where() {
    let mut ledger = Ledger::new();
    ledger.add(record(10, 10, 40, Fate::Reset)).expect("free");
    for (start, end) in [(5, 4096), (0, 5), (4096, 4096), (8192, 4096)] {
        let odd = Record {
            range: start..end,
            ..record(0, 1, 40, Fate::Reset)
        };
        assert_eq!(ledger.add(odd), Err(LedgerError::NotPages { start, end }));
    }
    for (first, pages) in [(10, 10), (0, 11), (19, 1), (12, 1), (0, 100)] {
        assert_eq!(
            ledger.add(record(first, pages, 40, Fate::Reset)),
            Err(LedgerError::Overlap {
                start: first * PAGE_BYTES,
                recorded: 10 * PAGE_BYTES
            })
        );
    }
    for first in 1..MAX_RECORDS as u64 {
        ledger.add(record(100 + first, 1, 40, Fate::Reset)).expect("room");
    }
    assert_eq!(ledger.add(record(0, 1, 40, Fate::Reset)), Err(LedgerError::Full));
}

#[test]
fn a_purpose_of_a_newer_version_is_kept() {
    for number in 0..=u8::MAX {
        assert_eq!(Purpose::from_number(number).number(), number);
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![Just(Fate::Reset), Just(Fate::HandOver)]
}

proptest! {
    /// Against the plainest model: each page by itself.
    #[test]
    fn the_ledger_agrees_with_a_list_of_pages(
        wanted in vec((0_u64..60, 1_u64..9, 40_u32..43, fate()), 0..40), gone in vec(0_u64..60, 0..20),
    ) {
        let mut ledger = Ledger::new();
        let mut pages: Vec<Option<(u32, Fate, u64)>> = vec![None; 80];
        for (first, count, key, fate) in wanted {
            let span = first as usize..(first + count) as usize;
            let free = pages[span.clone()].iter().all(Option::is_none);
            prop_assert_eq!(ledger.add(record(first, count, key, fate)).is_ok(), free);
            if free {
                pages[span].fill(Some((key, fate, first)));
            }
        }
        for first in gone {
            let known = pages.iter().flatten().any(|page| page.2 == first);
            prop_assert_eq!(ledger.remove(first * PAGE_BYTES).is_ok(), known);
            pages.iter_mut().filter(|page| page.is_some_and(|page| page.2 == first)).for_each(|page| *page = None);
        }
        for key in 40..43 {
            let expected = pages.iter().flatten().filter(|page| page.0 == key).count() as u64;
            prop_assert_eq!(ledger.pages_under(KeyId(key)), expected);
        }
        let handed: u64 = ledger.to_hand_over().iter().map(Record::pages).sum();
        prop_assert_eq!(handed, pages.iter().flatten().filter(|page| page.1 == Fate::HandOver).count() as u64);
        prop_assert!(ledger.records().windows(2).all(|two| two[0].range.end <= two[1].range.start));
    }

    #[test]
    fn a_plan_is_fair_and_covers_every_page_once(
        pieces in vec((1_u64..40, 0_u64..5, fate()), 0..20), shares in 0_usize..20,
    ) {
        let mut ledger = Ledger::new();
        let mut at = 0;
        for (count, gap, fate) in pieces {
            ledger.add(record(at, count, 40, fate)).expect("free");
            at += count + gap;
        }
        let plan = ledger.plan(shares);
        let sizes: Vec<u64> = plan
            .iter()
            .map(|share| share.iter().map(|range| (range.end - range.start) / PAGE_BYTES).sum())
            .collect();
        prop_assert!(plan.len() <= shares.max(1));
        prop_assert_eq!(sizes.iter().sum::<u64>(), ledger.pages(Fate::Reset));
        if let (Some(most), Some(least)) = (sizes.iter().max(), sizes.iter().min()) {
            prop_assert!(*least > 0 && most - least <= 1);
        }
        let pages = |ranges: &mut dyn Iterator<Item = Range<u64>>| -> Vec<u64> {
            ranges.flat_map(|range| range.step_by(PAGE_BYTES as usize)).collect()
        };
        let planned = pages(&mut plan.into_iter().flatten());
        let mut reset = ledger.records().iter().filter(|it| it.fate == Fate::Reset).map(|it| it.range.clone());
        prop_assert_eq!(planned, pages(&mut reset));
    }
}

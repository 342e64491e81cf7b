//! The store is a map, in either format, and stays one wherever it is stopped.

use super::*;
use crate::arena::testing::Heap;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use proptest::prelude::*;

const SEED: [u64; 2] = [1, 2];
const SEGMENT: usize = 1 << 16;

type Map = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

fn new(most: usize, format: Format) -> Store<Heap> {
    Store::open_writing(Heap::new(most, SEGMENT), SEED, format).expect("it is all zero")
}

fn draft<'a>(key: &'a [u8], value: &'a [u8]) -> Draft<'a> {
    Draft {
        key,
        value: [value, b""],
        expires: None,
        now: 5,
        revision: 0,
    }
}

fn contents(store: &Store<Heap>) -> Map {
    let mut map = Map::new();
    let mut cursor = 0;
    loop {
        cursor = store.scan(cursor, 3, |entry| {
            let before = map.insert(entry.key().to_vec(), (entry.value().to_vec(), entry.expires()));
            assert_eq!(before, None, "visited twice");
        });
        if cursor == 0 {
            return map;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u16, usize),
    Remove(u16),
    Expire(u16, u64),
    Clear,
    /// Another version goes on.
    Switch,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u16..60, 0_usize..600).prop_map(|(key, length)| Step::Put(key, length)),
        4 => (0_u16..60).prop_map(Step::Remove),
        2 => (0_u16..60, 1_u64..100).prop_map(|(key, at)| Step::Expire(key, at)),
        1 => Just(Step::Clear),
        2 => Just(Step::Switch),
    ]
}

fn key(number: u16) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

fn apply(store: &mut Store<Heap>, map: &mut Map, step: &Step) {
    match step {
        Step::Put(number, length) => {
            let value = vec![*number as u8; *length];
            if store.put(&draft(&key(*number), &value)).is_ok() {
                map.insert(key(*number), (value, None));
            }
        }
        Step::Remove(number) => {
            assert_eq!(store.remove(&key(*number)), map.remove(&key(*number)).is_some());
        }
        Step::Expire(number, at) => {
            let known = map.get_mut(&key(*number));
            assert_eq!(store.set_expiry(&key(*number), Some(*at)), known.is_some());
            if let Some(known) = known {
                known.1 = Some(*at);
            }
        }
        Step::Clear => {
            store.clear();
            map.clear();
        }
        Step::Switch => switch(store),
    }
}

fn switch(store: &mut Store<Heap>) {
    let other = match store.format {
        Format::One => Format::Two,
        Format::Two => Format::One,
    };
    *store = Store::open_writing(store.arena.clone(), [7, 7], other).expect("it opens");
}

proptest! {
    #[test]
    fn it_is_a_map_whichever_version_writes(steps in proptest::collection::vec(step(), 0..120)) {
        let (mut store, mut map) = (new(4, Format::One), Map::new());
        for step in &steps {
            apply(&mut store, &mut map, step);
            prop_assert_eq!(store.keys(), map.len() as u64);
        }
        prop_assert_eq!(contents(&store), map);
    }

    #[test]
    fn stopped_anywhere_it_is_as_before_or_as_after(
        steps in proptest::collection::vec(step(), 0..60), last in step(), stop in 0_usize..140,
    ) {
        let (mut store, mut before) = (new(4, Format::Two), Map::new());
        for step in &steps {
            apply(&mut store, &mut before, step);
        }
        let mut after = before.clone();
        let mut stopped = store.clone();
        stopped.arena.writes_left = stop;
        let mut ignored = before.clone();
        // What it answers does not matter: nobody hears it.
        let _ = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| apply(&mut stopped, &mut ignored, &last)));
        apply(&mut store, &mut after, &last);
        stopped.arena.writes_left = usize::MAX;
        let mut found = Store::open_writing(stopped.arena.clone(), [9, 9], Format::One).expect("it opens");
        let now = contents(&found);
        prop_assert!(now == before || now == after, "{now:?}");
        prop_assert_eq!(found.keys(), now.len() as u64);
        // And it goes on as if nothing had happened.
        let mut map = now;
        for step in &steps {
            apply(&mut found, &mut map, step);
        }
        prop_assert_eq!(contents(&found), map);
    }
}

#[test]
fn what_is_removed_can_be_used_again() {
    let mut store = new(2, Format::One);
    for round in 0..2000_u32 {
        let value = round.to_le_bytes().repeat(1 + (round % 50) as usize);
        store
            .put(&draft(&key((round % 40) as u16), &value))
            .expect("there is room for forty");
    }
    for number in 0..40 {
        assert!(store.remove(&key(number)));
    }
    assert_eq!((store.keys(), store.used().0), (0, 0));
}

#[test]
fn a_full_store_says_so_and_stays_as_it_was() {
    let mut store = new(3, Format::Two);
    let mut count = 0;
    while store.put(&draft(&key(count), &[7; 500])).is_ok() {
        count += 1;
    }
    let before = contents(&store);
    assert!(count > 150, "{count} of 500 bytes in three segments of 64 KiB");
    assert_eq!(store.put(&draft(b"key:0", &[8; 900])), Err(Full));
    assert_eq!(contents(&store), before);
    // What is freed is enough for what is smaller, also if its size was never used.
    assert!(store.remove(b"key:3"));
    for small in 0..5 {
        assert_eq!(store.put(&draft(&key(1000 + small), b"x")), Ok(()), "{small}");
    }
    store.clear();
    assert_eq!(store.put(&draft(b"key:0", &[8; 900])), Ok(()));
    assert_eq!(contents(&store).len(), 1);
}

#[test]
fn each_version_reads_the_others_records() {
    let mut store = new(1, Format::Two);
    store.put(&draft(b"a", b"1")).expect("room");
    store.put(&draft(b"a", b"2")).expect("room");
    assert_eq!(store.find(b"a").and_then(|entry| entry.written()), Some((5, 2)));
    switch(&mut store);
    let entry = store.find(b"a").expect("it is there");
    assert_eq!((entry.value(), entry.format()), (&b"2"[..], 2));
    // An expiry is changed in place: what the other version added stays.
    assert!(store.set_expiry(b"a", Some(9)));
    assert_eq!(store.find(b"a").and_then(|entry| entry.written()), Some((5, 2)));
    store.put(&draft(b"a", b"3")).expect("room");
    let entry = store.find(b"a").expect("it is there");
    assert_eq!((entry.format(), entry.written()), (1, None));
    switch(&mut store);
    assert_eq!(store.find(b"a").map(|entry| entry.value()), Some(&b"3"[..]));
}

#[test]
fn a_record_of_a_later_format_is_read_as_far_as_it_is_known() {
    let mut store = new(1, Format::Two);
    store.put(&draft(b"a", b"value")).expect("room");
    let at = store.descend(b"a").found.expect("there").at;
    // Format 3: 64 bytes of header, then what was there.
    let header = 3 | 64 << 16 | 1 << 32;
    store.arena.store(at.plus(8), header);
    store.arena.write(at, 8 + 64, b"avalue");
    let entry = store.find(b"a").expect("still there");
    assert_eq!((entry.value(), entry.format()), (&b"value"[..], 3));
}

#[test]
fn a_foreign_or_later_store_is_left_alone() {
    let mut heap = Heap::new(1, SEGMENT);
    heap.store(MAGIC_AT, 1);
    let before = heap.clone();
    assert_eq!(Store::open(heap.clone(), SEED).err(), Some(OpenError::Foreign));
    heap.store(MAGIC_AT, MAGIC);
    heap.store(LAYOUT_AT, 2);
    assert_eq!(Store::open(heap, SEED).err(), Some(OpenError::Layout(2)));
    assert_eq!(before.segments[0].len(), SEGMENT);
}

#[test]
fn keys_whose_hashes_begin_alike_are_told_apart() {
    // Eleven bits of hash agree among a few thousand keys, so that several levels are used.
    let mut store = new(60, Format::One);
    for number in 0..6000 {
        store
            .put(&draft(&key(number), &number.to_le_bytes()))
            .expect("room");
    }
    for number in 0..6000 {
        let found = store.find(&key(number)).map(|entry| entry.value().to_vec());
        assert_eq!(found, Some(number.to_le_bytes().to_vec()));
    }
    assert_eq!(contents(&store).len(), 6000);
}

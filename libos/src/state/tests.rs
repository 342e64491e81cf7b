//! From the application's hooks to the record and back. One test, since there is one application.

use alloc::string::ToString;
use core::future::{Future, ready};
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use super::*;

/// The result of something that waits for nothing but its turn.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..100 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("it waits")
}

fn record(version: u32, bytes: &[u8]) -> Option<Record> {
    Some(Record {
        version,
        bytes: bytes.to_vec(),
    })
}

#[test]
fn what_is_stashed_is_handed_over_and_comes_back() {
    let _turn = preserved::TURN.lock();
    static SEEN: Mutex<Vec<Return>> = Mutex::new(Vec::new());
    static FAILS: Mutex<bool> = Mutex::new(false);
    let left = |name: &str, version| Stashed {
        name: name.to_string(),
        version,
        bytes: [1].to_vec(),
    };
    open(&[left("known", 1), left("newer", 9)], &[]);
    assert_eq!(take("known"), record(1, &[1]));
    assert_eq!(take("known"), None);
    on_handover(|| {
        if *FAILS.lock() {
            return ready(Err("the disk is on fire".to_string()));
        }
        ready(stash("known", 2, [2, 2]).map_err(|error| error.to_string()))
    });
    on_return(|why| {
        SEEN.lock().push(why);
        ready(())
    });

    // What nobody took goes on, beside what is stashed; a failed attempt leaves no trace.
    assert_eq!(now(save()), Ok(()));
    assert_eq!(records().len(), 2);
    now(goes_on(Return::NotReplaced));
    assert_eq!(records(), [left("newer", 9)]);

    *FAILS.lock() = true;
    let refused = now(save()).expect_err("the hook failed");
    assert_eq!(refused.code, "state-not-saved");
    assert!(refused.message.contains("on fire"), "{refused:?}");
    now(goes_on(Return::NotReplaced));
    *FAILS.lock() = false;

    // A successor's record; damaged, it changes nothing.
    assert_eq!(now(save()), Ok(()));
    let mut returned = returned::encode(&[left("newer", 9), left("successor's", 3)]);
    returned[30] ^= 1;
    assert!(accept_returned(&returned).is_err());
    returned[30] ^= 1;
    assert_eq!(accept_returned(&returned), Ok(()));
    now(goes_on(Return::RolledBack));
    assert_eq!(take("successor's"), record(3, &[1]));
    assert_eq!(
        take("known"),
        None,
        "it handed that over, and did not get it back"
    );

    // The other side of it.
    let bytes = now(collect_for_return()).expect("it saves");
    assert_eq!(returned::decode(&bytes).map(|records| records.len()), Ok(2));
    now(goes_on(Return::NotReplaced));
    let seen = [
        Return::NotReplaced,
        Return::NotReplaced,
        Return::RolledBack,
        Return::NotReplaced,
    ];
    assert_eq!(*SEEN.lock(), seen);
}

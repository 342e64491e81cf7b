//! Private memory for applications: taken for the TDX module or a TD, recorded in the [ledger](super::ledger), and reset
//! when it is released or before this instar is replaced.
//!
//! ```ignore
//! let key = private::key(32)?;
//! let mut memory = PrivateMemory::take(64 << 20, key, Purpose::Td)?;
//! // … give memory.range() to the TDX module …
//! memory.hand_over().await;      // a replacement leaves it as it is: the successor finds it in `inherited()`
//! // … or, when the module has given it back:
//! memory.release().await?;
//! ```

mod error;
mod work;

pub use error::{ResetError, TakeError};
pub use work::{MeasureError, Measured, measure};

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use log::error;
use spin::Mutex;

use super::ledger::{Fate, KeyId, KeyIdError, Ledger, Purpose, Record};
use super::module::Left;
use super::policy::{FlushPolicy, decide};
use super::reset::{self, CannotReset, Method, job::Job};
use crate::cpu::{current, random, stop, time};
use crate::memory::{self, CHUNK, chunks::Owner};
use crate::replace::handover::PrivateRange;
use crate::task::{self, sleep, spawn_on, yield_now};
use work::{STEP, Work};

/// How long a core may take to flush, or all cores together to reset a page, before the reset is given up.
const PATIENCE: Duration = Duration::from_secs(1);

// Lock order: books, then heap and chunks. Nobody keeps the books while anything long happens.
static BOOKS: Mutex<Books> = Mutex::new(Books {
    ledger: Ledger::new(),
    frozen: false,
    policy: FlushPolicy::Auto,
});

struct Books {
    ledger: Ledger,
    /// A replacement has begun to reset: what is recorded now is what the successor is told.
    frozen: bool,
    policy: FlushPolicy,
}

/// The TDX KeyID of this number on this machine.
///
/// # Errors
/// See [`KeyIdError`].
pub fn key(number: u32) -> Result<KeyId, KeyIdError> {
    KeyId::new(number, super::platform())
}

/// Whole chunks of memory that are the TDX module's or a TD's.
///
/// What they contain is theirs: nothing is zeroed when they are taken. When this is dropped, memory that is to be handed
/// over stays in the ledger for the successor; all other is released as by [`PrivateMemory::release`], in the background.
#[derive(Debug)]
pub struct PrivateMemory {
    range: Range<u64>,
    key: KeyId,
    purpose: Purpose,
    released: bool,
}

impl PrivateMemory {
    /// Takes at least `bytes`, in neighbouring chunks of 2 MiB, to be private under `key`.
    ///
    /// # Errors
    /// See [`TakeError`].
    pub fn take(bytes: u64, key: KeyId, purpose: Purpose) -> Result<Self, TakeError> {
        let key = self::key(key.number())?;
        let chunks = bytes.div_ceil(CHUNK);
        if chunks == 0 {
            return Err(TakeError::Nothing);
        }
        let random = random::number();
        let mut books = BOOKS.lock();
        if books.frozen {
            return Err(TakeError::Replacing);
        }
        let range =
            memory::with_chunks(|map| map.take_run(chunks, Owner::Private, u64::MAX, random)).flatten();
        let range = range.ok_or(TakeError::NoMemory { chunks })?;
        let recorded = books.ledger.add(Record {
            range: range.clone(),
            key,
            purpose,
            fate: Fate::Reset,
            held: true,
        });
        if let Err(error) = recorded {
            // Nobody has had it yet, so it is still ordinary memory.
            let _ = memory::with_chunks(|map| map.release(&range));
            return Err(error.into());
        }
        Ok(Self {
            range,
            key,
            purpose,
            released: false,
        })
    }

    /// Where it lies: physical addresses, which are the virtual ones too.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The key it is private under.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// Whom it is for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// From now on a replacement leaves this memory as it is, and the successor finds it in [`inherited`]. While a
    /// replacement is under way this waits: it is decided already.
    pub async fn hand_over(&mut self) {
        let start = self.range.start;
        when_not_frozen(|books| {
            if let Ok(mut record) = books.ledger.get_mut(start) {
                record.set_fate(Fate::HandOver);
            }
        })
        .await;
    }

    /// Resets the memory now and gives it back to the machine.
    ///
    /// The module must have given it up before (`TDH.PHYMEM.PAGE.RECLAIM`, or the module is disabled). Every core's caches
    /// are flushed first: a line of the private key that is written back later would overwrite the page again.
    ///
    /// # Errors
    /// [`ResetError`]; the memory stays in the ledger then, and this machine refuses to be replaced.
    pub async fn release(mut self) -> Result<(), ResetError> {
        self.released = true;
        give_back(self.range.clone()).await
    }
}

impl Drop for PrivateMemory {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let fate = BOOKS.lock().ledger.get_mut(self.range.start).map(|mut record| {
            record.set_held(false);
            record.record().fate
        });
        if fate == Ok(Fate::Reset) {
            let range = self.range.clone();
            task::spawn(async move {
                if let Err(problem) = give_back(range).await {
                    error!("private memory was dropped and is lost to this machine: {problem}");
                }
            })
            .detach();
        }
    }
}

/// What the predecessor has handed over and nobody here holds yet. It is handed on at the next replacement, unless it is
/// released.
#[must_use]
pub fn inherited() -> Vec<PrivateMemory> {
    let mut books = BOOKS.lock();
    let free: Vec<Record> = books
        .ledger
        .records()
        .iter()
        .filter(|record| record.fate == Fate::HandOver && !record.held)
        .cloned()
        .collect();
    free.into_iter()
        .filter_map(|record| {
            books.ledger.get_mut(record.range.start).ok()?.set_held(true);
            Some(PrivateMemory {
                range: record.range,
                key: record.key,
                purpose: record.purpose,
                released: false,
            })
        })
        .collect()
}

/// The ledger in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Pieces of private memory.
    pub records: usize,
    /// Their pages, of 4 KiB.
    pub pages: u64,
    /// Those of them that a successor gets as they are.
    pub to_hand_over: u64,
    /// Pages of the TDX module.
    pub module: u64,
    /// Pages of TDs.
    pub td: u64,
}

/// The ledger in numbers.
#[must_use]
pub fn summary() -> Summary {
    let books = BOOKS.lock();
    let to_hand_over = books.ledger.pages(Fate::HandOver);
    Summary {
        records: books.ledger.records().len(),
        pages: books.ledger.pages(Fate::Reset) + to_hand_over,
        to_hand_over,
        module: books.ledger.pages_for(Purpose::Module),
        td: books.ledger.pages_for(Purpose::Td),
    }
}

/// Opens the books of this instar: how it flushes, and what its predecessor has handed over.
pub(crate) fn open(policy: FlushPolicy, inherited: &[PrivateRange]) {
    let mut books = BOOKS.lock();
    books.policy = policy;
    for range in inherited {
        // The record's reader has seen to it that they are whole pages and do not overlap.
        let _ = books.ledger.add(Record {
            range: range.start..range.end,
            key: KeyId::inherited(range.key_id),
            purpose: Purpose::from_number(range.purpose),
            fate: Fate::HandOver,
            held: false,
        });
    }
}

/// What the successor is told of.
pub(crate) fn to_hand_over() -> Vec<PrivateRange> {
    let records = BOOKS.lock().ledger.to_hand_over();
    let range = |record: &Record| PrivateRange {
        start: record.range.start,
        end: record.range.end,
        key_id: record.key.number(),
        purpose: record.purpose.number(),
    };
    records.iter().map(range).collect()
}

/// The proof that everything in the ledger has been reset or is to be handed over, and that it stays so: until this is
/// dropped nobody takes, releases or hands over private memory.
#[derive(Debug)]
#[must_use = "private memory can be taken again as soon as this is dropped"]
pub(crate) struct AllReset {
    /// How many pages were reset.
    pub pages: u64,
    _work: Arc<Work<Frozen>>,
}

/// Resets what is not to be handed over, on all cores together, while they go on with their tasks.
///
/// What the module or a TD had in there is gone then, whatever becomes of the replacement; so the module is left before, and
/// `left` is what came of that.
/// Every core flushes first (see [`PrivateMemory::release`]); the stop protocol's flush follows.
pub(crate) async fn reset_all(left: Left) -> Result<AllReset, ResetError> {
    let frozen = Frozen::new().ok_or(ResetError::Busy)?;
    let (pages, policy) = {
        let books = BOOKS.lock();
        (books.ledger.pages(Fate::Reset), books.policy)
    };
    let job = if pages == 0 {
        Job::new(Method::PlainStores, Vec::new())
    } else {
        let method = ready_to_reset(policy, pages, left != Left::Disabled).await?;
        Job::new(method, BOOKS.lock().ledger.plan(work::shares()))
    };
    let work = Arc::new(Work::new(job, frozen));
    // SAFETY: the plan holds private pages only, which the ledger keeps from everybody while `Frozen` lives.
    let left = unsafe { work::share_out(&work) }.await;
    if left > 0 {
        return Err(ResetError::Stuck { left, pages });
    }
    Ok(AllReset { pages, _work: work })
}

/// Until this is dropped the ledger stays as it is.
#[derive(Debug)]
struct Frozen(());

impl Frozen {
    fn new() -> Option<Self> {
        let was = core::mem::replace(&mut BOOKS.lock().frozen, true);
        (!was).then_some(Self(()))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        BOOKS.lock().frozen = false;
    }
}

/// How to reset, when every core has written back what it has of the private keys.
async fn ready_to_reset(policy: FlushPolicy, pages: u64, poison: bool) -> Result<Method, ResetError> {
    let cannot = |why| ResetError::Cannot { pages, why };
    let flush = decide(policy, super::platform()).permit();
    let method = reset::can_reset(super::platform(), flush.is_some(), poison).map_err(cannot)?;
    let flush = flush.ok_or_else(|| cannot(CannotReset::NoFlush))?;
    let flushes: Vec<_> = current::online()
        .iter()
        .map(|core| {
            spawn_on(core, async move {
                stop::flush_here(flush);
            })
        })
        .collect();
    task::timeout(PATIENCE, async {
        for flush in flushes {
            flush.await;
        }
    })
    .await
    .map_err(|_| ResetError::NotFlushed { pages })?;
    Ok(method)
}

/// Resets the record of `range`, strikes it out, and frees its chunks.
async fn give_back(range: Range<u64>) -> Result<(), ResetError> {
    let pages = (range.end - range.start) / super::ledger::PAGE_BYTES;
    // From here on it is a replacement's to reset, too, if one comes in between.
    let policy = when_not_frozen(|books| {
        if let Ok(mut record) = books.ledger.get_mut(range.start) {
            record.set_fate(Fate::Reset);
        }
        books.policy
    })
    .await;
    let method = ready_to_reset(policy, pages, true).await?;
    let mut rest = range.clone();
    while !rest.is_empty() {
        let until = time::now() + STEP;
        // SAFETY: it stands in the ledger, so that nobody else uses it, and its holder has let it go.
        unsafe { reset::zero_pages(&method, &mut rest, || time::now() < until) };
        yield_now().await;
    }
    when_not_frozen(|books| {
        // In the ledger and in the map since it was taken.
        let _ = books.ledger.remove(range.start);
        let _ = memory::with_chunks(|map| map.release(&range));
    })
    .await;
    Ok(())
}

/// Changes the books as soon as no replacement relies on them.
async fn when_not_frozen<R>(mut action: impl FnMut(&mut Books) -> R) -> R {
    loop {
        {
            let mut books = BOOKS.lock();
            if !books.frozen {
                return action(&mut books);
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
}

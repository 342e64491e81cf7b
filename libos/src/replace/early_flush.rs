//! Every core flushes once while this instar still serves, so that the last flush, in the blackout, has little to write.
//!
//! What WBINVD takes grows with what is dirty. The flush that counts is the one in the stop; this one only makes it short,
//! and with it the time in which a stopped core hears nothing.

use alloc::vec::Vec;
use core::time::Duration;

use log::warn;

use super::timeline::CoreFlush;
use crate::command_line::EarlyFlush;
use crate::confidential::policy::HostFlush;
use crate::cpu::stop::{FlushTime, flush_here};
use crate::cpu::{CoreId, current, time};
use crate::task::{Task, spawn_on, timeout};

/// How long a core may take to come to it. One that does not is waited for, and named, by the stop.
const PATIENCE: Duration = Duration::from_secs(1);

/// All cores flush, as `how` says; what each took, in the order of their numbers.
pub(super) async fn run(how: EarlyFlush, permit: HostFlush) -> Vec<CoreFlush> {
    // Core 0 moves the packets: it comes last, when caches that cores share have been written back already.
    let (others, boot) = (current::online().without(CoreId::BOOT), CoreId::BOOT);
    let cores: Vec<CoreId> = others.iter().chain([boot]).collect();
    let start = |core: CoreId| (core, spawn_on(core, async move { flush_here(permit) }));
    let mut flushes = Vec::with_capacity(cores.len());
    match how {
        EarlyFlush::Never => {}
        EarlyFlush::Serial => {
            for core in cores {
                flushes.extend(end(start(core)).await);
            }
        }
        EarlyFlush::Simultaneous => {
            let started: Vec<_> = cores.into_iter().map(start).collect();
            for flush in started {
                flushes.extend(end(flush).await);
            }
        }
    }
    flushes.sort_unstable_by_key(|flush| flush.core);
    flushes
}

async fn end((core, flush): (CoreId, Task<FlushTime>)) -> Option<CoreFlush> {
    match timeout(PATIENCE, flush).await {
        Ok(FlushTime { start, end }) => Some(CoreFlush {
            core: core.index() as u32,
            start_ns: time::at(start).0,
            end_ns: time::at(end).0,
            cycles: end.saturating_sub(start),
        }),
        Err(_) => {
            warn!("core {core} did not come to its early flush: it does not run its tasks");
            None
        }
    }
}

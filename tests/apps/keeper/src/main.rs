//! For tests: keeps state for its successors. One command a request:
//!
//! | path | what happens | answer |
//! |---|---|---|
//! | `/stash/NAME/VERSION/TEXT` | a record is stashed now | |
//! | `/take/NAME` | a record is taken | its version and text |
//! | `/hook/WHAT` | what the hook does when this instar is replaced: `count` (stashes `hook`), `fail`, `hang`, `slow` (takes 300 ms) | |
//! | `/returned` | | how often this instar went on, and whether it was rolled back |
//! | `/region/NAME/BYTES` | a region is made, its first and last byte written | its size |
//! | `/keep/NAME` | a region is taken | its version, size, first and last byte |
//! | `/release/NAME` | a region that was made or taken is released | |
#![no_main]
#![cfg_attr(metal, no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use libos::http::{self, Request, Response};
use libos::state::{self, Preserved};
use libos::{start, task};
use spin::Mutex;

libos::main!(main);

static HELD: Mutex<Vec<(String, Preserved)>> = Mutex::new(Vec::new());
static HOOK: Mutex<Hook> = Mutex::new(Hook::Count);
static RETURNS: Mutex<Vec<state::Return>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
enum Hook {
    Count,
    Fail,
    Hang,
    Slow,
}

async fn main() {
    state::on_handover(|| async {
        let hook = *HOOK.lock();
        match hook {
            Hook::Count => {
                let generation = start::identity().generation;
                state::stash_encoded("hook", generation, &("generation", generation))
                    .map_err(|error| error.to_string())
            }
            Hook::Slow => {
                task::sleep(Duration::from_millis(300)).await;
                Ok(())
            }
            Hook::Fail => Err(String::from("told to fail")),
            Hook::Hang => {
                task::sleep(Duration::from_secs(3600)).await;
                Ok(())
            }
        }
    });
    state::on_return(|why| async move { RETURNS.lock().push(why) });
    if let Err(error) = http::serve(80, answer).await {
        log::error!("no HTTP: {error}");
    }
}

async fn answer(request: Request) -> Response {
    match command(request.path()).await {
        Ok(text) => Response::text(200, &text),
        Err(problem) => Response::text(409, &problem),
    }
}

async fn command(path: &str) -> Result<String, String> {
    let words: Vec<&str> = path.split('/').skip(1).collect();
    match words[..] {
        [""] => Ok(format!("{}\n", start::identity().generation)),
        ["stash", name, version, text] => {
            let version = version.parse().map_err(|_| "a version is a number")?;
            state::stash(name, version, text.as_bytes()).map_err(|error| error.to_string())?;
            Ok(String::new())
        }
        ["take", "hook"] => {
            let record = state::take("hook").ok_or("there is none")?;
            let (word, number) = record
                .decode::<(&str, u32)>()
                .map_err(|error| error.to_string())?;
            Ok(format!("{} {word} {number}", record.version))
        }
        ["take", name] => {
            let record = state::take(name).ok_or("there is none")?;
            let text = String::from_utf8_lossy(&record.bytes);
            Ok(format!("{} {text}", record.version))
        }
        ["hook", what] => {
            *HOOK.lock() = match what {
                "count" => Hook::Count,
                "fail" => Hook::Fail,
                "hang" => Hook::Hang,
                "slow" => Hook::Slow,
                _ => return Err(String::from("count, fail, hang or slow?")),
            };
            Ok(String::new())
        }
        ["returned"] => Ok(format!("{:?}", *RETURNS.lock())),
        ["region", name, bytes] => {
            let bytes = bytes.parse().map_err(|_| "bytes are a number")?;
            let mut region = Preserved::new(name, 7, bytes).map_err(|error| error.to_string())?;
            let contents = region.as_mut_slice();
            if contents.iter().any(|byte| *byte != 0) {
                return Err(String::from("a new region is not zero"));
            }
            if let [first, .., last] = contents {
                (*first, *last) = (0x5a, 0xa5);
            }
            let length = region.len();
            HELD.lock().push((name.into(), region));
            Ok(length.to_string())
        }
        ["keep", name] => {
            let region = Preserved::take(name).ok_or("there is none")?;
            let ends = [region.as_slice().first(), region.as_slice().last()].map(|byte| byte.copied());
            let told = format!("{} {} {ends:?}", region.version(), region.len());
            HELD.lock().push((name.into(), region));
            Ok(told)
        }
        ["release", name] => {
            let region = {
                let mut held = HELD.lock();
                let at = held.iter().position(|(held, _)| held == name);
                held.swap_remove(at.ok_or("it is not held")?).1
            };
            region.release().await;
            Ok(String::new())
        }
        _ => Err(String::from("there is no such command")),
    }
}

//! For tests and `bench private`: takes private memory, writes into it in the TDX module's stead, hands it over, releases it, and says what is
//! in it. UDP echo on port 7, and HTTP on port 80, one command a request:
//!
//! | path | what happens | answer |
//! |---|---|---|
//! | `/take/KEY/PURPOSE/CHUNKS` | memory is taken, PURPOSE `module` or `td`, and filled | its address |
//! | `/hand-over/ADDRESS` | it is to be handed over | |
//! | `/release/ADDRESS`, `/drop/ADDRESS` | it is released; dropped, which releases it in the background | |
//! | `/sum/ADDRESS` | | FNV-1a of its contents |
//! | `/left/ADDRESS/CHUNKS` | whosever it is now | how many words are still as `/take` filled them |
//! | `/inherited` | what the predecessor handed over is held from now on | a line for each piece: address, key, bytes |
//! | `/measure/BYTES` | that much free memory is reset | pages, nanoseconds, method |
#![no_main]
#![cfg_attr(metal, no_std)]

extern crate alloc;

#[path = "../../echo.rs"]
mod echo;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use libos::confidential::ledger::Purpose;
use libos::confidential::private::{self, PrivateMemory};
use libos::http::{self, Request, Response};
use libos::{start, task};
use spin::Mutex;

libos::main!(main);

static HELD: Mutex<Vec<PrivateMemory>> = Mutex::new(Vec::new());

async fn main() {
    task::spawn(echo::serve()).detach();
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
        ["take", key, purpose, chunks] => take(key, purpose, chunks),
        ["hand-over", address] => {
            let mut memory = let_go(address)?;
            memory.hand_over().await;
            HELD.lock().push(memory);
            Ok(String::new())
        }
        ["release", address] => {
            let memory = let_go(address)?;
            memory.release().await.map_err(|error| error.to_string())?;
            Ok(String::new())
        }
        ["drop", address] => let_go(address).map(|_| String::new()),
        ["sum", address] => {
            let memory = let_go(address)?;
            let sum = sum(&memory);
            HELD.lock().push(memory);
            Ok(format!("{sum:016x}"))
        }
        ["left", address, chunks] => {
            let (start, bytes) = (number(address)?, number(chunks)? << 21);
            // SAFETY: mapped as all memory of the machine is; read as words, whatever they mean.
            let word = |address: u64| unsafe { (address as *const u64).read_volatile() };
            let range = (start..start + bytes).step_by(8);
            Ok(range
                .filter(|address| word(*address) == pattern(*address))
                .count()
                .to_string())
        }
        ["inherited"] => {
            let found = private::inherited();
            let line = |it: &PrivateMemory| {
                let range = it.range();
                format!(
                    "{:#x} {} {}\n",
                    range.start,
                    it.key().number(),
                    range.end - range.start
                )
            };
            let lines = found.iter().map(line).collect();
            HELD.lock().extend(found);
            Ok(lines)
        }
        ["measure", bytes] => {
            let found = private::measure(number(bytes)?)
                .await
                .map_err(|error| error.to_string())?;
            Ok(format!(
                "{} {} {:?}",
                found.pages,
                found.took.as_nanos(),
                found.method
            ))
        }
        _ => Err(String::from("there is no such command")),
    }
}

fn take(key: &str, purpose: &str, chunks: &str) -> Result<String, String> {
    let key = private::key(number(key)? as u32).map_err(|error| error.to_string())?;
    let purpose = match purpose {
        "module" => Purpose::Module,
        "td" => Purpose::Td,
        _ => return Err(String::from("module or td?")),
    };
    let memory =
        PrivateMemory::take(number(chunks)? << 21, key, purpose).map_err(|error| error.to_string())?;
    let range = memory.range();
    for address in range.clone().step_by(8) {
        // SAFETY: mapped writable, and ours. Nobody has given it to a module.
        unsafe { (address as *mut u64).write_volatile(pattern(address)) };
    }
    HELD.lock().push(memory);
    Ok(format!("{:#x}", range.start))
}

/// What the word at `address` is filled with.
const fn pattern(address: u64) -> u64 {
    address ^ 0x5a5a_5a5a_5a5a_5a5a
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no number"))
}

/// The piece of memory at `address`, which is not among those held any more.
fn let_go(address: &str) -> Result<PrivateMemory, String> {
    let address = number(address)?;
    let mut held = HELD.lock();
    let at = held.iter().position(|memory| memory.range().start == address);
    at.map(|at| held.swap_remove(at))
        .ok_or_else(|| format!("nothing is held at {address:#x}"))
}

/// FNV-1a over words instead of bytes.
fn sum(memory: &PrivateMemory) -> u64 {
    memory
        .range()
        .step_by(8)
        .fold(0xcbf2_9ce4_8422_2325, |sum, address| {
            // SAFETY: mapped, and ours.
            let word = unsafe { (address as *const u64).read_volatile() };
            (sum ^ word).wrapping_mul(0x0100_0000_01b3)
        })
}

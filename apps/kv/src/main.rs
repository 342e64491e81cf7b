//! The image: RESP on TCP 6379, the data in preserved memory.
#![no_main]
#![cfg_attr(metal, no_std)]

extern crate alloc;

mod memory;
mod metrics;

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use kv_store::commands::{Surroundings, Then};
use kv_store::resp::{Parsed, Replies, parse};
use kv_store::session::Session;
use kv_store::store::Store;
use libos::cpu::{random, time};
use libos::net::{ListenOptions, TcpError, TcpListener, TcpOptions, TcpStream};
use libos::state::{self, Return};
use libos::{start, task};
use memory::Regions;
use spin::Mutex;

libos::main!(main);

const PORT: u16 = 6379;
/// What is read at once, and what is written at least at once if there is so much.
const PIECE: usize = 16 << 10;
/// How often expired keys are looked for, and how many keys are looked at.
const SWEEP: Duration = Duration::from_millis(100);
const SWEPT: usize = 200;

static DATA: Mutex<Data> = Mutex::new(Data {
    store: None,
    handing_over: false,
});

struct Data {
    store: Option<Store<Regions>>,
    /// Nothing is changed any more: a successor takes over what there is.
    handing_over: bool,
}

async fn main() {
    if let Err(problem) = open() {
        // Without its data it would be another server: nobody is served, and the memory stays as it is.
        return log::error!("the data cannot be used: {problem}");
    }
    state::on_handover(|| async {
        DATA.lock().handing_over = true;
        Ok(())
    });
    state::on_return(|why| async move {
        let mut data = DATA.lock();
        if let (Return::RolledBack, Some(store)) = (why, &mut data.store) {
            store.arena().take_new();
            store.recover();
        }
        data.handing_over = false;
    });
    task::spawn(sweep()).detach();
    // redis-benchmark opens fifty at once, and again as soon as it has closed them. Who finds no room is not answered, and
    // tries again seconds later.
    let options = ListenOptions {
        backlog: 56,
        connections: 150,
        tcp: TcpOptions {
            receive_buffer: 4096,
            transmit_buffer: 4096,
            ..TcpOptions::default()
        },
        ..ListenOptions::default()
    };
    let listener = libos::net::default_network()
        .ok_or(libos::net::BindError::NoNetwork)
        .and_then(|network| TcpListener::bind_on(network, PORT, options));
    let mut listener = match listener {
        Ok(listener) => listener,
        Err(error) => return log::error!("no clients: {error}"),
    };
    loop {
        let stream = listener.accept().await;
        task::spawn(async move {
            metrics::CLIENTS.add(1);
            // A client that goes away is no event.
            let _ = serve(stream).await;
            metrics::CLIENTS.add(-1);
        })
        .detach();
    }
}

/// Takes the data over, or begins without any.
fn open() -> Result<(), String> {
    let told = |error: &dyn core::fmt::Display| alloc::format!("{error}");
    let regions = Regions::open().map_err(|error| told(&error))?;
    let store = Store::open(regions, [random::number(), random::number()]).map_err(|error| told(&error))?;
    log::info!(
        "{} keys, {} of {} bytes in use",
        store.keys(),
        store.used().0,
        store.used().1
    );
    metrics::tell(&store);
    DATA.lock().store = Some(store);
    Ok(())
}

/// Does something with the store, as soon as this is allowed.
async fn with_store<R>(action: impl FnOnce(&mut Store<Regions>) -> R) -> Option<R> {
    loop {
        {
            let mut data = DATA.lock();
            if !data.handing_over {
                return data.store.as_mut().map(action);
            }
        }
        task::sleep(Duration::from_millis(1)).await;
    }
}

fn now_ms() -> u64 {
    time::unix(time::now()) / 1_000_000
}

fn surroundings() -> Surroundings<'static> {
    let me = start::identity();
    Surroundings {
        now: now_ms(),
        version: &me.manifest().version,
        generation: me.generation,
        uptime: time::now().0 / 1_000_000_000,
    }
}

async fn serve(mut stream: TcpStream) -> Result<(), TcpError> {
    let mut session = Session::default();
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut piece = alloc::vec![0; PIECE];
    loop {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return stream.close().await;
        }
        input.extend_from_slice(&piece[..count]);
        let mut used = 0;
        let open = loop {
            match parse(&input[used..]) {
                Parsed::Incomplete => break true,
                Parsed::Error(problem) => {
                    Replies(&mut output).error(problem);
                    break false;
                }
                Parsed::Request { words, used: taken } => {
                    let words: Vec<&[u8]> = words.into_iter().map(|word| &input[used..][word]).collect();
                    used += taken;
                    if !words.is_empty() {
                        let start = time::now();
                        let stays = request(&mut session, &words, &mut output).await;
                        metrics::DURATION.record((time::now() - start).as_secs_f64());
                        if !stays {
                            break false;
                        }
                    }
                }
            }
            if output.len() >= PIECE {
                stream.write_all(&output).await?;
                output.clear();
            }
        };
        input.drain(..used);
        stream.write_all(&output).await?;
        output.clear();
        if !open {
            return stream.close().await;
        }
    }
}

/// Carries a request out; whether the connection stays open.
async fn request(session: &mut Session, words: &[&[u8]], output: &mut Vec<u8>) -> bool {
    let then = with_store(|store| {
        let then = session.request(store, &surroundings(), words, output);
        metrics::tell(store);
        then
    });
    let then = then.await;
    match then {
        None | Some(Then::Close) => false,
        Some(Then::Nothing) => true,
        Some(Then::Work(mut work)) => {
            while with_store(|store| work.step(store, now_ms(), output)).await == Some(false) {
                task::yield_now().await;
            }
            true
        }
    }
}

/// Removes expired keys that nobody asks for.
async fn sweep() {
    let mut cursor = 0;
    loop {
        task::sleep(SWEEP).await;
        let next = with_store(|store| {
            let (now, mut over) = (now_ms(), Vec::new());
            let next = store.scan(cursor, SWEPT, |entry| {
                if entry.is_over(now) {
                    over.push(entry.key().to_vec());
                }
            });
            for key in over {
                store.remove(&key);
            }
            metrics::tell(store);
            next
        });
        cursor = next.await.unwrap_or(0);
    }
}

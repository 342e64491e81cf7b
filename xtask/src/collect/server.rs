//! Threads and sockets: one thread that accepts, one for each connection.

use super::answer::answer;
use super::fault::Fault;
use super::http::{Error, Reader, response_head};
use super::page;
use super::received::{Item, Received};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(120);

/// How long taking up or giving up the port may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running collector. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pub(super) readers: page::Readers,
}

#[derive(Debug, Default)]
struct State {
    received: Received,
    fault: Fault,
    listening: bool,
    stopping: bool,
    connections: HashMap<u64, TcpStream>,
    next_connection: u64,
}

impl Collector {
    /// Starts a collector; port 0 chooses a free one.
    pub fn start(address: &str) -> Result<Self> {
        Self::start_with(address, Fault::None)
    }

    /// Starts a collector that misbehaves.
    pub fn start_with(address: &str, fault: Fault) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let listener = (fault != Fault::Refuse).then_some(listener);
        let shared = Arc::new(Shared::default());
        {
            let mut state = shared.lock();
            state.listening = listener.is_some();
            state.fault = fault;
        }
        let acceptor = {
            let shared = shared.clone();
            thread::Builder::new()
                .name("collector".into())
                .spawn(move || accept(address, listener, &shared))?
        };
        Ok(Collector {
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on misbehaves like this; returns once that holds for new connections. Open ones are closed when the
    /// collector begins to refuse.
    pub fn set_fault(&self, fault: Fault) -> Result<()> {
        let refuse = fault == Fault::Refuse;
        let mut state = self.shared.lock();
        state.fault = fault;
        if refuse {
            state.close_connections();
        }
        drop(state);
        self.shared.changed.notify_all();
        if refuse {
            self.wake();
        }
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), PATIENCE, |state| state.listening == refuse)
            .unwrap_or_else(PoisonError::into_inner);
        if state.listening == refuse {
            bail!(
                "the collector's port {} was taken by another program",
                self.address
            );
        }
        Ok(())
    }

    /// A copy of what was received so far.
    pub fn received(&self) -> Received {
        self.shared.lock().received.clone()
    }

    /// Looks at what was received so far, without a copy.
    pub fn with<T>(&self, look: impl FnOnce(&Received) -> T) -> T {
        look(&self.shared.lock().received)
    }

    /// Waits until `enough` says so of what was received, and returns a copy; an error when `timeout` has passed.
    pub fn wait_for(&self, mut enough: impl FnMut(&Received) -> bool, timeout: Duration) -> Result<Received> {
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), timeout, |state| !enough(&state.received))
            .unwrap_or_else(PoisonError::into_inner);
        if !enough(&state.received) {
            let received = &state.received;
            let counts = received.count(|_| true);
            bail!(
                "what was waited for did not reach the collector within {timeout:?}; it has {} spans, {} log records and \
                 {} points from {} requests",
                counts.spans,
                counts.logs,
                counts.points,
                received.requests
            );
        }
        Ok(state.received.clone())
    }

    /// Items from number `next` on, which is advanced; waits for some, but not longer than `timeout`.
    pub(super) fn items_since(&self, next: &mut u64, timeout: Duration) -> Vec<Item> {
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), timeout, |state| state.received.end() <= *next)
            .unwrap_or_else(PoisonError::into_inner);
        let items = state.received.since(*next);
        *next = state.received.end();
        items
    }

    /// The acceptor waits for a connection; so here is one.
    fn wake(&self) {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        // If nobody listens, nobody needs to be woken.
        let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        state.close_connections();
        drop(state);
        self.shared.changed.notify_all();
        self.wake();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    /// Counts a request, and what became of it.
    pub(super) fn count(&self, count: impl FnOnce(&mut Received)) {
        let mut state = self.lock();
        state.received.requests += 1;
        count(&mut state.received);
        drop(state);
        self.changed.notify_all();
    }

    /// Counts bytes of answers.
    pub(super) fn answered(&self, bytes: u64) {
        self.lock().received.answered_bytes += bytes;
    }

    /// Looks at what was received so far.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Received) -> T) -> T {
        look(&self.lock().received)
    }

    /// Waits until more is to be shown than change number `told`, but not longer than `timeout`, and returns the newest
    /// change's number; none if the collector ends.
    pub(super) fn wait_for_news(&self, told: Option<u64>, timeout: Duration) -> Option<u64> {
        let nothing = |state: &mut State| !state.stopping && told == Some(state.received.fleet.revision);
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.stopping).then_some(state.received.fleet.revision)
    }

    /// How to misbehave now.
    pub(super) fn fault(&self) -> Fault {
        self.lock().fault.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A predicate of the caller's may have panicked under the lock; the state is whole all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn close_connections(&self) {
        for stream in self.connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(address: SocketAddr, mut listener: Option<TcpListener>, shared: &Arc<Shared>) {
    loop {
        // Taking the port up again after refusing; the state tells who waits for it.
        if listener.is_none() && shared.lock().fault != Fault::Refuse {
            listener = TcpListener::bind(address).ok();
            let mut state = shared.lock();
            state.listening = listener.is_some();
            shared.changed.notify_all();
            // Whoever ends us from here on finds somebody to connect to, and so can wake us.
            if state.stopping {
                return;
            }
        }
        let accepted = listener.as_ref().map(TcpListener::accept);
        let mut state = shared.lock();
        if state.stopping {
            return;
        }
        if state.fault == Fault::Refuse {
            drop(listener.take());
            state.listening = false;
            shared.changed.notify_all();
            let refusing = |state: &mut State| state.fault == Fault::Refuse && !state.stopping;
            let state = shared
                .changed
                .wait_while(state, refusing)
                .unwrap_or_else(PoisonError::into_inner);
            if state.stopping {
                return;
            }
            continue;
        }
        state.received.connections += u64::from(matches!(accepted, Some(Ok(_))));
        if state.fault == Fault::Reset {
            shared.changed.notify_all();
        }
        match accepted {
            Some(Ok((stream, _)))
                if state.fault != Fault::Reset && state.connections.len() < MAX_CONNECTIONS =>
            {
                let number = state.next_connection;
                state.next_connection += 1;
                let Ok(copy) = stream.try_clone() else { continue };
                state.connections.insert(number, copy);
                drop(state);
                let thread_shared = shared.clone();
                let serve = move || {
                    // How a connection ended concerns its sender only.
                    let _ = serve(stream, &thread_shared);
                    thread_shared.lock().connections.remove(&number);
                };
                if thread::Builder::new()
                    .name("collector".into())
                    .spawn(serve)
                    .is_err()
                {
                    shared.lock().connections.remove(&number);
                }
            }
            Some(Ok(_)) => {}
            // Too many open files, or the port is taken: not for long, one hopes.
            Some(Err(_)) | None => {
                drop(state);
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// One connection, until it ends.
fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = Reader::new(stream);
    loop {
        match reader.request() {
            Ok(request) => {
                if page::is_for_page(&request) {
                    return page::answer(&request, reader.stream(), shared);
                }
                let keep_alive = answer(&request, reader.stream(), shared)?;
                if !keep_alive {
                    return Ok(());
                }
            }
            Err(Error::Ended) => return Ok(()),
            Err(Error::Refused(status)) => {
                shared.count(|received| received.malformed += 1);
                let stream = reader.stream();
                stream.write_all(response_head(status, &[], 0, false).as_bytes())?;
                // What is still unread would make the kernel reset the connection, and the answer would be lost.
                stream.shutdown(Shutdown::Write)?;
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                io::copy(&mut stream.take(16 << 20), &mut io::sink())?;
                return Ok(());
            }
        }
    }
}

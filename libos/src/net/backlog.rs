//! TCP sockets that no task holds: waiting for a peer, waiting to be accepted, waiting to be closed.
//!
//! smoltcp has no backlog: one socket takes one connection, and a request that finds none is refused. Here a listener
//! keeps several sockets waiting. A request that finds none free is dropped without an answer, so that the peer asks
//! again a second later, when there may be room, or a successor.

mod stopping;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::task::Waker;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::Socket;
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::{Duration, Instant};

use super::BindError;
use super::across::Across;
use super::port::connection_request;
use super::stack::{Limits, Stats};
use super::tcp::TcpOptions;
use stopping::Accepting;

/// A peer that does not complete its handshake is given up after this.
const HALF_OPEN: Duration = Duration::from_secs(5);
/// When a backlog is full of half-open connections, one older than this makes room.
const HALF_OPEN_AT_LEAST: Duration = Duration::from_secs(1);
/// A peer that is silent this long, keep-alives included, is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Bounds on one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted or to complete their handshake; at least 1.
    pub backlog: usize,
    /// Connections in all: waiting and accepted, until their stream is dropped; at least 1.
    pub connections: usize,
    /// Each connection's buffers, and what becomes of it at a replacement.
    pub tcp: TcpOptions,
    /// Whether what is sent from this port counts as an application's answer (see `Shared::first_answer`).
    pub answers: bool,
    /// Whether connections are still taken while this instar is being replaced, until the very end: for who asks whether it is.
    pub to_the_end: bool,
}

impl ListenOptions {
    const DEFAULT: ListenOptions = ListenOptions {
        backlog: 8,
        connections: 64,
        tcp: TcpOptions::DEFAULT,
        answers: true,
        to_the_end: false,
    };

    /// For an HTTP server: its clients connect again.
    pub const HTTP: ListenOptions = ListenOptions {
        tcp: TcpOptions {
            across: Across::Reset,
            ..TcpOptions::DEFAULT
        },
        ..ListenOptions::DEFAULT
    };

    /// For the control plane: few connections, 64 KiB of window for images, no application.
    pub const CONTROL: ListenOptions = ListenOptions {
        backlog: 3,
        connections: 6,
        tcp: TcpOptions::BULK,
        answers: false,
        to_the_end: true,
    };
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions::DEFAULT
    }
}

struct Listener {
    port: u16,
    options: ListenOptions,
    /// Listening or half-open; with the time at which it was first seen half-open.
    waiting: Vec<(SocketHandle, Option<Instant>)>,
    ready: VecDeque<SocketHandle>,
    /// Accepted connections whose stream still lives.
    held: usize,
    waker: Option<Waker>,
}

struct Closing {
    handle: SocketHandle,
    deadline: Instant,
}

/// Which end of a connection this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Accepts,
    Connects,
}

/// A TCP socket.
struct Entry {
    handle: SocketHandle,
    across: Across,
    end: End,
    /// Who wants to know that the network is stopping.
    waits: Option<Waker>,
}

pub(super) struct Backlog {
    limits: Limits,
    accepting: Accepting,
    listeners: Vec<Option<Listener>>,
    /// Oldest first.
    closing: VecDeque<Closing>,
    entries: Vec<Entry>,
    /// What the buffers of all sockets take.
    bytes: usize,
    now: Instant,
}

fn buffer_bytes(socket: &tcp::Socket<'_>) -> usize {
    socket.recv_capacity() + socket.send_capacity()
}

impl Backlog {
    pub fn new(limits: Limits) -> Self {
        Backlog {
            limits,
            accepting: Accepting::All,
            listeners: Vec::new(),
            closing: VecDeque::new(),
            entries: Vec::new(),
            bytes: 0,
            now: Instant::ZERO,
        }
    }

    /// Adds a TCP socket if the bound allows it; a closing one gives way.
    pub fn add(
        &mut self,
        sockets: &mut SocketSet<'static>,
        options: TcpOptions,
        end: End,
    ) -> Option<SocketHandle> {
        let receive_bytes = options.receive_buffer.clamp(1, 1 << 30);
        let transmit_bytes = options.transmit_buffer.clamp(1, 1 << 30);
        let bytes = receive_bytes + transmit_bytes;
        while self.entries.len() >= self.limits.tcp_sockets || self.bytes + bytes > self.limits.tcp_bytes {
            // Only one whose data has all arrived, at both ends: it waits for nothing but an end, or that end's acknowledgement.
            let index = self.closing.iter().position(|closing| {
                let socket = sockets.get::<tcp::Socket>(closing.handle);
                match socket.state() {
                    State::TimeWait | State::FinWait2 => true,
                    State::Closing | State::LastAck => socket.send_queue() == 0,
                    _ => false,
                }
            })?;
            let closing = self.closing.remove(index)?;
            self.remove(sockets, closing.handle);
        }
        let receive = tcp::SocketBuffer::new(vec![0; receive_bytes]);
        let transmit = tcp::SocketBuffer::new(vec![0; transmit_bytes]);
        let mut socket = tcp::Socket::new(receive, transmit);
        // Answers are written whole: waiting for more of them only adds the peer's delayed acknowledgement.
        socket.set_nagle_enabled(false);
        self.bytes += bytes;
        let handle = sockets.add(socket);
        self.entries.push(Entry {
            handle,
            across: options.across,
            end,
            waits: None,
        });
        Some(handle)
    }

    pub fn remove(&mut self, sockets: &mut SocketSet<'static>, handle: SocketHandle) {
        self.bytes -= buffer_bytes(sockets.get::<tcp::Socket>(handle));
        sockets.remove(handle);
        self.entries.retain(|entry| entry.handle != handle);
    }

    pub fn listen(
        &mut self,
        sockets: &mut SocketSet<'static>,
        port: u16,
        options: ListenOptions,
    ) -> Result<usize, BindError> {
        if port == 0 {
            return Err(BindError::PortZero);
        }
        if self
            .listeners
            .iter()
            .flatten()
            .any(|listener| listener.port == port)
        {
            return Err(BindError::InUse(port));
        }
        let listener = Listener {
            port,
            options,
            waiting: Vec::new(),
            ready: VecDeque::new(),
            held: 0,
            waker: None,
        };
        let index = match self.listeners.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.listeners.push(None);
                self.listeners.len() - 1
            }
        };
        self.listeners[index] = Some(listener);
        self.sweep(sockets, self.now);
        Ok(index)
    }

    pub fn unlisten(&mut self, sockets: &mut SocketSet<'static>, index: usize) {
        let Some(listener) = self.listeners.get_mut(index).and_then(Option::take) else {
            return;
        };
        for handle in listener
            .waiting
            .iter()
            .map(|waiting| waiting.0)
            .chain(listener.ready)
        {
            sockets.get_mut::<tcp::Socket>(handle).abort();
            self.close_later(handle);
        }
    }

    /// The next connection that completed its handshake; remembers who asks.
    pub fn accept(&mut self, index: usize, waker: &Waker) -> Option<SocketHandle> {
        let listener = self.listeners.get_mut(index)?.as_mut()?;
        match listener.ready.pop_front() {
            Some(handle) => {
                listener.held += 1;
                Some(handle)
            }
            None => {
                listener.waker = Some(waker.clone());
                None
            }
        }
    }

    /// A stream was dropped: what is left to send is sent, within bounds.
    pub fn release(
        &mut self,
        sockets: &mut SocketSet<'static>,
        handle: SocketHandle,
        listener: Option<(usize, u16)>,
    ) {
        if let Some((index, port)) = listener
            && let Some(Some(listener)) = self.listeners.get_mut(index)
            && listener.port == port
        {
            listener.held = listener.held.saturating_sub(1);
        }
        sockets.get_mut::<tcp::Socket>(handle).close();
        self.close_later(handle);
    }

    fn close_later(&mut self, handle: SocketHandle) {
        self.closing.push_back(Closing {
            handle,
            deadline: self.now + self.limits.closing,
        });
    }

    /// Whether a frame may pass: `None` if it asks for no connection to a port that is listened on, else whether there
    /// is room for it.
    pub fn admit(
        &mut self,
        sockets: &mut SocketSet<'static>,
        own: Option<Ipv4Addr>,
        frame: &[u8],
    ) -> Option<bool> {
        let (source, destination) = connection_request(frame, own?)?;
        let listener = self
            .listeners
            .iter()
            .flatten()
            .find(|listener| listener.port == destination)?;
        if !self.accepting.takes(&listener.options) {
            return Some(false);
        }
        let free = listener
            .waiting
            .iter()
            .any(|waiting| sockets.get::<tcp::Socket>(waiting.0).state() == State::Listen);
        // smoltcp would give a repeated request to a second listening socket, which then answers for the first.
        let known = sockets.iter().find_map(|(handle, socket)| match socket {
            Socket::Tcp(socket) => {
                let same = socket.remote_endpoint() == Some(source)
                    && socket
                        .local_endpoint()
                        .is_some_and(|local| local.port == destination)
                    && socket.state() != State::Closed;
                same.then(|| (handle, socket.state()))
            }
            _ => None,
        });
        match known {
            None => Some(free),
            // The peer uses its port again: allowed once both sides have closed (RFC 1122, 4.2.2.13).
            Some((handle, State::TimeWait)) => {
                if let Some(index) = self.closing.iter().position(|closing| closing.handle == handle) {
                    self.closing.remove(index);
                    self.remove(sockets, handle);
                }
                Some(free)
            }
            Some(_) => Some(false),
        }
    }

    /// Moves sockets along: to be accepted, to listen again, to be forgotten; and refills the backlogs.
    pub fn sweep(&mut self, sockets: &mut SocketSet<'static>, now: Instant) {
        self.now = now;
        self.sweep_closing(sockets, now);
        for index in 0..self.listeners.len() {
            // Taken out while it is worked on: adding a socket needs the whole backlog.
            let Some(mut listener) = self.listeners[index].take() else {
                continue;
            };
            listener.sweep(sockets, now);
            listener.refill(self, sockets);
            self.listeners[index] = Some(listener);
        }
    }

    fn sweep_closing(&mut self, sockets: &mut SocketSet<'static>, now: Instant) {
        let mut index = 0;
        while let Some(closing) = self.closing.get(index) {
            let socket = sockets.get_mut::<tcp::Socket>(closing.handle);
            // A closed socket keeps its peer until the reset was sent.
            let done = socket.state() == State::Closed && socket.remote_endpoint().is_none();
            let late = closing.deadline <= now;
            if done || (late && matches!(socket.state(), State::Closed | State::TimeWait)) {
                let handle = closing.handle;
                self.closing.remove(index);
                self.remove(sockets, handle);
                continue;
            }
            if late {
                socket.abort();
            }
            index += 1;
        }
    }

    /// When the next connection has taken too long to close.
    pub fn poll_at(&self) -> Option<Instant> {
        self.closing.front().map(|closing| closing.deadline)
    }

    pub fn count(&self, sockets: &SocketSet<'static>, stats: &mut Stats) {
        stats.tcp_sockets = self.entries.len();
        for (_, socket) in sockets.iter() {
            if let Socket::Tcp(socket) = socket {
                let handshake = matches!(socket.state(), State::SynReceived | State::SynSent);
                stats.connections += usize::from(socket.is_active() && !handshake);
                stats.unsent += socket.send_queue();
                stats.tcp_states[socket.state() as usize] += 1;
            }
        }
    }
}

impl Listener {
    fn sweep(&mut self, sockets: &mut SocketSet<'static>, now: Instant) {
        let ready = &mut self.ready;
        let port = self.port;
        let mut free = false;
        self.waiting.retain_mut(|(handle, since)| {
            let socket = sockets.get_mut::<tcp::Socket>(*handle);
            match socket.state() {
                State::Listen | State::Closed => {
                    *since = None;
                    listen(socket, port);
                    free = true;
                    true
                }
                State::SynReceived => {
                    since.get_or_insert(now);
                    true
                }
                _ => {
                    socket.set_timeout(Some(SILENCE));
                    ready.push_back(*handle);
                    false
                }
            }
        });
        let full = self.waiting.len() + self.ready.len() >= self.options.backlog.max(1);
        if !free && full {
            let oldest = self
                .waiting
                .iter_mut()
                .filter(|waiting| waiting.1.is_some())
                .min_by_key(|waiting| waiting.1);
            if let Some((handle, since)) = oldest
                && since.is_some_and(|since| since + HALF_OPEN_AT_LEAST <= now)
            {
                *since = None;
                let socket = sockets.get_mut::<tcp::Socket>(*handle);
                socket.abort();
                listen(socket, port);
            }
        }
        if !self.ready.is_empty()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    fn refill(&mut self, backlog: &mut Backlog, sockets: &mut SocketSet<'static>) {
        loop {
            let waiting = self.waiting.len() + self.ready.len();
            if waiting >= self.options.backlog.max(1)
                || waiting + self.held >= self.options.connections.max(1)
            {
                return;
            }
            let Some(handle) = backlog.add(sockets, self.options.tcp, End::Accepts) else {
                return;
            };
            listen(sockets.get_mut(handle), self.port);
            self.waiting.push((handle, None));
        }
    }
}

fn listen(socket: &mut tcp::Socket<'static>, port: u16) {
    socket.set_timeout(Some(HALF_OPEN));
    // Set once the connection is open, smoltcp would ask the peer at once.
    socket.set_keep_alive(Some(KEEP_ALIVE));
    // Fails only for an open socket, and then it waits for its peer already.
    let _ = socket.listen(port);
}

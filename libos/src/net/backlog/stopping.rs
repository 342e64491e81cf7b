//! The network stops: for a replacement, which may fail.

use alloc::vec::Vec;
use core::task::Waker;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, State};

use super::super::across::{Fate, Kept, MAX_KEPT, fate};
use super::super::tcp::address_of;
use super::{Backlog, End, ListenOptions};

/// Whose connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    /// Everybody's.
    All,
    /// The network begins to stop: those of [`ListenOptions::to_the_end`].
    ToTheEnd,
    /// Nobody's.
    Nothing,
}

impl Accepting {
    pub fn takes(self, options: &ListenOptions) -> bool {
        match self {
            Self::All => true,
            Self::ToTheEnd => options.to_the_end,
            Self::Nothing => false,
        }
    }
}

impl Backlog {
    /// Whether applications' requests for connections are answered.
    pub fn accepts(&self) -> bool {
        self.accepting == Accepting::All
    }

    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = if accepting {
            Accepting::All
        } else {
            Accepting::ToTheEnd
        };
        if !accepting {
            let waiting = self.entries.iter_mut().filter_map(|entry| entry.waits.take());
            waiting.for_each(Waker::wake);
        }
    }

    /// Wakes who waits for a peer's next request when the network begins to stop.
    pub fn tell_when_stopping(&mut self, handle: SocketHandle, waker: &Waker) {
        let entry = self.entries.iter_mut().find(|entry| entry.handle == handle);
        if let Some(entry) = entry {
            entry.waits = Some(waker.clone());
        }
    }

    /// Whether [`Backlog::cut`] would do no harm now: nobody has anything unsent, and no client of this machine would be reset.
    pub fn is_quiet(&self, sockets: &SocketSet<'static>) -> bool {
        self.entries.iter().all(|entry| {
            let socket = sockets.get::<tcp::Socket>(entry.handle);
            let harmless = match fate(socket.state(), entry.across) {
                Fate::Leave => return true,
                Fate::Keep => true,
                Fate::Reset => entry.end == End::Connects || socket.state() == State::SynReceived,
            };
            harmless && socket.send_queue() == 0
        })
    }

    /// Resets every connection that is not to be kept, and returns those that are.
    pub fn cut(&mut self, sockets: &mut SocketSet<'static>) -> Vec<Kept> {
        let mut kept = Vec::new();
        for entry in &self.entries {
            let socket = sockets.get_mut::<tcp::Socket>(entry.handle);
            match fate(socket.state(), entry.across) {
                Fate::Leave => {}
                Fate::Keep if kept.len() < MAX_KEPT => {
                    let ends = socket.remote_endpoint().zip(socket.local_endpoint());
                    kept.extend(ends.map(|(peer, local)| Kept {
                        peer: address_of(peer),
                        port: local.port,
                    }));
                }
                Fate::Keep | Fate::Reset => socket.abort(),
            }
        }
        kept
    }

    /// The very end: no connection is taken any more, and those that came since [`Backlog::cut`] are reset. Whether there were any.
    pub fn cut_late(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        self.accepting = Accepting::Nothing;
        let mut late = false;
        for entry in &self.entries {
            let socket = sockets.get_mut::<tcp::Socket>(entry.handle);
            if fate(socket.state(), entry.across) == Fate::Reset {
                socket.abort();
                late = true;
            }
        }
        late
    }
}

//! TCP for tasks.

use core::future::poll_fn;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::task::{Context, Poll};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::Duration;
use smoltcp::wire::{IpAddress, IpEndpoint};

use super::BindError;
use super::across::Across;
use super::backlog::{End, KEEP_ALIVE, ListenOptions, SILENCE};
use super::shared::{Shared, default_network};
use super::stack::Stack;

/// Sizes of a connection's buffers, and what becomes of it at a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Bytes that may arrive before they are read: the window told to the peer.
    pub receive_buffer: usize,
    /// Bytes that may be written before the peer has acknowledged them.
    pub transmit_buffer: usize,
    /// What becomes of it when this instar is replaced.
    pub across: Across,
}

impl TcpOptions {
    pub(super) const DEFAULT: TcpOptions = TcpOptions {
        receive_buffer: 4096,
        transmit_buffer: 8192,
        across: Across::Keep,
    };

    /// For receiving an image: 64 KiB of window. Reset at a replacement.
    pub const BULK: TcpOptions = TcpOptions {
        receive_buffer: 64 * 1024,
        transmit_buffer: 4096,
        across: Across::Reset,
    };
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions::DEFAULT
    }
}

/// Why a connection gave no more data, or took none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TcpError {
    /// The peer reset the connection, fell silent, or it was aborted here; what was sent may not have arrived.
    #[error("the connection was reset")]
    Reset,
    /// Written to after it was closed here.
    #[error("the connection is closed")]
    Finished,
}

/// Why a connection could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No network was installed.
    #[error("there is no network")]
    NoNetwork,
    /// No own address yet, or one that no connection can be made to.
    #[error("the address cannot be reached from here")]
    Unaddressable,
    /// As many TCP sockets as [`Limits`](super::Limits) allows.
    #[error("there are too many TCP sockets")]
    TooMany,
    /// The peer refused, or did not answer for 60 seconds.
    #[error("refused or not answered")]
    Refused,
}

/// Takes connections to a port.
pub struct TcpListener {
    shared: &'static Shared,
    index: usize,
    port: u16,
}

impl TcpListener {
    /// Listens on a port of the installed network, with the default [`ListenOptions`].
    pub fn bind(port: u16) -> Result<TcpListener, BindError> {
        TcpListener::bind_on(
            default_network().ok_or(BindError::NoNetwork)?,
            port,
            ListenOptions::default(),
        )
    }

    /// Listens on a port.
    pub fn bind_on(
        shared: &'static Shared,
        port: u16,
        options: ListenOptions,
    ) -> Result<TcpListener, BindError> {
        let index = shared.act(|stack| {
            let index = stack.backlog.listen(&mut stack.sockets, port, options)?;
            if options.answers {
                stack.watch.answering.push((true, port));
            }
            Ok(index)
        })?;
        Ok(TcpListener { shared, index, port })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the next connection.
    pub async fn accept(&mut self) -> TcpStream {
        let handle = poll_fn(|context| {
            match self
                .shared
                .with(|stack| stack.backlog.accept(self.index, context.waker()))
            {
                Some(handle) => Poll::Ready(handle),
                None => Poll::Pending,
            }
        })
        .await;
        TcpStream {
            shared: self.shared,
            handle,
            listener: Some((self.index, self.port)),
        }
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.shared.act(|stack| {
            stack.backlog.unlisten(&mut stack.sockets, self.index);
            stack
                .watch
                .answering
                .retain(|answering| *answering != (true, self.port));
        });
    }
}

/// A connection. Dropped, it is closed in the background: what was written is still sent, for a few seconds.
pub struct TcpStream {
    shared: &'static Shared,
    handle: SocketHandle,
    listener: Option<(usize, u16)>,
}

impl TcpStream {
    /// Connects over the installed network, with the default [`TcpOptions`].
    pub async fn connect(address: Ipv4Addr, port: u16) -> Result<TcpStream, ConnectError> {
        let shared = default_network().ok_or(ConnectError::NoNetwork)?;
        TcpStream::connect_on(shared, SocketAddrV4::new(address, port), TcpOptions::default()).await
    }

    /// Connects.
    pub async fn connect_on(
        shared: &'static Shared,
        to: SocketAddrV4,
        options: TcpOptions,
    ) -> Result<TcpStream, ConnectError> {
        let handle = shared.act(|stack| start(stack, to, options))?;
        let mut stream = TcpStream {
            shared,
            handle,
            listener: None,
        };
        let open = poll_fn(|context| {
            stream.poll(context, |socket, context| match socket.state() {
                State::SynSent | State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                State::Closed => Poll::Ready(false),
                _ => Poll::Ready(true),
            })
        })
        .await;
        if open {
            Ok(stream)
        } else {
            Err(ConnectError::Refused)
        }
    }

    fn poll<R>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut tcp::Socket<'static>, &mut Context<'_>) -> R,
    ) -> R {
        self.shared
            .with(|stack| work(stack.sockets.get_mut(self.handle), context))
    }

    fn set(&mut self, work: impl FnOnce(&mut tcp::Socket<'static>)) {
        self.shared.act(|stack| work(stack.sockets.get_mut(self.handle)));
    }

    /// Waits for data; the number of bytes read, 0 when the peer has sent all it had to say (or `buffer` is empty).
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TcpError> {
        self.receive(buffer, false).await
    }

    /// As [`TcpStream::read`], but also 0 when nothing has come and the network is stopping (see
    /// [`TcpStream::is_draining`]): for a server between two requests, which should close the connection then.
    pub async fn read_unless_draining(&mut self, buffer: &mut [u8]) -> Result<usize, TcpError> {
        self.receive(buffer, true).await
    }

    async fn receive(&mut self, buffer: &mut [u8], ends: bool) -> Result<usize, TcpError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let result = poll_fn(|context| {
            self.shared.with(|stack| {
                let socket = stack.sockets.get_mut::<tcp::Socket>(self.handle);
                match socket.recv_slice(buffer) {
                    Ok(0) if ends && !stack.backlog.accepts() => Poll::Ready(Ok(0)),
                    Ok(0) => {
                        socket.register_recv_waker(context.waker());
                        if ends {
                            stack.backlog.tell_when_stopping(self.handle, context.waker());
                        }
                        Poll::Pending
                    }
                    Ok(read) => Poll::Ready(Ok(read)),
                    Err(tcp::RecvError::Finished) => Poll::Ready(Ok(0)),
                    Err(tcp::RecvError::InvalidState) => Poll::Ready(Err(ended(socket))),
                }
            })
        })
        .await;
        // The window has opened: the peer may have to be told.
        self.shared.act(|_| {});
        result
    }

    /// Gives all of it to the stack, waiting for room; it is sent in the background.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), TcpError> {
        while !bytes.is_empty() {
            let written = poll_fn(|context| {
                self.poll(context, |socket, context| match socket.send_slice(bytes) {
                    Ok(0) => {
                        socket.register_send_waker(context.waker());
                        Poll::Pending
                    }
                    Ok(written) => Poll::Ready(Ok(written)),
                    Err(tcp::SendError::InvalidState) => Poll::Ready(Err(ended(socket))),
                })
            })
            .await?;
            bytes = bytes.get(written..).unwrap_or_default();
            self.shared.act(|_| {});
        }
        Ok(())
    }

    /// Waits until the peer has acknowledged all that was written.
    pub async fn flush(&mut self) -> Result<(), TcpError> {
        poll_fn(|context| {
            self.poll(context, |socket, context| {
                if socket.send_queue() == 0 {
                    return match socket.state() {
                        State::Closed => Poll::Ready(Err(TcpError::Reset)),
                        _ => Poll::Ready(Ok(())),
                    };
                }
                socket.register_send_waker(context.waker());
                Poll::Pending
            })
        })
        .await
    }

    /// Says that nothing more will be written and waits until the peer has acknowledged all of it. A peer that does
    /// not is given up when the connection's timeout has passed (see [`TcpStream::set_timeout`]).
    pub async fn close(mut self) -> Result<(), TcpError> {
        self.set(tcp::Socket::close);
        poll_fn(|context| {
            self.poll(context, |socket, context| match socket.state() {
                State::FinWait2 | State::TimeWait => Poll::Ready(Ok(())),
                // After the peer's own end, the last acknowledgement leads straight here.
                State::Closed if socket.remote_endpoint().is_none() && socket.send_queue() == 0 => {
                    Poll::Ready(Ok(()))
                }
                State::Closed => Poll::Ready(Err(TcpError::Reset)),
                _ => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Resets the connection.
    pub fn abort(mut self) {
        self.set(tcp::Socket::abort);
    }

    /// The peer, while there is one.
    pub fn peer(&self) -> Option<SocketAddrV4> {
        self.shared.with(|stack| {
            stack
                .sockets
                .get::<tcp::Socket>(self.handle)
                .remote_endpoint()
                .map(address_of)
        })
    }

    /// Whether the network is stopping (`Shared::stop_accepting`): nothing new should be begun.
    pub fn is_draining(&self) -> bool {
        self.shared.with(|stack| !stack.backlog.accepts())
    }

    /// Asks a silent peer whether it is still there, this often; `None`: never. 20 seconds at first.
    pub fn set_keep_alive(&mut self, interval: Option<Duration>) {
        self.set(|socket| socket.set_keep_alive(interval));
    }

    /// Gives the connection up when the peer was silent this long; `None`: never. 60 seconds at first.
    pub fn set_timeout(&mut self, silence: Option<Duration>) {
        self.set(|socket| socket.set_timeout(silence));
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.shared.act(|stack| {
            stack
                .backlog
                .release(&mut stack.sockets, self.handle, self.listener)
        });
    }
}

fn start(stack: &mut Stack, to: SocketAddrV4, options: TcpOptions) -> Result<SocketHandle, ConnectError> {
    let port = ephemeral(stack);
    let handle = stack
        .backlog
        .add(&mut stack.sockets, options, End::Connects)
        .ok_or(ConnectError::TooMany)?;
    let socket = stack.sockets.get_mut::<tcp::Socket>(handle);
    socket.set_timeout(Some(SILENCE));
    socket.set_keep_alive(Some(KEEP_ALIVE));
    let remote = IpEndpoint::new(IpAddress::Ipv4(*to.ip()), to.port());
    if socket.connect(stack.iface.context(), remote, port).is_err() {
        stack.backlog.remove(&mut stack.sockets, handle);
        return Err(ConnectError::Unaddressable);
    }
    Ok(handle)
}

/// A local port that no TCP socket uses; there are far fewer sockets than ports.
fn ephemeral(stack: &mut Stack) -> u16 {
    loop {
        let port = 49152 + (stack.random() >> 32) as u16 % 16384;
        let used = stack.sockets.iter().any(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(socket) => {
                socket.local_endpoint().is_some_and(|local| local.port == port)
            }
            smoltcp::socket::Socket::Udp(socket) => socket.endpoint().port == port,
            _ => false,
        });
        // A connection of the predecessor's with the same ends would be torn by this one.
        if !used && !stack.predecessors.use_port(port) {
            return port;
        }
    }
}

pub(super) fn address_of(endpoint: IpEndpoint) -> SocketAddrV4 {
    let IpAddress::Ipv4(address) = endpoint.addr;
    SocketAddrV4::new(address, endpoint.port)
}

/// What a socket's state means to whoever reads or writes it.
fn ended(socket: &tcp::Socket<'_>) -> TcpError {
    match socket.state() {
        State::Closed | State::TimeWait => TcpError::Reset,
        _ => TcpError::Finished,
    }
}

//! UDP for tasks.

use alloc::vec;
use core::future::poll_fn;
use core::net::SocketAddrV4;
use core::task::Poll;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::{Socket, udp};
use smoltcp::wire::{IpAddress, IpEndpoint};

use super::BindError;
use super::shared::{Shared, default_network};
use super::tcp::address_of;

/// Sizes of a socket's buffers, each for one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpOptions {
    /// Datagrams that may wait.
    pub datagrams: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl Default for UdpOptions {
    /// A burst of 64 datagrams, 32 KiB: 12 ms of 5000 packets a second.
    fn default() -> Self {
        UdpOptions {
            datagrams: 64,
            bytes: 32 * 1024,
        }
    }
}

/// Why a datagram was not received or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// The datagram had this many bytes, more than the buffer; it is lost.
    #[error("the datagram of {0} bytes does not fit")]
    Truncated(usize),
    /// Address or port is zero.
    #[error("nothing can be sent to that address")]
    Unaddressable,
    /// More bytes than the socket's buffer can ever hold, or than fit an IP packet of 1500 bytes.
    #[error("a datagram of {0} bytes cannot be sent")]
    TooLong(usize),
}

/// A socket bound to a port.
pub struct UdpSocket {
    shared: &'static Shared,
    handle: SocketHandle,
    port: u16,
}

impl UdpSocket {
    /// Binds to a port of the installed network, with the default [`UdpOptions`].
    pub fn bind(port: u16) -> Result<UdpSocket, BindError> {
        UdpSocket::bind_on(
            default_network().ok_or(BindError::NoNetwork)?,
            port,
            UdpOptions::default(),
        )
    }

    /// Binds to a port.
    pub fn bind_on(shared: &'static Shared, port: u16, options: UdpOptions) -> Result<UdpSocket, BindError> {
        if port == 0 {
            return Err(BindError::PortZero);
        }
        let buffer = || {
            udp::PacketBuffer::new(
                vec![udp::PacketMetadata::EMPTY; options.datagrams.max(1)],
                vec![0; options.bytes.max(1)],
            )
        };
        let handle = shared.act(|stack| {
            let used = stack.sockets.iter().any(|(_, socket)| match socket {
                Socket::Udp(socket) => socket.endpoint().port == port,
                _ => false,
            });
            let mut socket = udp::Socket::new(buffer(), buffer());
            if used || socket.bind(port).is_err() {
                return Err(BindError::InUse(port));
            }
            stack.watch.answering.push((false, port));
            Ok(stack.sockets.add(socket))
        })?;
        Ok(UdpSocket { shared, handle, port })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for a datagram: its length and who sent it.
    pub async fn recv_from(&mut self, buffer: &mut [u8]) -> Result<(usize, SocketAddrV4), UdpError> {
        poll_fn(|context| {
            self.shared.with(|stack| {
                let socket = stack.sockets.get_mut::<udp::Socket>(self.handle);
                match socket.recv() {
                    Ok((datagram, metadata)) => Poll::Ready(match buffer.get_mut(..datagram.len()) {
                        Some(buffer) => {
                            buffer.copy_from_slice(datagram);
                            Ok((datagram.len(), address_of(metadata.endpoint)))
                        }
                        None => Err(UdpError::Truncated(datagram.len())),
                    }),
                    Err(_) => {
                        socket.register_recv_waker(context.waker());
                        Poll::Pending
                    }
                }
            })
        })
        .await
    }

    /// Queues a datagram, waiting for room.
    pub async fn send_to(&mut self, bytes: &[u8], to: SocketAddrV4) -> Result<(), UdpError> {
        let endpoint = IpEndpoint::new(IpAddress::Ipv4(*to.ip()), to.port());
        let result = poll_fn(|context| {
            self.shared.with(|stack| {
                let socket = stack.sockets.get_mut::<udp::Socket>(self.handle);
                // 20 bytes of IP header and 8 of UDP; fragments are not sent.
                if bytes.len() > socket.payload_send_capacity().min(1472) {
                    return Poll::Ready(Err(UdpError::TooLong(bytes.len())));
                }
                match socket.send_slice(bytes, endpoint) {
                    Ok(()) => Poll::Ready(Ok(())),
                    Err(udp::SendError::Unaddressable) => Poll::Ready(Err(UdpError::Unaddressable)),
                    Err(udp::SendError::BufferFull) => {
                        socket.register_send_waker(context.waker());
                        Poll::Pending
                    }
                }
            })
        })
        .await;
        self.shared.act(|_| {});
        result
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.shared.act(|stack| {
            stack.sockets.remove(self.handle);
            stack
                .watch
                .answering
                .retain(|answering| *answering != (false, self.port));
        });
    }
}

//! A small HTTP/1.1 server: one task a connection, keep-alive, pipelining, bodies of known length.
//!
//! | limit | value |
//! |---|---|
//! | request line and headers | 4 KiB, 32 headers |
//! | time for the head | 10 s |
//! | time between two pieces of a body, and for each piece of an answer to be taken | 10 s |
//! | idle connection kept | 30 s |
//! | body that the handler left unread and the connection survives | 16 KiB |
//! | connections at a time | [`ListenOptions::connections`](super::ListenOptions) |
//!
//! A request that is not understood is refused with the JSON of [`Response::refusal`], and the connection is closed:
//! after it nobody can say where the next request begins.
//!
//! When the network stops ([`Shared::stop_accepting`](super::Shared::stop_accepting)) each connection is closed after the
//! answer under way; one that waits for its next request, at once. Listeners for HTTP are bound with
//! [`ListenOptions::HTTP`](super::ListenOptions::HTTP).
//!
//! ```ignore
//! http::serve(TcpListener::bind_on(network, 80, ListenOptions::HTTP)?, timer, spawner, |request| async move {
//!     match request.path() {
//!         "/" => Response::text(200, "hello\n"),
//!         _ => Response::refusal(404, "not-found", "there is no such page", "ask for /"),
//!     }
//! })
//! .await
//! ```

mod connection;
mod head;
mod response;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::future::Future;

use spin::Mutex;

use super::{TcpError, TcpListener, TcpStream, Timer};
pub use connection::BodyError;
use connection::Connection;
use head::Head;
pub use response::Response;

/// Bytes to and from a peer.
pub trait Stream: Send {
    /// Waits for bytes; how many, 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> impl Future<Output = Result<usize, TcpError>> + Send;
    /// Waits for the next request's first bytes; also 0 when this connection should end instead.
    fn read_next(&mut self, buffer: &mut [u8]) -> impl Future<Output = Result<usize, TcpError>> + Send {
        self.read(buffer)
    }
    /// Gives all bytes to the peer.
    fn write_all(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), TcpError>> + Send;
    /// Whether this connection should end after the answer under way.
    fn ending(&self) -> bool {
        false
    }
}

impl Stream for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> impl Future<Output = Result<usize, TcpError>> + Send {
        TcpStream::read(self, buffer)
    }

    fn write_all(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), TcpError>> + Send {
        TcpStream::write_all(self, bytes)
    }

    fn read_next(&mut self, buffer: &mut [u8]) -> impl Future<Output = Result<usize, TcpError>> + Send {
        self.read_unless_draining(buffer)
    }

    fn ending(&self) -> bool {
        self.is_draining()
    }
}

/// Starts tasks.
pub trait Spawn {
    /// Starts a task that runs on its own.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static);
}

/// Where a request leaves its connection when it is dropped.
type Home<S, T> = Arc<Mutex<Option<Connection<S, T>>>>;

/// A request: its head is here, its body is read on demand.
///
/// To be dropped before the handler ends: one that was given to another task takes the connection with it, and the
/// peer gets no answer.
pub struct Request<S: Stream, T: Timer> {
    head: Head,
    /// `None` only while it is dropped.
    connection: Option<Connection<S, T>>,
    home: Home<S, T>,
}

impl<S: Stream, T: Timer> Request<S, T> {
    /// The method, such as `GET`; case matters.
    pub fn method(&self) -> &str {
        self.head.method()
    }

    /// The path without the query: begins with `/`, percent signs as they came.
    pub fn path(&self) -> &str {
        self.head.target().split('?').next().unwrap_or_default()
    }

    /// What follows the path's `?`, empty if there is none.
    pub fn query(&self) -> &str {
        self.head.target().split_once('?').map_or("", |parts| parts.1)
    }

    /// The first header of that name (case does not matter).
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.head
            .headers()
            .find(|header| header.0.eq_ignore_ascii_case(name))
            .map(|header| header.1)
    }

    /// All headers in the order they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.head.headers()
    }

    /// The body's length in bytes, `None` if the request says nothing about it.
    pub fn content_length(&self) -> Option<u64> {
        self.head.length
    }

    /// Reads a piece of the body; 0 at its end (or if `buffer` is empty). A peer that waits to be asked for the body
    /// (`Expect: 100-continue`) is asked by the first call.
    pub async fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, BodyError> {
        match &mut self.connection {
            Some(connection) => connection.read_body(buffer).await,
            None => Ok(0),
        }
    }
}

impl<S: Stream, T: Timer> Drop for Request<S, T> {
    fn drop(&mut self) {
        let connection = self.connection.take();
        let old = core::mem::replace(&mut *self.home.lock(), connection);
        debug_assert!(old.is_none(), "one request at a time");
    }
}

/// Answers requests to a listener for ever, each connection in a task of its own.
pub async fn serve<T, P, H, F>(mut listener: TcpListener, timer: T, spawner: P, handler: H)
where
    T: Timer,
    P: Spawn,
    H: Fn(Request<TcpStream, T>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let handler = Arc::new(handler);
    loop {
        let stream = listener.accept().await;
        let (timer, handler) = (timer.clone(), handler.clone());
        spawner.spawn(async move { converse(stream, timer, &*handler).await });
    }
}

/// Answers the requests of one connection until it ends.
pub async fn converse<S, T, H, F>(stream: S, timer: T, handler: &H)
where
    S: Stream,
    T: Timer,
    H: Fn(Request<S, T>) -> F,
    F: Future<Output = Response>,
{
    let home = Home::default();
    let mut connection = Connection::new(stream, timer);
    while let Some(head) = connection.next().await {
        let request = Request {
            head,
            connection: Some(connection),
            home: home.clone(),
        };
        let response = handler(request).await;
        let Some(returned) = home.lock().take() else {
            log::warn!("a handler kept its request: no answer is sent");
            return;
        };
        connection = returned;
        if !connection.answer(response).await {
            return;
        }
    }
}

//! HTTP for applications: [`serve`] on a port, each connection as a task of the core that serves.

use core::future::Future;

use crate::clock::{Clock, SpawnHere};
use crate::net::{BindError, ListenOptions, TcpListener, TcpStream, default_network};

pub use crate::net::http::{BodyError, Response};

/// A request, whose body is read on demand.
pub type Request = crate::net::http::Request<TcpStream, Clock>;

/// Answers HTTP requests on `port` for ever.
///
/// # Errors
/// Only at the start: the port is taken, or there is no network.
pub async fn serve<H, F>(port: u16, handler: H) -> Result<(), BindError>
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let network = default_network().ok_or(BindError::NoNetwork)?;
    let listener = TcpListener::bind_on(network, port, ListenOptions::HTTP)?;
    crate::net::http::serve(listener, Clock, SpawnHere, handler).await;
    Ok(())
}

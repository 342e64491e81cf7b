//! UDP echo on port 7, for the applications of tests: what clients measure a blackout with.

use libos::net::UdpSocket;

pub(crate) async fn serve() {
    let mut socket = match UdpSocket::bind(7) {
        Ok(socket) => socket,
        Err(error) => return log::error!("no echo: {error}"),
    };
    let mut datagram = [0; 1500];
    loop {
        match socket.recv_from(&mut datagram).await {
            Ok((length, sender)) => {
                if let Err(error) = socket.send_to(&datagram[..length], sender).await {
                    log::warn!("echo to {sender}: {error}");
                }
            }
            Err(error) => log::warn!("echo: {error}"),
        }
    }
}

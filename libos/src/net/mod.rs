//! The network: smoltcp, asynchronous sockets, HTTP.

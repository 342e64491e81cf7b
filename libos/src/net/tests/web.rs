use std::net::SocketAddrV4;

use super::world::*;
use crate::net::http::{Request, Response, Spawn};
use crate::net::*;

impl Spawn for World {
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        World::spawn(self, work);
    }
}

async fn handler(mut request: Request<TcpStream, Clock>) -> Response {
    let mut sum = 0_u64;
    let mut piece = vec![0; 4096];
    while let Ok(read @ 1..) = request.read_body(&mut piece).await {
        sum += piece[..read].iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
    Response::text(200, &format!("{} {} {sum}", request.method(), request.path()))
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 500];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let done = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .split("Content-Length: ")
                .nth(1)
                .unwrap()
                .split("\r\n")
                .next()
                .unwrap();
            body.len() >= length.parse().unwrap()
        });
        if done || read == 0 {
            return text;
        }
    }
}

#[test]
fn requests_over_tcp() {
    let (world, a, b) = pair(no_loss());
    let listener = TcpListener::bind_on(
        b,
        80,
        ListenOptions {
            connections: 4,
            ..ListenOptions::default()
        },
    )
    .unwrap();
    world.spawn(http::serve(listener, world.clock.clone(), world.clone(), handler));
    let connect = || TcpStream::connect_on(a, SocketAddrV4::new(B, 80), TcpOptions::default());
    world.block_on(async {
        let start = world.clock.now();
        let mut stream = connect().await.unwrap();
        for _ in 0..50 {
            stream
                .write_all(b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n")
                .await
                .unwrap();
            assert!(answer(&mut stream).await.ends_with("\r\n\r\nGET /a 0"));
        }
        assert!(
            world.clock.now() - start < Duration::from_millis(100),
            "no waiting for delayed acknowledgements"
        );
        stream
            .write_all(b"PUT /b HTTP/1.1\r\nHost: b\r\nContent-Length: 500000\r\n\r\n")
            .await
            .unwrap();
        for _ in 0..500 {
            stream.write_all(&[2; 1000]).await.unwrap();
        }
        assert!(answer(&mut stream).await.ends_with("\r\n\r\nPUT /b 1000000"));
        // Many short connections: each end is in TIME-WAIT for a while, within the bound.
        for _ in 0..300 {
            let mut stream = connect().await.unwrap();
            stream
                .write_all(b"GET /c HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            assert!(answer(&mut stream).await.ends_with("GET /c 0"));
            assert!(b.stats().tcp_sockets <= 160 && a.stats().tcp_sockets <= 160);
        }
        // A stopping network ends each connection after the answer under way.
        b.stop_accepting();
        stream
            .write_all(b"GET /d HTTP/1.1\r\nHost: b\r\n\r\n")
            .await
            .unwrap();
        assert!(answer(&mut stream).await.contains("Connection: close"));
        assert_eq!(stream.read(&mut [0; 9]).await, Ok(0));
    });
}

#[test]
fn idle_connections_do_not_keep_others_out_for_ever() {
    let (world, a, b) = pair(no_loss());
    let options = ListenOptions {
        backlog: 2,
        connections: 2,
        ..ListenOptions::default()
    };
    let listener = TcpListener::bind_on(b, 80, options).unwrap();
    world.spawn(http::serve(listener, world.clock.clone(), world.clone(), handler));
    let connect = || TcpStream::connect_on(a, SocketAddrV4::new(B, 80), TcpOptions::default());
    world.block_on(async {
        let _idle = (connect().await.unwrap(), connect().await.unwrap());
        let mut stream = connect().await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
            .await
            .unwrap();
        assert!(answer(&mut stream).await.ends_with("GET / 0"));
        assert!(world.clock.now() < Instant::from_secs(20));
    });
}

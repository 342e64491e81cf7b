//! What the end of the drain does to each kind of connection.

use super::across::{connect, echo, echoed};
use super::world::*;
use crate::net::http::Response;
use crate::net::*;

#[test]
fn each_kind_of_connection_has_its_end() {
    let (world, a, b) = pair(no_loss());
    echo(&world, b);
    let listener = TcpListener::bind_on(b, 80, ListenOptions::HTTP).unwrap();
    let timer = world.clock.clone();
    world.spawn(http::serve(
        listener,
        world.clock.clone(),
        world.clone(),
        move |request| {
            let timer = timer.clone();
            async move {
                if request.path() == "/slow" {
                    timer.sleep_until(timer.now() + Duration::from_secs(1)).await;
                }
                Response::text(200, "ok\n")
            }
        },
    ));
    let mut mute = TcpListener::bind_on(b, 9, ListenOptions::default()).unwrap();
    world.block_on(async {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: b\r\n\r\n");
        let mut buffer = [0; 500];
        let mut idle = connect(a, 80).await;
        idle.write_all(get("/").as_bytes()).await.unwrap();
        while !buffer.windows(3).any(|three| three == b"ok\n") {
            idle.read(&mut buffer).await.unwrap();
        }
        let mut slow = connect(a, 80).await;
        slow.write_all(get("/slow").as_bytes()).await.unwrap();
        let mut fresh = connect(a, 80).await;
        let mut raw = connect(a, 7).await;
        echoed(&mut raw, b"before").await.unwrap();
        // More than its peer, which does not read, has room for.
        let mut full = connect(a, 9).await;
        let mut stream = mute.accept().await;
        stream.write_all(&[1; 10_000]).await.unwrap();
        let unaccepted = connect(a, 9).await;

        b.stop_accepting();
        let soon = world.clock.now() + Duration::from_millis(2);
        let read = within(&world.clock, soon, idle.read(&mut buffer)).await;
        assert_eq!(read, Some(Ok(0)), "closed at once");
        world.sleep(Duration::from_millis(20)).await;
        assert_eq!(b.cut_if_quiet(), None, "there are requests under way");
        let kept = b.cut();
        let mut ports: Vec<u16> = kept.iter().map(|kept| kept.port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [7, 9, 9], "{kept:?}");
        assert!(kept.iter().all(|kept| *kept.peer.ip() == A));
        assert_eq!(slow.read(&mut buffer).await, Err(TcpError::Reset));
        assert_eq!(fresh.read(&mut buffer).await, Err(TcpError::Reset));
        b.resume_accepting();
        let mut read = 0;
        while read < 10_000 {
            read += full.read(&mut buffer).await.unwrap();
        }
        echoed(&mut raw, b"after").await.unwrap();
        drop(unaccepted);
        let mut late = mute.accept().await;
        assert_eq!(late.read(&mut buffer).await, Ok(0));
    });
}

#[test]
fn the_drain_waits_for_requests_and_not_for_what_is_kept() {
    let (world, a, b) = pair(no_loss());
    echo(&world, b);
    let listener = TcpListener::bind_on(b, 80, ListenOptions::HTTP).unwrap();
    let timer = world.clock.clone();
    let (work, spawner) = (world.clock.clone(), world.clone());
    world.spawn(http::serve(listener, timer, spawner, move |_| {
        let work = work.clone();
        async move {
            work.sleep_until(work.now() + Duration::from_millis(50)).await;
            Response::text(200, "ok\n")
        }
    }));
    world.block_on(async {
        let mut raw = connect(a, 7).await;
        echoed(&mut raw, b"before").await.unwrap();
        let mut request = connect(a, 80).await;
        request
            .write_all(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
            .await
            .unwrap();
        world.sleep(Duration::from_millis(30)).await;
        b.stop_accepting();
        assert_eq!(b.stats().unsent, 0);
        assert_eq!(b.cut_if_quiet(), None, "a request is under way");
        world.sleep(Duration::from_millis(40)).await;
        let kept = b.cut_if_quiet().expect("it was answered");
        assert_eq!(kept.len(), 1);
        let mut answer = Vec::new();
        let mut buffer = [0; 100];
        while let read @ 1.. = request.read(&mut buffer).await.unwrap() {
            answer.extend_from_slice(&buffer[..read]);
        }
        assert!(answer.ends_with(b"ok\n"), "whole, and no reset behind it");
    });
}

#[test]
fn no_more_are_kept_than_can_be_handed_over() {
    let world = World::default();
    let (a, b) = cable(no_loss());
    let limits = Limits {
        tcp_sockets: 400,
        tcp_bytes: 400 * 20_000,
        ..Limits::default()
    };
    let a = host(&world, a, MAC_A, fixed(A), limits);
    let b = host(&world, b, MAC_B, fixed(B), limits);
    let options = ListenOptions {
        connections: 300,
        ..ListenOptions::default()
    };
    let mut listener = TcpListener::bind_on(b, 7, options).unwrap();
    world.block_on(async {
        let mut clients = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..MAX_KEPT + 5 {
            clients.push(connect(a, 7).await);
            streams.push(listener.accept().await);
        }
        assert_eq!(b.cut().len(), MAX_KEPT);
        world.sleep(Duration::from_millis(20)).await;
        assert_eq!(b.stats().connections, MAX_KEPT);
    });
}

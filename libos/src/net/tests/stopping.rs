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

/// Who asks whether this instar is being replaced is answered until just before the jump; an application's new clients are not.
#[test]
fn some_are_taken_to_the_end() {
    let (world, a, b) = pair(no_loss());
    let mut application = TcpListener::bind_on(b, 9, ListenOptions::default()).unwrap();
    for (port, options) in [(80, ListenOptions::HTTP), (7700, ListenOptions::CONTROL)] {
        let listener = TcpListener::bind_on(b, port, options).unwrap();
        let (timer, spawner) = (world.clock.clone(), world.clone());
        world.spawn(http::serve(listener, timer, spawner, |_| async {
            Response::text(503, "not ready\n")
        }));
    }
    world.block_on(async {
        let soon = || world.clock.now() + Duration::from_millis(20);
        let ask = async || -> Option<Vec<u8>> {
            let mut probe = within(&world.clock, soon(), connect(a, 7700)).await?;
            probe
                .write_all(b"GET /readyz HTTP/1.1\r\nHost: b\r\n\r\n")
                .await
                .unwrap();
            let (mut answer, mut buffer) = (Vec::new(), [0; 500]);
            while let read @ 1.. = probe.read(&mut buffer).await.unwrap() {
                answer.extend_from_slice(&buffer[..read]);
            }
            Some(answer)
        };
        let mut kept = connect(a, 9).await;
        let mut stream = application.accept().await;
        b.stop_accepting();
        assert!(!b.accepts());
        assert!(within(&world.clock, soon(), connect(a, 80)).await.is_none());
        let answer = ask().await.expect("taken");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 503"), "{text}");
        assert!(text.contains("Connection: close"), "nobody keeps it: {text}");

        assert_eq!(b.cut().len(), 1);
        assert!(
            ask().await.is_some(),
            "also while the application saves its state"
        );
        let mut late = connect(a, 7700).await;
        assert!(b.cut_late());
        assert_eq!(late.read(&mut [0; 9]).await, Err(TcpError::Reset));
        assert!(ask().await.is_none(), "the very end");
        assert!(!b.cut_late());

        b.resume_accepting();
        assert!(b.accepts() && ask().await.is_some());
        stream.write_all(b"on").await.unwrap();
        assert_eq!(kept.read(&mut [0; 9]).await, Ok(2), "kept all the time");
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

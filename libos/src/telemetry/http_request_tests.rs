use super::Signal;
use super::config::endpoint;
use super::http_request::{MAX_BODY, MAX_HEAD, Response, ResponseError, ResponseParser, request_head};
use proptest::prelude::*;

/// Feeds `answer` in pieces of `size` bytes, then the connection's end.
fn parse(answer: &[u8], size: usize) -> Result<Response, ResponseError> {
    let mut parser = ResponseParser::new();
    for piece in answer.chunks(size) {
        if let Some(response) = parser.feed(piece)? {
            return Ok(response);
        }
    }
    parser.end()
}

/// The answer must not depend on how it was cut, except for `reusable`: of bytes that were never fed nobody knows.
fn parse_any_way(answer: &[u8]) -> Result<Response, ResponseError> {
    let whole = parse(answer, usize::MAX);
    for size in [1, 2, 3, 7, 64] {
        let without = |result: Result<Response, _>| {
            result.map(|response| Response {
                reusable: false,
                ..response
            })
        };
        assert_eq!(
            without(parse(answer, size)),
            without(whole.clone()),
            "in pieces of {size}"
        );
    }
    whole
}

#[test]
fn the_head_says_everything_once() {
    let endpoint = endpoint("http://collector/base").expect("valid");
    let own = [("authorization".to_string(), "Bearer x".to_string())];
    let head = request_head(&endpoint, Signal::Metrics, &own, 1234);
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    assert_eq!(request.parse(&head), Ok(httparse::Status::Complete(head.len())));
    assert_eq!(
        (request.method, request.path),
        (Some("POST"), Some("/base/v1/metrics"))
    );
    let get = |name: &str| {
        let mut found = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = found
            .next()
            .map(|header| str::from_utf8(header.value).expect("text"));
        assert!(found.next().is_none());
        value
    };
    assert_eq!(get("host"), Some("collector:4318"));
    assert_eq!(get("content-type"), Some("application/x-protobuf"));
    assert_eq!(get("content-length"), Some("1234"));
    assert_eq!(get("connection"), Some("keep-alive"));
    assert_eq!(get("authorization"), Some("Bearer x"));
    assert!(get("user-agent").is_some_and(|agent| agent.starts_with("Instar-OTLP-Exporter-Rust/")));
    for length in [0, 9, 10, usize::MAX] {
        let head = String::from_utf8(request_head(&endpoint, Signal::Logs, &[], length)).expect("text");
        assert!(head.contains(&format!("Content-Length: {length}\r\n")), "{head}");
    }
}

#[test]
fn ordinary_answers() {
    let answer = parse_any_way(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").expect("valid");
    assert_eq!(
        answer,
        Response {
            status: 200,
            retry_after: None,
            body: b"abc".to_vec(),
            complete: true,
            reusable: true
        }
    );
    let answer =
        parse_any_way(b"HTTP/1.1 429 Slow\r\nRetry-After: 17\r\ncontent-length: 0\r\n\r\n").expect("valid");
    assert_eq!(
        (answer.status, answer.retry_after, answer.reusable),
        (429, Some(17), true)
    );
    let answer = parse_any_way(b"HTTP/1.1 204 None\r\n\r\n").expect("valid");
    assert_eq!((answer.status, answer.reusable), (204, true));
    let answer = parse_any_way(b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n")
        .expect("valid");
    assert!(!answer.reusable);
    let answer = parse_any_way(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").expect("valid");
    assert_eq!(
        (answer.body.as_slice(), answer.reusable),
        (&b"until the end"[..], false)
    );
    let answer = parse_any_way(
        b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: Fri, 31 Dec\r\nContent-Length: 1\r\n\r\nx",
    );
    assert_eq!(
        answer.expect("valid"),
        Response {
            status: 503,
            retry_after: None,
            body: b"x".to_vec(),
            complete: true,
            reusable: true
        }
    );
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let until = "Retry-After: Sun, 06 Nov 1994 08:51:07 GMT\r\n";
    for (headers, seconds) in [
        ([date, until].concat(), Some(90)),
        ([until, date].concat(), Some(90)),
        (until.to_owned(), None),
        // A date that has passed.
        (
            [date, "Retry-After: Sun, 06 Nov 1994 08:00:00 GMT\r\n"].concat(),
            Some(0),
        ),
    ] {
        let answer = format!("HTTP/1.1 503 No\r\n{headers}Content-Length: 0\r\n\r\n");
        let answer = parse_any_way(answer.as_bytes()).expect("valid");
        assert_eq!(answer.retry_after, seconds, "{headers}");
    }
    let answer = parse_any_way(b"HTTP/1.1 307 Away\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n")
        .expect("valid");
    assert_eq!(answer.status, 307);
    let answer = parse_any_way(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc").expect("valid");
    assert_eq!(
        (answer.body.as_slice(), answer.reusable),
        (&b"a"[..], false),
        "more came than was announced"
    );
}

#[test]
fn chunked_answers() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    let answer = |body: &str| parse_any_way(&[head.as_bytes(), body.as_bytes()].concat());
    let good = answer("3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n").expect("valid");
    assert_eq!(
        (good.body.as_slice(), good.reusable),
        (&b"abc0123456789"[..], true)
    );
    assert_eq!(answer("0\r\n\r\n").expect("valid").body, b"");
    assert_eq!(answer("3\r\nabcd\r\n0\r\n\r\n"), Err(ResponseError::NotHttp));
    assert_eq!(answer("zz\r\n"), Err(ResponseError::NotHttp));
    assert_eq!(answer("fffffffffffffffff\r\n"), Err(ResponseError::NotHttp));
    assert_eq!(answer("3\r\nab"), Err(ResponseError::Interrupted));
    assert_eq!(answer("0\r\n"), Err(ResponseError::Interrupted));
    assert_eq!(answer(&"x".repeat(3000)), Err(ResponseError::NotHttp));
    let endless = answer(&("0\r\n".to_string() + &"a: b\r\n".repeat(50_000))).expect("bounded");
    assert!(!endless.reusable);
    let drops = answer(&"1\r\na\r\n".repeat(50_000)).expect("bounded");
    assert!(!drops.reusable && drops.body.len() < MAX_BODY);
}

#[test]
fn bad_answers() {
    for garbage in [
        &b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 101 Switch\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        assert_eq!(
            parse_any_way(garbage),
            Err(ResponseError::NotHttp),
            "{}",
            String::from_utf8_lossy(garbage)
        );
    }
    assert_eq!(parse_any_way(b""), Err(ResponseError::Interrupted));
    assert_eq!(
        parse_any_way(b"HTTP/1.1 200 OK\r\n"),
        Err(ResponseError::Interrupted)
    );
    assert_eq!(
        parse_any_way(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"),
        Err(ResponseError::Interrupted)
    );
    let long = ["HTTP/1.1 200 OK\r\nX: ".as_bytes(), &[b'a'; MAX_HEAD]].concat();
    assert_eq!(parse_any_way(&long), Err(ResponseError::HeadTooLarge));
    let many = "HTTP/1.1 200 OK\r\n".to_string() + &"a: b\r\n".repeat(100);
    assert_eq!(parse_any_way(many.as_bytes()), Err(ResponseError::HeadTooLarge));
    let interims = "HTTP/1.1 100 Go\r\n\r\n".repeat(3000);
    assert_eq!(
        parse_any_way(interims.as_bytes()),
        Err(ResponseError::Interrupted)
    );
}

#[test]
fn of_a_huge_answer_only_the_bound_is_read() {
    let heads = [
        "Content-Length: 104857600\r\n",
        "",
        "Transfer-Encoding: chunked\r\n",
    ];
    for (index, head) in heads.into_iter().enumerate() {
        let mut parser = ResponseParser::new();
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        assert_eq!(parser.feed(head.as_bytes()), Ok(None));
        if index == 2 {
            assert_eq!(parser.feed(b"6400000\r\n"), Ok(None));
        }
        let mut fed = 0;
        let response = loop {
            fed += 1000;
            if let Some(response) = parser.feed(&[b'x'; 1000]).expect("HTTP") {
                break response;
            }
        };
        assert!(fed < MAX_BODY + 1000 && !response.reusable);
        assert_eq!(response.body.len(), MAX_BODY);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_any_way(&bytes);
    }

    #[test]
    fn no_almost_http_panics(
        head in "(Content-Length: [0-9]{0,3}\r\n|Transfer-Encoding: chunked\r\n|Connection: close\r\n|X: [a-z]{0,9}\r\n){0,4}",
        body in "([0-9a-f]{1,2}\r\n|[a-z]{1,20}|\r\n|0\r\n\r\n){0,12}",
        status in "[1-5][0-9]{2}",
    ) {
        let _ = parse_any_way(format!("HTTP/1.1 {status} X\r\n{head}\r\n{body}").as_bytes());
    }

    #[test]
    fn chunking_loses_nothing(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..10)) {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            answer.extend_from_slice(chunk);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        let response = parse_any_way(&answer).expect("valid");
        prop_assert_eq!(response.body, chunks.concat());
        prop_assert!(response.reusable);
    }
}

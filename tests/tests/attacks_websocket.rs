//! Attacks on WebSocket, HTTP and RawSocket, each named after the vulnerability that others had.
//!
//! Not here, because there is nothing to attack yet: TLS (CVE-2026-39304, rustls' own), PROXY and forwarded
//! headers (CVE-2026-57216: none are read), HTTP/2 (RUSTSEC-2024-0003: it is not spoken, see the preface
//! below). Origins in all their spellings are in `protocols::websocket::origin`; here is that they are asked.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;

use tandem_protocols::websocket::deflate::{WindowBits, compress};

use tandem_tests::attacker::{Bystanders, CONNECT, Raw, Watched, close_code, frame, frames, say, upgrade};
use tandem_tests::broker::{Broker, eventually};

const HELLO: &[u8] = br#"[1,"realm1",{"roles":{"publisher":{},"subscriber":{}}}]"#;

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

/// What closes a WebSocket on which these frames come.
async fn closed_by(address: SocketAddr, frames: &[u8]) -> Option<u16> {
    let socket = Raw::websocket(address, "wamp.2.json", "").await;
    close_code(&socket.exchange(std::iter::once(frames.to_vec())).await)
}

/// CVE-2026-67405 (RabbitMQ), Crossbar #769: pages of others could connect.
#[tokio::test]
async fn pages_of_others_cannot_connect() {
    let broker = Broker::start().await;
    let address = broker.address();
    let port = address.port();
    for (origin, expected) in [
        ("".into(), "101"),
        (format!("Origin: http://{address}\r\n"), "101"),
        (format!("Origin: HTTP://{address}\r\n"), "101"),
        ("Origin: http://evil.com\r\n".into(), "403"),
        (format!("Origin: http://evil.com:{port}\r\n"), "403"),
        ("Origin: null\r\n".into(), "403"),
        ("Origin: \r\n".into(), "403"),
        ("Origin: http://127.0.0.1\r\n".into(), "403"),
        (format!("Origin: http://127.0.0.1:{}\r\n", port ^ 1), "403"),
        (format!("Origin: http://127.0.0.1.:{port}\r\n"), "101"),
        (format!("Origin: http://127.0.0.1.evil.com:{port}\r\n"), "403"),
        (format!("Origin: http://evil.com#{address}\r\n"), "403"),
        (format!("Origin: http://evil.com@{address}\r\n"), "403"),
        (format!("Origin: file://{address}\r\n"), "403"),
        (format!("Origin: capacitor://{address}\r\n"), "403"),
        (format!("Origin: http://{address} http://evil.com\r\n"), "403"),
        (format!("Origin: http://{address}\r\nOrigin: http://evil.com\r\n"), "403"),
        (format!("Origin: http://evil.com\r\nOrigin: http://{address}\r\n"), "403"),
    ] {
        let mut raw = Raw::connect(address).await;
        let headers = format!("Sec-WebSocket-Protocol: wamp.2.json\r\n{origin}");
        raw.write(upgrade(address, &headers).as_bytes()).await;
        let head = raw.read_until(b"\r\n\r\n").await;
        let head = String::from_utf8_lossy(&head);
        let found = status(&head);
        assert!(found == expected || (expected == "403" && found == "400"), "{origin:?}: {head}");
    }
}

/// CVE-2023-43669 (tungstenite): long heads were parsed again with every byte. CVE-2021-32640 (ws).
#[tokio::test]
async fn heads_without_end_are_refused() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let many = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let long = format!("X: {}\r\n", "a".repeat(1 << 20));
    let tokens = format!("Sec-WebSocket-Protocol: {}wamp.2.json\r\n", "a,".repeat(1 << 19));
    let some_tokens = format!("Sec-WebSocket-Protocol: {}wamp.2.json\r\n", "a,".repeat(1000));
    for (headers, expected) in [(&many, "431"), (&long, "431"), (&tokens, "431"), (&some_tokens, "400")] {
        let pieces = upgrade(address, headers).into_bytes();
        let answer = Raw::connect(address).await.exchange(std::iter::once(pieces)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(status(&answer), expected, "{answer}");
    }
    let line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let answer = say(address, line.as_bytes()).await;
    assert!(matches!(status(&answer), "414" | "431"), "{answer}");
    // Byte by byte: what counts is that it ends, and what it costs to hold.
    let head = upgrade(address, &long).into_bytes();
    let answer = Raw::connect(address).await.exchange(head.into_iter().map(|octet| vec![octet])).await;
    assert_eq!(status(&String::from_utf8_lossy(&answer)), "431");
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

/// What is no request at all, or one for another server, gets HTTP's answer or none, and ends.
#[tokio::test]
async fn what_is_no_handshake_is_answered_in_http() {
    let broker = Broker::start().await;
    let address = broker.address();
    let mut bystanders = Bystanders::enter(address).await;
    let valid = upgrade(address, "Sec-WebSocket-Protocol: wamp.2.json\r\n");
    let without_host = valid.replace(&format!("Host: {address}\r\n"), "");
    for (request, expected) in [
        (without_host, "400"),
        (valid.replace("HTTP/1.1", "HTTP/1.0"), "400"),
        (valid.replace("HTTP/1.1", "HTTP/2.0"), "400"),
        (valid.replace("GET", "POST"), "405"),
        (valid.replace("GET", "get"), "405"),
        (valid.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400"),
        (valid.replace("Version: 13", "Version: 12"), "426"),
        (valid.replace("Upgrade: websocket\r\n", "Upgrade: websocket/13\r\n"), "426"),
        (valid.replace("Connection: Upgrade\r\n", "Connection: close\r\n"), "400"),
        (valid.replace("\r\n\r\n", "\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"), "400"),
        (valid.replace("\r\n\r\n", "\r\nSec-WebSocket-Version: 8\r\n\r\n"), "400"),
        (valid.replace("Protocol: wamp", "Protocol:\r\n wamp"), "400"),
        (valid.replace("Key: ", "Key: \r\n "), "400"),
        (valid.replace("GET /", "GET http://evil.example/"), "421"),
        (valid.replace("GET /", "GET http://a@localhost/"), "421"),
        (valid.replace("GET /", "GET /a b"), "400"),
        (valid.replace("wamp.2.json", "mqtt"), "400"),
        (valid.replace("wamp.2.json", "\u{e9}"), "400"),
        (valid.replace("\r\n\r\n", "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), "400"),
        (valid.replace("\r\n\r\n", "\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), "400"),
        (valid.replace("\r\n\r\n", "\r\nTransfer-Encoding: x\r\n\r\n"), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), "400"),
        ("\0\0\0\0".into(), "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n smuggled: 1\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\nHost: localhost\nConnection: close\n\n".into(), "426"),
        ("QUIT\r\n\r\n".into(), "400"),
    ] {
        let mut raw = Raw::connect(address).await;
        raw.write(request.as_bytes()).await;
        raw.shutdown().await;
        let head = raw.read_to_end().await;
        let head = String::from_utf8_lossy(&head);
        if request.starts_with("PRI") {
            // A client of HTTP/2 could read no answer in HTTP/1.
            assert_eq!(head, "");
            continue;
        }
        assert!(head.starts_with("HTTP/1."), "{request}: {head}");
        let class = |status: &str| status.as_bytes()[0];
        assert_eq!(class(status(&head)), class(expected), "{request}: {head}");
    }
    for silent in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\x7f\x00\x00"] {
        let mut raw = Raw::connect(address).await;
        raw.write(silent).await;
        raw.shutdown().await;
        assert_eq!(raw.read_to_end().await, b"");
    }
    bystanders.talk().await;
    eventually("all have gone", || broker.sessions() == 2).await;
}

/// Request smuggling: what follows a refused or an answered request is never taken for something it is not.
#[tokio::test]
async fn bytes_after_a_request_are_not_another_language() {
    let broker = Broker::start().await;
    let address = broker.address();
    let wamp = "Sec-WebSocket-Protocol: wamp.2.json\r\n";
    // Two requests at once are answered in order.
    let twice = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = say(address, twice.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    // A body is not another request.
    let body = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 45\r\n\r\n\
                GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n12";
    let answer = say(address, body.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    // STOMP and WAMP in the body of a refused upgrade open no session.
    let refused = upgrade(address, &format!("{wamp}Origin: http://evil.com\r\nConnection: close\r\n"));
    let answer = say(address, &[refused.as_bytes(), CONNECT, &frame(0x81, HELLO)].concat()).await;
    assert!(!answer.contains("CONNECTED") && !answer.contains("HTTP/1.1 101"), "{answer}");
    // A request behind an upgrade that is accepted is no request, and one before it is answered before.
    let raw = Raw::connect(address).await;
    let health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let all = [&health[..], upgrade(address, wamp).as_bytes(), health].concat();
    let answer = raw.exchange(std::iter::once(all)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("ok\nHTTP/1.1 101"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 2, "{answer}");
    assert!(answer.contains("wamp.error.protocol_violation"), "{answer}");
    // Frames behind an upgrade that is accepted are frames.
    let mut raw = Raw::connect(address).await;
    raw.write(&[upgrade(address, wamp).as_bytes(), &frame(0x81, HELLO)].concat()).await;
    raw.read_until(b"[2,").await;
    assert_eq!(broker.sessions(), 1);
    drop(raw);
    eventually("nobody is left", || broker.sessions() == 0).await;
}

/// What is asked for otherwise than it may be is told how.
#[tokio::test]
async fn each_path_says_which_methods_it_takes() {
    let broker = Broker::start().await;
    let address = broker.address();
    for (paths, methods, allowed) in [
        (&["/", "/nothing"][..], &["HEAD", "OPTIONS", "POST", "TRACE", "X"][..], "GET"),
        (&["/health", "/ready", "/metrics"], &["OPTIONS", "POST", "DELETE"], "GET, HEAD"),
        (&["/lp/open", "/lp/0/receive", "/lp/0/send"], &["GET", "HEAD", "PUT"], "POST, OPTIONS"),
        (&["/sockjs", "/sockjs/websocket", "/sockjs/0/0/websocket"], &["OPTIONS", "POST"], "GET"),
        (&["/sockjs/info", "/sockjs/0/0/eventsource"], &["HEAD", "POST", "PUT"], "OPTIONS, GET"),
        (&["/sockjs/0/0/xhr", "/sockjs/0/0/xhr_send"], &["GET", "HEAD", "PUT"], "OPTIONS, POST"),
    ] {
        for (path, method) in paths.iter().flat_map(|path| methods.iter().map(move |method| (path, method))) {
            for version in ["1.1", "1.0"] {
                let request = format!(
                    "{method} {path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                let answer = say(address, request.as_bytes()).await.to_lowercase();
                assert_eq!(status(&answer), "405", "{request}{answer}");
                let line = format!("\r\nallow: {}\r\n", allowed.to_lowercase());
                assert!(answer.contains(&line), "{request}{answer}");
                assert!(*method != "HEAD" || answer.ends_with("\r\n\r\n"), "{answer}");
            }
        }
    }
    for path in ["/health", "/ready", "/metrics", "/sockjs"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = say(address, request.as_bytes()).await;
        assert!(status(&answer) == "200" && answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

/// Which host is meant is said once: by the address that is asked for, if it is whole, and not by another `Host` beside it.
#[tokio::test]
async fn a_whole_address_is_the_host_whose_pages_are_let_in() {
    let broker = Broker::start().await;
    let address = broker.address();
    let whole = |origin: &str| {
        let headers = format!("Sec-WebSocket-Protocol: wamp.2.json\r\nOrigin: http://{origin}\r\n");
        let request = upgrade(address, &headers).replace(&format!("Host: {address}"), "Host: evil.example");
        request.replace("GET /", &format!("GET http://{address}/"))
    };
    let own = address.to_string();
    for (origin, expected) in [("evil.example", "403"), (&*own, "101")] {
        let mut raw = Raw::connect(address).await;
        raw.write(whole(origin).as_bytes()).await;
        let head = raw.read_until(b"\r\n\r\n").await;
        assert_eq!(status(&String::from_utf8_lossy(&head)), expected, "{origin}");
    }
}

/// The body of a request that has none is not waited for, nor kept.
#[tokio::test]
async fn bodies_are_not_kept() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    for length in ["Content-Length: 1073741824", "Transfer-Encoding: chunked"] {
        let head = format!("POST /metrics HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n").into_bytes();
        let chunk = [b"100000\r\n".to_vec(), vec![b'a'; 1 << 20], b"\r\n".to_vec()].concat();
        let pieces = std::iter::once(head).chain((0..1024).map(|_| chunk.clone()));
        let answer = Raw::connect(address).await.exchange(pieces).await;
        assert_eq!(&answer[..10], b"HTTP/1.1 4", "{}", String::from_utf8_lossy(&answer));
    }
    daemon.assert_growth_below(8.0).await;
}

/// Frames that break RFC 6455: unmasked, reserved bits and opcodes, control frames that are long or in
/// fragments, text that is not UTF-8, closes that are none.
#[tokio::test]
async fn broken_frames_are_answered_with_a_close_code() {
    let broker = Broker::start().await;
    let address = broker.address();
    let mut bystanders = Bystanders::enter(address).await;
    for (code, bytes) in [
        (1002, vec![0x81, 0x02, b'h', b'i']),
        (1002, frame(0xc1, b"x")),
        (1002, frame(0xa1, b"x")),
        (1002, frame(0x91, b"x")),
        (1002, frame(0x83, b"x")),
        (1002, frame(0x87, b"x")),
        (1002, frame(0x8b, b"x")),
        (1002, frame(0x8f, b"x")),
        (1002, frame(0x89, &[0; 126])),
        (1002, frame(0x8a, &[0; 126])),
        (1002, frame(0x88, &[0x03; 126])),
        (1002, frame(0x09, b"x")),
        (1002, frame(0x80, b"x")),
        (1002, [frame(0x01, b"x"), frame(0x81, b"x")].concat()),
        (1002, frame(0x88, b"\x03")),
        (1002, frame(0x88, b"\x00\x00")),
        (1002, frame(0x88, b"\x03\xed")),
        (1002, frame(0x88, b"\x27\x10")),
        (1007, frame(0x88, b"\x03\xe8\xff")),
        (1007, frame(0x81, b"\xff")),
        (1007, frame(0x81, b"\xed\xa0\x80")),
        (1007, frame(0x81, b"\xf4\x90\x80\x80")),
        (1007, frame(0x81, b"\xc3")),
        (1007, [frame(0x01, b"\xf0\x9f"), frame(0x80, b"x")].concat()),
        // Not the form that was agreed on: 2 octets where 1 would do, 8 where 2 would do.
        (1002, vec![0x81, 0x80 | 126, 0, 5, 0, 0, 0, 0]),
        (1002, vec![0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0]),
        (1002, vec![0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]),
    ] {
        assert_eq!(closed_by(address, &bytes).await, Some(code), "{bytes:02x?}");
    }
    bystanders.talk().await;
    eventually("all have gone", || broker.sessions() == 2).await;
}

/// CVE-2026-27889 (NATS): a length of 64 bits overflowed.
#[tokio::test]
async fn announced_lengths_cost_nothing() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    for length in [1 << 20, 1 << 32, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, u64::MAX] {
        for first in [0x81, 0x82, 0x01] {
            let head = [&[first, 0x80 | 127][..], &length.to_be_bytes(), &[0; 4]].concat();
            let code = closed_by(address, &head).await;
            assert!(matches!(code, Some(1002 | 1009)), "{length}: {code:?}");
            let fragments = [frame(0x01, b"["), head].concat();
            let code = closed_by(address, &fragments).await;
            assert!(matches!(code, Some(1002 | 1009)), "{length} after a fragment: {code:?}");
        }
    }
    for length in [0x10_0000_u32, 0x0fff_ffff, 0xffff_ffff] {
        // RawSocket: 24 bits, what is above are reserved bits and the type of the frame.
        let handshake = [0x7f, 0xf1, 0, 0];
        let answer = say_bytes(address, &[&handshake[..], &length.to_be_bytes(), b"x"].concat()).await;
        assert_eq!(answer[0], 0x7f);
        let abort = String::from_utf8_lossy(answer.get(8..).unwrap_or_default());
        if length != 0x10_0000 {
            assert!(abort.contains("wamp.error.protocol_violation"), "{length:x}: {abort}");
        }
    }
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

async fn say_bytes(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut raw = Raw::connect(address).await;
    raw.write(bytes).await;
    raw.shutdown().await;
    raw.read_to_end().await
}

/// RawSocket handshakes that ask for what is not to be had get its error octet.
#[tokio::test]
async fn rawsocket_handshakes_are_refused_with_a_code() {
    let broker = Broker::start().await;
    for (request, answer) in [
        ([0x7f, 0xf0, 0, 0], vec![0x7f, 0x10, 0, 0]),
        ([0x7f, 0xf4, 0, 0], vec![0x7f, 0x10, 0, 0]),
        ([0x7f, 0xff, 0, 0], vec![0x7f, 0x10, 0, 0]),
        ([0x7f, 0x01, 0, 0], vec![0x7f, 0x20, 0, 0]),
        ([0x7f, 0x13, 0, 0], vec![0x7f, 0x20, 0, 0]),
        ([0x7f, 0xf1, 0, 1], vec![0x7f, 0x30, 0, 0]),
        ([0x7f, 0xf1, 0x80, 0], vec![0x7f, 0x30, 0, 0]),
    ] {
        assert_eq!(say_bytes(broker.address(), &request).await, answer, "{request:02x?}");
    }
}

/// CVE-2026-33219 (NATS): a stranger could send without end.
#[tokio::test]
async fn a_stranger_may_send_little() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let endless =
        |first: Vec<u8>, piece: Vec<u8>| std::iter::once(first).chain((0..1024).map(move |_| piece.clone()));
    // Pings, empty fragments, one message in fragments: none of it is a HELLO.
    for piece in [
        frame(0x89, &[0; 125]).repeat(100),
        frame(0x8a, b"").repeat(1000),
        [frame(0x01, b""), frame(0x00, b"").repeat(1000)].concat(),
        [frame(0x01, b"[1,"), frame(0x00, &[b' '; 1000]).repeat(200)].concat(),
    ] {
        let socket = Raw::websocket(address, "wamp.2.json", "").await;
        let answer = socket.exchange(endless(Vec::new(), piece)).await;
        let last = frames(&answer).pop();
        let code = close_code(&answer);
        assert!(matches!(code, Some(1002 | 1009)), "{code:?}: {last:?}");
    }
    let socket = Raw::connect(address).await;
    let answer =
        socket.exchange(endless(vec![0x7f, 0xf1, 0, 0], [&[1, 0, 0xff, 0xff][..], &[0; 0xffff]].concat()));
    let answer = answer.await;
    assert!(answer.windows(30).any(|w| w == b"\"wamp.error.protocol_violation"), "{} bytes", answer.len());
    let answer = Raw::connect(address).await.exchange(endless(Vec::new(), vec![b'\n'; 1 << 16])).await;
    assert!(answer.starts_with(b"ERROR\nmessage:Connection failed\n"));
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

fn deflated(message: &[u8]) -> Vec<u8> {
    compress(message, WindowBits::new(15).expect("DEFLATE has 8 to 15")).to_vec()
}

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// CVE-2026-27571 (NATS), CVE-2026-67232 (RabbitMQ): a small message inflated to gigabytes, from a stranger.
#[tokio::test]
async fn what_inflates_without_end_is_closed_as_too_big() {
    // DEFLATE that is a gigabyte: the same 16 MiB 64 times, flushed, hence concatenable. Made while nobody waits.
    let part = [deflated(&vec![b' '; 16 << 20]), vec![0, 0, 0xff, 0xff]].concat();
    let gigabyte = part.repeat(64);
    let bombs = [deflated(&vec![b' '; 2 << 20]), part.clone(), part.repeat(8), gigabyte];
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    for subprotocol in ["wamp.2.json", "wamp.2.cbor", "v12.stomp"] {
        for bomb in &bombs {
            let first = if subprotocol == "wamp.2.cbor" { 0xc2 } else { 0xc1 };
            let socket = Raw::websocket(address, subprotocol, DEFLATE).await;
            let answer = socket.exchange(std::iter::once(frame(first, bomb))).await;
            assert_eq!(close_code(&answer), Some(1009), "{subprotocol}, {} bytes", bomb.len());
        }
    }
    // And from one that was let in.
    for bomb in &bombs {
        let socket = Raw::websocket(address, "wamp.2.json", DEFLATE).await;
        let answer = socket.exchange([frame(0x81, HELLO), frame(0xc1, bomb)].into_iter()).await;
        assert_eq!(frames(&answer).len(), 3, "WELCOME, ABORT, and the close");
        assert_eq!(close_code(&answer), Some(1009), "{} bytes", bomb.len());
    }
    bystanders.talk().await;
    daemon.assert_growth_below(12.0).await;
}

/// The same where each connection keeps a context, where frames are compressed one by one, and where the size
/// alone would do: 900 KiB of blanks are within the limit of a message, and not within that of the ratio.
#[tokio::test]
async fn no_way_of_compressing_takes_a_bomb() {
    let blanks = |kib: usize| deflated(&vec![b' '; kib << 10]);
    let part = [blanks(16 << 10), vec![0, 0, 0xff, 0xff]].concat();
    let bombs = [blanks(900), blanks(2 << 10), part.clone(), part.repeat(16)];
    let config =
        "[websocket]\ntakeover = \"per_connection\"\nlegacy_deflate_frame = true\ninflate_ratio_max = 100\n";
    let daemon = Watched::start_with(config).await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let legacy = "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n";
    for headers in [DEFLATE, legacy] {
        for bomb in bombs.iter().map(|bomb| frame(0xc1, bomb)) {
            let socket = Raw::websocket(address, "wamp.2.json", headers).await;
            let answer = socket.exchange([bomb.clone()].into_iter()).await;
            assert_eq!(close_code(&answer), Some(1009), "{headers}, {} bytes from a stranger", bomb.len());
            let socket = Raw::websocket(address, "wamp.2.json", headers).await;
            let answer = socket.exchange([frame(0x81, HELLO), bomb.clone()].into_iter()).await;
            assert_eq!(close_code(&answer), Some(1009), "{headers}, {} bytes from a guest", bomb.len());
        }
    }
    // 80 KiB that shrink to a fiftieth: too much for a stranger, not for a guest.
    let text: String =
        (0..4096_u32).map(|place| format!("{:04}", place.wrapping_mul(40_503) % 10_000)).collect();
    let message = [text.as_bytes()[..1024].to_vec(), vec![b' '; 79 << 10]].concat();
    let odd = deflated(&message);
    let ratio = message.len() / odd.len();
    assert!((33..100).contains(&ratio), "{ratio}");
    let socket = Raw::websocket(address, "wamp.2.json", DEFLATE).await;
    let answer = socket.exchange([frame(0xc1, &odd)].into_iter()).await;
    assert_eq!(close_code(&answer), Some(1009));
    let socket = Raw::websocket(address, "wamp.2.json", DEFLATE).await;
    let answer = socket.exchange([frame(0x81, HELLO), frame(0xc1, &odd)].into_iter()).await;
    assert_eq!(close_code(&answer), Some(1002), "it was read, and is no WAMP");
    // In frames, each of which is small enough: it is the message that is too big.
    let parts = [frame(0x41, &blanks(60)), frame(0x40, &blanks(60)).repeat(20)].concat();
    let socket = Raw::websocket(address, "wamp.2.json", legacy).await;
    let answer = socket.exchange([frame(0x81, HELLO), parts].into_iter()).await;
    assert_eq!(close_code(&answer), Some(1009));
    bystanders.talk().await;
    daemon.assert_growth_below(12.0).await;
}

/// A stream may end in a final block, by itself or among others; and nothing else may bear the mark.
#[tokio::test]
async fn final_blocks_and_marks_are_judged_where_compression_was_agreed_on() {
    let broker = Broker::start().await;
    let address = broker.address();
    let mut bystanders = Bystanders::enter(address).await;
    let length = HELLO.len() as u8;
    let stored = |first: u8| [&[first, length, 0, !length, 0xff], HELLO].concat();
    for payload in [
        // BFINAL, without and with what section 7.2.3.5 puts behind it; empty blocks before; another stream behind.
        stored(1),
        [stored(1), vec![0]].concat(),
        [[0, 0, 0, 0xff, 0xff].repeat(100), stored(0), vec![0]].concat(),
        [stored(1), vec![3, 0]].concat(),
    ] {
        let mut socket = Raw::websocket(address, "wamp.2.json", DEFLATE).await;
        socket.write(&frame(0xc1, &payload)).await;
        // It is welcomed, at such length that it is compressed.
        assert_eq!(socket.read_until(b"\xc1").await.len(), 1, "{payload:02x?}");
    }
    for (code, bytes) in [
        (1007, frame(0xc1, &stored(0)[..20])),
        (1007, frame(0xc1, &[stored(1), vec![0xff; 9]].concat())),
        (1007, frame(0xc1, &[3, 0].repeat(2000))),
        (1002, frame(0xc8, &[3, 0xe8])),
        (1002, frame(0xc9, b"x")),
        (1002, frame(0xca, b"x")),
        (1002, frame(0xc0, b"x")),
        (1002, [frame(0x41, b""), frame(0xc0, b"")].concat()),
        (1002, [frame(0x01, b""), frame(0xc0, b"")].concat()),
        (1002, frame(0xe1, b"x")),
        (1002, frame(0xd1, b"x")),
    ] {
        let socket = Raw::websocket(address, "wamp.2.json", DEFLATE).await;
        let answer = socket.exchange(std::iter::once(bytes.clone())).await;
        assert_eq!(close_code(&answer), Some(code), "{:02x?}", &bytes[..bytes.len().min(40)]);
    }
    bystanders.talk().await;
}

/// Streams of DEFLATE that end, are broken or are empty: no spinning, no crash.
#[tokio::test]
async fn broken_streams_of_deflate_end_the_connection() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::enter(broker.address()).await;
    for (payload, codes) in [
        (&b"\x03\x00"[..], &[1002, 1007][..]),
        (b"\x03\x00\x03\x00\x03\x00", &[1002, 1007]),
        (b"\x07", &[1002, 1007]),
        (b"\xff\xff\xff\xff", &[1002, 1007]),
        (b"\x00\x05\x00\x00\x00abcde", &[1002, 1007]),
        (b"\xcb\x48\xcd\xc9\xc9\x07\x80", &[1002, 1007]),
        (b"", &[1002, 1007]),
    ] {
        let socket = Raw::websocket(broker.address(), "wamp.2.json", DEFLATE).await;
        let answer = socket.exchange(std::iter::once(frame(0xc1, payload))).await;
        let code = close_code(&answer).expect("a close frame");
        assert!(codes.contains(&code), "{payload:02x?}: {code}");
    }
    bystanders.talk().await;
}

/// After the broker's close frame it sends nothing: no answers to pings that come all the same.
#[tokio::test]
async fn nothing_follows_the_close_frame() {
    let broker = Broker::start().await;
    let mut socket = Raw::websocket(broker.address(), "wamp.2.json", "").await;
    socket.write(&frame(0x81, br#"[1,"nowhere",{}]"#)).await;
    socket.read_until(&[0x88, 2]).await;
    for _ in 0..3 {
        socket.write(&frame(0x89, b"are you there?")).await;
    }
    socket.write(&frame(0x88, &[3, 0xe8])).await;
    assert_eq!(socket.read_to_end().await.len(), 2, "the code");
}

/// A client of one language under the name of the other hears of it in the language that it asked for.
#[tokio::test]
async fn the_wrong_language_is_refused_in_the_right_one() {
    let broker = Broker::start().await;
    let address = broker.address();
    let wamp = Raw::websocket(address, "wamp.2.json", "").await;
    let answer = wamp.exchange(std::iter::once(frame(0x81, CONNECT))).await;
    let said = frames(&answer);
    assert!(said[0].1.starts_with(b"[3,{"), "{said:?}");
    assert_eq!(close_code(&answer), Some(1002));
    let stomp = Raw::websocket(address, "v12.stomp", "").await;
    let answer = stomp.exchange(std::iter::once(frame(0x81, HELLO))).await;
    assert!(frames(&answer)[0].1.starts_with(b"ERROR\nmessage:Bad command\n"));
    assert_eq!(close_code(&answer), Some(1002));
    for (subprotocol, first) in [("wamp.2.json", 0x82), ("wamp.2.cbor", 0x81), ("wamp.2.msgpack", 0x81)] {
        let socket = Raw::websocket(address, subprotocol, "").await;
        let answer = socket.exchange(std::iter::once(frame(first, HELLO))).await;
        assert_eq!(close_code(&answer), Some(1002), "{subprotocol}");
    }
    // RawSocket with STOMP, STOMP over TCP with WAMP.
    let connect = [&[0x7f, 0xf1, 0, 0, 0, 0, 0, CONNECT.len() as u8][..], CONNECT].concat();
    assert!(
        String::from_utf8_lossy(&say_bytes(address, &connect).await)
            .contains("wamp.error.protocol_violation")
    );
}

/// Connections that end before, in the middle of and after everything leave nothing.
#[tokio::test]
async fn ends_at_any_byte_leave_nothing() {
    let broker = Broker::start().await;
    let address = broker.address();
    let mut bystanders = Bystanders::enter(address).await;
    let websocket = [
        upgrade(address, "Sec-WebSocket-Protocol: wamp.2.json\r\n").as_bytes(),
        &frame(0x81, HELLO),
        &frame(0x81, br#"[32,1,{},"a.b"]"#),
        &frame(0x89, b"ping"),
    ]
    .concat();
    let rawsocket = [&[0x7f, 0xf1, 0, 0, 0, 0, 0, HELLO.len() as u8][..], HELLO].concat();
    let stomp = [CONNECT, b"SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0"].concat();
    for conversation in [websocket, rawsocket, stomp] {
        for end in (0..=conversation.len()).step_by(3) {
            let mut raw = Raw::connect(address).await;
            raw.write(&conversation[..end]).await;
            match end % 2 {
                0 => raw.reset(),
                _ => {
                    raw.shutdown().await;
                    raw.read_to_end().await;
                }
            }
        }
    }
    let realm = &broker.server().realms()[0];
    eventually("all have gone", || realm.sessions() == 2 && realm.topics().len() == 2).await;
    eventually("their queues too", || realm.queues().is_empty()).await;
    bystanders.talk().await;
}

/// A peer that has said all it will say, and reads slowly, still gets all answers.
#[tokio::test]
async fn answers_outlive_the_end_of_the_questions() {
    let broker = Broker::start().await;
    let mut raw = Raw::connect(broker.address()).await;
    raw.write(CONNECT).await;
    raw.read_until(b"\0").await;
    let receipt = "r".repeat(8000);
    // Enough that the sockets of both ends cannot hold it: more than what is read only later.
    for number in 0..40_u32 {
        raw.write(
            format!("BEGIN\ntransaction:{number}\n\n\0ABORT\ntransaction:{number}\nreceipt:{receipt}\n\n\0")
                .as_bytes(),
        )
        .await;
    }
    raw.write(b"DISCONNECT\nreceipt:last\n\n\0").await;
    raw.shutdown().await;
    let answer = raw.read_to_end().await;
    assert!(answer.ends_with(b"RECEIPT\nreceipt-id:last\n\n\0"), "{} bytes came", answer.len());
}

//! Messages, control frames and endings, over each framing.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod peer;

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use tandem_client::Error;
use tandem_client::raw::dial::{
    WebSocketOptions, connect_rawsocket, connect_tcp, connect_websocket, open_rawsocket, open_tcp,
    open_websocket,
};
use tandem_client::raw::transport::{CLOSE_TIMEOUT, Closed, Kind, Message, OUTPUT_BYTES_MAX};
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::rawsocket::Limit;
use tandem_protocols::websocket::deflate::{Deflater, WindowBits, compress};
use tandem_protocols::websocket::extensions::{Mode, Policy};
use tandem_protocols::websocket::frame::{Header, Opcode, close, fragments, unmasked, unmasked_compressed};
use tandem_protocols::websocket::message::{Event, Kind as MessageKind};

use peer::{PIPE_BYTES, Peer, answered, plain, websocket};

fn text(payload: &str) -> Option<Message> {
    Some(Message { kind: Kind::Text, bytes: Bytes::copy_from_slice(payload.as_bytes()) })
}

#[tokio::test]
async fn a_handshake_asks_for_what_the_options_say() {
    let options = WebSocketOptions {
        origin: Some("http://server.test".to_owned()),
        headers: vec![("Cookie".to_owned(), "a=b".to_owned())],
        ..WebSocketOptions::default()
    };
    let (transport, peer) = websocket(&["nothing", "wamp.2.cbor"], &options, Policy::default()).await;
    assert_eq!(transport.subprotocol(), Some("wamp.2.cbor"));
    assert_eq!(transport.compression(), None);
    let sent =
        |name: &str| peer.request.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str());
    assert_eq!(sent("Host"), Some("server.test"));
    assert_eq!(sent("Origin"), Some("http://server.test"));
    assert_eq!(sent("Cookie"), Some("a=b"));
    assert_eq!(sent("Sec-WebSocket-Extensions"), None);
}

#[tokio::test]
async fn a_refusal_says_its_status_and_its_reason() {
    let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nX-Why: so\r\n\r\nno!\nmore";
    let Err(Error::Refused { status, headers, body }) = answered(answer).await else { panic!() };
    assert_eq!((status, &body[..]), (403, &b"no!\n"[..]));
    assert!(headers.contains(&("X-Why".to_owned(), "so".to_owned())));
    assert!(matches!(answered(b"SSH-2.0-x\r\n\r\n").await, Err(Error::Http(_))));
    assert!(matches!(answered(b"HTTP/1.1 101 Switching").await, Err(Error::Closed(Closed::Eof))));
    let wrong = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: AAAA\r\n\r\n";
    assert!(matches!(answered(wrong).await, Err(Error::Answer(_))));
    let endless = [&b"HTTP/1.1 101 OK\r\nX: "[..], &[b'x'; 20_000]].concat();
    assert!(matches!(answered(&endless).await, Err(Error::HeadTooLong)));
}

#[tokio::test]
async fn what_comes_with_the_answer_is_not_lost() {
    let (near, far) = duplex(PIPE_BYTES);
    let first = unmasked(Opcode::Text, b"early");
    let options = WebSocketOptions::default();
    let (transport, _peer) = tokio::join!(
        open_websocket(near, "server.test", "/", &[], &options),
        Peer::accept(far, Policy::default(), &first)
    );
    assert_eq!(transport.unwrap().next().await.unwrap(), text("early"));
}

#[tokio::test]
async fn many_messages_go_out_in_one_write_and_come_in_one_read() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    for number in 0..100 {
        transport.feed(Kind::Text, format!("{number}").as_bytes()).unwrap();
    }
    assert!(transport.output_bytes() > 0);
    transport.flush().await.unwrap();
    assert_eq!(transport.output_bytes(), 0);
    let mut batch = Vec::new();
    for number in 0..100 {
        assert_eq!(peer.expect_text().await, format!("{number}"));
        batch.extend_from_slice(&unmasked(Opcode::Text, format!("{number}").as_bytes()));
    }
    assert!(peer.frames.windows(2).any(|pair| pair[0].mask != pair[1].mask), "keys are fresh");
    peer.write(&batch).await;
    assert_eq!(transport.next().await.unwrap(), text("0"));
    for number in 1..100 {
        assert_eq!(transport.try_next(), text(&format!("{number}")), "read with the first");
    }
    assert_eq!(transport.bytes_read(), batch.len() as u64);
}

#[tokio::test]
async fn a_ping_is_answered_while_a_message_is_awaited() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    peer.write(&unmasked(Opcode::Ping, b"are you there")).await;
    let server = async {
        assert_eq!(peer.event().await, Some(Event::Pong("are you there".into())));
        peer.text("then").await;
    };
    let (message, ()) = tokio::join!(transport.next(), server);
    assert_eq!(message.unwrap(), text("then"));

    transport.set_answers_pings(false);
    peer.write(&unmasked(Opcode::Ping, b"and now")).await;
    peer.text("after").await;
    assert_eq!(transport.next().await.unwrap(), text("after"));
    transport.feed_ping(b"you?").unwrap();
    transport.flush().await.unwrap();
    assert_eq!(peer.event().await, Some(Event::Ping("you?".into())), "and no pong before it");
    peer.write(&unmasked(Opcode::Pong, b"you?")).await;
    peer.text("last").await;
    assert_eq!(transport.next().await.unwrap(), text("last"));
    assert_eq!(transport.take_pong(), Some("you?".into()));
}

#[tokio::test]
async fn a_fragmented_message_is_one_message_both_ways() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    let words = "fragments of a message";
    for (header, range) in fragments(Header::whole(Opcode::Text, words.len()), 5) {
        peer.write(&header.with(&words.as_bytes()[range])).await;
        peer.write(&unmasked(Opcode::Ping, b"")).await;
    }
    assert_eq!(transport.next().await.unwrap(), text(words));
    transport.set_fragment_bytes(Some(4));
    transport.send(Kind::Text, words.as_bytes()).await.unwrap();
    let mut pongs = 0;
    let message = loop {
        match peer.event().await {
            Some(Event::Pong(data)) if data.is_empty() => pongs += 1,
            other => break other,
        }
    };
    // The last ping lies behind the message, and may not have been read yet.
    assert!((4..=5).contains(&pongs), "{pongs}");
    let payload = Bytes::from_static(words.as_bytes());
    assert_eq!(message, Some(Event::Message { kind: MessageKind::Text, payload }));
    assert!(peer.frames.iter().filter(|frame| frame.opcode == Opcode::Continuation).count() == 5);
}

#[tokio::test]
async fn messages_are_compressed_both_ways_with_and_without_context() {
    let words = "Hello, hello, hello, and again hello".repeat(30);
    for alone in [true, false] {
        let policy = Policy {
            mode: Mode::Required,
            server_no_context_takeover: alone,
            client_no_context_takeover: alone,
            ..Policy::default()
        };
        let options = WebSocketOptions { compression: policy, ..WebSocketOptions::default() };
        let (mut transport, mut peer) = websocket(&["wamp.2.json"], &options, policy).await;
        assert_eq!(transport.compression().map(|agreement| agreement.client.takeover), Some(!alone));
        assert_eq!(transport.compression(), peer.agreement.as_ref());
        let mut kept = Deflater::new(WindowBits::MAX);
        for _ in 0..3 {
            transport.send(Kind::Text, words.as_bytes()).await.unwrap();
            transport.send(Kind::Text, b"short").await.unwrap();
            assert_eq!(peer.expect_text().await, words);
            assert_eq!(peer.expect_text().await, "short");
            let payload = match alone {
                true => compress(words.as_bytes(), WindowBits::MAX),
                false => kept.compress(words.as_bytes()),
            };
            peer.write(&unmasked_compressed(Opcode::Text, &payload)).await;
            assert_eq!(transport.next().await.unwrap(), text(&words));
        }
        let compressed: Vec<bool> = peer.frames.iter().map(|frame| frame.compressed).collect();
        assert_eq!(compressed, [true, false, true, false, true, false]);
        assert!(transport.bytes_written() < 3 * words.len() as u64);
    }
}

#[tokio::test]
async fn the_client_closes_and_waits_for_the_server() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    let server = async {
        assert_eq!(peer.event().await, Some(Event::Close { code: Some(1000), reason: String::new() }));
        peer.text("too late").await;
        peer.close(1000, "bye").await;
        assert_eq!(peer.event().await, None, "and then the stream ends");
    };
    let (closed, ()) = tokio::join!(transport.close(), server);
    assert_eq!(closed.unwrap(), Closed::Frame { code: Some(1000), reason: "bye".to_owned() });
}

#[tokio::test]
async fn the_server_closes_and_is_answered_once() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    peer.text("one").await;
    peer.text("two").await;
    peer.close(1001, "shutdown").await;
    assert_eq!(transport.next().await.unwrap(), text("one"));
    assert_eq!(transport.closed(), None, "what came before is not taken yet");
    assert_eq!(transport.next().await.unwrap(), text("two"));
    assert_eq!(transport.next().await.unwrap(), None);
    let closed = Closed::Frame { code: Some(1001), reason: "shutdown".to_owned() };
    assert_eq!(transport.closed(), Some(&closed));
    assert_eq!(peer.event().await, Some(Event::Close { code: Some(1001), reason: String::new() }));
    assert_eq!(transport.close().await.unwrap(), closed);
    assert_eq!(peer.event().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_close_is_not_awaited_for_ever() {
    let (mut transport, _peer) = plain("wamp.2.json").await;
    let begin = tokio::time::Instant::now();
    assert!(matches!(transport.close().await, Err(Error::Timeout(_))));
    assert_eq!(begin.elapsed().as_secs(), CLOSE_TIMEOUT.as_secs());
}

#[tokio::test]
async fn a_violation_comes_after_what_was_right_and_is_answered() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    peer.text("right").await;
    peer.write(&unmasked(Opcode::Text, b"\xFF")).await;
    assert_eq!(transport.next().await.unwrap(), text("right"));
    let Err(Error::WebSocket(violation)) = transport.next().await else { panic!() };
    assert_eq!(violation.code, close::INVALID_PAYLOAD);
    assert_eq!(transport.next().await.unwrap(), None);
    assert_eq!(transport.closed(), Some(&Closed::Failed));
    assert!(matches!(peer.event().await, Some(Event::Close { code: Some(1007), .. })));
}

#[tokio::test]
async fn what_came_before_a_violation_can_be_answered() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    let pings: Vec<_> = (0..20).map(|n: u8| unmasked(Opcode::Ping, &[n])).collect();
    let violation = b"\x85\x00".to_vec();
    peer.write(&[unmasked(Opcode::Text, b"right").to_vec(), pings.concat(), violation].concat()).await;
    assert_eq!(transport.next().await.unwrap(), text("right"));
    transport.send(Kind::Text, b"answer").await.unwrap();
    assert!(matches!(transport.next().await, Err(Error::WebSocket(_))));
    // Of many pings in one read the newest are answered.
    for n in 4..20 {
        assert_eq!(peer.event().await, Some(Event::Pong(vec![n].into())));
    }
    assert_eq!(peer.expect_text().await, "answer");
    assert!(matches!(peer.event().await, Some(Event::Close { code: Some(1002), .. })));
}

#[tokio::test]
async fn a_stream_that_ends_within_a_message_is_an_error() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    peer.write(&unmasked(Opcode::Text, b"half a message")[..8]).await;
    drop(peer);
    assert!(matches!(transport.next().await, Err(Error::Io(_))));
    let (mut transport, peer) = plain("wamp.2.json").await;
    drop(peer);
    assert_eq!(transport.next().await.unwrap(), None);
    assert_eq!(transport.closed(), Some(&Closed::Eof));
}

#[tokio::test]
async fn flush_reads_while_the_server_takes_nothing() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    let big = vec![b'x'; 4 * PIPE_BYTES];
    transport.feed(Kind::Binary, &big).unwrap();
    let server = async {
        // More than the pipe holds: this ends only if the client reads meanwhile.
        peer.binary(&vec![b'y'; 2 * PIPE_BYTES]).await;
        assert_eq!(peer.message().await.1, big);
    };
    let (flushed, ()) = tokio::join!(transport.flush(), server);
    flushed.unwrap();
    assert_eq!(transport.try_next().unwrap().bytes.len(), 2 * PIPE_BYTES);
}

#[tokio::test(start_paused = true)]
async fn flush_stops_reading_when_the_inbox_is_full() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    transport.set_inbox_bytes_max(0);
    transport.feed(Kind::Binary, &vec![b'x'; 4 * PIPE_BYTES]).unwrap();
    let frame = unmasked(Opcode::Binary, &vec![b'y'; 2 * PIPE_BYTES]);
    let both = async { tokio::join!(transport.flush(), peer.write(&frame)) };
    assert!(timeout(Duration::from_secs(60), both).await.is_err(), "both are stuck");
    assert_eq!(transport.try_next(), None);
}

#[tokio::test]
async fn output_has_a_limit() {
    let (mut transport, _peer) = plain("wamp.2.json").await;
    let half = vec![0; OUTPUT_BYTES_MAX / 2];
    transport.feed(Kind::Binary, &half).unwrap();
    transport.feed(Kind::Binary, &half).unwrap();
    assert!(matches!(transport.feed(Kind::Binary, b"x"), Err(Error::OutputFull)));
    assert!(matches!(transport.feed_raw(b"x"), Err(Error::OutputFull)));
}

#[tokio::test(start_paused = true)]
async fn next_may_be_cancelled_in_the_middle_of_a_message() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    for octet in unmasked(Opcode::Text, b"slow") {
        assert!(timeout(Duration::from_millis(1), transport.next()).await.is_err());
        peer.write(&[octet]).await;
    }
    assert_eq!(transport.next().await.unwrap(), text("slow"));
}

#[tokio::test]
async fn a_test_can_send_what_no_client_should() {
    let (mut transport, mut peer) = plain("wamp.2.json").await;
    let reserved = Header { mask: None, ..Header::whole(Opcode::Text, 2) };
    transport.feed_frame(reserved, b"hi").unwrap();
    transport.feed_raw(b"\xFF\xFF").unwrap();
    transport.flush().await.unwrap();
    let mut bytes = [0; 6];
    peer.stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"\x81\x02hi\xFF\xFF");
}

#[tokio::test]
async fn rawsocket_agrees_on_format_and_lengths() {
    let (near, mut far) = duplex(PIPE_BYTES);
    let limit = Limit::at_most(1024).unwrap();
    far.write_all(b"\x7f\x03\0\0\0\0\0\x02[]\x01\0\0\x01p").await.unwrap();
    let mut transport = open_rawsocket(near, Format::Cbor, limit).await.unwrap();
    let mut request = [0; 4];
    far.read_exact(&mut request).await.unwrap();
    assert_eq!(request, [0x7f, 0x13, 0, 0]);
    let message = transport.next().await.unwrap().unwrap();
    assert_eq!((message.kind, message.bytes), (Kind::Binary, "[]".into()));
    assert!(matches!(transport.feed(Kind::Binary, &[0; 513]), Err(Error::RawSocket(_))));
    transport.send(Kind::Binary, b"ab").await.unwrap();
    let mut bytes = [0; 11];
    far.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"\x02\0\0\x01p\0\0\0\x02ab", "the pong, and the message");
    far.write_all(&[0, 0, 5, 0]).await.unwrap();
    assert!(matches!(transport.next().await, Err(Error::RawSocket(_))), "more than we take");
}

#[tokio::test]
async fn rawsocket_refusals_are_named() {
    let (near, mut far) = duplex(PIPE_BYTES);
    far.write_all(b"\x7f\x10\0\0").await.unwrap();
    let refused = open_rawsocket(near, Format::Cbor, Limit::MAX).await;
    assert!(matches!(refused, Err(Error::RawSocketHandshake(_))));
}

#[tokio::test]
async fn plain_tcp_carries_bytes_as_they_come() {
    let (near, mut far) = duplex(PIPE_BYTES);
    let mut transport = open_tcp(near);
    transport.send(Kind::Text, b"abc").await.unwrap();
    let mut bytes = [0; 3];
    far.read_exact(&mut bytes).await.unwrap();
    far.write_all(&bytes).await.unwrap();
    let message = transport.next().await.unwrap().unwrap();
    assert_eq!((message.kind, message.bytes), (Kind::Binary, "abc".into()));
    let server = async {
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        drop(far);
    };
    let (closed, ()) = tokio::join!(transport.close(), server);
    assert_eq!(closed.unwrap(), Closed::Eof);
}

/// An independent implementation at the other end, over real sockets.
#[tokio::test]
async fn tungstenite_understands_us_and_we_understand_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        socket.send(tungstenite::Message::Ping("ping".into())).unwrap();
        let mut pongs = 0;
        loop {
            match socket.read() {
                Ok(message @ (tungstenite::Message::Text(_) | tungstenite::Message::Binary(_))) => {
                    socket.send(message).unwrap();
                }
                Ok(tungstenite::Message::Pong(_)) => pongs += 1,
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return pongs,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let mut transport = connect_websocket(addr, "/", &[], &WebSocketOptions::default()).await.unwrap();
    for len in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        for size in [None, Some(1000)] {
            transport.set_fragment_bytes(size);
            let payload = "x".repeat(len);
            transport.send(Kind::Text, payload.as_bytes()).await.unwrap();
            transport.send(Kind::Binary, payload.as_bytes()).await.unwrap();
            assert_eq!(transport.next().await.unwrap(), text(&payload));
            assert_eq!(transport.next().await.unwrap().unwrap().kind, Kind::Binary);
        }
    }
    assert!(matches!(transport.close().await.unwrap(), Closed::Frame { code: Some(1000), .. }));
    assert_eq!(server.join().unwrap(), 1);
}

#[tokio::test]
async fn a_closed_port_is_an_error_for_every_dialler() {
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(connect_tcp(addr).await, Err(Error::Io(_))));
    assert!(matches!(connect_rawsocket(addr, Format::Json, Limit::MAX).await, Err(Error::Io(_))));
    let options = WebSocketOptions::default();
    assert!(matches!(connect_websocket(addr, "/", &[], &options).await, Err(Error::Io(_))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_shake_hands_is_not_awaited_for_ever() {
    let (near, _far) = duplex(PIPE_BYTES);
    let options = WebSocketOptions::default();
    assert!(matches!(open_websocket(near, "h", "/", &[], &options).await, Err(Error::Timeout(_))));
    let (near, _far) = duplex(PIPE_BYTES);
    assert!(matches!(open_rawsocket(near, Format::Json, Limit::MAX).await, Err(Error::Timeout(_))));
}

/// As TLS does, which keeps what its socket does not take.
#[tokio::test]
async fn what_waits_in_the_stream_itself_is_flushed_while_the_next_message_is_awaited() {
    let (near, mut far) = duplex(64);
    let mut transport = open_tcp(tokio::io::BufWriter::new(near));
    transport.feed(Kind::Binary, b"ask").unwrap();
    let server = async {
        let mut asked = [0; 3];
        far.read_exact(&mut asked).await.unwrap();
        far.write_all(&asked).await.unwrap();
    };
    let both = async { tokio::join!(transport.next(), server).0 };
    let answer = timeout(Duration::from_secs(10), both).await;
    assert_eq!(answer.expect("it is flushed").unwrap().unwrap().bytes, "ask");
}

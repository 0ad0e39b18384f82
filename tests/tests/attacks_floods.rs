//! Peers that send without reading, read without an end, and are slow on purpose. What counts here is memory,
//! so that most of it runs against a daemon of its own; and that time limits hold, which are set short.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tandem_client::raw::wamp::MatchPolicy;
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::stomp::state::AckMode;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::websocket::deflate::{WindowBits, compress};

use tandem_tests::attacker::{Bystanders, CONNECT, PATIENCE, Raw, Watched, frame, stomp, upgrade, wamp};
use tandem_tests::broker::{Broker, eventually};

const HELLO: &[u8] = br#"[1,"realm1",{"roles":{"caller":{},"subscriber":{}}}]"#;

/// Writes as much as the broker takes of a peer that reads nothing, up to `bytes_max`.
async fn flood(raw: &mut Raw, piece: &[u8], bytes_max: usize) -> usize {
    let mut written = 0;
    let mut at = 0;
    let mut refused_since = Instant::now();
    // It takes nothing more once it has taken nothing for a while: all buffers are full.
    while written < bytes_max && refused_since.elapsed() < Duration::from_millis(300) {
        match raw.try_write(&piece[at..]) {
            0 => tokio::time::sleep(Duration::from_millis(5)).await,
            count => {
                (written, at) = (written + count, (at + count) % piece.len());
                refused_since = Instant::now();
            }
        }
    }
    written
}

/// Pings, questions and requests whose answers are not read: the broker stops reading, and holds little.
#[tokio::test]
async fn answers_that_nobody_reads_are_not_piled_up() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let text = |message: &str| frame(0x81, message.as_bytes());
    let stomp_frames =
        "BEGIN\ntransaction:a\nreceipt:b\n\n\0ABORT\ntransaction:a\nreceipt:b\n\n\0".repeat(8000);
    let bits = WindowBits::new(15).unwrap();
    let compressed = frame(0xc1, &compress(stomp_frames.as_bytes(), bits));
    let mut attackers = Vec::new();
    for _ in 0..4 {
        for (subprotocol, opening, piece) in [
            ("wamp.2.json", text(std::str::from_utf8(HELLO).unwrap()), frame(0x89, &[b'x'; 125]).repeat(500)),
            (
                "wamp.2.json",
                text(std::str::from_utf8(HELLO).unwrap()),
                text(r#"[48,1,{},"no.such"]"#).repeat(2000),
            ),
            (
                "wamp.2.json",
                text(std::str::from_utf8(HELLO).unwrap()),
                [text(r#"[32,1,{},"a.b"]"#), text(r#"[34,2,1]"#)].concat().repeat(1000),
            ),
            ("v12.stomp", frame(0x81, CONNECT), frame(0x81, &stomp_frames.as_bytes()[..60_000])),
            // 5 KiB that ask for 16,000 receipts.
            ("v12.stomp", frame(0x81, CONNECT), compressed.repeat(16)),
        ] {
            let mut raw = Raw::websocket(address, subprotocol, deflate).await;
            raw.write(&opening).await;
            flood(&mut raw, &piece, 16 << 20).await;
            attackers.push(raw);
        }
        // RawSocket's pings are as long as messages.
        let mut raw = Raw::connect(address).await;
        let opening = [&[0x7f, 0xf1, 0, 0, 0, 0, 0, HELLO.len() as u8][..], HELLO].concat();
        raw.write(&opening).await;
        raw.read_until(b"[2,").await;
        flood(&mut raw, &[&[1, 0x0f, 0xff, 0xff][..], &[b'x'; 0xf_ffff]].concat(), 64 << 20).await;
        attackers.push(raw);
    }
    let mib = daemon.growth_mib();
    assert!(mib < 48.0, "24 attackers cost {mib:.1} MiB");
    bystanders.talk().await;
    drop(attackers);
}

/// Somebody who does not read is sent messages by others: bounded, and the end of him alone.
#[tokio::test]
async fn a_victim_that_does_not_read_costs_what_a_mailbox_may_hold() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    // A topic, in both languages.
    let mut victim = Raw::connect(address).await;
    victim.write(&[CONNECT, b"SUBSCRIBE\nid:0\ndestination:/topic/flood\nreceipt:r\n\n\0"].concat()).await;
    victim.read_until(b"receipt-id:r").await;
    let mut other = wamp(address, Format::Json).await;
    other.subscribe("flood", MatchPolicy::Exact).await.unwrap();
    let mut attacker = stomp(address, Version::V12).await;
    let body = vec![b'x'; 60_000];
    for _ in 0..500 {
        attacker.send_with_receipt("/topic/flood", &[], body.clone()).await.unwrap();
    }
    let mib = daemon.growth_mib();
    assert!(mib < 40.0, "{mib:.1} MiB");
    let said = victim.read_to_end().await;
    assert!(String::from_utf8_lossy(&said).contains("ERROR\nmessage:Slow consumer\n"));
    bystanders.talk().await;
}

/// Answers to reply queues and calls, of which a peer reads none: bounded by credit and mailbox.
#[tokio::test]
async fn calls_to_a_callee_that_does_not_read_are_refused() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::enter(broker.address()).await;
    let mut victim = Raw::connect(broker.address()).await;
    victim.write(&[CONNECT, b"SUBSCRIBE\nid:0\ndestination:/procedure/p\nreceipt:r\n\n\0"].concat()).await;
    victim.read_until(b"receipt-id:r").await;
    let mut attacker = wamp(broker.address(), Format::Json).await;
    let args = attacker.args(&("x".repeat(60_000),)).unwrap();
    let mut refused = false;
    for _ in 0..600 {
        let call = attacker.begin_call("p", Dict::new(), args.clone()).await.unwrap();
        attacker.cancel(call, Dict::new()).await.unwrap();
        let error = attacker.end_call(call).await.unwrap_err();
        refused |= error.uri() == Some("wamp.error.unavailable");
    }
    assert!(refused, "its mailbox is full");
    assert_eq!(broker.server().realms()[0].calls().pending(), 0);
    bystanders.talk().await;
}

/// Slow on purpose, in every stage of every wire: closed when the time is up.
#[tokio::test]
async fn whoever_is_slow_on_purpose_is_closed() {
    let limits = "[limits]\nstranger_time_s = 1\nmessage_time_s = 1\n";
    let broker = Broker::start_with(limits).await;
    let address = broker.address();
    let wamp = upgrade(address, "Sec-WebSocket-Protocol: wamp.2.json\r\n");
    let stomp = upgrade(address, "Sec-WebSocket-Protocol: v12.stomp\r\n");
    let hello = frame(0x81, HELLO);
    let rawsocket = [&[0x7f, 0xf1, 0, 0, 0, 0, 0, HELLO.len() as u8][..], HELLO].concat();
    let long = frame(0x81, &[b' '; 300]);
    let whole = |parts: &[&[u8]]| parts.concat();
    let peers = [
        ("nothing", Vec::new()),
        ("HTTP, in the request line", b"GET /".to_vec()),
        ("HTTP, in the head", wamp.as_bytes()[..80].to_vec()),
        ("HTTP, after an answer", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("HTTP, in a body", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx".to_vec()),
        ("WebSocket, no HELLO", wamp.as_bytes().to_vec()),
        ("WebSocket, in a HELLO", whole(&[wamp.as_bytes(), &hello[..20]])),
        ("WebSocket, in the fragments of a HELLO", whole(&[wamp.as_bytes(), &frame(0x01, b"[1")])),
        ("WebSocket, in the head of a frame", whole(&[wamp.as_bytes(), &hello, &long[..3]])),
        ("WebSocket, in a frame", whole(&[wamp.as_bytes(), &hello, &long[..100]])),
        ("WebSocket, in a message", whole(&[wamp.as_bytes(), &hello, &frame(0x01, b"[1")])),
        ("RawSocket, in the handshake", vec![0x7f, 0xf1]),
        ("RawSocket, no HELLO", rawsocket[..4].to_vec()),
        ("RawSocket, in the head of a frame", whole(&[&rawsocket, &[0, 0]])),
        ("RawSocket, in a frame", whole(&[&rawsocket, &[0, 0, 1, 0, b'[']])),
        ("STOMP, in a command", b"CONN".to_vec()),
        ("STOMP, in the head of CONNECT", b"CONNECT\naccept-version:1.2\n".to_vec()),
        ("STOMP, in a head", whole(&[CONNECT, b"SEND\ndesti"])),
        ("STOMP, in a body", whole(&[CONNECT, b"SEND\ndestination:/topic/a\ncontent-length:99\n\nx"])),
        (
            "STOMP over WebSocket, in a body",
            whole(&[stomp.as_bytes(), &frame(0x81, CONNECT), &frame(0x81, b"SEND\n\nx")]),
        ),
    ];
    let peers = peers.map(|(what, bytes)| {
        tokio::spawn(async move {
            let peer = Raw::connect(address).await.exchange(std::iter::once(bytes));
            (what, tokio::time::timeout(Duration::from_secs(20), peer).await)
        })
    });
    for peer in peers {
        let (what, answer) = peer.await.unwrap();
        let answer = answer.unwrap_or_else(|_| panic!("{what}: not closed"));
        let answer = String::from_utf8_lossy(&answer);
        if what.starts_with("STOMP, in a ") || what.contains("head of CONNECT") {
            assert!(
                answer.contains("ERROR\nmessage:Connection failed\n") || what.contains("command"),
                "{what}: {answer}"
            );
        }
        if what.starts_with("WebSocket, in") {
            assert!(answer.contains("wamp.error.protocol_violation"), "{what}: {answer}");
        }
    }
    eventually("all have gone", || broker.sessions() == 0).await;
}

/// A peer that is never between two messages when the broker looks, but sends them whole, is not slow.
#[tokio::test]
async fn whoever_is_busy_is_not_taken_for_slow() {
    let broker = Broker::start_with("[limits]\nmessage_time_s = 1\n").await;
    let call = frame(0x81, br#"[48,1,{},"no.such"]"#);
    let begin = b"BEGIN\ntransaction:a\n\n\0ABORT\ntransaction:a\nreceipt:r\n\n\0".to_vec();
    let mut websocket = Raw::websocket(broker.address(), "wamp.2.json", "").await;
    websocket.write(&frame(0x81, HELLO)).await;
    websocket.read_until(b"[2,").await;
    websocket.write(&call[..10]).await;
    let mut stream = Raw::connect(broker.address()).await;
    stream.write(&[CONNECT, &begin[..10]].concat()).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2500) {
        websocket.write(&[&call[10..], &call[..10]].concat()).await;
        websocket.read_until(b"no_such_procedure").await;
        stream.write(&[&begin[10..], &begin[..10]].concat()).await;
        stream.read_until(b"receipt-id:r").await;
    }
    assert_eq!(broker.sessions(), 2);
}

/// Strangers without end: those who wait in front are let in when others' time is up.
#[tokio::test]
async fn strangers_without_end_keep_nobody_out_for_long() {
    let broker = Broker::start_with("[limits]\nstrangers_max = 16\nstranger_time_s = 1\n").await;
    let mut strangers = Vec::new();
    for _ in 0..64 {
        strangers.push(Raw::connect(broker.address()).await);
    }
    let mut bystanders = Bystanders::enter(broker.address()).await;
    bystanders.talk().await;
    drop(strangers);
}

/// CVE-2023-3592 (Mosquitto) and its kin: half-finished flows, 20,000 times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_finished_flows_leave_no_memory() {
    let mut daemon = Watched::start().await;
    let mut bystanders = Bystanders::enter(daemon.address()).await;
    // The first ones fill what the allocator keeps.
    flows(daemon.address(), 2_000).await;
    daemon.begin_anew();
    flows(daemon.address(), 20_000).await;
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

async fn flows(address: SocketAddr, count: usize) {
    let rawsocket = [&[0x7f, 0xf1, 0, 0, 0, 0, 0, HELLO.len() as u8][..], HELLO].concat();
    let subscribe = br#"[32,1,{},"a.b"]"#;
    let flows: [Vec<u8>; 5] = [
        rawsocket.clone(),
        [&rawsocket[..], &[0, 0, 0, subscribe.len() as u8], subscribe].concat(),
        [CONNECT, b"SUBSCRIBE\nid:0\ndestination:/procedure/p\n\n\0SEND\ndestination:/call/p\nreply-to:/temp-queue/a\n\nx\0"].concat(),
        [CONNECT, b"SUBSCRIBE\nid:0\ndestination:/topic/a\nack:client\n\n\0BEGIN\ntransaction:t\n\n\0SEND\ndestination:/topic/a\ntransaction:t\n\nx\0SEND\ndestination:/topic/a\n\nx\0"].concat(),
        upgrade(address, "Sec-WebSocket-Protocol: wamp.2.json\r\n").into_bytes(),
    ];
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let flows = flows.clone();
            tokio::spawn(async move {
                for number in (worker..count).step_by(8) {
                    let mut raw = Raw::connect(address).await;
                    raw.write(&flows[number % flows.len()]).await;
                    raw.reset();
                }
            })
        })
        .collect();
    for worker in workers {
        tokio::time::timeout(PATIENCE, worker).await.expect("in time").unwrap();
    }
}

/// RabbitMQ CVE-2026-66073 and its kin: names were kept for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_nobody_uses_are_forgotten() {
    let mut daemon = Watched::start().await;
    let round = async |from: usize, count: usize| {
        let mut raw = Raw::connect(daemon.address()).await;
        raw.write(CONNECT).await;
        for number in (from..from + count).step_by(100) {
            let frames = (number..number + 100).map(|n| {
                format!(
                    "SUBSCRIBE\nid:0\ndestination:/topic/a{n}.x\n\n\0UNSUBSCRIBE\nid:0\n\n\0\
                     SUBSCRIBE\nid:0\ndestination:/queue/a{n}.y\n\n\0UNSUBSCRIBE\nid:0\n\n\0\
                     SUBSCRIBE\nid:0\ndestination:/procedure/a{n}.z\n\n\0UNSUBSCRIBE\nid:0\n\n\0"
                )
            });
            raw.write(frames.collect::<String>().as_bytes()).await;
        }
        raw.write(b"DISCONNECT\nreceipt:last\n\n\0").await;
        assert!(raw.read_to_end().await.ends_with(b"receipt-id:last\n\n\0"));
    };
    round(0, 5_000).await;
    let before = daemon.growth_mib();
    round(5_000, 100_000).await;
    let grown = daemon.growth_mib() - before;
    assert!(grown < 8.0, "{grown:.1} MiB");
    daemon.begin_anew();
}

/// A message that a consumer gives back at once comes again, and others have their turn meanwhile.
#[tokio::test]
async fn a_message_that_is_always_given_back_starves_nobody() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::enter(broker.address()).await;
    let mut taker = stomp(broker.address(), Version::V12).await;
    // Otherwise it is given up after some times.
    let for_ever = [("x-delivery-limit", "-1")];
    taker.subscribe("/queue/q", "0", AckMode::ClientIndividual, &for_ever).await.unwrap();
    taker.send_with_receipt("/queue/q", &[], "poison").await.unwrap();
    for round in 0..300 {
        let message = taker.next_message().await.unwrap();
        assert_eq!(message.headers.get("redelivered").is_some(), round > 0);
        taker.nack(&message, None).await.unwrap();
        taker.flush().await.unwrap();
        if round % 100 == 0 {
            bystanders.talk().await;
        }
    }
    // The same for a WAMP caller whose encoding has no form for it: an error each time, and it stays.
    assert_eq!(broker.server().realms()[0].queues().len(), 1);
}

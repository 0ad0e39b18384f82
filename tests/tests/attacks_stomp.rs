//! Attacks by STOMP, each named after the vulnerability that others had. The error must be an ERROR frame, at
//! most the attacker's connection ends, and others do not notice.
//!
//! Not here, because there is nothing to attack yet: selectors (CVE-2018-1270: none are evaluated, they are
//! refused), permissions by role (CVE-2025-41254), durable subscriptions and the resumption of sessions
//! (CVE-2026-57967). That ids come from the kernel's randomness (CVE-2026-41838) is in `server.rs`, and that
//! the default is loopback without accounts is tested in `config.rs`.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;

use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::{Command, Frame, Version};
use tandem_protocols::stomp::state::AckMode;
use tandem_protocols::wamp::dict::Dict;

use tandem_tests::attacker::{Bystanders, CONNECT, Raw, Watched, frame, frames, say, stomp, wamp};
use tandem_tests::broker::{Broker, eventually, soon};

const VERSIONS: [Version; 3] = [Version::V10, Version::V11, Version::V12];

/// What the broker answers to frames after CONNECT, without the CONNECTED.
async fn say_connected(address: SocketAddr, frames: &str) -> String {
    let answer = say(address, &[CONNECT, frames.as_bytes()].concat()).await;
    let (connected, rest) = answer.split_once('\0').expect("an answer to CONNECT");
    assert!(connected.starts_with("CONNECTED\n"), "{answer}");
    rest.to_owned()
}

fn assert_error(answer: &str, message: &str) {
    let answer = answer.trim_start_matches(['\n', '\0']);
    let expected = format!("ERROR\nmessage:{message}\n");
    assert!(answer.starts_with(&expected) && answer.trim_end().ends_with('\0'), "{message}: {answer:?}");
}

/// CVE-2023-32081 (Vert.x): frames were processed before CONNECT.
#[tokio::test]
async fn nothing_is_processed_before_connect() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::enter(broker.address()).await;
    for command in ["SEND", "SUBSCRIBE", "BEGIN", "COMMIT", "ACK", "NACK", "DISCONNECT", "UNSUBSCRIBE"] {
        let text = format!("{command}\ndestination:/queue/early\nid:1\ntransaction:t\n\n\0");
        let answer = say(broker.address(), text.as_bytes()).await;
        // What does not look like STOMP from its first line on is HTTP to this port; both languages say no.
        let refused = answer.starts_with("ERROR\nmessage:") || answer.starts_with("HTTP/1.1 400");
        assert!(refused, "{command}: {answer:?}");
        let mut socket = Raw::websocket(broker.address(), "v12.stomp", "").await;
        socket.write(&frame(0x81, text.as_bytes())).await;
        let said = frames(&socket.read_to_end().await);
        assert_error(&String::from_utf8_lossy(&said[0].1), "Bad command");
        assert_eq!(said[1], (0x88, vec![0x03, 0xea]), "{command}");
    }
    for command in ["CONNECTED", "MESSAGE", "RECEIPT", "ERROR", "CONNECT", "STOMP", "connect", "GET"] {
        let answer = say_connected(broker.address(), &format!("{command}\n\n\0")).await;
        assert_error(&answer, "Bad command");
    }
    assert!(broker.server().realms()[0].queues().is_empty());
    bystanders.talk().await;
}

/// CVE-2026-49432 (ActiveMQ): a negative length let bodies grow past every limit.
#[tokio::test]
async fn a_length_is_a_number_of_digits_within_the_limit() {
    let daemon = Watched::start().await;
    let mut bystanders = Bystanders::enter(daemon.address()).await;
    for length in ["-1", "+1", " 5", "5 ", "", "0x5", "5.0", "٥", "1_0"] {
        let text = format!("SEND\ndestination:/topic/a\ncontent-length:{length}\n\nhello\0");
        assert_error(&say_connected(daemon.address(), &text).await, "Invalid header");
    }
    for length in ["1048577", "1000000000", "4294967296", "4294967301", "18446744073709551616"] {
        let text = format!("SEND\ndestination:/topic/a\ncontent-length:{length}\n\nhello\0");
        let answer = say_connected(daemon.address(), &text).await;
        assert!(answer.starts_with("ERROR\nmessage:"), "{length}: {answer:?}");
        let both =
            format!("SEND\ndestination:/topic/a\ncontent-length:5\ncontent-length:{length}\n\nhello\0");
        let answer = say_connected(daemon.address(), &both).await;
        assert!(answer.starts_with("ERROR\nmessage:"), "5 and {length}: {answer:?}");
    }
    let differing = "SEND\ndestination:/topic/a\ncontent-length:5\ncontent-length:2\nreceipt:r\n\nhello\0";
    let answer = say_connected(daemon.address(), &format!("{differing}DISCONNECT\n\n\0")).await;
    assert_eq!(answer, "RECEIPT\nreceipt-id:r\n\n\0", "the first of two counts");
    let short = "SEND\ndestination:/topic/a\ncontent-length:4\n\nhello\0";
    assert_error(&say_connected(daemon.address(), short).await, "Bad frame");
    // Before CONNECT there is no body at all.
    let body = "CONNECT\naccept-version:1.2\ncontent-length:1000000\n\n";
    let answer = say(daemon.address(), body.as_bytes()).await;
    assert!(answer.starts_with("ERROR\nmessage:"), "{answer:?}");
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

/// CVE-2026-53916 (ActiveMQ), CVE-2026-44891 (Netty): headers without number or end.
#[tokio::test]
async fn heads_without_end_end_the_connection() {
    let daemon = Watched::start().await;
    let mut bystanders = Bystanders::enter(daemon.address()).await;
    let headers = || (0..1000).map(|_| b"a:1\n".repeat(1000));
    let line = || (0..1024).map(|_| vec![b'a'; 1 << 20]);
    for opening in [&b"CONNECT\n"[..], &[CONNECT, b"SEND\n"].concat()] {
        let first = || std::iter::once(opening.to_vec());
        for answer in [
            Raw::connect(daemon.address()).await.exchange(first().chain(headers())).await,
            Raw::connect(daemon.address()).await.exchange(first().chain(line())).await,
        ] {
            let answer = String::from_utf8_lossy(&answer);
            // What a stranger may send is less than a head may hold.
            let says = |message: &str| answer.contains(&format!("ERROR\nmessage:{message}\n"));
            assert!(says("Frame too large") || says("Connection failed"), "{answer:?}");
        }
    }
    // A command without end, a body without end.
    let command = std::iter::once(CONNECT.to_vec()).chain(line());
    let answer = Raw::connect(daemon.address()).await.exchange(command).await;
    assert!(String::from_utf8_lossy(&answer).contains("ERROR\nmessage:Bad command\n"));
    let body = std::iter::once([CONNECT, b"SEND\ndestination:/topic/a\n\n"].concat()).chain(line());
    let answer = Raw::connect(daemon.address()).await.exchange(body).await;
    assert!(String::from_utf8_lossy(&answer).contains("ERROR\nmessage:Frame too large\n"));
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

/// CVE-2026-59920 (Netty), AMQ-6699: a line break in a value became a header of its own. Here: everything
/// that travels from any language to any version, over a stream and over a WebSocket.
#[tokio::test]
async fn no_header_can_be_smuggled_into_a_message() {
    const EVIL: [&str; 6] =
        ["x\ndestination:/topic/evil", "x\r\nevil:1", "x\0SEND\n\n", "a:b", "x\\nevil:1", "\nevil:1\n\nbody"];
    let broker = Broker::start().await;
    let address = broker.address();
    let mut publishers = Vec::new();
    for version in [Version::V11, Version::V12] {
        publishers.push(stomp(address, version).await);
    }
    let mut wamp_publisher = wamp(address, Format::MsgPack).await;
    for version in VERSIONS {
        let mut receiver = stomp(address, version).await;
        receiver.subscribe("/topic/victim", "0", AckMode::Auto, &[]).await.unwrap();
        let check = |message: Frame, value: &str| {
            assert_eq!(message.command, Command::Message);
            assert_eq!(message.headers.get("destination"), Some("/topic/victim"), "{message:?}");
            assert_eq!(message.body, "body", "{message:?}");
            for (name, carried) in message.headers.iter() {
                let known = ["subscription", "message-id", "destination", "content-type", "content-length"];
                let ours = known.contains(&name) || name == "tandem-shape" || name.starts_with("x-wamp");
                // What cannot be written is left out, not changed.
                assert!(ours || carried == value || name == value, "{version:?} {name:?}: {carried:?}");
            }
        };
        for value in EVIL {
            for publisher in &mut publishers {
                let writes_cr = publisher.version() == Version::V12;
                if value.contains('\0') || (value.contains('\r') && !writes_cr) {
                    continue;
                }
                let headers = [("user", value), (value, value), ("correlation-id", value)];
                publisher.send("/topic/victim", &headers, "body").await.unwrap();
                publisher.flush().await.unwrap();
                check(soon("a message", receiver.next_message()).await.unwrap(), value);
            }
            let headers = Dict::new().with("user", value).with(value, value).with("correlation-id", value);
            let args = wamp_publisher.args(&("body",)).unwrap();
            let options = Dict::new().with("x_headers", headers);
            wamp_publisher.publish("victim", options, args).await.unwrap();
            wamp_publisher.flush().await.unwrap();
            let message = soon("a message", receiver.next_message()).await.unwrap();
            let body = message.body.clone();
            check(message.with_body("body"), value);
            assert!(std::str::from_utf8(&body).unwrap().contains("body"));
        }
    }
}

/// The same for what comes back from calls: error names, correlation-ids, headers of results.
#[tokio::test]
async fn no_header_can_be_smuggled_into_an_answer() {
    let broker = Broker::start().await;
    let address = broker.address();
    let mut callee = wamp(address, Format::Cbor).await;
    callee.register("victim", Dict::new()).await.unwrap();
    for version in VERSIONS {
        let mut caller = stomp(address, version).await;
        for error in ["x.y\nevil:1", "x.y\r\nevil:1", "a b", "", "com.example.a:b", "x\0"] {
            let headers = [("reply-to", "/temp-queue/r"), ("correlation-id", "c:1\\n2")];
            caller.send("/call/victim", &headers, "[1]").await.unwrap();
            caller.flush().await.unwrap();
            let invocation = soon("an invocation", callee.next_invocation()).await.unwrap();
            let args = callee.args(&("no",)).unwrap();
            callee.error(invocation.request, error, args).await.unwrap();
            callee.flush().await.unwrap();
            let answer = soon("an answer", caller.next_message()).await.unwrap();
            assert_eq!(answer.headers.get("evil"), None, "{answer:?}");
            assert_eq!(answer.headers.get("destination"), Some("/temp-queue/r"), "{answer:?}");
            assert_eq!(answer.headers.get("correlation-id"), Some("c:1\\n2"), "{answer:?}");
            assert!(answer.headers.get("error").is_some(), "{answer:?}");
        }
    }
}

/// Names with what means something in a header or a destination, in both directions.
#[tokio::test]
async fn destinations_carry_no_line_breaks() {
    let broker = Broker::start().await;
    for name in
        ["a%0Ab", "a%0D", "a%00", "a%20b", "a%7F", "a%C2%85", "a\\nb", "%", "..", "%2E%2E", "a%E2%80%A8"]
    {
        let text = format!("SEND\ndestination:/topic/{name}\nreceipt:r\n\nx\0DISCONNECT\n\n\0");
        let answer = say_connected(broker.address(), &text).await;
        let refused = answer.starts_with("ERROR\nmessage:Invalid destination\n");
        // A line separator of Unicode is no control character; it travels as it is, and is no line to STOMP.
        assert!(refused || name == "a%E2%80%A8", "{name}: {answer:?}");
    }
}

/// CVE-2026-33246 (NATS): a header that only the broker may write came from a client.
#[tokio::test]
async fn reserved_headers_are_the_brokers() {
    let broker = Broker::start().await;
    let mut receiver = stomp(broker.address(), Version::V12).await;
    receiver.subscribe("/topic/a", "0", AckMode::Auto, &[]).await.unwrap();
    let mut sender = stomp(broker.address(), Version::V12).await;
    let spoofed = [
        ("sender", "root"),
        ("user-name", "root"),
        ("x-publisher", "1"),
        ("x-publisher-authid", "root"),
        ("x-trust-level", "9"),
        ("subscription", "7"),
        ("redelivered", "true"),
        ("ack", "1-1-0"),
        ("receipt-id", "tandem-1"),
        ("passcode", "secret"),
        ("own", "kept"),
    ];
    sender.send_with_receipt("/topic/a", &spoofed, "x").await.unwrap();
    let mut wamp = wamp(broker.address(), Format::Json).await;
    let headers = spoofed.iter().fold(Dict::new(), |headers, (name, value)| headers.with(*name, *value));
    let headers = headers.with("message-id", "1").with("destination", "/topic/b").with("content-length", "9");
    let args = wamp.args(&("x",)).unwrap();
    wamp.publish_acknowledged("a", Dict::new().with("x_headers", headers), args).await.unwrap();
    for _ in 0..2 {
        let message = soon("a message", receiver.next_message()).await.unwrap();
        assert_eq!(message.headers.get("subscription"), Some("0"));
        assert_eq!(message.headers.get("destination"), Some("/topic/a"));
        assert_eq!(message.headers.get("own"), Some("kept"));
        for (name, _) in &spoofed[..9] {
            let expected = if *name == "subscription" { 1 } else { 0 };
            let count = message.headers.iter().filter(|(known, _)| known == name).count();
            assert_eq!(count, expected, "{name} in {message:?}");
        }
    }
    let answer = say_connected(broker.address(), "SEND\ndestination:/topic/a\nmessage-id:1\n\nx\0").await;
    assert_error(&answer, "Invalid header");
}

/// CVE-2022-22971 (Spring): SUBSCRIBE without end. And BEGIN, and frames in transactions. What the first of them leaves
/// with the allocator serves those who come later.
#[tokio::test]
async fn what_a_session_may_have_has_a_limit() {
    let mut daemon = Watched::start().await;
    let mut bystanders = Bystanders::enter(daemon.address()).await;
    ask_for_too_much(daemon.address()).await;
    daemon.begin_anew();
    for _ in 0..2 {
        ask_for_too_much(daemon.address()).await;
    }
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

/// Sessions that go beyond each limit of what a session may have, and are told so.
async fn ask_for_too_much(address: SocketAddr) {
    let frames = |what: fn(usize) -> String| {
        let pieces = (0..1000)
            .map(move |round| (round * 1000..(round + 1) * 1000).map(what).collect::<String>().into_bytes());
        std::iter::once(CONNECT.to_vec()).chain(pieces)
    };
    for what in [
        (|n| format!("SUBSCRIBE\nid:{n}\ndestination:/topic/a{n}\n\n\0")) as fn(usize) -> String,
        |n| format!("SUBSCRIBE\nid:{n}\ndestination:/topic/a{n}\nack:client\n\n\0"),
        |n| format!("SUBSCRIBE\nid:{n}\ndestination:/queue/a{n}\n\n\0"),
        |n| format!("SUBSCRIBE\nid:{n}\ndestination:/procedure/a{n}\n\n\0"),
        |n| format!("BEGIN\ntransaction:{n}\n\n\0"),
        |n| format!("SEND\ndestination:/topic/a\nreply-to:/temp-queue/{n}\n\nx\0"),
    ] {
        let answer = Raw::connect(address).await.exchange(frames(what)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("ERROR\nmessage:Limit reached\n"), "{}: {answer:?}", what(0));
    }
    let in_transaction =
        std::iter::once([CONNECT, b"BEGIN\ntransaction:t\n\n\0"].concat())
            .chain((0..2000).map(|_| {
                format!("SEND\ndestination:/queue/q\ntransaction:t\n\n{:1000}\0", "x").into_bytes()
            }));
    let answer = Raw::connect(address).await.exchange(in_transaction).await;
    assert!(String::from_utf8_lossy(&answer).contains("ERROR\nmessage:Limit reached\n"));
}

/// CVE-2026-54475 (ActiveMQ): a temporary destination was taken over by another session.
#[tokio::test]
async fn a_temporary_queue_is_its_owners() {
    let broker = Broker::start().await;
    let mut receiver = stomp(broker.address(), Version::V12).await;
    receiver.subscribe("/topic/a", "0", AckMode::Auto, &[]).await.unwrap();
    let mut owner = stomp(broker.address(), Version::V12).await;
    owner.send_with_receipt("/topic/a", &[("reply-to", "/temp-queue/mine")], "x").await.unwrap();
    let message = soon("a message", receiver.next_message()).await.unwrap();
    let reply_to = message.headers.get("reply-to").unwrap().to_owned();
    let word = reply_to.strip_prefix("/reply-queue/").expect("a queue of the house").to_owned();
    assert_eq!(word.len(), 32, "128 bits nobody can guess");
    for destination in [
        reply_to.clone(),
        format!("/queue/tandem.reply.{word}"),
        format!("/queue/tandem%2Ereply%2E{word}"),
        format!("/topic/../reply-queue/{word}"),
    ] {
        let text = format!("SUBSCRIBE\nid:1\ndestination:{destination}\n\n\0");
        let answer = say_connected(broker.address(), &text).await;
        assert!(answer.starts_with("ERROR\nmessage:"), "{destination}: {answer:?}");
    }
    // The same word is a queue of its own in another session.
    let mut namesake = stomp(broker.address(), Version::V12).await;
    namesake.subscribe("/temp-queue/mine", "0", AckMode::Auto, &[]).await.unwrap();
    let mut thief = wamp(broker.address(), Format::Json).await;
    let queue = thief.args(&(format!("tandem.reply.{word}"),)).unwrap();
    let refused = thief.call("tandem.queue.receive", queue).await.unwrap_err();
    assert_eq!(refused.uri(), Some("wamp.error.invalid_uri"));
    receiver.send_with_receipt(&reply_to, &[], "answer").await.unwrap();
    assert_eq!(soon("the answer", owner.next_message()).await.unwrap().body, "answer");
    namesake.send_with_receipt("/temp-queue/mine", &[], "its own").await.unwrap();
    assert_eq!(soon("its own", namesake.next_message()).await.unwrap().body, "its own");
    drop((owner, namesake));
    eventually("the queue goes with its owner", || broker.server().realms()[0].queues().is_empty()).await;
    receiver.send_with_receipt(&reply_to, &[], "late").await.unwrap();
    assert!(broker.server().realms()[0].queues().is_empty(), "nobody makes it again");
}

/// An invocation can only be answered by whom it was sent to, and once.
#[tokio::test]
async fn an_answer_counts_once_and_from_its_callee_only() {
    let broker = Broker::start().await;
    let mut callee = stomp(broker.address(), Version::V12).await;
    callee.subscribe("/procedure/p", "0", AckMode::Auto, &[]).await.unwrap();
    let mut caller = wamp(broker.address(), Format::Json).await;
    let args = caller.args(&(1,)).unwrap();
    let call = caller.begin_call("p", Dict::new(), args).await.unwrap();
    caller.flush().await.unwrap();
    let invocation = soon("an invocation", callee.next_message()).await.unwrap();
    let number = invocation.headers.get("reply-to").unwrap().to_owned();
    let stolen = format!("SEND\ndestination:{number}\n\nstolen\0");
    assert_error(&say_connected(broker.address(), &stolen).await, "not_found");
    callee.send_with_receipt(&number, &[("content-type", "text/plain")], "first").await.unwrap();
    callee.send_with_receipt(&number, &[], "second").await.unwrap();
    let result: (String,) = soon("a result", caller.end_call(call)).await.unwrap().args().unwrap();
    assert_eq!(result.0, "first");
    assert_eq!((caller.queued(), broker.server().realms()[0].calls().pending()), (0, 0));
    for number in ["2", "0", "18446744073709551616", "-1", "99999999999999999999999"] {
        let text = format!(
            "SUBSCRIBE\nid:0\ndestination:/procedure/q\n\n\0SEND\ndestination:/invocation/{number}\n\nx\0"
        );
        assert!(say_connected(broker.address(), &text).await.starts_with("ERROR\nmessage:"), "{number}");
    }
}

/// ACK, NACK, UNSUBSCRIBE, DISCONNECT and the end of the wire in all orders: no message is lost or doubled.
#[tokio::test]
async fn messages_survive_every_end_of_their_consumer() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::enter(broker.address()).await;
    let mut sender = stomp(broker.address(), Version::V12).await;
    let for_ever = [("x-delivery-limit", "-1")];
    for number in 0..64 {
        sender.send_with_receipt("/queue/q", &for_ever, number.to_string()).await.unwrap();
    }
    for round in 0..40 {
        let mut taker = stomp(broker.address(), Version::V12).await;
        taker.subscribe("/queue/q", "0", AckMode::Client, &[("prefetch-count", "10")]).await.unwrap();
        let first = soon("a message", taker.next_message()).await.unwrap();
        match round % 8 {
            0 => drop(taker),
            1 => taker.into_link().into_transport().into_inner().set_zero_linger().unwrap(),
            2 => taker.disconnect().await.unwrap(),
            3 => {
                taker.unsubscribe("0").await.unwrap();
                taker.nack(&first, None).await.unwrap();
                taker.disconnect().await.unwrap();
            }
            4 => {
                taker.begin("t").await.unwrap();
                taker.ack(&first, Some("t")).await.unwrap();
                taker.flush().await.unwrap();
                drop(taker);
            }
            5 => {
                taker.begin("t").await.unwrap();
                taker.ack(&first, Some("t")).await.unwrap();
                taker.unsubscribe("0").await.unwrap();
                taker.abort("t").await.unwrap();
                taker.disconnect().await.unwrap();
            }
            6 => {
                // An acknowledgement that is refused ends the session, and takes nothing with it.
                let stolen = first.headers.get("ack").unwrap().replace('-', "1-");
                let ack = Frame::new(Command::Ack).with("id", &stolen);
                taker.send_frame(&ack).await.unwrap();
                while soon("the end", taker.next_message()).await.is_ok() {}
            }
            _ => {
                taker.begin("t").await.unwrap();
                taker.nack(&first, Some("t")).await.unwrap();
                taker.commit("t").await.unwrap();
                drop(taker);
            }
        }
    }
    let mut last = stomp(broker.address(), Version::V12).await;
    last.subscribe("/queue/q", "0", AckMode::Auto, &[("prefetch-count", "1024")]).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..64 {
        let message = soon("every message", last.next_message()).await.unwrap();
        seen.push(String::from_utf8(message.body.to_vec()).unwrap().parse::<u32>().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..64).collect::<Vec<_>>());
    last.disconnect().await.unwrap();
    eventually("nothing is left", || broker.server().realms()[0].queues().is_empty()).await;
    assert_eq!(broker.server().realms()[0].queues().bytes(), 0);
    bystanders.talk().await;
}

/// A transaction with somebody else's delivery does nothing at all, and ends the session.
#[tokio::test]
async fn a_transaction_cannot_settle_foreign_deliveries() {
    let broker = Broker::start().await;
    let mut holder = stomp(broker.address(), Version::V12).await;
    holder.subscribe("/queue/q", "0", AckMode::ClientIndividual, &[]).await.unwrap();
    holder.send_with_receipt("/queue/q", &[], "mine").await.unwrap();
    let delivery = soon("a message", holder.next_message()).await.unwrap();
    let id = delivery.headers.get("ack").unwrap();
    for subscribe in ["", "SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0"] {
        let text = format!(
            "{subscribe}BEGIN\ntransaction:t\n\n\0SEND\ndestination:/queue/other\ntransaction:t\n\nx\0\
             ACK\nid:{id}\ntransaction:t\n\n\0COMMIT\ntransaction:t\n\n\0"
        );
        assert_error(&say_connected(broker.address(), &text).await, "not_found");
    }
    let queues = broker.server().realms()[0].queues();
    assert_eq!(queues.len(), 1);
    holder.ack(&delivery, None).await.unwrap();
    holder.unsubscribe("0").await.unwrap();
    assert!(queues.is_empty());
}

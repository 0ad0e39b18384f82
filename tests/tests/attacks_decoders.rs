//! Values that are small to send and large or deep to read, in each encoding: nested, announced but not sent,
//! and growing in another encoding. They pass as the bytes that they are, or are refused; they never cost a
//! stack, and what they become in another encoding is bounded.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;

use tandem_client::raw::dial::{WebSocketOptions, connect_websocket};
use tandem_client::raw::transport::{Kind, Transport};
use tandem_client::raw::wamp::{Client, Login, MatchPolicy};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::stomp::state::AckMode;
use tandem_protocols::wamp::codec::{encode, subprotocol};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::{Hello, Message};

use tandem_tests::attacker::{Bystanders, Watched, stomp, wamp};
use tandem_tests::broker::soon;

const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

/// `[16, 1, <options>, "t", <args>]`.
fn publish(format: Format, options: &[u8], args: &[u8]) -> Vec<u8> {
    match format {
        Format::Json => [b"[16,1,", options, b",\"t\",", args, b"]"].concat(),
        Format::MsgPack => [b"\x95\x10\x01", options, b"\xa1t", args].concat(),
        Format::Cbor => [b"\x85\x10\x01", options, b"\x61t", args].concat(),
    }
}

fn empty(format: Format) -> &'static [u8] {
    match format {
        Format::Json => b"{}",
        Format::MsgPack => b"\x80",
        Format::Cbor => b"\xa0",
    }
}

/// So many lists in each other.
fn nested(format: Format, depth: usize) -> Vec<u8> {
    match format {
        Format::Json => [vec![b'['; depth], vec![b']'; depth]].concat(),
        Format::MsgPack => [vec![0x91; depth - 1], vec![0x90]].concat(),
        Format::Cbor => [vec![0x81; depth - 1], vec![0x80]].concat(),
    }
}

/// So many dictionaries in each other, under a short key.
fn nested_dicts(format: Format, depth: usize) -> Vec<u8> {
    match format {
        Format::Json => [b"{\"a\":".repeat(depth), b"0".to_vec(), vec![b'}'; depth]].concat(),
        Format::MsgPack => [b"\x81\xa1a".repeat(depth), vec![0]].concat(),
        Format::Cbor => [b"\xa1\x61a".repeat(depth), vec![0]].concat(),
    }
}

async fn attacker(address: SocketAddr, format: Format) -> Transport {
    let options = WebSocketOptions::default();
    let mut transport = connect_websocket(address, "/", &[subprotocol(format)], &options).await.unwrap();
    let hello = Hello {
        realm: "realm1".into(),
        details: Dict::new().with("roles", Dict::new().with("publisher", Dict::new())),
    };
    transport.send(kind(format), &encode(format, &hello.into()).unwrap()).await.unwrap();
    transport.next().await.unwrap().expect("WELCOME");
    transport
}

fn kind(format: Format) -> Kind {
    if format == Format::Json { Kind::Text } else { Kind::Binary }
}

/// Whether a message is taken; if not, it is answered by an ABORT.
async fn is_taken(address: SocketAddr, format: Format, message: &[u8]) -> bool {
    let mut transport = attacker(address, format).await;
    transport.feed(kind(format), message).unwrap();
    let goodbye = Message::Goodbye(tandem_protocols::wamp::message::Goodbye {
        details: Dict::new(),
        reason: "wamp.close.normal".into(),
    });
    transport.feed(kind(format), &encode(format, &goodbye).unwrap()).unwrap();
    let answer = soon("an answer", transport.next()).await.unwrap().expect("GOODBYE or ABORT");
    match tandem_protocols::wamp::codec::decode(format, &answer.bytes).unwrap() {
        Message::Goodbye(_) => true,
        Message::Abort(abort) => {
            assert_eq!(abort.reason, "wamp.error.protocol_violation");
            false
        }
        other => panic!("{other:?}"),
    }
}

/// A stack overflow ends the process: minicbor-serde, sonic-rs.
#[tokio::test]
async fn nesting_costs_no_stack() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    // Whoever reads another encoding makes the broker convert.
    let mut readers = Vec::new();
    for format in FORMATS {
        let mut reader = wamp(address, format).await;
        reader.subscribe("t", MatchPolicy::Exact).await.unwrap();
        readers.push(reader);
    }
    let mut reader = stomp(address, Version::V12).await;
    reader.subscribe("/topic/t", "0", AckMode::Auto, &[]).await.unwrap();
    for format in FORMATS {
        for depth in [2, 33, 1000, 200_000] {
            for value in [nested(format, depth), nested_dicts(format, depth)] {
                let wrapped = match format {
                    Format::Json => [b"[", &value[..], b"]"].concat(),
                    Format::MsgPack => [b"\x91", &value[..]].concat(),
                    Format::Cbor => [b"\x81", &value[..]].concat(),
                };
                let message = publish(format, empty(format), &wrapped);
                if message.len() < 1 << 20 {
                    is_taken(address, format, &message).await;
                }
                let options = publish(format, &value, b"");
                if depth > 32 && options.len() < 1 << 20 {
                    assert!(!is_taken(address, format, &options).await, "options {depth} deep in {format:?}");
                }
            }
        }
    }
    let endless = [&b"\x84\x10\x01\xa0"[..], b"\x61t", &[0x9f; 200_000], &[0xff; 200_000]].concat();
    is_taken(address, Format::Cbor, &endless).await;
    is_taken(address, Format::Cbor, &[0x9f; 200_000]).await;
    is_taken(address, Format::Cbor, &[0xbf; 200_000]).await;
    is_taken(address, Format::Cbor, &[0x7f; 200_000]).await;
    is_taken(address, Format::Cbor, &[0xc1; 200_000]).await;
    bystanders.talk().await;
    daemon.assert_growth_below(24.0).await;
}

/// Lengths that are announced and never come are not made room for.
#[tokio::test]
async fn announced_lengths_cost_nothing() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let announced: [(Format, &[&[u8]]); 2] = [
        (
            Format::MsgPack,
            &[
                b"\xdd\xff\xff\xff\xff",
                b"\xdf\xff\xff\xff\xff",
                b"\xc6\xff\xff\xff\xff",
                b"\xdb\xff\xff\xff\xff",
                b"\xc9\xff\xff\xff\xff\x01",
                b"\xdf\x80\x00\x00\x00",
            ],
        ),
        (
            Format::Cbor,
            &[
                b"\x9a\xff\xff\xff\xff",
                b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
                b"\xbb\x80\x00\x00\x00\x00\x00\x00\x00",
                b"\x9b\x00\x00\x00\x01\x00\x00\x00\x00",
            ],
        ),
    ];
    for (format, heads) in announced {
        for head in heads {
            assert!(!is_taken(address, format, head).await, "{head:02x?}");
            assert!(!is_taken(address, format, &publish(format, empty(format), head)).await, "{head:02x?}");
            assert!(!is_taken(address, format, &publish(format, head, b"")).await, "{head:02x?}");
            let one: &[u8] = if format == Format::Cbor { b"\x81" } else { b"\x91" };
            let inside = publish(format, empty(format), &[one, head].concat());
            assert!(!is_taken(address, format, &inside).await, "{head:02x?} in a list");
        }
    }
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

/// RabbitMQ CVE-2026-66079, -67414: what is small in one encoding and large in another, or in memory.
#[tokio::test]
async fn conversion_does_not_amplify() {
    // The readers read when all is published: nobody is to wait for them.
    let daemon = Watched::start_with("[limits]\npace_time_s = 0\n").await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let mut readers = Vec::new();
    for format in FORMATS {
        let mut reader = wamp(address, format).await;
        reader.subscribe("t", MatchPolicy::Exact).await.unwrap();
        readers.push(reader);
    }
    let mut text = stomp(address, Version::V12).await;
    text.subscribe("/topic/t", "0", AckMode::Auto, &[]).await.unwrap();
    let list = |count: u32, item: &[u8]| {
        [&b"\x91\xdd"[..], &count.to_be_bytes(), &item.repeat(count as usize)].concat()
    };
    for args in [
        list(200_000, b"\x81\xa1a\x00"),
        list(1_000_000, b"\xc0"),
        list(1_000_000, b"\x80"),
        list(100_000, b"\xcb\x00\x00\x00\x00\x00\x00\x00\x01"),
        [&b"\x91\xc6"[..], &900_000_u32.to_be_bytes(), &[0xff; 900_000]].concat(),
        [&b"\x91\xdb"[..], &900_000_u32.to_be_bytes(), &[1; 900_000]].concat(),
    ] {
        for _ in 0..3 {
            is_taken(address, Format::MsgPack, &publish(Format::MsgPack, b"\x80", &args)).await;
        }
        // All readers are still there, whatever form it had for them.
        bystanders.talk().await;
        for reader in &mut readers {
            let format = reader.format();
            let events = async {
                while let Ok(message) =
                    tokio::time::timeout(std::time::Duration::from_millis(50), reader.receive()).await
                {
                    message.unwrap();
                }
            };
            soon("the end of the events", events).await;
            assert!(reader.subscribe("still.there", MatchPolicy::Exact).await.is_ok(), "{format:?}");
        }
        while let Ok(message) =
            tokio::time::timeout(std::time::Duration::from_millis(50), text.next_message()).await
        {
            message.unwrap();
        }
    }
    let mib = daemon.growth_mib();
    assert!(mib < 48.0, "{mib:.1} MiB");
}

/// Options are bounded in entries as well as in depth.
#[tokio::test]
async fn options_have_few_entries() {
    let daemon = Watched::start().await;
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let many = |count: usize| (0..count).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(",");
    for options in [
        format!("{{{}}}", many(60_000)),
        format!("{{\"exclude\":[{}1]}}", "1,".repeat(400_000)),
        format!("{{\"a\":[{}[]]}}", "[],".repeat(200_000)),
        format!("{{\"x_headers\":{{{}}}}}", many(60_000)),
    ] {
        let message = publish(Format::Json, options.as_bytes(), b"[]");
        assert!(!is_taken(address, Format::Json, &message).await, "{} bytes", options.len());
    }
    bystanders.talk().await;
    daemon.assert_growth_below(8.0).await;
}

/// The same of what a stranger says, before anybody knows it.
#[tokio::test]
async fn a_stranger_is_bounded_before_it_is_known() {
    let daemon = Watched::start().await;
    for format in FORMATS {
        let options = WebSocketOptions::default();
        let subprotocols = [subprotocol(format)];
        let mut transport = connect_websocket(daemon.address(), "/", &subprotocols, &options).await.unwrap();
        transport.send(kind(format), &nested(format, 30_000)).await.unwrap();
        let abort = soon("ABORT", transport.next()).await.unwrap().expect("ABORT");
        let abort = tandem_protocols::wamp::codec::decode(format, &abort.bytes).unwrap();
        assert!(matches!(abort, Message::Abort(_)), "{format:?}: {abort:?}");
        let transport = connect_websocket(daemon.address(), "/", &subprotocols, &options).await.unwrap();
        let realm = "r".repeat(60_000);
        assert!(Client::join(transport, format, &realm, &Login::Anonymous).await.is_err());
    }
    daemon.assert_growth_below(8.0).await;
}

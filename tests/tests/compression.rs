//! permessage-deflate as a peer sees it: what is agreed on, what it costs, and what is said where it is not to
//! be had.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::net::SocketAddr;

use tandem_client::Error;
use tandem_client::raw::dial::{WebSocketOptions, connect_websocket};
use tandem_client::raw::transport::{Kind, Transport};
use tandem_protocols::websocket::deflate::WindowBits;
use tandem_protocols::websocket::extensions::{Mode, Policy};
use tandem_tests::attacker::{Raw, frame, frames, upgrade};
use tandem_tests::broker::{Broker, soon};
use tandem_tests::daemon::Daemon;

const HELLO: &[u8] = br#"[1,"realm1",{"roles":{"publisher":{},"subscriber":{}}}]"#;

/// Offers compression with a window of so many bits for the server.
fn offering(bits: u8) -> WebSocketOptions {
    let compression = Policy {
        mode: Mode::Offered,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: WindowBits::new(bits).unwrap(),
        ..Policy::default()
    };
    WebSocketOptions { compression, ..WebSocketOptions::default() }
}

/// A WAMP session that is spoken by hand.
struct Session(Transport);

impl Session {
    async fn enter(address: SocketAddr, options: &WebSocketOptions) -> Session {
        let transport = connect_websocket(address, "/", &["wamp.2.json"], options).await.unwrap();
        let mut session = Session(transport);
        session.say(std::str::from_utf8(HELLO).unwrap()).await;
        assert!(session.hear().await.starts_with("[2,"));
        session
    }

    async fn subscriber(address: SocketAddr, options: &WebSocketOptions) -> Session {
        let mut session = Session::enter(address, options).await;
        session.say(r#"[32,1,{},"news"]"#).await;
        assert!(session.hear().await.starts_with("[33,1,"));
        session
    }

    async fn say(&mut self, text: &str) {
        self.0.send(Kind::Text, text.as_bytes()).await.unwrap();
    }

    async fn publish(&mut self, words: &str) {
        self.say(&format!(r#"[16,7,{{"acknowledge":true}},"news",["{words}"]]"#)).await;
        assert!(self.hear().await.starts_with("[17,7,"));
    }

    async fn hear(&mut self) -> String {
        let message = soon("a message", self.0.next()).await.unwrap().expect("the connection is open");
        String::from_utf8(message.bytes.to_vec()).unwrap()
    }
}

fn words(place: usize) -> String {
    format!("{place} the quick brown fox jumps over the lazy dog; ").repeat(20)
}

#[tokio::test]
async fn a_message_is_compressed_once_for_all_who_agreed_to_the_same_window() {
    // A process of its own: its counters count nothing else.
    let daemon = Daemon::start(&[]);
    let address = daemon.address();
    let mut subscribers = Vec::new();
    for _ in 0..100 {
        subscribers.push(Session::subscriber(address, &offering(15)).await);
    }
    let mut publisher = Session::enter(address, &WebSocketOptions::default()).await;
    // Each was welcomed, at some length.
    let compressions = || daemon.metric("tandem_compressions_total");
    let before = compressions();
    publisher.publish(&words(1)).await;
    let mut wire_bytes = 0;
    for subscriber in &mut subscribers {
        let read = subscriber.0.bytes_read();
        assert!(subscriber.hear().await.contains(&words(1)));
        wire_bytes = subscriber.0.bytes_read() - read;
    }
    assert!(wire_bytes * 5 < words(1).len() as u64, "{wire_bytes} bytes came");
    assert_eq!(compressions() - before, 1);
    assert_eq!(daemon.metric("tandem_encodings_total"), 1);

    // Others took smaller windows, or none: once more for each of the windows.
    for bits in [9, 9, 10, 12, 12] {
        subscribers.push(Session::subscriber(address, &offering(bits)).await);
    }
    subscribers.push(Session::subscriber(address, &WebSocketOptions::default()).await);
    let before = compressions();
    publisher.publish(&words(2)).await;
    for subscriber in &mut subscribers {
        assert!(subscriber.hear().await.contains(&words(2)));
    }
    assert_eq!(compressions() - before, 4);

    // Below the threshold nothing is compressed.
    publisher.publish("short").await;
    for subscriber in &mut subscribers {
        assert!(subscriber.hear().await.contains("short"));
    }
    assert_eq!(compressions() - before, 4);
}

#[tokio::test]
async fn the_threshold_is_the_configured_one() {
    for (bytes_min, compressions) in [(20, 1), (10_000, 0)] {
        let daemon = Daemon::start_with(&format!("[websocket]\ncompress_bytes_min = {bytes_min}\n"));
        let mut subscriber = Session::subscriber(daemon.address(), &offering(15)).await;
        let before = daemon.metric("tandem_compressions_total");
        let mut publisher = Session::enter(daemon.address(), &WebSocketOptions::default()).await;
        publisher.publish("a publication of more than 20 bytes, and less than 10,000").await;
        subscriber.hear().await;
        assert_eq!(daemon.metric("tandem_compressions_total") - before, compressions, "{bytes_min}");
    }
}

#[tokio::test]
async fn contexts_are_kept_where_they_are_configured_and_only_so_many() {
    let daemon = Daemon::start_with(
        "[websocket]\ntakeover = \"per_connection\"\ntakeover_connections_max = 2\nserver_max_window_bits = 12\n\
         client_max_window_bits = 10\n",
    );
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(Session::subscriber(daemon.address(), &offering(15)).await);
    }
    for session in &kept {
        let agreed = session.0.compression().unwrap();
        assert!(agreed.server.takeover && agreed.client.takeover);
        assert_eq!((agreed.server.bits.get(), agreed.client.bits.get()), (12, 10));
    }
    let mut alone = Session::subscriber(daemon.address(), &offering(15)).await;
    assert!(!alone.0.compression().unwrap().has_takeover(), "the third keeps none");

    // Both directions, several times: the contexts of both ends agree, and what came before makes it shorter.
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let news = words(1);
        kept[0].say(&format!(r#"[16,7,{{"exclude_me":false,"acknowledge":true}},"news",["{news}"]]"#)).await;
        let read = kept[1].0.bytes_read();
        assert!(kept[1].hear().await.contains(&news));
        sizes.push(kept[1].0.bytes_read() - read);
        for _ in 0..2 {
            let said = kept[0].hear().await;
            assert!(said.starts_with("[17,7,") || said.contains(&news));
        }
        assert!(alone.hear().await.contains(&news));
    }
    assert!(sizes[1] * 2 < sizes[0] && sizes[2] <= sizes[1] + 4, "{sizes:?}");

    // A place is free again when its connection is gone.
    drop(kept.pop());
    for attempt in 0.. {
        let next = Session::enter(daemon.address(), &offering(15)).await;
        if next.0.compression().unwrap().has_takeover() {
            break;
        }
        assert!(attempt < 1000, "no place became free");
    }
}

#[tokio::test]
async fn where_compression_is_required_the_others_are_told_where_else_to_go() {
    let daemon =
        Daemon::start_with("[websocket]\ncompression = \"required\"\n[longpoll]\npath = \"/poll\"\n");
    let address = daemon.address();
    let refused = connect_websocket(address, "/", &["wamp.2.json"], &WebSocketOptions::default()).await;
    let Err(Error::Refused { status, body, .. }) = refused else { panic!("{refused:?}") };
    let body = String::from_utf8_lossy(&body);
    assert_eq!(status, 400);
    assert!(body.contains("permessage-deflate") && body.contains("POST /poll/open"), "{body}");
    Session::enter(address, &offering(15)).await;
    let (log, _) = daemon.terminate();
    assert!(log.contains("opening handshake refused") && log.contains("compression is required"), "{log}");

    let without =
        Broker::start_with("[websocket]\ncompression = \"required\"\n[longpoll]\nenabled = false\n");
    let without = without.await;
    let refused =
        connect_websocket(without.address(), "/", &["wamp.2.json"], &WebSocketOptions::default()).await;
    let Err(Error::Refused { body, .. }) = refused else { panic!("{refused:?}") };
    assert!(!String::from_utf8_lossy(&body).contains("long-polling"), "there is none");
}

/// The value of the header that answers these lines of offers, if there is one.
async fn answer(address: SocketAddr, headers: &str) -> Option<String> {
    let mut raw = Raw::connect(address).await;
    raw.write(upgrade(address, &format!("Sec-WebSocket-Protocol: wamp.2.json\r\n{headers}")).as_bytes())
        .await;
    let head = raw.read_until(b"\r\n\r\n").await;
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("Sec-WebSocket-Extensions").then(|| value.to_owned())
    })
}

#[tokio::test]
async fn offers_on_several_lines_are_taken_in_order() {
    let broker = Broker::start().await;
    let alone = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offers, expected) in [
        (&["permessage-deflate; client_max_window_bits"][..], Some(alone.to_owned())),
        (
            &[
                "permessage-deflate; server_max_window_bits=8",
                "foo, permessage-deflate; server_max_window_bits=10",
            ],
            { Some(format!("{alone}; server_max_window_bits=10")) },
        ),
        (
            &[
                "permessage-deflate; unknown",
                "permessage-deflate; server_max_window_bits=\"11\", permessage-deflate",
            ],
            { Some(format!("{alone}; server_max_window_bits=11")) },
        ),
        (&["permessage-deflate; server_max_window_bits=8", "x-webkit-deflate-frame"], None),
        (&[], None),
    ] {
        let lines: String =
            offers.iter().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).collect();
        assert_eq!(answer(broker.address(), &lines).await, expected, "{offers:?}");
    }
    let off = Broker::start_with("[websocket]\ncompression = \"off\"\n").await;
    assert_eq!(answer(off.address(), "Sec-WebSocket-Extensions: permessage-deflate\r\n").await, None);
}

#[tokio::test]
async fn old_safaris_get_their_frames_and_broken_ones_none() {
    let broker = Broker::start_with("[websocket]\nlegacy_deflate_frame = true\n").await;
    let address = broker.address();
    let offer = "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n";
    assert_eq!(answer(address, offer).await.as_deref(), Some("x-webkit-deflate-frame; no_context_takeover"));
    let safari =
        "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 15_1 like Mac OS X) Version/15.1 Safari/604.1\r\n";
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    assert_eq!(answer(address, &format!("{safari}{deflate}")).await, None);

    // Larger than a fragment, compressed and not: one frame each, which both kinds of Safari need.
    let mut state = 1_u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 33) as u8 % 26)
    })
    .take(200_000)
    .collect();
    let mut old = Raw::websocket(address, "wamp.2.json", offer).await;
    let mut broken = Raw::websocket(address, "wamp.2.json", &format!("{safari}{deflate}")).await;
    let mut publisher = Session::enter(address, &WebSocketOptions::default()).await;
    for raw in [&mut old, &mut broken] {
        raw.write(&[frame(0x81, HELLO), frame(0x81, br#"[32,1,{},"news"]"#)].concat()).await;
        raw.read_until(b"[33,1,").await;
        raw.read_until(b"]").await;
    }
    publisher.publish(&noise).await;
    for (mut raw, first, least) in [(old, 0xC1, 65_537), (broken, 0x81, noise.len())] {
        raw.write(&frame(0x88, &[3, 0xe8])).await;
        let said = frames(&raw.read_to_end().await);
        let (header, payload) = said.iter().max_by_key(|(_, payload)| payload.len()).unwrap();
        assert_eq!(*header, first);
        assert!(payload.len() >= least, "{} bytes", payload.len());
    }
}

/// What the daemon used of its processors so far, in seconds.
fn cpu_seconds(daemon: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.id())).unwrap();
    // After the name, which is in parentheses: utime and stime are the 12th and 13th, in hundredths.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: cargo test --release -p tandem-tests --test compression -- --ignored --nocapture"]
async fn what_a_fan_out_of_words_to_ten_costs() {
    const MESSAGES: usize = 20_000;
    let text: String = (0..).map(|place: usize| format!("word{} ", place * 7919 % 613)).take(150).collect();
    let text = &text[..1024];
    for (name, config, options) in [
        ("without compression", "", WebSocketOptions::default()),
        ("compressed, once for all", "", offering(15)),
        ("compressed, with contexts", "[websocket]\ntakeover = \"per_connection\"\n", offering(15)),
    ] {
        let daemon = Daemon::start_with(config);
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let mut subscriber = Session::subscriber(daemon.address(), &options).await;
            readers.spawn(async move {
                let before = subscriber.0.bytes_read();
                for _ in 0..MESSAGES {
                    subscriber.hear().await;
                }
                subscriber.0.bytes_read() - before
            });
        }
        let mut publisher = Session::enter(daemon.address(), &WebSocketOptions::default()).await;
        let before = cpu_seconds(&daemon);
        for place in 0..MESSAGES {
            // No two are the same.
            let message = format!(r#"[16,7,{{}},"news",["{place} {text}"]]"#);
            publisher.0.send(Kind::Text, message.as_bytes()).await.unwrap();
        }
        let mut bytes = 0;
        while let Some(read) = readers.join_next().await {
            bytes += read.unwrap();
        }
        let seconds = cpu_seconds(&daemon) - before;
        let deliveries = MESSAGES * 10;
        println!(
            "{name}: {:.0} deliveries per CPU second, {} bytes each",
            deliveries as f64 / seconds,
            bytes as usize / deliveries
        );
    }
}

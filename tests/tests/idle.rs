//! What an idle connection costs the daemon: 15,000 of them, each in a session with a subscription to a topic
//! of its own, every other one also to a shared one.
//!
//! Half of them speak WAMP, half STOMP, all over WebSocket. The clients are bare sockets: what matters is at
//! the other end. The same without debug information in the way:
//!
//! ```text
//! cargo test --release -p tandem-tests --test idle -- --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use tandem_protocols::websocket::deflate::{InflateLimits, WindowBits, compress, inflate};
use tandem_tests::attacker::frame;
use tandem_tests::certificates::Authority;
use tandem_tests::daemon::Daemon;

const CONNECTIONS: usize = 15_000;

/// Those that are opened at a time.
const OPENERS: usize = 50;

/// What each of them may cost the process. The aim is 1536.
const BYTES_MAX: usize = 1792;

/// What one that compresses may cost, after a message to half of them.
const COMPRESSING_BYTES_MAX: usize = 2048;

/// Those of TLS, of which each takes a handshake.
const TLS_CONNECTIONS: usize = 3000;

/// What each of them may cost the process.
const TLS_BYTES_MAX: usize = 12 * 1024;

/// Generous: opening so many takes a while in a debug build.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Bare clients do not answer pings.
const CONFIG: &str = "[websocket]\nping_interval_s = 36000\n";

/// A text message, whole.
fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// The same, compressed.
fn compressed(payload: &str) -> Vec<u8> {
    frame(0xC1, &compress(payload.as_bytes(), WindowBits::MAX))
}

/// Reads until this was said.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S, what: &str) {
    let mut heard = Vec::new();
    let mut buffer = [0; 2048];
    while !String::from_utf8_lossy(&heard).contains(what) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "closed before {what}: {}", String::from_utf8_lossy(&heard));
        heard.extend(&buffer[..count]);
    }
}

/// What a client says at the opening handshake that offers compression, as browsers do.
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// Whether this one subscribes to the shared topic, too. Half of either language do.
fn shares(place: usize) -> bool {
    place % 4 < 2
}

async fn open(address: SocketAddr, headers: &str, place: usize) -> TcpStream {
    join(TcpStream::connect(address).await.unwrap(), address, headers, place).await
}

/// Opens a WebSocket in this stream, with more header lines, and a session with its subscriptions in that.
async fn join<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    address: SocketAddr,
    headers: &str,
    place: usize,
) -> S {
    let is_wamp = place.is_multiple_of(2);
    let subprotocol = if is_wamp { "wamp.2.json" } else { "v12.stomp" };
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    hear(&mut stream, "\r\n\r\n").await;
    // Where it was agreed on, what the client says is compressed.
    let text = |payload: &str| if headers.is_empty() { text(payload) } else { compressed(payload) };
    let topics = [Some(format!("a.topic.of.its.own.{place}")), shares(place).then(|| "shared".to_owned())];
    if is_wamp {
        stream.write_all(&text(r#"[1,"realm1",{"roles":{"subscriber":{}}}]"#)).await.unwrap();
        // What welcomes it is long enough to be compressed.
        if headers.is_empty() {
            hear(&mut stream, "[2,").await;
        } else {
            assert!(hear_compressed(&mut stream).await.starts_with("[2,"));
        }
        for (request, topic) in (1..).zip(topics.iter().flatten()) {
            stream.write_all(&text(&format!(r#"[32,{request},{{}},"{topic}"]"#))).await.unwrap();
            hear(&mut stream, &format!("[33,{request},")).await;
        }
    } else {
        stream.write_all(&text("CONNECT\naccept-version:1.2\nhost:localhost\n\n\0")).await.unwrap();
        hear(&mut stream, "CONNECTED").await;
        for (id, topic) in topics.iter().flatten().enumerate() {
            let frame = format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{topic}\nreceipt:r{id}\n\n\0");
            stream.write_all(&text(&frame)).await.unwrap();
            hear(&mut stream, &format!("receipt-id:r{id}")).await;
        }
    }
    stream
}

/// Opens these, and gives them with their places.
async fn open_all(
    address: SocketAddr,
    headers: &'static str,
    places: std::ops::Range<usize>,
) -> Vec<(usize, TcpStream)> {
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        let places = places.clone();
        openers.spawn(async move {
            let mut streams = Vec::new();
            for place in places.skip(opener).step_by(OPENERS) {
                streams.push((place, open(address, headers, place).await));
            }
            streams
        });
    }
    let streams = timeout(TIME_MAX, openers.join_all()).await.expect("all connections open");
    streams.into_iter().flatten().collect()
}

#[tokio::test]
async fn an_idle_connection_costs_less_than_two_kibibytes() {
    let daemon = Daemon::start_with(CONFIG);
    let address = daemon.address();
    // What the first ones bring into memory is the daemon's, not theirs.
    let first = open_all(address, "", 0..OPENERS * 2).await;
    let before = daemon.resident_bytes();
    let streams = open_all(address, "", OPENERS * 2..OPENERS * 2 + CONNECTIONS).await;
    assert_eq!(daemon.metric("tandem_sessions"), (first.len() + CONNECTIONS) as i64);
    let after = daemon.resident_bytes();
    let each = (after - before) / CONNECTIONS;
    println!("{CONNECTIONS} idle connections: {each} bytes each; {} KiB before", before / 1024);
    assert!(each <= BYTES_MAX, "an idle connection costs {each} bytes");
    // They are alive: what is published to the shared topic reaches those who subscribed to it.
    let (_, mut publisher) = first.into_iter().find(|(place, _)| place % 4 == 3).expect("there is one");
    publisher
        .write_all(&text("SEND\ndestination:/topic/shared\ncontent-type:text/plain\n\nfor half of you\0"))
        .await
        .unwrap();
    for (_, mut stream) in streams.into_iter().filter(|(place, _)| shares(*place)) {
        timeout(TIME_MAX, hear(&mut stream, "half of you")).await.expect("the message arrives");
    }
}

#[tokio::test]
async fn an_idle_connection_that_compresses_owns_no_compressor() {
    let daemon = Daemon::start_with(CONFIG);
    let address = daemon.address();
    let first = open_all(address, OFFER, 0..OPENERS * 2).await;
    let before = daemon.resident_bytes();
    let streams = open_all(address, OFFER, OPENERS * 2..OPENERS * 2 + CONNECTIONS).await;
    // Compression is not only agreed on, it was used in both directions.
    let (_, mut publisher) = first.into_iter().find(|(place, _)| place % 4 == 3).expect("there is one");
    let words = "for half of you, and long enough to be compressed; ".repeat(20);
    let send = format!("SEND\ndestination:/topic/shared\ncontent-type:text/plain\n\n{words}\0");
    publisher.write_all(&compressed(&send)).await.unwrap();
    let mut idle = Vec::new();
    for (place, mut stream) in streams {
        if shares(place) {
            let message = timeout(TIME_MAX, hear_compressed(&mut stream)).await.expect("it arrives");
            assert!(message.contains("half of you"), "{message}");
        }
        idle.push(stream);
    }
    let after = daemon.resident_bytes();
    let each = (after - before) / CONNECTIONS;
    println!("{CONNECTIONS} idle connections that compress: {each} bytes each");
    assert!(each <= COMPRESSING_BYTES_MAX, "an idle connection that compresses costs {each} bytes");
}

/// Reads one message, which must be short, compressed and all that comes.
async fn hear_compressed<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 0xC1, "a whole text, compressed");
    let length = if head[1] == 126 { stream.read_u16().await.unwrap() } else { head[1].into() };
    let mut payload = vec![0; length.into()];
    stream.read_exact(&mut payload).await.unwrap();
    let limits = InflateLimits { bytes_max: 1 << 16, ratio_max: 1000 };
    String::from_utf8(inflate(&payload, limits).unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn an_idle_connection_over_tls_costs_at_most_twelve_kibibytes() {
    let authority = Authority::new();
    authority.renew();
    let mut daemon = Daemon::start_with(&(authority.config("off") + CONFIG));
    let address = daemon.tls_address();
    let open = async |places: std::ops::Range<usize>| {
        let mut streams = Vec::new();
        for place in places {
            let stream = authority.peer().connect(address).await;
            streams.push(timeout(TIME_MAX, join(stream, address, "", place)).await.expect("it opens"));
        }
        streams
    };
    let _first = open(0..100).await;
    let before = daemon.resident_bytes();
    let _streams = open(100..100 + TLS_CONNECTIONS).await;
    let each = (daemon.resident_bytes() - before) / TLS_CONNECTIONS;
    println!("{TLS_CONNECTIONS} idle connections over TLS: {each} bytes each");
    assert!(each <= TLS_BYTES_MAX, "an idle connection over TLS costs {each} bytes");
}

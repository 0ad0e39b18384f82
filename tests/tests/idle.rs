//! What an idle connection costs the daemon: thousands of them, each in a session with one subscription, to a topic of its
//! own. Half of them speak WAMP, half STOMP, all over WebSocket. The clients are bare sockets: what matters is at the other
//! end. All that they cost the process is counted, also what its allocator holds in reserve for them.
//!
//! Those that are ignored have 19,000 of them, as many as a process with 20,000 files can; without debug information in the
//! way:
//!
//! ```text
//! cargo test --release -p tandem-tests --test idle -- --include-ignored --nocapture --test-threads 1
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
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use tandem_protocols::websocket::deflate::{InflateLimits, WindowBits, compress, inflate};
use tandem_tests::attacker::frame;
use tandem_tests::certificates::Authority;
use tandem_tests::daemon::Daemon;

/// One test at a time: together they would need more files than one process may have, and more memory than is theirs.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Those of a test that is run each time.
const CONNECTIONS: usize = 15_000;

/// Nearly all that one process may have where this is tested.
const MANY_CONNECTIONS: usize = 19_000;

/// Those that are opened at a time.
const OPENERS: usize = 50;

/// What the first ones bring into memory is the daemon's, not theirs.
const FIRST: usize = 2 * OPENERS;

/// What each connection may cost the process.
const BYTES_MAX: usize = 1536;

/// What one that compresses may cost, after a message.
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

async fn open(address: SocketAddr, headers: &str, place: usize) -> TcpStream {
    join(TcpStream::connect(address).await.unwrap(), address, headers, place).await
}

/// The topic that this one subscribes to.
fn topic(place: usize) -> String {
    format!("a.topic.of.its.own.{place}")
}

/// Opens a WebSocket in this stream, with more header lines, and a session with its subscription in that.
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
    let topic = topic(place);
    if is_wamp {
        stream.write_all(&text(r#"[1,"realm1",{"roles":{"subscriber":{}}}]"#)).await.unwrap();
        // What welcomes it is long enough to be compressed.
        if headers.is_empty() {
            hear(&mut stream, "[2,").await;
        } else {
            assert!(hear_compressed(&mut stream).await.starts_with("[2,"));
        }
        stream.write_all(&text(&format!(r#"[32,1,{{}},"{topic}"]"#))).await.unwrap();
        hear(&mut stream, "[33,1,").await;
    } else {
        stream.write_all(&text("CONNECT\naccept-version:1.2\nhost:localhost\n\n\0")).await.unwrap();
        hear(&mut stream, "CONNECTED").await;
        let frame = format!("SUBSCRIBE\nid:0\ndestination:/topic/{topic}\nreceipt:r0\n\n\0");
        stream.write_all(&text(&frame)).await.unwrap();
        hear(&mut stream, "receipt-id:r0").await;
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

/// Publishes to the topic of each of these, who get it; compressed, where that was agreed on.
async fn tell_all(publisher: &mut TcpStream, streams: &mut [(usize, TcpStream)], headers: &str) {
    let words = "for one of you, and long enough to be compressed; ".repeat(20);
    for (place, stream) in streams {
        let topic = topic(*place);
        let send = format!("SEND\ndestination:/topic/{topic}\ncontent-type:text/plain\n\n{words}\0");
        let is_plain = headers.is_empty();
        publisher.write_all(&if is_plain { text(&send) } else { compressed(&send) }).await.unwrap();
        let heard = async {
            match is_plain {
                true => hear(stream, "for one of you").await,
                false => assert!(hear_compressed(stream).await.contains("for one of you")),
            }
        };
        timeout(TIME_MAX, heard).await.expect("the message arrives");
    }
}

/// What each of so many connections costs that open with these header lines: when it has subscribed, and when it then got
/// a message.
async fn bytes_of_each(connections: usize, headers: &'static str) -> (usize, usize) {
    let daemon = Daemon::start_with(CONFIG);
    let address = daemon.address();
    let mut first = open_all(address, headers, 0..FIRST).await;
    let place =
        first.iter().position(|(place, _)| !place.is_multiple_of(2)).expect("half of them speak STOMP");
    let (_, mut publisher) = first.swap_remove(place);
    tell_all(&mut publisher, &mut first, headers).await;
    let before = daemon.resident_bytes();
    let mut streams = open_all(address, headers, FIRST..connections).await;
    assert_eq!(daemon.metric("tandem_sessions"), connections as i64);
    let each = || (daemon.resident_bytes() - before) / (connections - FIRST);
    let idle = each();
    tell_all(&mut publisher, &mut streams, headers).await;
    let idle_again = each();
    println!("{connections} idle connections: {idle} bytes each, after a message {idle_again}; {headers}");
    (idle, idle_again)
}

/// What the allocator holds in reserve is by some dozen bytes for each another in each run, so that the lower of two runs
/// counts.
async fn assert_cheap(connections: usize, headers: &'static str, bytes_max: usize) {
    let (idle, idle_again) = bytes_of_each(connections, headers).await;
    if idle.max(idle_again) > bytes_max {
        let (idle, idle_again) = bytes_of_each(connections, headers).await;
        assert!(idle.max(idle_again) <= bytes_max, "{idle}, {idle_again}");
    }
}

#[tokio::test]
async fn an_idle_connection_costs_at_most_one_and_a_half_kibibytes() {
    let _alone = ALONE.lock().await;
    assert_cheap(CONNECTIONS, "", BYTES_MAX).await;
}

#[tokio::test]
async fn an_idle_connection_that_compresses_owns_no_compressor() {
    let _alone = ALONE.lock().await;
    assert_cheap(CONNECTIONS, OFFER, COMPRESSING_BYTES_MAX).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn nineteen_thousand_idle_connections_cost_no_more_each() {
    let _alone = ALONE.lock().await;
    assert_cheap(MANY_CONNECTIONS, "", BYTES_MAX).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn nineteen_thousand_that_compress_cost_no_more_each() {
    let _alone = ALONE.lock().await;
    assert_cheap(MANY_CONNECTIONS, OFFER, COMPRESSING_BYTES_MAX).await;
}

#[tokio::test]
async fn an_idle_connection_over_tls_costs_at_most_twelve_kibibytes() {
    let _alone = ALONE.lock().await;
    assert_cheap_over_tls(TLS_CONNECTIONS).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn nineteen_thousand_over_tls_cost_no_more_each() {
    let _alone = ALONE.lock().await;
    assert_cheap_over_tls(MANY_CONNECTIONS).await;
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

async fn assert_cheap_over_tls(connections: usize) {
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
    let _first = open(0..FIRST).await;
    let before = daemon.resident_bytes();
    let _streams = open(FIRST..connections).await;
    let each = (daemon.resident_bytes() - before) / (connections - FIRST);
    println!("{connections} idle connections over TLS: {each} bytes each");
    assert!(each <= TLS_BYTES_MAX, "an idle connection over TLS costs {each} bytes");
}

//! One connection, behind a slow line, gets messages of 1 MiB back to back from one publisher, and small ones from another:
//! how long the small ones take with fairness and without.
//!
//! The line is so slow that it decides, and not the machine: a large message takes 210 ms of it. How much waits for it the
//! limits say: by default the publisher is made to wait at 1 MiB, so that there is one large message or two.
//!
//! ```text
//! cargo test --release -p tandem-tests --test head_of_line -- --ignored --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Sleep, sleep, timeout};

use tandem_client::raw::dial::{WebSocketOptions, open_websocket};
use tandem_client::raw::transport::Transport;
use tandem_client::raw::wamp::{self, Login, MatchPolicy};
use tandem_protocols::payload::{Arguments, Content, Format, encode_bytes};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::{Event, Message};
use tandem_tests::broker::Broker;
use tandem_tests::peers;

/// With its envelope it is just below what a message may be.
const LARGE_BYTES: usize = (1 << 20) - 1024;

const TIME_MAX: Duration = Duration::from_secs(240);

/// 40 Mbit/s.
const LINE_BYTES_PER_SECOND: f64 = 5e6;

/// Reads no faster than so many bytes in a second.
struct Limited {
    stream: TcpStream,
    bytes_per_second: f64,
    /// What may be read at once, so far.
    allowance: f64,
    since: Instant,
    rest: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        const PIECE: f64 = 32.0 * 1024.0;
        if let Some(rest) = &mut self.rest {
            std::task::ready!(rest.as_mut().poll(cx));
            self.rest = None;
        }
        let now = Instant::now();
        let gained = now.duration_since(self.since).as_secs_f64() * self.bytes_per_second;
        self.since = now;
        self.allowance = (self.allowance + gained).min(2.0 * PIECE);
        let Some(room) = (self.allowance >= 1.0).then_some(self.allowance as usize) else {
            let mut rest = Box::pin(sleep(Duration::from_millis(1)));
            let pending = rest.as_mut().poll(cx);
            assert!(pending.is_pending());
            self.rest = Some(rest);
            return Poll::Pending;
        };
        let mut part = buffer.take(room);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        // What was filled lies in `buffer`, which was only not told of it.
        let filled = part.filled().to_vec();
        buffer.put_slice(&filled);
        self.allowance -= count as f64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Limited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn reader(address: SocketAddr, bytes_per_second: f64) -> wamp::Client<Transport<Limited>> {
    let socket = TcpSocket::new_v4().unwrap();
    // The kernel of a peer far away holds about as much of a fast line.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream = Limited { stream, bytes_per_second, allowance: 0.0, since: Instant::now(), rest: None };
    let options = WebSocketOptions::default();
    let transport =
        open_websocket(stream, &address.to_string(), "/", &["wamp.2.msgpack"], &options).await.unwrap();
    let mut client =
        wamp::Client::join(transport, Format::MsgPack, "realm1", &Login::Anonymous).await.unwrap();
    client.subscribe("large", MatchPolicy::Exact).await.unwrap();
    client.subscribe("small", MatchPolicy::Exact).await.unwrap();
    client
}

fn arguments(number: u64, bytes: usize) -> Arguments {
    let mut payload = vec![b'.'; bytes];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    let mut args = vec![0x91];
    args.extend_from_slice(&encode_bytes(Format::MsgPack, &payload));
    Arguments { format: Format::MsgPack, args: args.into(), kwargs: bytes::Bytes::new() }
}

const SMALL_BYTES: usize = 100;

/// The number in an event, if it is a small one.
fn small(event: &Event) -> Option<u64> {
    let Content::Arguments(Arguments { args, .. }) = &event.payload else { panic!("{event:?}") };
    (args.len() < 1000).then(|| u64::from_be_bytes(args[args.len() - SMALL_BYTES..][..8].try_into().unwrap()))
}

/// How long the small ones took, sorted.
async fn delays(toml: &str, bytes_per_second: f64, count: usize) -> Vec<Duration> {
    let broker = Broker::start_with(toml).await;
    let address = broker.address();
    let mut reader = reader(address, bytes_per_second).await;
    let large = tokio::spawn(async move {
        let mut publisher = peers::wamp(address, Format::MsgPack).await;
        for place in 0.. {
            let sent = publisher.publish("large", Dict::new(), arguments(place, LARGE_BYTES)).await;
            if sent.is_err() || publisher.flush().await.is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    let small_ones = tokio::spawn(async move {
        let mut publisher = peers::wamp(address, Format::MsgPack).await;
        // Once the large ones are flowing.
        sleep(Duration::from_secs(1)).await;
        loop {
            let micros = began.elapsed().as_micros() as u64;
            let sent = publisher.publish("small", Dict::new(), arguments(micros, SMALL_BYTES)).await;
            if sent.is_err() || publisher.flush().await.is_err() {
                return;
            }
            // No multiple of the time for a large one.
            sleep(Duration::from_micros(17_300)).await;
        }
    });
    let mut delays = Vec::new();
    let read = async {
        while delays.len() < count {
            if let Message::Event(event) = reader.receive().await.unwrap()
                && let Some(micros) = small(&event)
            {
                delays.push(began.elapsed().saturating_sub(Duration::from_micros(micros)));
            }
        }
    };
    timeout(TIME_MAX, read).await.expect("they arrive");
    large.abort();
    small_ones.abort();
    delays.sort();
    delays
}

/// Held in every profile: large and small ones all go on, in order, by default limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_get_through_between_large_ones() {
    assert_eq!(delays("", 40e6, 20).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn the_delay_of_small_messages_with_and_without_fairness() {
    const COUNT: usize = 400;
    let one = LARGE_BYTES as f64 / LINE_BYTES_PER_SECOND;
    println!("one large message takes {:.0} ms of the line", one * 1000.0);
    for soft_mib in [1, 4, 16] {
        for fair in [true, false, true, false] {
            let (soft, hard) = (soft_mib << 20, soft_mib << 22);
            let toml = format!(
                "[limits]\nfair = {fair}\nmailbox_bytes_soft_max = {soft}\nmailbox_bytes_max = {hard}\nslow_time_s = 60\n\
                 pace_time_s = 60\n"
            );
            let delays = delays(&toml, LINE_BYTES_PER_SECOND, COUNT).await;
            let (p50, p99) = (delays[COUNT / 2], delays[COUNT * 99 / 100]);
            println!(
                "publisher waits at {soft_mib:2} MiB, fair {fair:5}: p50 {p50:.1?}, p99 {p99:.1?}, most {:.1?}",
                delays[COUNT - 1]
            );
        }
    }
}

//! What the attacks have in common: a peer that says any bytes, and bystanders who must not notice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use tandem_client::raw::dial::{WebSocketOptions, connect_tcp, connect_websocket};
use tandem_client::raw::stomp::{Client as StompClient, ConnectOptions};
use tandem_client::raw::wamp::{Client as WampClient, Login, MatchPolicy};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::stomp::state::AckMode;
use tandem_protocols::wamp::dict::Dict;

use crate::daemon::Daemon;

/// No attack takes longer; one that does has hung something.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a STOMP 1.2 session in a stream.
pub const CONNECT: &[u8] = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0";

/// A peer that says any bytes over TCP.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
    is_websocket: bool,
}

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).await.expect("the broker accepts");
        stream.set_nodelay(true).unwrap();
        Raw { stream, unread: Vec::new(), is_websocket: false }
    }

    /// Connects, and opens a WebSocket with more header lines, each with its end.
    pub async fn websocket(address: SocketAddr, subprotocol: &str, headers: &str) -> Raw {
        let mut raw = Raw::connect(address).await;
        raw.write(
            upgrade(address, &format!("Sec-WebSocket-Protocol: {subprotocol}\r\n{headers}")).as_bytes(),
        )
        .await;
        let head = raw.read_until(b"\r\n\r\n").await;
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        raw.is_websocket = true;
        raw
    }

    /// Writes; false if the broker takes nothing more.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        written.expect("the broker takes bytes or closes").is_ok()
    }

    /// Writes as much as the broker takes without waiting for it; how much that was.
    pub fn try_write(&mut self, bytes: &[u8]) -> usize {
        self.stream.try_write(bytes).unwrap_or_default()
    }

    /// Reads up to and with these bytes, which must come.
    pub async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            let mut piece = [0; 16 * 1024];
            let read = timeout(PATIENCE, self.stream.read(&mut piece)).await.expect("in time");
            let count = read.unwrap_or(0);
            let so_far = String::from_utf8_lossy(&self.unread);
            assert!(count > 0, "no {:?} in {so_far:?}", String::from_utf8_lossy(end));
            self.unread.extend_from_slice(&piece[..count]);
        }
    }

    /// Reads so many bytes, which must come.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let mut piece = [0; 16 * 1024];
            let read = timeout(PATIENCE, self.stream.read(&mut piece)).await.expect("in time");
            let read = read.unwrap_or(0);
            assert!(read > 0, "only {} bytes", self.unread.len());
            self.unread.extend_from_slice(&piece[..read]);
        }
        self.unread.drain(..count).collect()
    }

    /// Reads to the end, which must come.
    pub async fn read_to_end(self) -> Vec<u8> {
        self.exchange(std::iter::empty()).await
    }

    /// Writes all of these, as far as the broker takes them, while reading to the end, which must come.
    pub async fn exchange(self, pieces: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
        let Raw { stream, unread: mut read, is_websocket } = self;
        let (mut reading, mut writing) = stream.into_split();
        let (said_goodbye, goodbye) = tokio::sync::oneshot::channel::<()>();
        let mut said_goodbye = Some(said_goodbye);
        let say = async {
            for piece in pieces {
                if writing.write_all(&piece).await.is_err() {
                    break;
                }
            }
            // It is the broker that ends the connection; on a WebSocket, once its goodbye is answered.
            let _ = goodbye.await;
            let _ = writing.shutdown().await;
            std::future::pending::<()>().await;
        };
        let hear = async {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = reading.read(&mut piece).await {
                read.extend_from_slice(&piece[..count]);
                if is_websocket && matches!(read[..], [.., 0x88, 2, _, _]) {
                    said_goodbye.take().map(|goodbye| goodbye.send(()));
                }
            }
        };
        let both = async {
            tokio::select! {
                () = hear => {}
                () = say => {}
            }
        };
        timeout(PATIENCE, both).await.expect("the broker closes the connection");
        read
    }

    /// Says nothing more, but reads on.
    pub async fn shutdown(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

/// A request that opens a WebSocket.
pub fn upgrade(address: SocketAddr, headers: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Says these bytes and gives what the broker answers until it closes.
pub async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let answer = Raw::connect(address).await.exchange(std::iter::once(bytes.to_vec())).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The beginning of a masked frame: its first octet, and its length in the shortest form. The key is zero,
/// so that masking changes nothing.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// What the broker said in WebSocket frames: the first octet of each, and its payload.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while bytes.len() >= 2 {
        let (head, length) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => (10, u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize),
            length => (2, usize::from(length)),
        };
        frames.push((bytes[0], bytes[head..head + length].to_vec()));
        bytes = &bytes[head + length..];
    }
    frames
}

/// The code of the close frame that is the last of these.
pub fn close_code(bytes: &[u8]) -> Option<u16> {
    let frames = frames(bytes);
    assert!(frames.iter().filter(|(first, _)| *first == 0x88).count() <= 1, "more than one close frame");
    let (0x88, payload) = frames.last()? else { return None };
    Some(u16::from_be_bytes([*payload.first()?, *payload.get(1)?]))
}

/// A WAMP client over a WebSocket.
pub async fn wamp(address: SocketAddr, format: Format) -> WampClient {
    let subprotocol = tandem_protocols::wamp::codec::subprotocol(format);
    let options = WebSocketOptions::default();
    let transport = connect_websocket(address, "/", &[subprotocol], &options).await.unwrap();
    WampClient::join(transport, format, "realm1", &Login::Anonymous).await.unwrap()
}

/// A STOMP client over TCP.
pub async fn stomp(address: SocketAddr, version: Version) -> StompClient {
    let transport = connect_tcp(address).await.unwrap();
    StompClient::connect(transport, version, &ConnectOptions::default()).await.unwrap()
}

/// Two who talk to each other, one in each language, and must not notice an attack.
#[derive(Debug)]
pub struct Bystanders {
    wamp: WampClient,
    stomp: StompClient,
    said: u64,
}

impl Bystanders {
    /// They come in and greet each other.
    pub async fn enter(address: SocketAddr) -> Bystanders {
        let mut wamp = wamp(address, Format::Json).await;
        let mut stomp = stomp(address, Version::V12).await;
        wamp.subscribe("bystander.wamp", MatchPolicy::Exact).await.unwrap();
        stomp.subscribe("/topic/bystander.stomp", "0", AckMode::Auto, &[]).await.unwrap();
        let mut both = Bystanders { wamp, stomp, said: 0 };
        both.talk().await;
        both
    }

    /// They exchange a message in each direction.
    pub async fn talk(&mut self) {
        let talking = async {
            self.said += 1;
            let args = self.wamp.args(&(self.said,)).unwrap();
            self.wamp.publish("bystander.stomp", Dict::new(), args).await.unwrap();
            self.wamp.flush().await.unwrap();
            let heard = self.stomp.next_message().await.unwrap();
            assert_eq!(heard.body, self.said.to_string());
            let body = self.said.to_string();
            let headers = [("content-type", "application/json")];
            self.stomp.send("/topic/bystander.wamp", &headers, body).await.unwrap();
            self.stomp.flush().await.unwrap();
            let event = self.wamp.next_event().await.unwrap();
            let heard: (u64,) = tandem_client::arguments::decode_args(&event.payload).unwrap();
            assert_eq!(heard.0, self.said);
        };
        timeout(PATIENCE, talking).await.expect("bystanders can talk");
    }
}

/// A daemon of which the memory is watched.
#[derive(Debug)]
pub struct Watched {
    daemon: Daemon,
    before: usize,
}

impl Watched {
    /// Starts a daemon, and has somebody use it once, so that what is made once is made.
    pub async fn start() -> Watched {
        Watched::watch(Daemon::start(&["--log", "off"])).await
    }

    /// The same with this configuration.
    pub async fn start_with(toml: &str) -> Watched {
        Watched::watch(Daemon::start_with(toml)).await
    }

    async fn watch(daemon: Daemon) -> Watched {
        Bystanders::enter(daemon.address()).await;
        let before = daemon.resident_bytes();
        Watched { daemon, before }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.daemon.address()
    }

    /// How much its memory has grown since the last look that began anew.
    pub fn growth_mib(&self) -> f64 {
        (self.daemon.resident_bytes() as f64 - self.before as f64) / (1024.0 * 1024.0)
    }

    /// From now on growth counts.
    pub fn begin_anew(&mut self) {
        self.before = self.daemon.resident_bytes();
    }

    /// The growth must be below this, or become so.
    pub async fn assert_growth_below(&self, mib: f64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.growth_mib() >= mib {
            assert!(Instant::now() < deadline, "it grew by {:.1} MiB", self.growth_mib());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

//! What a session costs where there are a million of them: the broker's own realms, languages and pumps, over wires in
//! memory, as no machine here has so many sockets. A wire weighs what a TCP connection does in the process; what one
//! costs the kernel is measured by itself (`docs/operations.md`).
//!
//! Those that are ignored are run one by one, since each measures its process:
//!
//! ```text
//! for of in a_million_wamp_sessions a_million_stomp_sessions a_publication_and_a_farewell; do
//!     cargo test --release -p tandem-tests --test million $of -- --ignored --nocapture
//! done
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use tandem_broker::config::Config;
use tandem_broker::core::access::{Peer, Principal};
use tandem_broker::core::mailbox::{Bounds, Overflow, mailbox};
use tandem_broker::core::message::{Attributes, Outgoing};
use tandem_broker::core::name::Name;
use tandem_broker::core::parcel::Farewell;
use tandem_broker::core::protocol::Protocol;
use tandem_broker::core::realm::{Entropy, Realm};
use tandem_broker::front::connection::now;
use tandem_broker::front::door::Door;
use tandem_broker::front::transport::Transport;
use tandem_broker::front::websocket::WebSocket;
use tandem_broker::front::wire::Opened;
use tandem_broker::memory::resident_bytes;
use tandem_broker::server::Server;
use tandem_broker::users::Users;
use tandem_broker::wamp::{Strictness, Wamp, WampCredentials, WampSettings};
use tandem_broker::{core::throttle::Throttle, stomp};
use tandem_protocols::payload::{Content, Payload};
use tandem_tests::attacker::frame;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What each of them may cost the process: what an idle connection may (`idle.rs`), and what it takes that they are counted
/// by their addresses, as those of this machine are not.
const BYTES_MAX: usize = 1536 + 128;

/// Those that are opened at a time.
const OPENED_AT_ONCE: usize = 1000;

/// What the first ones bring into memory is the broker's, not theirs.
const FIRST: usize = 1000;

/// Generous: a debug build joins some thousands in a second.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Nobody answers pings here. There are as many sessions as there may be.
const CONFIG: &str = "[websocket]\nping_interval_s = 360000\n[limits]\nsessions_max = 2000000\n";

/// What the peers saw, all together.
#[derive(Debug, Default)]
struct Seen {
    /// How often one of them was written to.
    writes: AtomicUsize,
    /// From now on who is told anything closes.
    leaves: AtomicBool,
}

/// What a connection over TCP has in place beside as much as this wire needs itself.
const SOCKET_BYTES: usize = size_of::<Opened>() - 32;

/// A wire of which the peer says what it has to say at once, and then nothing more. It takes all that it is given.
struct Still {
    /// What the peer says.
    says: Option<Box<Bytes>>,
    seen: Arc<Seen>,
    is_closed: bool,
    /// What the runtime has for a socket, and what the socket itself takes in a connection.
    _registration: Box<[u8; 256]>,
    _socket: [u8; SOCKET_BYTES],
}

const _: () =
    assert!(size_of::<Still>() == size_of::<Opened>(), "it weighs as much as a connection over TCP");

impl AsyncRead for Still {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.says.take() {
            Some(says) => buffer.put_slice(&says),
            None if self.is_closed => {}
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Still {
    fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.seen.writes.fetch_add(1, Ordering::Relaxed);
        self.is_closed |= self.seen.leaves.load(Ordering::Relaxed);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone, Copy, Debug)]
enum Language {
    Wamp,
    Stomp,
}

impl Language {
    const BOTH: [Language; 2] = [Language::Wamp, Language::Stomp];

    /// What a peer says to be let in and to subscribe.
    fn says(self, topic: &str) -> Vec<u8> {
        let messages = match self {
            Language::Wamp => [
                r#"[1,"realm1",{"roles":{"subscriber":{}}}]"#.to_owned(),
                format!(r#"[32,1,{{}},"{topic}"]"#),
            ],
            Language::Stomp => [
                "CONNECT\naccept-version:1.2\nhost:localhost\nheart-beat:0,0\n\n\0".to_owned(),
                format!("SUBSCRIBE\nid:0\ndestination:/topic/{topic}\n\n\0"),
            ],
        };
        messages.iter().flat_map(|message| frame(0x81, message.as_bytes())).collect()
    }

    fn token(self) -> &'static str {
        match self {
            Language::Wamp => "wamp.2.json",
            Language::Stomp => "v12.stomp",
        }
    }
}

/// A broker, and a door of it where peers in memory come in.
struct House {
    _server: Server,
    realm: Arc<Realm>,
    door: Arc<Door>,
    seen: Arc<Seen>,
    opened: usize,
    resident_before: usize,
    /// The longest that as many took as are opened at once.
    longest: Duration,
}

impl House {
    fn new() -> House {
        let mut config = Config::parse(CONFIG).unwrap();
        config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.authentication.anonymous = Some(tandem_broker::config::Anonymous::Everywhere);
        let server = Server::start(&config).unwrap();
        let realms = server.all_realms().clone();
        let entropy: Entropy = Arc::new(rand::random::<u64>);
        let users = Arc::new(Users::new(&config, entropy.clone()).unwrap());
        let protocols: Vec<Arc<dyn Protocol>> = vec![
            Arc::new(Wamp::new(WampSettings {
                realms: realms.clone(),
                authenticator: users.clone(),
                credentials: Arc::new(WampCredentials::new([], entropy.clone(), || 0).unwrap()),
                throttle: Arc::new(Throttle::default()),
                agent: "tandem",
                strictness: Strictness::default(),
            })),
            Arc::new(stomp::Stomp::new(stomp::Settings::new(realms, users.clone()))),
        ];
        let door = Door::new(config.front().unwrap(), protocols, users, entropy);
        let realm = server.realms()[0].clone();
        let seen = Arc::default();
        House { _server: server, realm, door, seen, opened: 0, resident_before: 0, longest: Duration::ZERO }
    }

    /// Opens one more, of an address of its own.
    fn open(&mut self, language: Language, topic: &str) {
        let wire = Still {
            says: Some(Box::new(language.says(topic).into())),
            seen: self.seen.clone(),
            is_closed: false,
            _registration: Box::new([1; 256]),
            _socket: [0; SOCKET_BYTES],
        };
        let websocket = WebSocket::new(self.door.settings.websocket.clone(), None);
        let address = Ipv4Addr::from_bits((10 << 24) + self.opened as u32);
        let peer = Peer::Socket(SocketAddr::from((address, 50_000)));
        self.door.open(language.token(), Transport::WebSocket(websocket), wire, peer, None, now());
        self.opened += 1;
    }

    /// Opens more, of these languages by turns, until there are so many; says how many joined in a second.
    async fn fill(
        &mut self,
        sessions: usize,
        languages: &[Language],
        topic: impl Fn(usize) -> String,
    ) -> f64 {
        let (start, before) = (Instant::now(), self.opened);
        while self.opened < sessions {
            let batch = Instant::now();
            for place in self.opened..sessions.min(self.opened + OPENED_AT_ONCE) {
                self.open(languages[place % languages.len()], &topic(place));
            }
            while self.realm.sessions() < self.opened {
                assert!(start.elapsed() < TIME_MAX, "{} of {}", self.realm.sessions(), self.opened);
                tokio::task::yield_now().await;
            }
            self.longest = self.longest.max(batch.elapsed());
        }
        (sessions - before) as f64 / start.elapsed().as_secs_f64()
    }

    /// What those after the first cost, each.
    fn bytes_of_each(&self) -> usize {
        let resident = usize::try_from(resident_bytes().unwrap()).unwrap();
        (resident - self.resident_before) / (self.opened - FIRST)
    }

    async fn fill_first(&mut self, languages: &[Language], topic: impl Fn(usize) -> String) {
        self.fill(FIRST, languages, topic).await;
        self.resident_before = usize::try_from(resident_bytes().unwrap()).unwrap();
    }

    /// What is published to a topic reaches so many, while nothing else is written; says how long the publishing took, and the whole.
    async fn publish(&self, topic: &str, receivers: usize) -> (Duration, Duration) {
        self.seen.writes.store(0, Ordering::Relaxed);
        let bounds = Bounds { bytes_soft_max: 1 << 20, bytes_max: 1 << 20, overflow: Overflow::Disconnect };
        let (mailbox, _inbox) = mailbox(bounds);
        let member = self.realm.join(Principal::house(), mailbox).unwrap();
        let payload = Payload::new(Content::Opaque("news".into()));
        let outgoing =
            Outgoing { name: Name::parse(topic).unwrap(), payload, attributes: Attributes::default() };
        let start = Instant::now();
        member.publish(outgoing, false).unwrap();
        let published = start.elapsed();
        while self.seen.writes.load(Ordering::Relaxed) < receivers {
            assert!(start.elapsed() < TIME_MAX, "{:?} of {receivers}", self.seen.writes);
            tokio::task::yield_now().await;
        }
        (published, start.elapsed())
    }

    /// Everybody is asked to leave at once, and does.
    async fn dismiss(&self) -> Duration {
        self.seen.leaves.store(true, Ordering::Relaxed);
        let start = Instant::now();
        self.realm.say_farewell(Farewell::Shutdown);
        while !self.door.tasks.is_empty() {
            assert!(start.elapsed() < TIME_MAX, "{} are left", self.door.tasks.len());
            tokio::task::yield_now().await;
        }
        assert_eq!(self.realm.sessions(), 0);
        start.elapsed()
    }
}

/// A topic of one's own.
fn own(place: usize) -> String {
    format!("a.topic.of.its.own.{place}")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sessions_without_sockets_cost_what_connections_do() {
    let mut house = House::new();
    house.fill_first(&Language::BOTH, own).await;
    house.fill(10_000, &Language::BOTH, own).await;
    let each = house.bytes_of_each();
    println!("10000 sessions: {each} bytes each");
    assert!(each <= BYTES_MAX, "a session costs {each} bytes");
    // They are alive.
    for place in [0, 1, 9999] {
        house.publish(&own(place), 1).await;
    }
    house.dismiss().await;
}

/// Prints what they cost, and how fast they join, on the way to a million.
async fn measure(language: Language) {
    let mut house = House::new();
    house.fill_first(&[language], own).await;
    for sessions in [10_000, 100_000, 590_000, 600_000, 990_000, 1_000_000] {
        let joins = house.fill(sessions, &[language], own).await;
        let (each, longest) = (house.bytes_of_each(), house.longest);
        println!(
            "{language:?}: {sessions} sessions: {each} bytes each, resident {} MiB; {joins:.0} joined in a second, \
             {OPENED_AT_ONCE} took at most {longest:?}",
            resident_bytes().unwrap() >> 20
        );
        assert!(each <= BYTES_MAX);
        house.longest = Duration::ZERO;
    }
    house.publish(&own(999_999), 1).await;
    println!("{language:?}: all of them left within {:?}", house.dismiss().await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long, and 2 GiB"]
async fn a_million_wamp_sessions_cost_no_more_each() {
    measure(Language::Wamp).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long, and 2 GiB"]
async fn a_million_stomp_sessions_cost_no_more_each() {
    measure(Language::Stomp).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long, and 3 GiB"]
async fn a_publication_and_a_farewell_take_time_by_the_number_of_sessions() {
    let mut house = House::new();
    house.fill_first(&Language::BOTH, |_| "shared".to_owned()).await;
    for sessions in [10_000, 100_000, 1_000_000] {
        let joins = house.fill(sessions, &Language::BOTH, |_| "shared".to_owned()).await;
        let resident = resident_bytes().unwrap() >> 20;
        let (published, delivered) = house.publish("shared", sessions).await;
        println!(
            "{sessions} subscribers of one topic: {} bytes each, {joins:.0} joined in a second; publishing took \
             {published:?}, until all had it {delivered:?}; resident {resident} MiB before, {} after",
            house.bytes_of_each(),
            resident_bytes().unwrap() >> 20
        );
    }
    println!("all of them left within {:?}", house.dismiss().await);
}

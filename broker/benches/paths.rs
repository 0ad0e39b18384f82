//! What a message costs on its way through the broker: from the bytes that one peer sent to those that another gets,
//! through pump, session, house, session and pump, over WebSocket with a wire in memory. There is no kernel in it.
//!
//! `cargo bench -p tandem-broker --bench paths` prints for each way the time, the allocations and their bytes, and, if
//! valgrind is installed, the instructions that the pumps execute. `-- --only NAME` takes those whose name begins so.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use tandem_broker::config::Config;
use tandem_broker::core::access::Peer;
use tandem_broker::core::mailbox::mailbox;
use tandem_broker::core::protocol::Protocol;
use tandem_broker::core::realm::{Entropy, Realm};
use tandem_broker::core::realms::Realms;
use tandem_broker::front::connection::{Connection, Parts, Pump, now};
use tandem_broker::front::transport::Transport;
use tandem_broker::front::websocket::WebSocket;
use tandem_broker::stomp::{Settings, Stomp};
use tandem_broker::users::Users;
use tandem_broker::wamp::{Strictness, Wamp, WampCredentials, WampSettings};
use tandem_protocols::payload::{Format, Limits, transcode};
use tandem_protocols::wamp::codec::subprotocol;
use tandem_protocols::websocket::frame::{Opcode, masked};

/// Messages that a peer sends at once.
const BURST: u64 = 64;

/// The bytes of a payload.
const PAYLOAD_BYTES: usize = 128;

/// Bursts before anything is measured.
const WARM_UP: u64 = 50;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| {
        let place = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(place + 1).cloned()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    if let Some(name) = after("--instructions-of") {
        let (_, make) = *WAYS.iter().find(|(known, _)| *known == name).unwrap();
        let bursts = after("--bursts").unwrap().parse().unwrap();
        make().run(bursts);
        return;
    }
    let only = after("--only").unwrap_or_default();
    println!("{:32}{:>10}{:>14}{:>12}{:>14}", "way", "ns", "allocations", "bytes", "instructions");
    for (name, make) in WAYS.iter().filter(|(name, _)| name.starts_with(&only)) {
        let row = measure(make);
        let instructions = instructions(name, row.per_burst);
        let instructions = instructions.map_or("no valgrind".to_owned(), |count| format!("{count:.0}"));
        println!(
            "{name:32}{:10.0}{:14.2}{:12.0}{instructions:>14}",
            row.nanoseconds, row.allocations, row.bytes
        );
    }
}

/// A way, what it is called, and how to set it up. What is counted is said by its name.
type Make = fn() -> Way;

const WAYS: [(&str, Make); 16] = [
    ("event json", || Way::events(Format::Json, &[Speaks::Wamp(Format::Json); 1])),
    ("event msgpack", || Way::events(Format::MsgPack, &[Speaks::Wamp(Format::MsgPack); 1])),
    ("event cbor", || Way::events(Format::Cbor, &[Speaks::Wamp(Format::Cbor); 1])),
    ("event json to msgpack", || Way::events(Format::Json, &[Speaks::Wamp(Format::MsgPack); 1])),
    ("event json to stomp", || Way::events(Format::Json, &[Speaks::Stomp; 1])),
    ("event json to 10, delivery", || Way::events(Format::Json, &[Speaks::Wamp(Format::Json); 10])),
    ("event json to 100, delivery", || Way::events(Format::Json, &[Speaks::Wamp(Format::Json); 100])),
    ("event msgpack to 100, delivery", || {
        Way::events(Format::MsgPack, &[Speaks::Wamp(Format::MsgPack); 100])
    }),
    ("message stomp", || Way::messages(&[Speaks::Stomp; 1])),
    ("message stomp to 10, delivery", || Way::messages(&[Speaks::Stomp; 10])),
    ("message stomp to 100, delivery", || Way::messages(&[Speaks::Stomp; 100])),
    ("message stomp to json", || Way::messages(&[Speaks::Wamp(Format::Json); 1])),
    ("call json", || Way::calls(Format::Json)),
    ("call msgpack", || Way::calls(Format::MsgPack)),
    ("queue stomp, acknowledged", || Way::queue(0)),
    ("queue stomp, 100,000 unsettled", || Way::queue(100_000)),
];

// ---- measuring -----------------------------------------------------------------------------------------

struct Row {
    nanoseconds: f64,
    allocations: f64,
    bytes: f64,
    per_burst: u64,
}

fn measure(make: &Make) -> Row {
    let mut way = make();
    way.run(WARM_UP);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let bursts = 200;
        let took = way.run(bursts);
        best = best.min(took / u32::try_from(bursts).unwrap());
    }
    let bursts = 20;
    let counted = allocation_counter::measure(|| {
        way.run(bursts);
    });
    // What it costs to write down what is sent next.
    let own = allocation_counter::measure(|| {
        for _ in 0..bursts {
            way.prepare();
        }
    });
    let all = (bursts * way.counted) as f64;
    Row {
        nanoseconds: best.as_nanos() as f64 / way.counted as f64,
        allocations: counted.count_total.saturating_sub(own.count_total) as f64 / all,
        bytes: counted.bytes_total.saturating_sub(own.bytes_total) as f64 / all,
        per_burst: way.counted,
    }
}

/// Instructions within the pumps, of two runs that differ in their length. `None` without valgrind.
fn instructions(name: &str, per_burst: u64) -> Option<f64> {
    let run = |bursts: u64| {
        let program = std::env::current_exe().unwrap();
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*pump_once*"])
            .arg(program)
            .args(["--instructions-of", name, "--bursts", &bursts.to_string()])
            .output()
            .ok()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let collected = told.lines().find_map(|line| line.split_once("Collected :"))?.1;
        collected.trim().replace(',', "").parse::<u64>().ok()
    };
    let (few, many) = (run(20)?, run(60)?);
    Some((many - few) as f64 / (40 * per_burst) as f64)
}

// ---- ways ----------------------------------------------------------------------------------------------

/// Who says what in one burst: of its number makes the messages.
type Turn = (usize, Box<dyn Fn(u64, &mut Vec<u8>)>);

/// Some peers, and what they say in turn.
struct Way {
    house: House,
    peers: Vec<Guest>,
    /// One burst, in order.
    script: Vec<Turn>,
    burst: u64,
    /// What a burst counts for.
    counted: u64,
}

#[derive(Clone, Copy)]
enum Speaks {
    Wamp(Format),
    Stomp,
}

impl Speaks {
    fn opcode(self) -> Opcode {
        match self {
            Speaks::Wamp(Format::MsgPack | Format::Cbor) => Opcode::Binary,
            Speaks::Wamp(Format::Json) | Speaks::Stomp => Opcode::Text,
        }
    }

    /// A message of a client, WAMP being written as JSON here.
    fn put(self, message: &str, out: &mut Vec<u8>) {
        let key = [1, 2, 3, 4];
        match self {
            Speaks::Wamp(format) => {
                let bytes = transcode(Format::Json, format, message.as_bytes(), &Limits::DEFAULT).unwrap();
                out.extend_from_slice(&masked(self.opcode(), &bytes, key));
            }
            Speaks::Stomp => out.extend_from_slice(&masked(self.opcode(), message.as_bytes(), key)),
        }
    }
}

fn payload() -> String {
    "x".repeat(PAYLOAD_BYTES)
}

impl Way {
    fn new(script: Vec<Turn>, house: House, peers: Vec<Guest>, counted: u64) -> Way {
        Way { house, peers, script, burst: 0, counted }
    }

    fn events(format: Format, receivers: &[Speaks]) -> Way {
        let house = House::new();
        let sender = Speaks::Wamp(format);
        let mut peers = vec![house.join(sender)];
        peers.extend(receivers.iter().map(|speaks| house.subscriber(*speaks)));
        let payload = payload();
        let say = move |burst: u64, out: &mut Vec<u8>| {
            for n in 0..BURST {
                let request = burst * BURST + n + 1;
                sender.put(&format!(r#"[16,{request},{{}},"com.example.topic",["{payload}"]]"#), out);
            }
        };
        Way::new(vec![(0, Box::new(say))], house, peers, BURST * receivers.len() as u64)
    }

    fn messages(receivers: &[Speaks]) -> Way {
        let house = House::new();
        let mut peers = vec![house.join(Speaks::Stomp)];
        peers.extend(receivers.iter().map(|speaks| house.subscriber(*speaks)));
        let payload = payload();
        let say = move |_, out: &mut Vec<u8>| {
            for _ in 0..BURST {
                let frame = format!(
                    "SEND\ndestination:/topic/com.example.topic\ncontent-type:text/plain\ncontent-length:{}\n\n{payload}\0",
                    payload.len()
                );
                Speaks::Stomp.put(&frame, out);
            }
        };
        Way::new(vec![(0, Box::new(say))], house, peers, BURST * receivers.len() as u64)
    }

    fn calls(format: Format) -> Way {
        let house = House::new();
        let speaks = Speaks::Wamp(format);
        let (caller, mut callee) = (house.join(speaks), house.join(speaks));
        callee.say(|out| speaks.put(r#"[64,1,{},"com.example.procedure"]"#, out));
        let payload = payload();
        let question = payload.clone();
        let call = move |burst: u64, out: &mut Vec<u8>| {
            for n in 0..BURST {
                let request = burst * BURST + n + 1;
                speaks.put(&format!(r#"[48,{request},{{}},"com.example.procedure",["{question}"]]"#), out);
            }
        };
        let answer = move |burst: u64, out: &mut Vec<u8>| {
            for n in 0..BURST {
                let invocation = burst * BURST + n + 1;
                speaks.put(&format!(r#"[70,{invocation},{{}},["{payload}"]]"#), out);
            }
        };
        let script: Vec<Turn> = vec![(0, Box::new(call)), (1, Box::new(answer))];
        Way::new(script, house, vec![caller, callee], BURST)
    }

    /// What is sent is acknowledged at once, but for so many that were sent before and never are.
    fn queue(unsettled: u64) -> Way {
        let house = House::new();
        let (mut producer, mut consumer) = (house.join(Speaks::Stomp), house.join(Speaks::Stomp));
        let frame = format!(
            "SUBSCRIBE\nid:1\ndestination:/queue/work\nack:client-individual\nprefetch-count:{}\n\n\0",
            unsettled + 1000
        );
        consumer.say(|out| Speaks::Stomp.put(&frame, out));
        for _ in 0..unsettled.div_ceil(100) {
            let frame = "SEND\ndestination:/queue/work\n\n\0";
            producer.say(|out| (0..100).for_each(|_| Speaks::Stomp.put(frame, out)));
            consumer.pump();
        }
        let payload = payload();
        let send = move |_, out: &mut Vec<u8>| {
            for _ in 0..BURST {
                let frame = format!(
                    "SEND\ndestination:/queue/work\ncontent-type:text/plain\ncontent-length:{}\n\n{payload}\0",
                    payload.len()
                );
                Speaks::Stomp.put(&frame, out);
            }
        };
        // The name of the first delivery says how all of them are called.
        let named: Mutex<Option<(String, u64)>> = Mutex::default();
        let heard = consumer.wire.clone();
        let acknowledge = move |burst: u64, out: &mut Vec<u8>| {
            let mut named = named.lock().unwrap();
            let (consumer, first) = named.get_or_insert_with(|| {
                let heard = heard.lock().unwrap();
                let text = String::from_utf8_lossy(&heard.written).into_owned();
                let id = text.split("ack:").nth(1).unwrap().lines().next().unwrap().to_owned();
                let mut parts = id.split('-');
                let (consumer, first) = (parts.next().unwrap().to_owned(), parts.next().unwrap());
                (consumer, first.parse::<u64>().unwrap() + unsettled)
            });
            for n in 0..BURST {
                let id = format!("{consumer}-{}-0", *first + burst * BURST + n);
                Speaks::Stomp.put(&format!("ACK\nid:{id}\n\n\0"), out);
            }
        };
        let script: Vec<Turn> = vec![(0, Box::new(send)), (1, Box::new(acknowledge))];
        Way::new(script, house, vec![producer, consumer], BURST)
    }

    /// Writes down what a burst says, to no purpose.
    fn prepare(&mut self) {
        for (peer, say) in &self.script {
            let mut to_read = std::mem::take(&mut self.peers[*peer].wire.lock().unwrap().to_read);
            to_read.clear();
            say(self.burst, &mut to_read);
            to_read.clear();
            self.peers[*peer].wire.lock().unwrap().to_read = to_read;
        }
    }

    /// Runs so many bursts, and says how long the pumps took.
    fn run(&mut self, bursts: u64) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..bursts {
            for (peer, say) in &self.script {
                // Not under the lock: what is said may depend on what the same peer heard.
                let mut to_read = std::mem::take(&mut self.peers[*peer].wire.lock().unwrap().to_read);
                to_read.clear();
                say(self.burst, &mut to_read);
                {
                    let mut wire = self.peers[*peer].wire.lock().unwrap();
                    wire.to_read = to_read;
                    wire.read = 0;
                }
                let start = Instant::now();
                self.peers[*peer].pump();
                for peer in &mut self.peers {
                    peer.pump();
                }
                took += start.elapsed();
            }
            self.burst += 1;
        }
        self.check(bursts);
        took
    }

    /// Everybody got something of each burst: a way that leads nowhere would be fast.
    fn check(&mut self, bursts: u64) {
        let _alive = &self.house;
        let last = self.peers.last().unwrap().wire.lock().unwrap();
        assert!(last.messages >= bursts, "nothing arrives");
    }
}

// ---- a house and its peers -----------------------------------------------------------------------------

struct House {
    config: Config,
    users: Arc<Users>,
    wamp: Wamp,
    stomp: Stomp,
    pump: Arc<Pump>,
}

impl House {
    fn new() -> House {
        let config = Config::default();
        let entropy: Entropy = Arc::new(|| 1 << 40);
        let users = Arc::new(Users::new(&config, entropy.clone()).unwrap());
        let realm = Realm::new("realm1", config.realm_limits(), Arc::new(rand::random::<u64>));
        let realms = Arc::new(Realms::fixed(vec![realm]));
        let wamp = Wamp::new(WampSettings {
            realms: realms.clone(),
            authenticator: users.clone(),
            credentials: Arc::new(WampCredentials::none()),
            throttle: Arc::default(),
            agent: "tandem",
            strictness: Strictness::default(),
        });
        let mut settings = Settings::new(realms, users.clone());
        settings.prefetch_max = usize::MAX;
        settings.credit.bytes = usize::MAX;
        let stomp = Stomp::new(settings);
        let pump = Pump::new(config.front().unwrap().pump);
        House { config, users, wamp, stomp, pump }
    }

    /// A peer that was let in.
    fn join(&self, speaks: Speaks) -> Guest {
        let front = self.config.front().unwrap();
        let (mailbox, inbox) = mailbox(front.bounds);
        let opened = now();
        let session = match speaks {
            Speaks::Wamp(format) => self.wamp.open(subprotocol(format), &Peer::Local, mailbox, opened),
            Speaks::Stomp => self.stomp.open("v12.stomp", &Peer::Local, mailbox, opened),
        };
        let wire = Arc::new(Mutex::new(Wire::default()));
        let connection = Connection::new(Parts {
            wire: Memory(wire.clone()),
            transport: Transport::WebSocket(WebSocket::new(front.websocket, None)),
            session,
            inbox,
            peer: Peer::Local,
            authenticator: self.users.clone(),
            pump: self.pump.clone(),
            stranger: None,
            opened,
        });
        let mut peer = Guest { connection: Box::pin(connection), wire };
        let hello = match speaks {
            Speaks::Wamp(_) => {
                r#"[1,"realm1",{"roles":{"publisher":{},"subscriber":{},"caller":{},"callee":{}}}]"#
            }
            Speaks::Stomp => "CONNECT\naccept-version:1.2\nhost:h\n\n\0",
        };
        peer.say(|out| speaks.put(hello, out));
        peer
    }

    /// One that subscribes.
    fn subscriber(&self, speaks: Speaks) -> Guest {
        let mut peer = self.join(speaks);
        let subscribe = match speaks {
            Speaks::Wamp(_) => r#"[32,1,{},"com.example.topic"]"#,
            Speaks::Stomp => "SUBSCRIBE\nid:1\ndestination:/topic/com.example.topic\n\n\0",
        };
        peer.say(|out| speaks.put(subscribe, out));
        peer
    }
}

struct Guest {
    connection: Pin<Box<Connection<Memory>>>,
    wire: Arc<Mutex<Wire>>,
}

impl Guest {
    /// Says something, and hears something.
    fn say(&mut self, message: impl FnOnce(&mut Vec<u8>)) {
        let before = {
            let mut wire = self.wire.lock().unwrap();
            wire.to_read.clear();
            wire.read = 0;
            message(&mut wire.to_read);
            wire.messages
        };
        self.pump();
        let heard = self.wire.lock().unwrap().messages;
        let _maybe_silent = heard - before;
    }

    fn pump(&mut self) {
        pump_once(&mut self.connection);
    }
}

/// What instructions are counted of.
#[inline(never)]
fn pump_once(connection: &mut Pin<Box<Connection<Memory>>>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(connection.as_mut().poll(&mut context).is_pending(), "the connection ended");
}

/// A wire of almost no weight.
#[derive(Default)]
struct Wire {
    to_read: Vec<u8>,
    read: usize,
    /// The first of what was written.
    written: Vec<u8>,
    /// Writes that were not empty.
    messages: u64,
}

const KEPT_BYTES: usize = 4096;

struct Memory(Arc<Mutex<Wire>>);

impl AsyncRead for Memory {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.lock().unwrap();
        let rest = &wire.to_read[wire.read..];
        let length = rest.len().min(buffer.remaining());
        if length == 0 {
            return Poll::Pending;
        }
        buffer.put_slice(&rest[..length]);
        wire.read += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.lock().unwrap();
        wire.messages += 1;
        let room = KEPT_BYTES - wire.written.len();
        let kept = &bytes[..bytes.len().min(room)];
        wire.written.extend_from_slice(kept);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

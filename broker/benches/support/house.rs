//! A house and its peers in one thread: each a connection as it is run, with a wire in memory. There is no kernel in it.
//!
//! Whoever uses it has entered a runtime, which nothing here runs: time passes only for who asks.
#![allow(dead_code, reason = "not all who share it use all of it")]
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use tandem_broker::config::Config;
use tandem_broker::core::access::Peer;
use tandem_broker::core::mailbox::{Inbox, Mailbox, mailbox};
use tandem_broker::core::protocol::{Protocol, Session};
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

/// How a peer speaks, over WebSocket.
#[derive(Clone, Copy)]
pub enum Speaks {
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
    pub fn put(self, message: &str, out: &mut Vec<u8>) {
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

pub struct House {
    config: Config,
    users: Arc<Users>,
    wamp: Wamp,
    stomp: Stomp,
    pump: Arc<Pump>,
}

impl House {
    pub fn new() -> House {
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
        let stomp = Stomp::new(Settings::new(realms, users.clone()));
        let pump = Pump::new(config.front().unwrap().pump);
        House { config, users, wamp, stomp, pump }
    }

    /// A peer that was let in.
    pub fn join(&self, speaks: Speaks) -> Guest {
        let (mailbox, inbox) = mailbox(self.config.front().unwrap().bounds);
        let session = match speaks {
            Speaks::Wamp(format) => self.wamp.open(subprotocol(format), &Peer::Local, mailbox, now()),
            Speaks::Stomp => self.stomp.open("v12.stomp", &Peer::Local, mailbox, now()),
        };
        let mut peer = self.connect(session, inbox);
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
    pub fn subscriber(&self, speaks: Speaks) -> Guest {
        let mut peer = self.join(speaks);
        let subscribe = match speaks {
            Speaks::Wamp(_) => r#"[32,1,{},"com.example.topic"]"#,
            Speaks::Stomp => "SUBSCRIBE\nid:1\ndestination:/topic/com.example.topic\n\n\0",
        };
        peer.say(|out| speaks.put(subscribe, out));
        peer
    }

    /// A peer with a session of any kind, and the mailbox that its connection empties.
    pub fn stranger(&self, session: Box<dyn Session>) -> (Mailbox, Guest) {
        let (mailbox, inbox) = mailbox(self.config.front().unwrap().bounds);
        (mailbox, self.connect(session, inbox))
    }

    fn connect(&self, session: Box<dyn Session>, inbox: Inbox) -> Guest {
        let wire = Arc::new(Mutex::new(Wire::default()));
        let front = self.config.front().unwrap();
        let connection = Connection::new(Parts {
            wire: Memory(wire.clone()),
            transport: Transport::WebSocket(WebSocket::new(front.websocket, None)),
            session,
            inbox,
            peer: Peer::Local,
            authenticator: self.users.clone(),
            pump: self.pump.clone(),
            stranger: None,
            opened: now(),
        });
        Guest { connection: Box::pin(connection), wire }
    }
}

/// The end of a connection that the peer has.
pub struct Guest {
    connection: Pin<Box<Connection<Memory>>>,
    pub wire: Arc<Mutex<Wire>>,
}

impl Guest {
    /// Says something; what it is answered is written.
    pub fn say(&mut self, message: impl FnOnce(&mut Vec<u8>)) {
        self.prepare(message);
        self.pump();
    }

    /// What is to be read next.
    pub fn prepare(&self, message: impl FnOnce(&mut Vec<u8>)) {
        // Without the lock: what it says may depend on what was written.
        let mut bytes = std::mem::take(&mut self.wire.lock().unwrap().to_read);
        bytes.clear();
        message(&mut bytes);
        let mut wire = self.wire.lock().unwrap();
        (wire.to_read, wire.read) = (bytes, 0);
    }

    pub fn pump(&mut self) {
        pump_once(&mut self.connection);
    }
}

/// One turn of a connection, under a name by which a profile finds it.
#[inline(never)]
fn pump_once(connection: &mut Pin<Box<Connection<Memory>>>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(connection.as_mut().poll(&mut context).is_pending(), "the connection ended");
}

/// A wire of almost no weight.
#[derive(Default)]
pub struct Wire {
    to_read: Vec<u8>,
    read: usize,
    /// The first of what was written.
    pub written: Vec<u8>,
    /// All that was written.
    pub written_bytes: u64,
}

/// How much is kept of what was written.
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
        wire.written_bytes += bytes.len() as u64;
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

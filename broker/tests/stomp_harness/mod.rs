//! STOMP sessions face to face in memory: no sockets, no pump, and time that the tests make.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test are its test")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use tandem_broker::core::access::authorizer::Inquiry;
use tandem_broker::core::access::{
    Authenticating, Authenticator, Credentials, Grant, Peer, Principal, Refusal,
};
use tandem_broker::core::history::WallClock;
use tandem_broker::core::mailbox::{self, Bounds, Inbox, Overflow};
use tandem_broker::core::message::{Attributes, Kind};
use tandem_broker::core::name::Name;
use tandem_broker::core::parcel::Parcel;
use tandem_broker::core::protocol::{Close, Output, Protocol, Reason, Session};
use tandem_broker::core::queues::QueueLimits;
use tandem_broker::core::queues::durable::{Journal, JournalLimits, Keeping};
use tandem_broker::core::realm::{Member, Memory, Outgoing, Realm, RealmLimits};
use tandem_broker::core::realms::Realms;
use tandem_broker::core::retained::RetainedLimits;
use tandem_broker::core::store::simulated::SimulatedStore;
use tandem_broker::stomp::{Settings, Stomp};
use tandem_protocols::payload::{Arguments, Content, Format, Payload};
use tandem_protocols::stomp::codec::{Decoder, Item, Limits};
use tandem_protocols::stomp::frame::{Command, Frame, Side, Version};

pub struct Door {
    pub lets_anybody_in: bool,
}

pub fn user(name: &str) -> Principal {
    Principal::new(name, "user", "test")
}

impl Authenticator for Door {
    fn anonymous(&self, _peer: &Peer) -> Option<Principal> {
        self.lets_anybody_in.then(|| user("nobody"))
    }

    fn authenticate(&self, _credentials: Credentials, _peer: &Peer) -> Authenticating {
        unreachable!("the tests answer for the pump")
    }
}

pub struct House {
    pub realm: Arc<Realm>,
    pub stomp: Stomp,
    pub start: Instant,
    /// Milliseconds since 1970, as the queues know it.
    pub clock: Arc<AtomicU64>,
}

pub const LIMITS: RealmLimits = RealmLimits {
    sessions_max: 100,
    subscriptions_max: 100,
    registrations_max: 100,
    consumers_max: 100,
    in_flight_bytes_max: 10_000,
    retained: RetainedLimits { messages_max: 100, bytes_max: 1 << 20 },
    queues: QueueLimits { queues_max: 100, messages_max: 50, bytes_max: 1 << 20, total_bytes_max: 1 << 24 },
};

pub const BOUNDS: Bounds =
    Bounds { bytes_soft_max: 1 << 20, bytes_max: 4 << 20, overflow: Overflow::Disconnect };

impl House {
    pub fn new() -> House {
        House::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> House {
        House::of(LIMITS, Keeping::InMemory, change)
    }

    /// A house that keeps persistent messages here.
    pub fn with_store(store: Arc<SimulatedStore>, limits: RealmLimits) -> House {
        let limit = 1 << 30;
        let journal =
            JournalLimits { backlog_bytes_max: limit, window_bytes_max: limit, windows_bytes_max: limit };
        House::of(limits, Keeping::Stored(Journal::new(store, "main", journal)), |_| {})
    }

    fn of(limits: RealmLimits, keeping: Keeping, change: impl FnOnce(&mut Settings)) -> House {
        let counter = AtomicU64::new(1000);
        let entropy = Arc::new(move || counter.fetch_add(1, Ordering::Relaxed));
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let time = clock.clone();
        let told: WallClock = Arc::new(move || time.load(Ordering::Relaxed));
        let realm = Realm::with_memory(
            "main",
            limits,
            entropy,
            Memory { keeping, clock: Some(told), ..Memory::default() },
        );
        let door = Arc::new(Door { lets_anybody_in: true });
        let mut settings = Settings::new(Arc::new(Realms::fixed(vec![realm.clone()])), door);
        change(&mut settings);
        House { realm, stomp: Stomp::new(settings), start: Instant::now(), clock }
    }

    /// A peer that has said nothing yet.
    pub fn open(&self) -> Client {
        self.open_from(&Peer::Local)
    }

    /// The same, from there.
    pub fn open_from(&self, peer: &Peer) -> Client {
        let (mailbox, inbox) = mailbox::mailbox(BOUNDS);
        Client {
            session: self.stomp.open("v12.stomp", peer, mailbox, self.start),
            inbox,
            now: self.start,
            kind: Kind::Text,
            decoder: Decoder::new(Side::Client, Limits::default()),
            kinds: Vec::new(),
            raw: Vec::new(),
            heard: VecDeque::new(),
            beats: 0,
            credentials: None,
            inquiry: None,
            close: None,
        }
    }

    pub fn connect(&self, version: &str) -> Client {
        let mut client = self.open();
        client.say(&format!("CONNECT\naccept-version:{version}\nhost:h\n\n"));
        assert_eq!(client.next().command, Command::Connected);
        client
    }

    /// Lets time pass for queues, and does what is due then.
    pub fn pass(&self, milliseconds: u64) {
        self.clock.fetch_add(milliseconds, Ordering::Relaxed);
        let queues = self.realm.queues();
        while queues.deadline_ms(Waker::noop()).is_some_and(|at| at <= queues.now_ms()) {
            queues.tick();
        }
    }

    /// Somebody in the house who speaks no STOMP.
    pub fn neighbour(&self) -> (Member, Inbox) {
        let (mailbox, inbox) = mailbox::mailbox(BOUNDS);
        (self.realm.join(user("neighbour"), mailbox).expect("there is room"), inbox)
    }
}

pub struct Client {
    pub session: Box<dyn Session>,
    pub inbox: Inbox,
    pub now: Instant,
    pub kind: Kind,
    pub decoder: Decoder,
    pub kinds: Vec<Kind>,
    pub raw: Vec<Bytes>,
    pub heard: VecDeque<Frame>,
    pub beats: usize,
    pub credentials: Option<Credentials>,
    pub inquiry: Option<Inquiry>,
    pub close: Option<Close>,
}

impl Client {
    /// Sends a frame; the NUL is added.
    pub fn say(&mut self, frame: &str) {
        self.send(&[frame.as_bytes(), b"\0"].concat());
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.session.receive(self.kind, Bytes::copy_from_slice(bytes), self.now);
        self.poll();
    }

    /// Hears what the session says, and lets it go on with what was sent.
    pub fn poll(&mut self) {
        self.hear_out();
        while self.session.proceed(self.now) {
            self.hear_out();
        }
    }

    fn hear_out(&mut self) {
        while let Some(output) = self.session.poll() {
            assert!(self.close.is_none(), "nothing comes after Close, but {output:?}");
            match output {
                Output::Send(frame) => {
                    let message = frame.message();
                    let mut bytes = BytesMut::from(&message.head[..]);
                    bytes.extend_from_slice(&message.body);
                    self.take(message.kind, bytes.freeze());
                }
                Output::SendAll(messages) => {
                    for single in messages.singles().iter() {
                        let mut bytes = BytesMut::from(&single.message.head[..]);
                        bytes.extend_from_slice(&single.message.body);
                        self.take(single.message.kind, bytes.freeze());
                    }
                }
                Output::Authenticate(credentials) => self.credentials = Some(*credentials),
                Output::Authorize(inquiry) => self.inquiry = Some(inquiry),
                Output::LookUp(_) => panic!("STOMP has no challenges"),
                Output::Close(close) => self.close = Some(close),
            }
        }
    }

    pub fn take(&mut self, kind: Kind, mut bytes: Bytes) {
        if kind == Kind::Text {
            assert!(str::from_utf8(&bytes).is_ok(), "a text message is text");
        }
        self.kinds.push(kind);
        self.raw.push(bytes.clone());
        let mut frames = 0;
        while let Some(item) = self.decoder.decode(&mut bytes).expect("the broker speaks STOMP") {
            match item {
                Item::HeartBeats(count) => self.beats += count,
                Item::Frame(frame) => {
                    frames += 1;
                    if frame.command == Command::Connected {
                        let version = frame.headers.get("version").and_then(Version::from_name);
                        self.decoder.set_version(version.expect("a version"));
                    }
                    self.heard.push_back(frame);
                }
            }
        }
        assert!(frames <= 1, "W5: one frame is one message");
    }

    /// Takes what lies in the mailbox, as the pump does.
    pub fn pump(&mut self) {
        let mut batch = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        while self.close.is_none() && self.inbox.poll_take(&mut context, &mut batch).is_ready() {
            for parcel in batch.drain(..) {
                let cost = mailbox::cost(&parcel);
                self.session.deliver(parcel, self.now);
                self.poll();
                self.inbox.settled(cost);
            }
        }
    }

    /// Says that the peer is somebody, or is not.
    pub fn authenticated(&mut self, result: Result<Principal, Refusal>) {
        let result = result.map(Grant::from);
        self.session.deliver(Parcel::Authenticated(Box::new(result)), self.now);
        self.poll();
    }

    /// What was heard since the last time.
    pub fn hear(&mut self) -> Vec<Frame> {
        self.pump();
        self.heard.drain(..).collect()
    }

    pub fn next(&mut self) -> Frame {
        if self.heard.is_empty() {
            self.pump();
        }
        self.heard.pop_front().expect("something is heard")
    }

    /// The next frame, which must be of that command and have those headers.
    pub fn expect(&mut self, command: Command, headers: &[(&str, &str)]) -> Frame {
        let frame = self.next();
        assert_eq!(frame.command, command, "{frame:?} {:?}", String::from_utf8_lossy(&frame.body));
        for (name, value) in headers {
            assert_eq!(frame.headers.get(name), Some(*value), "{name} of {frame:?}");
        }
        frame
    }

    pub fn receipt(&mut self, id: &str) {
        self.expect(Command::Receipt, &[("receipt-id", id)]);
    }

    /// Says a frame that must end the session with that text.
    pub fn refused(&mut self, frame: &str, message: &str) -> Frame {
        self.say(frame);
        let error = self.expect(Command::Error, &[("message", message)]);
        assert!(self.close.is_some(), "E1: after an ERROR the connection closes");
        assert!(self.hear().is_empty());
        error
    }

    pub fn bodies(&mut self) -> Vec<String> {
        let text = |frame: Frame| String::from_utf8_lossy(&frame.body).into_owned();
        self.hear().into_iter().filter(|frame| frame.command == Command::Message).map(text).collect()
    }

    pub fn reason(&self) -> Option<Reason> {
        self.close.as_ref().map(|close| close.reason)
    }

    pub fn after(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.session.tick(self.now);
        self.poll();
    }
}

pub fn header(frame: &Frame, name: &str) -> String {
    frame.headers.get(name).unwrap_or_else(|| panic!("{name} in {frame:?}")).to_owned()
}

pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

pub fn json(args: &'static str) -> Payload {
    let args = Bytes::from_static(args.as_bytes());
    Payload::new(Content::Arguments(Arguments { format: Format::Json, args, kwargs: Bytes::new() }))
}

pub fn outgoing(topic: &str, args: &'static str) -> Outgoing {
    Outgoing { name: name(topic), payload: json(args), attributes: Attributes::default() }
}

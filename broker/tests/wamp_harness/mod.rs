//! A realm, mailboxes and WAMP sessions in one thread, without sockets or clocks.
//!
//! Messages are written as JSON and carried in the serialization of each client; what comes back is read
//! as JSON again.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test are its test")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use tandem_broker::core::access::authorizer::{Authorizer, Authorizing, Decision, Inquiry, Question};
use tandem_broker::core::access::{
    Applicant, Authenticating, Authenticator, Credentials, LookingUp, Peer, Principal, Record, Refusal,
};
use tandem_broker::core::history::{History, HistoryRule};
use tandem_broker::core::mailbox::{Bounds, Inbox, Mailbox, Overflow, cost, mailbox};
use tandem_broker::core::message::{Frame, Kind};
use tandem_broker::core::name::Pattern;
use tandem_broker::core::parcel::Parcel;
use tandem_broker::core::protocol::{Close, Output, Protocol, Reason, Session};
use tandem_broker::core::queues::QueueLimits;
use tandem_broker::core::queues::durable::{Journal, JournalLimits, Keeping};
use tandem_broker::core::realm::{Member, Memory, Realm, RealmLimits};
use tandem_broker::core::realms::Realms;
use tandem_broker::core::retained::RetainedLimits;
use tandem_broker::core::store::simulated::SimulatedStore;
use tandem_broker::wamp::{Strictness, Wamp, WampCredentials, WampSettings, WampUser};
use tandem_protocols::payload::{Format, Limits, transcode};
use tandem_protocols::wamp::codec::{decode, subprotocol};

pub const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

pub const VIOLATION: &str = "wamp.error.protocol_violation";

/// What an application answers about a user.
pub type LookUp = fn(&Applicant) -> Result<Record, Refusal>;

/// Lets `anonymous` in or not, and knows joe, ann and the administrator root.
pub struct Users {
    pub anonymous: bool,
    /// What an application keeps of users.
    pub records: Option<LookUp>,
}

impl Authenticator for Users {
    fn anonymous(&self, _peer: &Peer) -> Option<Principal> {
        let principal = Principal::new("guest", "anonymous", "anonymous");
        self.anonymous.then_some(principal)
    }

    fn recognize(&self, peer: &Peer, user: Option<&str>) -> Option<Principal> {
        let name = peer.certificate()?.dns_names.iter().find(|name| user.is_none_or(|user| user == *name))?;
        Some(Principal::new(name.as_str(), "user", "tls"))
    }

    fn takes_secrets(&self, peer: &Peer) -> bool {
        // As if tickets needed TLS, for those from there.
        peer.is_private() || !peer.to_string().starts_with("203.0.113.")
    }

    fn authenticate(&self, credentials: Credentials, _peer: &Peer) -> Authenticating {
        let Applicant { user, method, .. } = credentials.applicant;
        let role = match &*user {
            "joe" | "ann" => "user",
            "root" => "admin",
            _ => "",
        };
        let known = !role.is_empty() && &*credentials.secret == "secret";
        let principal = Principal::new(user, role, method);
        Box::pin(std::future::ready(if known { Ok(principal.into()) } else { Err(Refusal::WrongSecret) }))
    }

    fn looks_up(&self, _method: &str) -> bool {
        self.records.is_some()
    }

    fn look_up(&self, applicant: Applicant, _peer: &Peer) -> LookingUp {
        let look_up = self.records.expect("it looks up");
        Box::pin(std::future::ready(look_up(&applicant)))
    }
}

/// Answers as it was told to, and remembers what it was asked.
#[derive(Default)]
pub struct Oracle {
    pub asked: Mutex<Vec<Question>>,
    pub answer: Mutex<Option<Result<Decision, Refusal>>>,
}

impl Oracle {
    pub fn says(&self, answer: Result<Decision, Refusal>) {
        *self.answer.lock().unwrap() = Some(answer);
    }

    /// What it was asked since the last time: action and name.
    pub fn asked(&self) -> Vec<(String, String)> {
        let told = |question: Question| (question.action.to_string(), question.pattern.as_str().to_owned());
        self.asked.lock().unwrap().drain(..).map(told).collect()
    }
}

impl Authorizer for Oracle {
    fn authorize(&self, question: Question) -> Authorizing {
        self.asked.lock().unwrap().push(question);
        let answer = self.answer.lock().unwrap().clone().expect("an answer");
        Box::pin(std::future::ready(answer))
    }
}

pub struct House {
    pub realm: Arc<Realm>,
    pub protocol: Wamp,
    pub users: Arc<Users>,
    pub bounds: Bounds,
}

pub fn limits() -> RealmLimits {
    RealmLimits {
        sessions_max: 8,
        subscriptions_max: 8,
        registrations_max: 8,
        consumers_max: 8,
        in_flight_bytes_max: 1 << 20,
        retained: RetainedLimits::default(),
        queues: QueueLimits { queues_max: 8, messages_max: 8, bytes_max: 1 << 20, total_bytes_max: 1 << 20 },
    }
}

impl House {
    pub fn new() -> House {
        House::with(limits(), true)
    }

    pub fn with(limits: RealmLimits, anonymous: bool) -> House {
        let counter = AtomicU64::new(1 << 40);
        let entropy = Arc::new(move || counter.fetch_add(1, Ordering::Relaxed));
        House::of(Realm::new("realm1", limits, entropy), anonymous)
    }

    /// A house that remembers what is published below `h.`: one event each second, from 2000 on.
    pub fn with_history() -> House {
        let counter = AtomicU64::new(1 << 40);
        let entropy = Arc::new(move || counter.fetch_add(1, Ordering::Relaxed));
        let rule = HistoryRule { pattern: Pattern::prefix("h.").unwrap(), events_max: 100, durable: false };
        let seconds = AtomicU64::new(0);
        let clock = move || 946_684_800_000 + seconds.fetch_add(1000, Ordering::Relaxed);
        let history = History::new(&[rule], Arc::new(clock));
        House::of(Realm::with_history("realm1", limits(), entropy, history), true)
    }

    /// A house that keeps persistent messages here.
    pub fn with_store(store: Arc<SimulatedStore>) -> House {
        let counter = AtomicU64::new(1 << 40);
        let entropy = Arc::new(move || counter.fetch_add(1, Ordering::Relaxed));
        let limit = 1 << 20;
        let journal =
            JournalLimits { backlog_bytes_max: limit, window_bytes_max: limit, windows_bytes_max: limit };
        let keeping = Keeping::Stored(Journal::new(store, "realm1", journal));
        let memory = Memory { keeping, ..Memory::default() };
        House::of(Realm::with_memory("realm1", limits(), entropy, memory), true)
    }

    /// A house that lets in these users, and whoever has joe's or ann's ticket.
    pub fn with_users(users: &[WampUser<'_>]) -> House {
        let counter = Arc::new(AtomicU64::new(1 << 40));
        let entropy = Arc::new(move || counter.fetch_add(1, Ordering::Relaxed));
        let clock = || 1_403_454_985_448;
        let credentials = WampCredentials::new(users.iter().copied(), entropy.clone(), clock).unwrap();
        House::made(Realm::new("realm1", limits(), entropy), false, credentials, None)
    }

    /// A house that lets in these users, and asks an application about others.
    pub fn with_records(users: &[WampUser<'_>], records: LookUp) -> House {
        let counter = Arc::new(AtomicU64::new(1 << 40));
        let entropy = Arc::new(move || counter.fetch_add(1, Ordering::Relaxed));
        let credentials = WampCredentials::new(users.iter().copied(), entropy.clone(), || 0).unwrap();
        House::made(Realm::new("realm1", limits(), entropy), false, credentials, Some(records))
    }

    fn of(realm: Arc<Realm>, anonymous: bool) -> House {
        House::made(realm, anonymous, WampCredentials::none(), None)
    }

    fn made(
        realm: Arc<Realm>,
        anonymous: bool,
        credentials: WampCredentials,
        records: Option<LookUp>,
    ) -> House {
        House::insisting(realm, Users { anonymous, records }, credentials, Strictness::default())
    }

    /// A house that insists on what it may.
    pub fn strict() -> House {
        let counter = AtomicU64::new(1 << 40);
        let entropy = Arc::new(move || counter.fetch_add(1, Ordering::Relaxed));
        let realm = Realm::new("realm1", limits(), entropy);
        let strictness = Strictness { request_ids: true, uris: true };
        let users = Users { anonymous: true, records: None };
        House::insisting(realm, users, WampCredentials::none(), strictness)
    }

    fn insisting(
        realm: Arc<Realm>,
        users: Users,
        credentials: WampCredentials,
        strictness: Strictness,
    ) -> House {
        let users = Arc::new(users);
        let protocol = Wamp::new(WampSettings {
            realms: Arc::new(Realms::fixed(vec![realm.clone()])),
            authenticator: users.clone(),
            credentials: Arc::new(credentials),
            throttle: Arc::default(),
            agent: "tandem/test",
            strictness,
        });
        let bounds = Bounds { bytes_soft_max: 1 << 20, bytes_max: 1 << 20, overflow: Overflow::Disconnect };
        House { realm, protocol, users, bounds }
    }

    /// A client that has said nothing yet.
    pub fn connect(&self, format: Format) -> Client {
        self.connect_under(subprotocol(format), format)
    }

    /// The same, under this subprotocol.
    pub fn connect_under(&self, subprotocol: &'static str, format: Format) -> Client {
        self.connect_as(&Peer::Local, subprotocol, format)
    }

    /// One that connects from there.
    pub fn connect_from(&self, peer: &Peer, format: Format) -> Client {
        self.connect_as(peer, subprotocol(format), format)
    }

    fn connect_as(&self, peer: &Peer, subprotocol: &'static str, format: Format) -> Client {
        let (mailbox, inbox) = mailbox(self.bounds);
        let now = Instant::now();
        let session = self.protocol.open(subprotocol, peer, mailbox.clone(), now);
        let kind = if format == Format::Json { Kind::Text } else { Kind::Binary };
        let users = self.users.clone();
        Client {
            session,
            mailbox,
            inbox,
            users,
            format,
            kind,
            now,
            said: VecDeque::new(),
            closed: None,
            id: 0,
            inquiry: None,
        }
    }

    /// A client that was let in.
    pub fn join(&self, format: Format) -> Client {
        let mut client = self.connect(format);
        client.say(hello(json!({"roles": {"callee": {"features": {"call_canceling": true}}}})));
        let welcome = client.hear();
        assert_eq!(welcome[0], json!(2));
        client.id = welcome[1].as_u64().unwrap();
        client
    }

    /// A client that was let in by its name.
    pub fn login(&self, format: Format, user: &str) -> Client {
        let mut client = self.connect(format);
        client.say(hello(json!({"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": user})));
        assert_eq!(client.hear()[0], json!(4));
        let welcome = client.ask(json!([5, "secret", {}]));
        assert_eq!((&welcome[0], &welcome[2]["authid"]), (&json!(2), &json!(user)));
        client.id = welcome[1].as_u64().unwrap();
        client
    }

    /// Somebody in the realm who speaks another language.
    pub fn foreigner(&self) -> (Member, Inbox) {
        let (mailbox, inbox) = mailbox(self.bounds);
        let principal = Principal::new("f", "user", "ticket");
        (self.realm.join(principal, mailbox).unwrap(), inbox)
    }
}

pub struct Client {
    pub session: Box<dyn Session>,
    pub mailbox: Mailbox,
    pub inbox: Inbox,
    pub users: Arc<Users>,
    pub format: Format,
    pub kind: Kind,
    pub now: Instant,
    pub said: VecDeque<Frame>,
    pub closed: Option<Close>,
    /// The number of the session, once it is let in.
    pub id: u64,
    /// What the session waits for.
    pub inquiry: Option<Inquiry>,
}

pub fn hello(details: Value) -> Value {
    json!([1, "realm1", details])
}

impl Client {
    pub fn encode(&self, message: &Value) -> Bytes {
        transcode(Format::Json, self.format, message.to_string().as_bytes(), &Limits::DEFAULT).unwrap()
    }

    pub fn say(&mut self, message: Value) {
        let bytes = self.encode(&message);
        self.say_bytes(bytes);
    }

    pub fn say_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.session.receive(self.kind, bytes.into(), self.now);
        self.drain();
        while self.session.proceed(self.now) {
            self.drain();
        }
    }

    /// Does what the session wants done, as a pump would.
    pub fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            assert!(self.closed.is_none(), "nothing is said after the end: {output:?}");
            match output {
                Output::Send(frame) => self.said.push_back(frame),
                Output::SendAll(messages) => {
                    self.said.extend(messages.singles().iter().map(|single| Frame::Shared(single.clone())));
                }
                Output::Authenticate(credentials) => {
                    let mut answer = self.users.authenticate(*credentials, &Peer::Local);
                    let mut context = Context::from_waker(Waker::noop());
                    let std::task::Poll::Ready(result) = answer.as_mut().poll(&mut context) else {
                        panic!("these users are known at once")
                    };
                    self.session.deliver(Parcel::Authenticated(Box::new(result)), self.now);
                }
                Output::Authorize(inquiry) => self.inquiry = Some(inquiry),
                Output::LookUp(applicant) => {
                    let mut answer = self.users.look_up(*applicant, &Peer::Local);
                    let mut context = Context::from_waker(Waker::noop());
                    let std::task::Poll::Ready(result) = answer.as_mut().poll(&mut context) else {
                        panic!("these users are known at once")
                    };
                    self.session.deliver(Parcel::LookedUp(Box::new(result)), self.now);
                }
                Output::Close(close) => self.closed = Some(close),
            }
        }
    }

    /// Takes what the house has for it.
    pub fn take_in(&mut self) {
        let mut batch = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        while self.inbox.poll_take(&mut context, &mut batch).is_ready() {
            for parcel in batch.drain(..) {
                let bytes = cost(&parcel);
                if self.closed.is_none() {
                    self.session.deliver(parcel, self.now);
                    self.drain();
                }
                self.inbox.settled(bytes);
            }
        }
    }

    /// The pump has the answer to what the session waits for.
    pub fn is_answered(&mut self) {
        let Inquiry(mut answer) = self.inquiry.take().expect("the session waits for an answer");
        let mut context = Context::from_waker(Waker::noop());
        let std::task::Poll::Ready(answer) = answer.as_mut().poll(&mut context) else {
            panic!("this authorizer answers at once")
        };
        self.session.deliver(Parcel::Authorized(Box::new(answer)), self.now);
        self.drain();
    }

    pub fn hear_frame(&mut self) -> Option<Frame> {
        if self.said.is_empty() {
            self.take_in();
        }
        self.said.pop_front()
    }

    pub fn try_hear(&mut self) -> Option<Value> {
        let frame = self.hear_frame()?;
        let message = frame.message();
        assert_eq!(message.kind, self.kind);
        let bytes = [&message.head[..], &message.body[..]].concat();
        decode(self.format, &Bytes::copy_from_slice(&bytes)).expect("what the router says is WAMP");
        let json = transcode(self.format, Format::Json, &bytes, &Limits::DEFAULT).unwrap();
        Some(serde_json::from_slice(&json).unwrap())
    }

    pub fn hear(&mut self) -> Value {
        self.try_hear().expect("the router says something")
    }

    pub fn ask(&mut self, message: Value) -> Value {
        self.say(message);
        self.hear()
    }

    pub fn hears_nothing(&mut self) {
        assert_eq!(self.try_hear(), None);
        assert_eq!(self.closed, None);
    }

    /// The peer broke the language: ABORT, then the end, and nothing after.
    pub fn is_aborted(&mut self) {
        self.is_aborted_with(VIOLATION, Reason::Violation);
    }

    pub fn is_aborted_with(&mut self, uri: &str, reason: Reason) {
        let abort = self.hear();
        assert_eq!((&abort[0], &abort[2]), (&json!(3), &json!(uri)));
        assert!(abort[1]["message"].as_str().is_some_and(|message| !message.is_empty()));
        assert_eq!(self.closed.as_ref().map(|close| close.reason), Some(reason));
        assert_eq!(self.try_hear(), None);
        let open = self.closed.take();
        self.say(hello(json!({"roles": {"caller": {}}})));
        assert_eq!((self.try_hear(), self.closed.take()), (None, None));
        self.closed = open;
    }

    pub fn subscribe(&mut self, topic: &str, policy: &str) -> u64 {
        let subscribed = self.ask(json!([32, 7, {"match": policy}, topic]));
        assert_eq!((&subscribed[0], &subscribed[1]), (&json!(33), &json!(7)));
        subscribed[2].as_u64().unwrap()
    }

    pub fn register(&mut self, procedure: &str, policy: &str) -> u64 {
        let registered = self.ask(json!([64, 8, {"match": policy}, procedure]));
        assert_eq!((&registered[0], &registered[1]), (&json!(65), &json!(8)));
        registered[2].as_u64().unwrap()
    }
}

/// An ERROR without what it says to humans.
pub fn error_of(message: &Value) -> (u64, u64, &str) {
    assert_eq!(message[0], json!(8), "{message}");
    (message[1].as_u64().unwrap(), message[2].as_u64().unwrap(), message[4].as_str().unwrap())
}

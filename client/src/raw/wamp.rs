//! WAMP v2: a [`Link`] moves messages, a [`Client`] has a session.
//!
//! A client is driven by its owner. While it awaits the reply to one request, it keeps whatever else arrives,
//! up to a limit, in the order of arrival: events, invocations, replies to other requests.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use tandem_protocols::payload::{Arguments, Content, Format};
use tandem_protocols::wamp::codec::{decode, encode, encode_call, encode_publish, is_text};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{
    self, Authenticate, CallResult, Cancel, Event, Goodbye, Hello, Invocation, Message, MessageType,
    Register, Subscribe, Unregister, Unsubscribe, Welcome, Yield,
};
use tandem_protocols::wamp::options::{Feature, Role, Roles};

use crate::arguments::{arguments, decode_args, decode_kwargs, positional};
use crate::error::Error;
use crate::raw::carrier::Carrier;
use crate::raw::transport::{Closed, Kind, Transport};

pub use tandem_protocols::wamp::options::MatchPolicy;

/// How long a reply is awaited, unless it is set otherwise.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// How many messages are kept while a reply is awaited, unless it is set otherwise.
pub const QUEUED_MAX: usize = 64 * 1024;

/// So much output is gathered before it is written without being asked for.
const GATHERED_BYTES: usize = 64 * 1024;

/// The reason of a client that leaves.
const CLOSE_NORMAL: &str = "wamp.close.normal";

/// The answer to a GOODBYE.
const GOODBYE_AND_OUT: &str = "wamp.close.goodbye_and_out";

/// WAMP messages over a transport, without a session or any order.
#[derive(Debug)]
pub struct Link<T = Transport> {
    transport: T,
    format: Format,
}

impl<T: Carrier> Link<T> {
    /// Messages in `format`, which is what the transport's subprotocol or handshake must have said.
    pub fn new(transport: T, format: Format) -> Self {
        Self { transport, format }
    }

    /// The encoding of all messages.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What carries the messages.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The transport alone.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Takes a message to be written later.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] where it cannot be written, and those of [`Transport::feed`].
    pub fn feed(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        let bytes = encode(self.format, &message.into())?;
        self.feed_encoded(&bytes)
    }

    /// Takes a message that is encoded already, or what is to be taken for one.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::feed`].
    pub fn feed_encoded(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.transport.feed(self.kind(), bytes)
    }

    /// Sends a message now.
    ///
    /// # Errors
    ///
    /// Those of [`feed`](Self::feed) and of the network.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        self.feed(message)?;
        self.transport.flush().await
    }

    /// The next message. May be cancelled.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] at the end, [`Error::Wamp`] for what is no message, [`Error::WrongKind`] for JSON in a
    /// binary frame or anything else in a text frame.
    pub async fn receive(&mut self) -> Result<Message, Error> {
        let Some(message) = self.transport.next().await? else {
            return Err(Error::Closed(self.transport.closed().cloned().unwrap_or(Closed::Failed)));
        };
        if self.transport.has_kinds() && message.kind != self.kind() {
            return Err(Error::WrongKind(message.kind));
        }
        Ok(decode(self.format, &message.bytes)?)
    }

    fn kind(&self) -> Kind {
        if is_text(self.format) { Kind::Text } else { Kind::Binary }
    }
}

/// Who the client says it is.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// Nobody.
    #[default]
    Anonymous,
    /// Somebody with a secret that is shown.
    Ticket {
        /// The principal.
        authid: String,
        /// The secret.
        ticket: String,
    },
}

/// A client in a realm.
#[derive(Debug)]
pub struct Client<T = Transport> {
    link: Link<T>,
    session: Id,
    welcome: Dict,
    next_request: Id,
    queue: VecDeque<Message>,
    queued_max: usize,
    reply_timeout: Duration,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What the dealer says of it.
    pub details: Dict,
    /// What the callee says.
    pub payload: Content,
}

impl Outcome {
    /// The positional arguments of the result.
    ///
    /// # Errors
    ///
    /// See [`decode_args`].
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode_args(&self.payload)
    }

    /// The keyword arguments of the result.
    ///
    /// # Errors
    ///
    /// See [`decode_kwargs`].
    pub fn kwargs<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode_kwargs(&self.payload)
    }
}

impl<T: Carrier> Client<T> {
    /// Joins a realm in all roles, announcing all features.
    ///
    /// # Errors
    ///
    /// [`Error::Abort`] where the router does not let the client in.
    pub async fn join(transport: T, format: Format, realm: &str, login: &Login) -> Result<Self, Error> {
        Self::join_with(Link::new(transport, format), realm, login, Dict::new()).await
    }

    /// As [`join`](Self::join), with more details of HELLO, or others.
    ///
    /// # Errors
    ///
    /// See there.
    pub async fn join_with(
        mut link: Link<T>,
        realm: &str,
        login: &Login,
        details: Dict,
    ) -> Result<Self, Error> {
        link.send(Hello { realm: realm.to_owned(), details: hello(login, &details) }).await?;
        let entering = Self::enter(&mut link, login);
        let Welcome { session, details: welcome } =
            timeout(REPLY_TIMEOUT, entering).await.map_err(|_| Error::Timeout("WELCOME"))??;
        Ok(Self {
            link,
            session,
            welcome,
            next_request: Id::FIRST,
            queue: VecDeque::new(),
            queued_max: QUEUED_MAX,
            reply_timeout: REPLY_TIMEOUT,
        })
    }

    async fn enter(link: &mut Link<T>, login: &Login) -> Result<Welcome, Error> {
        loop {
            match (link.receive().await?, login) {
                (Message::Welcome(welcome), _) => return Ok(welcome),
                (Message::Abort(abort), _) => return Err(Error::Abort(Box::new(abort))),
                (Message::Challenge(_), Login::Ticket { ticket, .. }) => {
                    link.send(Authenticate { signature: ticket.clone(), extra: Dict::new() }).await?;
                }
                (other, _) => return Err(Error::UnexpectedMessage(Box::new(other))),
            }
        }
    }

    /// The session.
    pub fn session(&self) -> Id {
        self.session
    }

    /// The details of WELCOME.
    pub fn welcome(&self) -> &Dict {
        &self.welcome
    }

    /// The encoding of all messages.
    pub fn format(&self) -> Format {
        self.link.format
    }

    /// The messages below.
    pub fn link(&mut self) -> &mut Link<T> {
        &mut self.link
    }

    /// The messages below, alone.
    pub fn into_link(self) -> Link<T> {
        self.link
    }

    /// How long a reply is awaited from now on.
    pub fn set_reply_timeout(&mut self, timeout: Duration) {
        self.reply_timeout = timeout;
    }

    /// How many messages are kept while a reply is awaited.
    pub fn set_queued_max(&mut self, messages: usize) {
        self.queued_max = messages;
    }

    /// How many messages are kept now.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next request ID, which is used up.
    pub fn take_request(&mut self) -> Id {
        let request = self.next_request;
        self.next_request = request.next();
        request
    }

    /// Positional arguments in this client's format, such as `client.args(&("a", 1))`.
    ///
    /// # Errors
    ///
    /// See [`positional`].
    pub fn args<A: Serialize + ?Sized>(&self, args: &A) -> Result<Arguments, Error> {
        positional(self.link.format, args)
    }

    /// Positional and keyword arguments in this client's format.
    ///
    /// # Errors
    ///
    /// See [`arguments`].
    pub fn arguments<A, K>(&self, args: &A, kwargs: &K) -> Result<Arguments, Error>
    where
        A: Serialize + ?Sized,
        K: Serialize + ?Sized,
    {
        arguments(self.link.format, args, kwargs)
    }

    /// Subscribes to a topic or a pattern.
    ///
    /// # Errors
    ///
    /// As for all requests: [`Error::Reply`] where the router says no, [`Error::Abort`] or [`Error::Goodbye`]
    /// where it ends the session instead, [`Error::Timeout`], and those of the connection.
    pub async fn subscribe(&mut self, topic: &str, policy: MatchPolicy) -> Result<Id, Error> {
        let options = match policy {
            MatchPolicy::Exact => Dict::new(),
            MatchPolicy::Prefix | MatchPolicy::Wildcard => Dict::new().with("match", policy.as_str()),
        };
        self.subscribe_with(topic, options).await
    }

    /// Subscribes with any options.
    ///
    /// # Errors
    ///
    /// See [`subscribe`](Self::subscribe).
    pub async fn subscribe_with(&mut self, topic: &str, options: Dict) -> Result<Id, Error> {
        let request = self.take_request();
        self.link.feed(Subscribe { request, options, topic: topic.to_owned() })?;
        match self.reply(request, MessageType::Subscribe).await? {
            Message::Subscribed(subscribed) => Ok(subscribed.subscription),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// Gives a subscription up.
    ///
    /// # Errors
    ///
    /// See [`subscribe`](Self::subscribe).
    pub async fn unsubscribe(&mut self, subscription: Id) -> Result<(), Error> {
        let request = self.take_request();
        self.link.feed(Unsubscribe { request, subscription, options: None })?;
        match self.reply(request, MessageType::Unsubscribe).await? {
            Message::Unsubscribed(_) => Ok(()),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// Publishes without an acknowledgement. It is written with the next [`flush`](Self::flush) or wait, or
    /// once enough is gathered. Gives the request.
    ///
    /// # Errors
    ///
    /// Those of the connection, and [`Error::Misuse`] for arguments in another format.
    pub async fn publish(&mut self, topic: &str, options: Dict, arguments: Arguments) -> Result<Id, Error> {
        let request = self.take_request();
        let content = Content::Arguments(arguments);
        let bytes = encode_publish(self.link.format, request, &options, topic, &content)?;
        self.link.feed_encoded(&bytes)?;
        self.write_gathered().await?;
        Ok(request)
    }

    /// Publishes and waits until the broker has taken it. Gives the publication.
    ///
    /// # Errors
    ///
    /// See [`subscribe`](Self::subscribe).
    pub async fn publish_acknowledged(
        &mut self,
        topic: &str,
        options: Dict,
        arguments: Arguments,
    ) -> Result<Id, Error> {
        let request = self.publish(topic, options.with("acknowledge", true), arguments).await?;
        match self.reply(request, MessageType::Publish).await? {
            Message::Published(published) => Ok(published.publication),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// Offers a procedure. Options choose how it is matched and invoked.
    ///
    /// # Errors
    ///
    /// See [`subscribe`](Self::subscribe).
    pub async fn register(&mut self, procedure: &str, options: Dict) -> Result<Id, Error> {
        let request = self.take_request();
        self.link.feed(Register { request, options, procedure: procedure.to_owned() })?;
        match self.reply(request, MessageType::Register).await? {
            Message::Registered(registered) => Ok(registered.registration),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// Withdraws a procedure.
    ///
    /// # Errors
    ///
    /// See [`subscribe`](Self::subscribe).
    pub async fn unregister(&mut self, registration: Id) -> Result<(), Error> {
        let request = self.take_request();
        self.link.feed(Unregister { request, registration, options: None })?;
        match self.reply(request, MessageType::Unregister).await? {
            Message::Unregistered(_) => Ok(()),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// Calls a procedure and waits for its result.
    ///
    /// # Errors
    ///
    /// See [`subscribe`](Self::subscribe); the callee's error is an [`Error::Reply`] too.
    pub async fn call(&mut self, procedure: &str, arguments: Arguments) -> Result<Outcome, Error> {
        self.call_with(procedure, Dict::new(), arguments).await
    }

    /// Calls with options. Progressive results are kept, to be taken with [`next_progress`](Self::next_progress);
    /// to take them as they come, use [`begin_call`](Self::begin_call).
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub async fn call_with(
        &mut self,
        procedure: &str,
        options: Dict,
        arguments: Arguments,
    ) -> Result<Outcome, Error> {
        let request = self.begin_call(procedure, options, arguments).await?;
        self.end_call(request).await
    }

    /// Calls, and does not wait: many calls can be open at once.
    ///
    /// # Errors
    ///
    /// See [`publish`](Self::publish).
    pub async fn begin_call(
        &mut self,
        procedure: &str,
        options: Dict,
        arguments: Arguments,
    ) -> Result<Id, Error> {
        let request = self.take_request();
        let content = Content::Arguments(arguments);
        let bytes = encode_call(self.link.format, request, &options, procedure, &content)?;
        self.link.feed_encoded(&bytes)?;
        self.write_gathered().await?;
        Ok(request)
    }

    /// Waits for the final result of a call.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub async fn end_call(&mut self, request: Id) -> Result<Outcome, Error> {
        match self.reply(request, MessageType::Call).await? {
            Message::CallResult(CallResult { details, payload, .. }) => Ok(Outcome { details, payload }),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// The next progressive result of a call, be it kept or yet to come. An end of the call is not taken here,
    /// and keeps this waiting.
    ///
    /// # Errors
    ///
    /// See [`next_event`](Self::next_event).
    pub async fn next_progress(&mut self, request: Id) -> Result<Outcome, Error> {
        let wanted = |message: &Message| is_progress(message) && message.request() == Some(request);
        match self.wait(wanted).await? {
            Message::CallResult(CallResult { details, payload, .. }) => Ok(Outcome { details, payload }),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// Gives a call up; what it comes to is still to be awaited.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn cancel(&mut self, request: Id, options: Dict) -> Result<(), Error> {
        self.link.send(Cancel { request, options }).await
    }

    /// Answers an invocation. Written like [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// See [`publish`](Self::publish).
    pub async fn yield_(&mut self, invocation: Id, options: Dict, arguments: Arguments) -> Result<(), Error> {
        let payload = Content::Arguments(arguments);
        self.link.feed(Yield { request: invocation, options, payload })?;
        self.write_gathered().await
    }

    /// Answers an invocation with an error. Written like [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// See [`publish`](Self::publish).
    pub async fn error(&mut self, invocation: Id, uri: &str, arguments: Arguments) -> Result<(), Error> {
        self.link.feed(message::Error {
            request_type: MessageType::Invocation,
            request: invocation,
            details: Dict::new(),
            error: uri.to_owned(),
            payload: Content::Arguments(arguments),
        })?;
        self.write_gathered().await
    }

    /// Writes all that waits.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.link.transport.flush().await
    }

    /// Sends any message now.
    ///
    /// # Errors
    ///
    /// See [`Link::send`].
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        self.link.send(message).await
    }

    /// The next message, whatever it is: what was kept comes first. Waits without a limit, and may be
    /// cancelled.
    ///
    /// # Errors
    ///
    /// See [`Link::receive`].
    pub async fn receive(&mut self) -> Result<Message, Error> {
        match self.queue.pop_front() {
            Some(message) => Ok(message),
            None => self.link.receive().await,
        }
    }

    /// The next event; other messages are kept. Waits without a limit, and may be cancelled.
    ///
    /// # Errors
    ///
    /// [`Error::Abort`], [`Error::Goodbye`], [`Error::QueueFull`], and those of [`Link::receive`].
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        match self.wait(|message| matches!(message, Message::Event(_))).await? {
            Message::Event(event) => Ok(event),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// The next invocation; other messages are kept. As [`next_event`](Self::next_event).
    ///
    /// # Errors
    ///
    /// See there.
    pub async fn next_invocation(&mut self) -> Result<Invocation, Error> {
        match self.wait(|message| matches!(message, Message::Invocation(_))).await? {
            Message::Invocation(invocation) => Ok(invocation),
            other => Err(Error::UnexpectedMessage(Box::new(other))),
        }
    }

    /// Leaves the realm, waits for the router's GOODBYE, and closes the connection. All else is dropped.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn leave(mut self) -> Result<(), Error> {
        self.link.send(Goodbye { details: Dict::new(), reason: CLOSE_NORMAL.to_owned() }).await?;
        let parting = async {
            while !matches!(self.link.receive().await?, Message::Goodbye(_)) {}
            Ok::<(), Error>(())
        };
        timeout(self.reply_timeout, parting).await.map_err(|_| Error::Timeout("GOODBYE"))??;
        self.link.transport.close().await?;
        Ok(())
    }

    /// The final answer to a request, where ERROR is an error.
    async fn reply(&mut self, request: Id, request_type: MessageType) -> Result<Message, Error> {
        let wanted = |message: &Message| match message {
            Message::Error(error) => error.request_type == request_type && error.request == request,
            _ => {
                is_reply(message, request_type) && message.request() == Some(request) && !is_progress(message)
            }
        };
        let limit = self.reply_timeout;
        let name = request_type.name();
        match timeout(limit, self.wait(wanted)).await.map_err(|_| Error::Timeout(name))?? {
            Message::Error(error) => Err(Error::Reply(Box::new(error))),
            reply => Ok(reply),
        }
    }

    /// The first message that is wanted; others are kept. May be cancelled: what is kept stays kept.
    async fn wait(&mut self, wanted: impl Fn(&Message) -> bool) -> Result<Message, Error> {
        if let Some(at) = self.queue.iter().position(&wanted)
            && let Some(message) = self.queue.remove(at)
        {
            return Ok(message);
        }
        loop {
            match self.link.receive().await? {
                message if wanted(&message) => return Ok(message),
                Message::Abort(abort) => return Err(Error::Abort(Box::new(abort))),
                Message::Goodbye(goodbye) => {
                    // It goes out with the next wait or flush; nothing depends on it.
                    let answer = Goodbye { details: Dict::new(), reason: GOODBYE_AND_OUT.to_owned() };
                    self.link.feed(answer)?;
                    return Err(Error::Goodbye(Box::new(goodbye)));
                }
                other if self.queue.len() < self.queued_max => self.queue.push_back(other),
                _ => return Err(Error::QueueFull),
            }
        }
    }

    async fn write_gathered(&mut self) -> Result<(), Error> {
        if self.link.transport.output_bytes() < GATHERED_BYTES {
            return Ok(());
        }
        self.flush().await
    }
}

/// Whether a message answers requests of this type.
fn is_reply(message: &Message, request_type: MessageType) -> bool {
    let answer = match request_type {
        MessageType::Subscribe => MessageType::Subscribed,
        MessageType::Unsubscribe => MessageType::Unsubscribed,
        MessageType::Publish => MessageType::Published,
        MessageType::Register => MessageType::Registered,
        MessageType::Unregister => MessageType::Unregistered,
        MessageType::Call => MessageType::CallResult,
        _ => return false,
    };
    message.message_type() == answer
}

fn is_progress(message: &Message) -> bool {
    matches!(message, Message::CallResult(result) if result.details.bool("progress") == Ok(Some(true)))
}

/// The details of HELLO; those given win.
fn hello(login: &Login, details: &Dict) -> Dict {
    let mut hello = Dict::new().with("agent", concat!("tandem-client/", env!("CARGO_PKG_VERSION")));
    let roles = [Role::Publisher, Role::Subscriber, Role::Caller, Role::Callee];
    let roles = roles.into_iter().fold(Roles::default(), |roles, role| roles.with(role, features(role)));
    hello.insert("roles", roles.to_dict());
    match login {
        Login::Anonymous => hello.insert("authmethods", vec!["anonymous"]),
        Login::Ticket { authid, .. } => {
            hello.insert("authmethods", vec!["ticket"]);
            hello.insert("authid", authid.as_str());
        }
    }
    for (key, value) in details.iter() {
        hello.insert(key, value.clone());
    }
    hello
}

/// What this client can do in a role, or leaves to its owner.
fn features(role: Role) -> &'static [Feature] {
    match role {
        Role::Publisher => &[
            Feature::SubscriberBlackwhiteListing,
            Feature::PublisherExclusion,
            Feature::PublisherIdentification,
            Feature::PayloadPassthruMode,
        ],
        Role::Subscriber => &[
            Feature::PatternBasedSubscription,
            Feature::PublisherIdentification,
            Feature::SubscriptionRevocation,
            Feature::EventRetention,
            Feature::PayloadPassthruMode,
        ],
        Role::Caller => &[
            Feature::CallCanceling,
            Feature::CallTimeout,
            Feature::CallerIdentification,
            Feature::ProgressiveCallResults,
            Feature::ProgressiveCallInvocations,
            Feature::PayloadPassthruMode,
        ],
        Role::Callee => &[
            Feature::CallCanceling,
            Feature::CallTimeout,
            Feature::CallerIdentification,
            Feature::PatternBasedRegistration,
            Feature::ProgressiveCallResults,
            Feature::ProgressiveCallInvocations,
            Feature::RegistrationRevocation,
            Feature::SharedRegistration,
            Feature::PayloadPassthruMode,
        ],
        Role::Broker | Role::Dealer => &[],
    }
}

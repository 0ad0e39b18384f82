//! One session: a wire on which the router has let the client in, and the requests that it has not answered.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use tandem_protocols::payload::{Content, Format};
use tandem_protocols::wamp::codec::{decode, encode, is_text};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{CLOSE_NORMAL, GOODBYE_AND_OUT, PAYLOAD_SIZE_EXCEEDED, Violation};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{
    Abort, Call, Cancel, Error as ErrorMessage, Goodbye, Hello, Message, MessageType, Publish, Register,
    Subscribe, Unregister, Unsubscribe, Welcome, Yield, nothing,
};
use tandem_protocols::wamp::options::{Feature, Role, Roles};

use crate::message::{Closed, Kind};
use crate::wamp::auth::{Auth, Login};
use crate::wamp::error::{ApplicationError, Error};
use crate::wamp::handle::{CallCommand, Permit, Reply, Token};
use crate::wamp::status::SessionInfo;
use crate::wamp::value::in_format;
use crate::wire::Wire;

/// While so much waits to be written, nothing more is taken from the handles, which then wait.
pub(super) const OUTPUT_BYTES_HIGH: usize = 64 * 1024;

/// How long the router may take to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a last message may take to be written.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// What a request waits for.
#[derive(Debug)]
#[allow(dead_code, reason = "permits are held, not looked at")]
pub(super) enum Pending {
    Call(Box<CallCommand>),
    Publish(Reply<Id>, Permit),
    Subscribe(Token, Option<Permit>),
    Unsubscribe(Option<Reply<()>>),
    Register(Token, Option<Permit>),
    Unregister(Option<Reply<()>>),
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    format: Format,
    /// Tells it from those before.
    pub(super) epoch: u64,
    next_request: Id,
    pending: HashMap<Id, Pending>,
    calls: HashMap<Token, Id>,
    /// What the router did, until it is told.
    violation: Option<&'static str>,
}

/// All that this client can do; every feature is announced.
fn roles() -> Roles {
    use Feature::*;

    Roles::default()
        .with(
            Role::Publisher,
            &[PublisherIdentification, PublisherExclusion, SubscriberBlackwhiteListing, PayloadPassthruMode],
        )
        .with(
            Role::Subscriber,
            &[
                PublisherIdentification,
                PublicationTrustlevels,
                PatternBasedSubscription,
                SubscriptionRevocation,
                EventHistory,
                EventRetention,
                PayloadPassthruMode,
            ],
        )
        .with(
            Role::Caller,
            &[
                CallerIdentification,
                ProgressiveCallResults,
                ProgressiveCallInvocations,
                CallTimeout,
                CallCanceling,
                PayloadPassthruMode,
            ],
        )
        .with(
            Role::Callee,
            &[
                CallerIdentification,
                CallTrustlevels,
                PatternBasedRegistration,
                SharedRegistration,
                RegistrationRevocation,
                ProgressiveCallResults,
                ProgressiveCallInvocations,
                CallTimeout,
                CallCanceling,
                PayloadPassthruMode,
            ],
        )
}

impl Session {
    /// Asks to be let into a realm.
    pub(super) async fn enter(
        wire: Wire,
        format: Format,
        epoch: u64,
        realm: &str,
        ways: &[Auth],
        agent: &str,
    ) -> Result<(Self, SessionInfo), Error> {
        let (pending, calls) = (HashMap::new(), HashMap::new());
        let mut session =
            Self { wire, format, epoch, next_request: Id::FIRST, pending, calls, violation: None };
        match session.log_in(realm, ways, agent).await {
            Ok(info) => Ok((session, info)),
            Err(error) => {
                session.complain().await;
                Err(error)
            }
        }
    }

    async fn log_in(&mut self, realm: &str, ways: &[Auth], agent: &str) -> Result<SessionInfo, Error> {
        let mut login = Login::new(ways, self.wire.channel_binding());
        let details = Dict::new().with("agent", agent).with("roles", roles().to_dict());
        self.feed(Hello { realm: realm.to_owned(), details: login.hello(details)? })?;
        loop {
            match self.next().await? {
                Message::Welcome(Welcome { session: id, details }) => {
                    login.welcomed(&details).inspect_err(|error| self.distrust(error))?;
                    let realm = details.str("realm").ok().flatten().unwrap_or(realm).to_owned();
                    return Ok(SessionInfo { id, realm, format: self.format, details });
                }
                Message::Challenge(challenge) => {
                    let answer = login.respond(challenge).await;
                    let answer = answer.inspect_err(|error| self.distrust(error))?;
                    self.feed(answer)?;
                }
                Message::Abort(abort) => return Err(Error::refused(abort.reason, &abort.details)),
                other => return Err(self.misplaced(&other)),
            }
        }
    }

    /// The router is not to be trusted, or wants what the client does not do.
    fn distrust(&mut self, error: &Error) {
        if let Error::Authentication(error) = error {
            self.violation = Some(error.uri());
        }
    }

    fn kind(&self) -> Kind {
        if is_text(self.format) { Kind::Text } else { Kind::Binary }
    }

    fn feed(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        let bytes = encode(self.format, &message.into())?;
        Ok(self.wire.feed(self.kind(), &bytes)?)
    }

    /// Writes what somebody here wants. What is wrong with it alone, that it is longer than the router takes above all,
    /// is given back, so that nobody else of the session is disturbed.
    fn offer(&mut self, message: impl Into<Message>) -> Result<Option<Error>, Error> {
        match self.feed(message) {
            Ok(()) => Ok(None),
            Err(error) if is_unwritable(&error) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// The same for a request, which is answered so.
    fn ask(&mut self, request: Id, message: impl Into<Message>) -> Result<(), Error> {
        let Some(error) = self.offer(message)? else { return Ok(()) };
        match self.take(request) {
            Some(Pending::Call(command)) => drop(command.reply.send(Err(error))),
            Some(Pending::Publish(reply, _)) => drop(reply.send(Err(error))),
            _ => tracing::warn!(%error, "dropped"),
        }
        Ok(())
    }

    /// The next message. Writes meanwhile; may be cancelled.
    pub(super) async fn next(&mut self) -> Result<Message, Error> {
        let Some(message) = self.wire.next().await? else {
            let closed = self.wire.closed().cloned().unwrap_or(Closed::Failed);
            return Err(crate::Error::Closed(closed).into());
        };
        if self.wire.has_kinds() && message.kind != self.kind() {
            return Err(crate::Error::WrongKind(message.kind).into());
        }
        Ok(decode(self.format, &message.bytes).map_err(|violation| self.violated(violation))?)
    }

    /// The next message, or nothing where there was no room for more output, and now is. May be cancelled.
    pub(super) async fn next_or_room(&mut self) -> Result<Option<Message>, Error> {
        let had_room = self.has_room();
        poll_fn(|cx| {
            let next = pin!(self.next()).poll(cx);
            match next {
                Poll::Ready(next) => Poll::Ready(next.map(Some)),
                Poll::Pending if !had_room && self.has_room() => Poll::Ready(Ok(None)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        Ok(self.wire.flush().await?)
    }

    /// Whether more may be asked of the router.
    pub(super) fn has_room(&self) -> bool {
        self.wire.output_bytes() < OUTPUT_BYTES_HIGH
    }

    pub(super) fn has_output(&self) -> bool {
        self.wire.output_bytes() > 0
    }

    fn take_request(&mut self) -> Id {
        let request = self.next_request;
        self.next_request = request.next();
        request
    }

    /// Makes a call. What cannot be written is told to the caller.
    pub(super) fn call(&mut self, mut command: Box<CallCommand>) -> Result<(), Error> {
        // Given up while it waited to be sent.
        if command.reply.is_closed() {
            return Ok(());
        }
        let payload = match in_format(command.payload.clone(), self.format) {
            Ok(payload) => payload,
            Err(error) => {
                let _ = command.reply.send(Err(error.into()));
                return Ok(());
            }
        };
        if !command.is_idempotent {
            command.payload = nothing();
        }
        let request = self.take_request();
        let (options, procedure) = (command.options.clone(), command.procedure.clone());
        self.calls.insert(command.token, request);
        self.pending.insert(request, Pending::Call(command));
        self.ask(request, Call { request, options, procedure, payload })
    }

    /// Sends more arguments of a call that has not ended.
    pub(super) fn chunk(&mut self, call: Token, payload: Content, is_last: bool) -> Result<(), Error> {
        let Some(request) = self.calls.get(&call).copied() else { return Ok(()) };
        let Some(Pending::Call(command)) = self.pending.get(&request) else { return Ok(()) };
        let payload = match in_format(payload, self.format) {
            Ok(payload) => payload,
            Err(error) => return self.break_off(call, error.into()),
        };
        let (mut options, procedure) = (command.options.clone(), command.procedure.clone());
        if is_last {
            options.remove("progress");
        }
        match self.offer(Call { request, options, procedure, payload })? {
            Some(error) => self.break_off(call, error),
            None => Ok(()),
        }
    }

    /// The arguments of a call are not what the caller meant them to be any more.
    fn break_off(&mut self, call: Token, error: Error) -> Result<(), Error> {
        let request = self.calls.get(&call).copied();
        if let Some(Pending::Call(command)) = request.and_then(|request| self.pending.remove(&request)) {
            let _ = command.reply.send(Err(error));
        }
        self.cancel(call)
    }

    /// Gives a call up, if it has not ended. What still comes of it is passed over.
    pub(super) fn cancel(&mut self, call: Token) -> Result<(), Error> {
        let Some(request) = self.calls.remove(&call) else { return Ok(()) };
        self.pending.remove(&request);
        self.feed(Cancel { request, options: Dict::new().with("mode", "killnowait") })
    }

    pub(super) fn publish(
        &mut self,
        topic: String,
        options: Dict,
        payload: Content,
        reply: Option<(Reply<Id>, Permit)>,
    ) -> Result<(), Error> {
        let payload = match in_format(payload, self.format) {
            Ok(payload) => payload,
            Err(error) => {
                match reply {
                    Some((reply, _)) => drop(reply.send(Err(error.into()))),
                    None => tracing::warn!(%error, topic, "publication dropped"),
                }
                return Ok(());
            }
        };
        let request = self.take_request();
        if let Some((reply, permit)) = reply {
            self.pending.insert(request, Pending::Publish(reply, permit));
        }
        self.ask(request, Publish { request, options, topic, payload })
    }

    /// Gives back why it cannot be asked for.
    pub(super) fn subscribe(
        &mut self,
        token: Token,
        topic: &str,
        options: Dict,
        permit: Option<Permit>,
    ) -> Result<Option<Error>, Error> {
        let request = self.take_request();
        let refused = self.offer(Subscribe { request, options, topic: topic.to_owned() })?;
        if refused.is_none() {
            self.pending.insert(request, Pending::Subscribe(token, permit));
        }
        Ok(refused)
    }

    pub(super) fn unsubscribe(&mut self, subscription: Id, reply: Option<Reply<()>>) -> Result<(), Error> {
        let request = self.take_request();
        self.pending.insert(request, Pending::Unsubscribe(reply));
        self.feed(Unsubscribe { request, subscription, options: None })
    }

    /// Gives back why it cannot be asked for.
    pub(super) fn register(
        &mut self,
        token: Token,
        procedure: &str,
        options: Dict,
        permit: Option<Permit>,
    ) -> Result<Option<Error>, Error> {
        let request = self.take_request();
        let refused = self.offer(Register { request, options, procedure: procedure.to_owned() })?;
        if refused.is_none() {
            self.pending.insert(request, Pending::Register(token, permit));
        }
        Ok(refused)
    }

    pub(super) fn unregister(&mut self, registration: Id, reply: Option<Reply<()>>) -> Result<(), Error> {
        let request = self.take_request();
        self.pending.insert(request, Pending::Unregister(reply));
        self.feed(Unregister { request, registration, options: None })
    }

    pub(super) fn progress(&mut self, invocation: Id, payload: Content) -> Result<(), Error> {
        let dropped = match in_format(payload, self.format) {
            Ok(payload) => {
                let options = Dict::new().with("progress", true);
                self.offer(Yield { request: invocation, options, payload })?
            }
            Err(error) => Some(error.into()),
        };
        if let Some(error) = dropped {
            tracing::warn!(%error, "partial result dropped");
        }
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        invocation: Id,
        answer: Result<Content, ApplicationError>,
    ) -> Result<(), Error> {
        let payload = answer.and_then(|payload| Ok(in_format(payload, self.format)?));
        let unwritable = match payload {
            Ok(payload) => self.offer(Yield { request: invocation, options: Dict::new(), payload })?,
            Err(error) => {
                let (uri, payload) = error.into_parts();
                let payload = in_format(payload, self.format).unwrap_or_else(|_| nothing());
                self.offer(failure(invocation, uri, payload))?
            }
        };
        let Some(error) = unwritable else { return Ok(()) };
        // The caller waits for an answer all the same.
        tracing::warn!(%error, "the answer of a handler cannot be sent");
        self.feed(failure(invocation, PAYLOAD_SIZE_EXCEEDED.to_owned(), nothing()))
    }

    /// Takes what a request has waited for. That of a call with a partial result stays.
    pub(super) fn take(&mut self, request: Id) -> Option<Pending> {
        let pending = self.pending.remove(&request)?;
        if let Pending::Call(command) = &pending {
            self.calls.remove(&command.token);
        }
        Some(pending)
    }

    /// The call that waits under this request.
    pub(super) fn call_of(&self, request: Id) -> Option<&CallCommand> {
        match self.pending.get(&request) {
            Some(Pending::Call(command)) => Some(command),
            _ => None,
        }
    }

    /// Everything that is not answered, and will not be, in the order in which it was asked.
    pub(super) fn unanswered(&mut self) -> Vec<Pending> {
        let mut unanswered: Vec<(Id, Pending)> = self.pending.drain().collect();
        unanswered.sort_unstable_by_key(|(request, _)| *request);
        self.calls.clear();
        unanswered.into_iter().map(|(_, pending)| pending).collect()
    }

    /// The router broke the language, and is to be told so.
    fn violated(&mut self, violation: Violation) -> crate::Error {
        self.violation = Some(violation.uri());
        violation.into()
    }

    /// Tells the router that a message had no place.
    pub(super) fn misplaced(&mut self, message: &Message) -> Error {
        let violation = Violation::new(format!("{} has no place here", message.name()));
        self.violated(violation).into()
    }

    /// Tells the router what it did, if it broke the language.
    pub(super) async fn complain(&mut self) {
        if let Some(uri) = self.violation.take() {
            self.abort(uri).await;
        }
    }

    async fn abort(&mut self, reason: &str) {
        let abort = Abort { details: Dict::new(), reason: reason.to_owned(), payload: nothing() };
        if self.feed(abort).is_ok() {
            let _ = timeout(LAST_WORD_TIMEOUT, self.flush()).await;
        }
    }

    /// Answers the router's GOODBYE.
    pub(super) async fn goodbye_and_out(&mut self) {
        let goodbye = Goodbye { details: Dict::new(), reason: GOODBYE_AND_OUT.to_owned() };
        if self.feed(goodbye).is_ok() {
            let _ = timeout(LAST_WORD_TIMEOUT, self.flush()).await;
        }
    }

    /// Ends the session in good order: all that was asked is written before, and the router's GOODBYE awaited.
    pub(super) async fn leave(mut self) {
        let parting = async {
            self.feed(Goodbye { details: Dict::new(), reason: CLOSE_NORMAL.to_owned() })?;
            while !matches!(self.next().await?, Message::Goodbye(_)) {}
            self.wire.close().await?;
            Ok::<(), Error>(())
        };
        match timeout(GOODBYE_TIMEOUT, parting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "no goodbye"),
            Err(_) => tracing::debug!("no goodbye in time"),
        }
    }
}

/// Whether a message cannot be written that would harm no other.
fn is_unwritable(error: &Error) -> bool {
    matches!(error, Error::Encode(_) | Error::Connection(crate::Error::RawSocket(_)))
}

fn failure(invocation: Id, error: String, payload: Content) -> ErrorMessage {
    let (request_type, details) = (MessageType::Invocation, Dict::new());
    ErrorMessage { request_type, request: invocation, details, error, payload }
}

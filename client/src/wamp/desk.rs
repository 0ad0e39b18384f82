//! What a client wants, whatever session it is in, and how that goes on in the one that there is.

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{self, Message};

use crate::buffer::Pushed;
use crate::wamp::error::{Error, is_final};
use crate::wamp::event::RawEvent;
use crate::wamp::handle::{CallCommand, Command, Forsaken, Reply, Token};
use crate::wamp::invocation::{InvocationKey, Said};
use crate::wamp::registrations::{Answer, Registrations};
use crate::wamp::session::{Pending, Session};
use crate::wamp::status::ClientEvent;
use crate::wamp::subscriptions::Subscriptions;
use crate::wamp::value::Raw;

/// How a session came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody wants it any more; whoever asked for it waits.
    Closed(Option<oneshot::Sender<()>>),
    /// Another one may be had.
    Lost(String),
    /// No other one may be had.
    Refused { uri: String, message: String },
}

impl Ended {
    fn by(reason: String, details: &Dict) -> Self {
        let message = details.str("message").ok().flatten().unwrap_or_default().to_owned();
        if is_final(&reason) { Self::Refused { uri: reason, message } } else { Self::Lost(reason) }
    }
}

/// Whatever goes wrong with a connection, another may be better.
impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Lost(error.to_string())
    }
}

/// What there was no room for.
#[derive(Debug)]
enum Stuck {
    Event(Token, RawEvent),
    Partial(Id, Raw),
}

/// What was made again in a new session, and what is on its way.
#[derive(Debug, Default)]
struct Restoring {
    left: HashSet<Token>,
    subscriptions: usize,
    registrations: usize,
    refused: usize,
}

/// What came of something that is made again.
#[derive(Clone, Copy, Debug)]
enum Restored {
    Subscription,
    Registration,
    Refused,
}

/// All that a client wants.
pub(super) struct Desk {
    subscriptions: Subscriptions,
    registrations: Registrations,
    /// While there is any, nothing more is read.
    stuck: VecDeque<Stuck>,
    /// Calls that are to be made again.
    resend: VecDeque<CallCommand>,
    restoring: Option<Restoring>,
    /// For the watchers.
    news: Vec<ClientEvent>,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            subscriptions: Subscriptions::default(),
            registrations: Registrations::new(),
            stuck: VecDeque::new(),
            resend: VecDeque::new(),
            restoring: None,
            news: Vec::new(),
        }
    }

    /// What is to be told.
    pub(super) fn take_news(&mut self) -> Vec<ClientEvent> {
        std::mem::take(&mut self.news)
    }

    /// What the router or a handler does next. Writes meanwhile; may be cancelled.
    pub(super) async fn next(&mut self, session: &mut Session) -> Result<Next, Ended> {
        let has_room = session.has_room();
        let Self { subscriptions, registrations, stuck, .. } = self;
        tokio::select! {
            heard = hear(session, stuck, subscriptions) => Ok(heard?.map_or(Next::Nothing, Next::Message)),
            said = registrations.next(has_room) => Ok(said.map_or(Next::Nothing, Next::Said)),
        }
    }

    /// Waits for what handlers say while there is no session: nobody hears it.
    pub(super) async fn idle(&mut self) {
        if let Some((key, Said::Answer(_))) = self.registrations.next(true).await {
            self.registrations.answered(key);
        }
    }

    pub(super) async fn proceed(&mut self, session: &mut Session, next: Next) -> Result<(), Ended> {
        match next {
            Next::Nothing => Ok(()),
            Next::Said((key, said)) => self.say(session, key, said),
            Next::Message(message) => self.receive(session, message).await,
        }
    }

    async fn receive(&mut self, session: &mut Session, message: Message) -> Result<(), Ended> {
        match message {
            Message::Event(event) => {
                let stuck = self.subscriptions.deliver(event);
                self.stuck.extend(stuck.into_iter().map(|(token, event)| Stuck::Event(token, event)));
            }
            Message::CallResult(result) => self.result(session, result),
            Message::Invocation(invocation) => {
                let answer = self.registrations.invoke(session.epoch, invocation);
                self.refuse(session, answer)?;
            }
            Message::Interrupt(interrupt) => {
                let answer = self.registrations.interrupt(session.epoch, interrupt.request);
                self.refuse(session, answer)?;
            }
            Message::Error(error) => self.failed(session, error)?,
            Message::Published(published) => {
                if let Some(Pending::Publish(reply, _)) = session.take(published.request) {
                    let _ = reply.send(Ok(published.publication));
                }
            }
            Message::Subscribed(subscribed) => {
                if let Some(Pending::Subscribe(token, _)) = session.take(subscribed.request) {
                    let unwanted = self.subscriptions.subscribed(token, subscribed.subscription);
                    unwanted.map_or(Ok(()), |subscription| session.unsubscribe(subscription, None))?;
                    self.restored(token, Restored::Subscription);
                }
            }
            Message::Registered(registered) => {
                if let Some(Pending::Register(token, _)) = session.take(registered.request) {
                    let unwanted = self.registrations.registered(token, registered.registration);
                    unwanted.map_or(Ok(()), |registration| session.unregister(registration, None))?;
                    self.restored(token, Restored::Registration);
                }
            }
            Message::Unsubscribed(message::Unsubscribed { request: Some(request), .. })
            | Message::Unregistered(message::Unregistered { request: Some(request), .. }) => {
                if let Some(Pending::Unsubscribe(Some(reply)) | Pending::Unregister(Some(reply))) =
                    session.take(request)
                {
                    let _ = reply.send(Ok(()));
                }
            }
            Message::Unsubscribed(message::Unsubscribed { request: None, details }) => {
                if let Some((subscription, reason)) = revoked(details.as_ref(), "subscription") {
                    self.subscriptions.revoked(subscription, reason);
                }
            }
            Message::Unregistered(message::Unregistered { request: None, details }) => {
                if let Some((registration, reason)) = revoked(details.as_ref(), "registration") {
                    for answer in self.registrations.revoked(registration, reason) {
                        self.refuse(session, Some(answer))?;
                    }
                }
            }
            Message::Goodbye(goodbye) => {
                session.goodbye_and_out().await;
                return Err(Ended::by(goodbye.reason, &goodbye.details));
            }
            Message::Abort(abort) => return Err(Ended::by(abort.reason, &abort.details)),
            other => return Err(session.misplaced(&other).into()),
        }
        Ok(())
    }

    fn result(&mut self, session: &mut Session, result: message::CallResult) {
        let message::CallResult { request, details, payload } = result;
        let is_partial = details.bool("progress").ok().flatten() == Some(true);
        let raw = Raw { details, payload };
        if is_partial {
            if let Some(raw) = push_partial(session, request, raw) {
                self.stuck.push_back(Stuck::Partial(request, raw));
            }
        } else if let Some(Pending::Call(command)) = session.take(request) {
            // In this order: where the stream of partial results ends, the final one is there.
            let _ = command.reply.send(Ok(raw));
            drop(command.partials);
        }
    }

    /// The router answered a request with ERROR.
    fn failed(&mut self, session: &mut Session, error: message::Error) -> Result<(), Ended> {
        let Some(pending) = session.take(error.request) else { return Ok(()) };
        let error = Error::reply(error);
        match pending {
            Pending::Call(command) => {
                let _ = command.reply.send(Err(error));
                drop(command.partials);
            }
            Pending::Publish(reply, _) => drop(reply.send(Err(error))),
            Pending::Subscribe(token, _) => {
                let unwanted = self.subscriptions.refused(token, error);
                unwanted.map_or(Ok(()), |subscription| session.unsubscribe(subscription, None))?;
                self.restored(token, Restored::Refused);
            }
            Pending::Register(token, _) => {
                self.registrations.refused(token, error);
                self.restored(token, Restored::Refused);
            }
            Pending::Unsubscribe(Some(reply)) | Pending::Unregister(Some(reply)) => {
                let _ = reply.send(Err(error));
            }
            Pending::Unsubscribe(None) | Pending::Unregister(None) => {}
        }
        Ok(())
    }

    /// Does what a handle wants.
    pub(super) fn obey(&mut self, session: &mut Session, command: Command) -> Result<(), Ended> {
        match command {
            Command::Call(command) => session.call(command)?,
            Command::Chunk { call, payload, is_last } => session.chunk(call, payload, is_last)?,
            Command::Publish { topic, options, payload, reply } => {
                session.publish(topic, options, payload, reply)?;
            }
            Command::Subscribe(command) if command.reply.is_closed() => {}
            Command::Subscribe(command) => {
                let (token, topic, options, permit) = self.subscriptions.add(*command);
                if let Some(error) = session.subscribe(token, &topic, options, Some(permit))? {
                    self.subscriptions.refused(token, error);
                }
            }
            Command::Unsubscribe(token, reply) => match self.subscriptions.remove(token) {
                Some(subscription) => session.unsubscribe(subscription, Some(reply))?,
                None => drop(reply.send(Ok(()))),
            },
            Command::Register(command) if command.reply.is_closed() => {}
            Command::Register(command) => {
                let (token, procedure, options, permit) = self.registrations.add(*command);
                if let Some(error) = session.register(token, &procedure, options, Some(permit))? {
                    self.registrations.refused(token, error);
                }
            }
            Command::Unregister(token, reply) => self.unregister(session, token, Some(reply))?,
            Command::Close(reply) => return Err(Ended::Closed(Some(reply))),
        }
        Ok(())
    }

    fn unregister(
        &mut self,
        session: &mut Session,
        token: Token,
        reply: Option<Reply<()>>,
    ) -> Result<(), Ended> {
        let (registration, answers) = self.registrations.remove(token);
        for answer in answers {
            self.refuse(session, Some(answer))?;
        }
        match (registration, reply) {
            (Some(registration), reply) => session.unregister(registration, reply)?,
            (None, Some(reply)) => drop(reply.send(Ok(()))),
            (None, None) => {}
        }
        Ok(())
    }

    /// Does what follows from handles that were dropped.
    pub(super) fn settle(&mut self, session: &mut Session, forsaken: Vec<Forsaken>) -> Result<(), Ended> {
        for forsaken in forsaken {
            match forsaken {
                Forsaken::Call(token) => session.cancel(token)?,
                Forsaken::Subscription(token) => {
                    if let Some(subscription) = self.subscriptions.remove(token) {
                        session.unsubscribe(subscription, None)?;
                    }
                }
                Forsaken::Registration(token) => self.unregister(session, token, None)?,
            }
        }
        Ok(())
    }

    /// The same where there is no session.
    pub(super) fn settle_alone(&mut self, forsaken: Vec<Forsaken>) {
        for forsaken in forsaken {
            match forsaken {
                Forsaken::Call(token) => self.resend.retain(|command| command.token != token),
                Forsaken::Subscription(token) => self.subscriptions.forget_wish(token),
                Forsaken::Registration(token) => self.registrations.forget_wish(token),
            }
        }
    }

    /// Answers what a handle wants where there is no session. Nobody waits here: who waits for a connection does so
    /// before.
    pub(super) fn decline(&mut self, command: Command) -> Result<(), Ended> {
        match command {
            Command::Call(command) => self.keep_or_fail(*command),
            Command::Publish { reply: Some((reply, _)), .. } => drop(reply.send(Err(Error::ConnectionLost))),
            Command::Publish { reply: None, topic, .. } => {
                tracing::debug!(topic, "publication lost with its connection");
            }
            Command::Subscribe(command) => drop(command.reply.send(Err(Error::ConnectionLost))),
            Command::Register(command) => drop(command.reply.send(Err(Error::ConnectionLost))),
            Command::Unsubscribe(token, reply) => {
                self.subscriptions.forget_wish(token);
                let _ = reply.send(Ok(()));
            }
            Command::Unregister(token, reply) => {
                self.registrations.forget_wish(token);
                let _ = reply.send(Ok(()));
            }
            Command::Chunk { .. } => {}
            Command::Close(reply) => return Err(Ended::Closed(Some(reply))),
        }
        Ok(())
    }

    fn keep_or_fail(&mut self, command: CallCommand) {
        if command.is_idempotent && command.partials.is_none() {
            self.resend.push_back(command);
        } else {
            let _ = command.reply.send(Err(Error::ConnectionLost));
        }
    }

    /// The session is gone, and with it what it had not answered.
    pub(super) fn lost(&mut self, session: &mut Session) {
        self.stuck.clear();
        self.restoring = None;
        // Those that had not had their turn yet come after those that had.
        let waiting = std::mem::take(&mut self.resend);
        for pending in session.unanswered() {
            match pending {
                Pending::Call(command) => self.keep_or_fail(*command),
                Pending::Publish(reply, _) => drop(reply.send(Err(Error::ConnectionLost))),
                // What was to be given up is gone.
                Pending::Unsubscribe(Some(reply)) | Pending::Unregister(Some(reply)) => {
                    let _ = reply.send(Ok(()));
                }
                Pending::Subscribe(..)
                | Pending::Register(..)
                | Pending::Unsubscribe(None)
                | Pending::Unregister(None) => {}
            }
        }
        self.resend.extend(waiting);
        self.subscriptions.lost();
        self.registrations.lost();
    }

    /// Makes calls again, as far as there is room.
    pub(super) fn resend(&mut self, session: &mut Session) -> Result<(), Ended> {
        while session.has_room() {
            let Some(command) = self.resend.pop_front() else { break };
            session.call(Box::new(command))?;
        }
        Ok(())
    }

    /// Makes everything again in a new session.
    pub(super) fn restore(&mut self, session: &mut Session) -> Result<(), Ended> {
        let mut restoring = Restoring::default();
        for (token, topic, options) in self.subscriptions.wishes() {
            match session.subscribe(token, &topic, options, None)? {
                None => drop(restoring.left.insert(token)),
                Some(error) => {
                    self.subscriptions.refused(token, error);
                    restoring.refused += 1;
                }
            }
        }
        for (token, procedure, options) in self.registrations.wishes() {
            match session.register(token, &procedure, options, None)? {
                None => drop(restoring.left.insert(token)),
                Some(error) => {
                    self.registrations.refused(token, error);
                    restoring.refused += 1;
                }
            }
        }
        self.restoring = Some(restoring);
        self.tell_restored();
        self.resend(session)
    }

    fn restored(&mut self, token: Token, restored: Restored) {
        let Some(restoring) = &mut self.restoring else { return };
        if !restoring.left.remove(&token) {
            return;
        }
        match restored {
            Restored::Subscription => restoring.subscriptions += 1,
            Restored::Registration => restoring.registrations += 1,
            Restored::Refused => restoring.refused += 1,
        }
        self.tell_restored();
    }

    fn tell_restored(&mut self) {
        let Some(Restoring { subscriptions, registrations, refused, .. }) =
            self.restoring.take_if(|restoring| restoring.left.is_empty())
        else {
            return;
        };
        self.news.push(ClientEvent::Resubscribed { subscriptions, registrations, refused });
    }

    /// Passes on what a handler says, if it is of this session and not answered.
    fn say(&mut self, session: &mut Session, key: InvocationKey, said: Said) -> Result<(), Ended> {
        let is_of_this = key.epoch == session.epoch;
        match said {
            Said::Part(part) if is_of_this && self.registrations.is_open(key) => {
                session.progress(key.request, part)?;
            }
            Said::Part(_) => {}
            Said::Answer(answer) => {
                if self.registrations.answered(key) && is_of_this {
                    session.answer(key.request, answer)?;
                }
            }
        }
        Ok(())
    }

    /// Answers an invocation whose handler was not run.
    fn refuse(&mut self, session: &mut Session, answer: Option<Answer>) -> Result<(), Ended> {
        match answer {
            Some((key, error)) => Ok(session.answer(key.request, Err(error))?),
            None => Ok(()),
        }
    }

    /// Answers what must be answered before a session ends.
    pub(super) async fn part(&mut self, session: &mut Session) {
        for (key, error) in self.registrations.abandon().await {
            if key.epoch == session.epoch && session.answer(key.request, Err(error)).is_err() {
                return;
            }
        }
    }

    /// There will be no other session.
    pub(super) fn end(&mut self, why: impl Fn() -> Option<Error>) {
        for command in std::mem::take(&mut self.resend) {
            let _ = command.reply.send(Err(why().unwrap_or(Error::Closed)));
        }
        self.subscriptions.end(&why);
        self.registrations.end(&why);
    }
}

/// What happens next in a session.
#[derive(Debug)]
pub(super) enum Next {
    Nothing,
    Message(Message),
    Said((InvocationKey, Said)),
}

/// The next message, or nothing while something is stuck.
async fn hear(
    session: &mut Session,
    stuck: &mut VecDeque<Stuck>,
    subscriptions: &Subscriptions,
) -> Result<Option<Message>, Error> {
    if stuck.is_empty() {
        return session.next_or_room().await;
    }
    let had_room = session.has_room();
    poll_fn(|cx| {
        if session.has_output()
            && let Poll::Ready(Err(error)) = pin!(session.flush()).poll(cx)
        {
            return Poll::Ready(Err(error));
        }
        if !had_room && session.has_room() {
            return Poll::Ready(Ok(()));
        }
        poll_stuck(session, stuck, subscriptions, cx).map(Ok)
    })
    .await?;
    Ok(None)
}

fn poll_stuck(
    session: &Session,
    stuck: &mut VecDeque<Stuck>,
    subscriptions: &Subscriptions,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while let Some(next) = stuck.pop_front() {
        let (again, room) = match next {
            Stuck::Event(token, event) => {
                let Some(event) = subscriptions.push(token, event) else { continue };
                (Stuck::Event(token, event), subscriptions.poll_room(token, cx))
            }
            Stuck::Partial(request, raw) => {
                let Some(raw) = push_partial(session, request, raw) else { continue };
                let partials = session.call_of(request).and_then(|call| call.partials.as_ref());
                (
                    Stuck::Partial(request, raw),
                    partials.map_or(Poll::Ready(()), |partials| partials.poll_room(cx)),
                )
            }
        };
        stuck.push_front(again);
        if room.is_pending() {
            return Poll::Pending;
        }
    }
    Poll::Ready(())
}

/// Gives the partial result back where there is no room.
fn push_partial(session: &Session, request: Id, raw: Raw) -> Option<Raw> {
    match session.call_of(request)?.partials.as_ref()?.push(raw) {
        Pushed::Full(raw) => Some(raw),
        Pushed::Done | Pushed::Closed(_) => None,
    }
}

fn revoked<'a>(details: Option<&'a Dict>, key: &str) -> Option<(Id, &'a str)> {
    let details = details?;
    let reason = details.str("reason").ok().flatten().unwrap_or_default();
    Some((details.id(key).ok().flatten()?, reason))
}

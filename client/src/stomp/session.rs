//! The task that keeps a client's connection: it alone reads, writes and connects again.
//!
//! Nothing here waits for one thing only. While a subscription that is to lose nothing is full, nothing is read, but
//! what waits is written and heart-beats go on.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tandem_protocols::stomp::frame::{Command, Frame, Headers};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::error::Error;
use crate::event::ClientEvent;
use crate::message::Closed;
use crate::stomp::dial::Dial;
use crate::stomp::link::{Hello, Link};
use crate::stomp::outbox::{End, Greeting, Outbox, REPLY_TO, Reply, Request};
use crate::stomp::receipts::{Owed, Receipts};
use crate::stomp::settlement::Returns;
use crate::stomp::subscriptions::{Connection, Stuck, Subscriptions};

/// How long the end in good order may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many calls may be unanswered.
const CALLS_MAX: usize = 4096;

/// What an ERROR in answer to CONNECT says that has nothing to do with the login: Tandem's words, and ActiveMQ's for
/// a `client-id` whose lost connection it has not noticed yet.
const PASSING: [&str; 4] =
    ["broker is shutting down", "Limit reached", "Connection failed", "already connected"];

/// A connection that lived shorter than this counts as an attempt that failed.
const SETTLED: Duration = Duration::from_secs(5);

/// How to connect, each time.
pub(super) struct Plan {
    pub dial: Box<dyn Dial>,
    pub hello: Hello,
    pub backoff: Backoff,
    /// How long one attempt may take.
    pub timeout: Duration,
}

impl Plan {
    /// Connects once.
    pub(super) async fn connect(&self) -> Result<Link, Error> {
        let opening = Link::open(&*self.dial, &self.hello);
        timeout(self.timeout, opening).await.map_err(|_| Error::Timeout("connection"))?
    }
}

/// Whether trying again would be no better: the login was refused.
pub(super) fn is_final(error: &Error) -> bool {
    match error {
        Error::StompError(frame) => {
            let said = frame.headers.get("message").unwrap_or_default();
            !PASSING.iter().any(|passing| said.contains(passing))
        }
        Error::Refused { status, .. } => matches!(status, 401 | 403),
        _ => false,
    }
}

/// What there is of a client between the connections, too.
pub(super) struct Session {
    plan: Plan,
    outbox: Arc<Outbox>,
    subscriptions: Subscriptions,
    /// Calls that were sent and not answered.
    calls: HashMap<u64, Reply<Frame>>,
    /// Of this connection.
    receipts: Receipts,
    epoch: u64,
    stuck: Option<Stuck>,
    leaving: Leaving,
}

/// How far the end in good order is.
#[derive(Debug, Default)]
struct Leaving {
    replies: Vec<Reply>,
    until: Option<Instant>,
}

/// Why a connection is no longer driven.
enum Parting {
    /// All in order: the server has said that it got everything.
    Left,
    /// We wanted to leave, and the server did not answer in time.
    Late,
}

impl Session {
    /// With the first connection.
    pub(super) fn new(plan: Plan, outbox: Arc<Outbox>, link: &Link) -> Session {
        outbox.greet(greeting(link));
        Session {
            plan,
            outbox,
            subscriptions: Subscriptions::default(),
            calls: HashMap::new(),
            receipts: Receipts::default(),
            epoch: 0,
            stuck: None,
            leaving: Leaving::default(),
        }
    }

    /// Keeps the connection until the last handle is dropped or the client gives up.
    pub(super) async fn run(mut self, mut link: Link) {
        let mut failed = 0;
        let mut is_first = true;
        loop {
            let since = Instant::now();
            let parting = match self.resume(&mut link, is_first) {
                Ok(()) => self.drive(&mut link, is_first).await,
                Err(error) => Err(error),
            };
            is_first = false;
            let error = match parting {
                Ok(parting) => return self.part(link, parting).await,
                // RabbitMQ closes a WebSocket in good order, and forgets the RECEIPT.
                Err(Error::Closed(Closed::Frame { code: Some(1000), .. }))
                    if self.leaving.until.is_some() =>
                {
                    return self.part(link, Parting::Left).await;
                }
                Err(error) => error,
            };
            drop(link);
            self.lose();
            if self.outbox.is_left() {
                return self.end(End::Disconnected);
            }
            tracing::debug!(%error, "the connection was lost");
            failed = if since.elapsed() < SETTLED { failed + 1 } else { 1 };
            let error = Arc::new(error);
            self.outbox.tell(&ClientEvent::Lost(error.clone()));
            match self.reconnect(&mut failed, error).await {
                Some(again) => link = again,
                None => return,
            }
        }
    }

    /// A connection is there: what was subscribed to before is subscribed to again.
    fn resume(&mut self, link: &mut Link, is_first: bool) -> Result<(), Error> {
        self.outbox.greet(greeting(link));
        self.epoch = self.outbox.begin();
        if !is_first {
            self.outbox.tell(&ClientEvent::Connected);
        }
        for (id, frame) in self.subscriptions.renew(&self.connection(link)) {
            link.feed(&self.receipts.ask(frame, Owed::Subscribe(id)))?;
        }
        if !is_first && !self.receipts.has_subscribes() {
            self.outbox.tell(&ClientEvent::Resubscribed);
        }
        Ok(())
    }

    async fn drive(&mut self, link: &mut Link, is_first: bool) -> Result<Parting, Error> {
        let mut is_resuming = !is_first && self.receipts.has_subscribes();
        loop {
            self.take_requests(link)?;
            link.tick()?;
            if self.leaving.until.is_some_and(|until| until <= Instant::now()) {
                return Ok(Parting::Late);
            }
            let deadline = [link.deadline().map(Instant::from_std), self.leaving.until];
            let deadline = deadline.into_iter().flatten().min();
            let takes = !link.is_full() && !self.receipts.is_full();
            tokio::select! {
                moved = progress(link, self.stuck.as_ref(), &self.subscriptions) => match moved? {
                    Moved::Frame(frame) => {
                        if self.receive(frame, link)? {
                            return Ok(Parting::Left);
                        }
                    }
                    Moved::Room => self.retry(link),
                    Moved::Written => {}
                },
                () = self.outbox.came(), if takes => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
            if is_resuming && !self.receipts.has_subscribes() {
                is_resuming = false;
                self.outbox.tell(&ClientEvent::Resubscribed);
            }
        }
    }

    /// Feeds what was asked for, as much as there is room for; when nothing is left of it, says goodbye if that is
    /// wanted.
    fn take_requests(&mut self, link: &mut Link) -> Result<(), Error> {
        while !link.is_full() && !self.receipts.is_full() && self.leaving.until.is_none() {
            match self.outbox.next() {
                Some(request) => self.take(request, link)?,
                None if self.outbox.is_left() => {
                    let goodbye = Frame::new(Command::Disconnect);
                    link.feed(&self.receipts.ask(goodbye, Owed::Disconnect))?;
                    self.leaving.until = Some(Instant::now() + LEAVE_TIMEOUT);
                    // Nobody has to make room for what comes before the goodbye.
                    self.stuck = None;
                    link.set_reading(true);
                }
                None => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, request: Request, link: &mut Link) -> Result<(), Error> {
        match request {
            Request::Frame { epoch: Some(epoch), reply, .. } if epoch != self.epoch => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(Error::ConnectionLost));
                }
                Ok(())
            }
            Request::Frame { frame, reply: None, .. } => link.feed(&frame),
            Request::Frame { frame, reply: Some(reply), .. } => {
                link.feed(&self.receipts.ask(frame, Owed::Reply(reply)))
            }
            Request::Begin { frame, reply } => {
                // Whoever waited has gone: so does the transaction, before it is there.
                if reply.send(Ok(self.epoch)).is_err() {
                    return Ok(());
                }
                link.feed(&frame)
            }
            Request::Subscribe { terms, sender, reply } => {
                let (id, frame) = (terms.id.clone(), terms.frame.clone());
                if !self.subscriptions.add(terms, sender, reply, &self.connection(link)) {
                    return Ok(());
                }
                link.feed(&self.receipts.ask(frame, Owed::Subscribe(id)))
            }
            Request::Unsubscribe { id, headers, reply } => self.unsubscribe(id, &headers, reply, link),
            // Given up while it waited to be sent.
            Request::Call { reply, .. } if reply.is_closed() => Ok(()),
            Request::Call { reply, .. } if self.calls.len() >= CALLS_MAX => {
                let _ = reply.send(Err(Error::Unsupported("more unanswered calls than a session may have")));
                Ok(())
            }
            Request::Call { frame, number, reply } => {
                self.calls.insert(number, reply);
                link.feed(&frame)
            }
            Request::Forget { number } => {
                self.calls.remove(&number);
                Ok(())
            }
            Request::Disconnect { reply } => {
                self.leaving.replies.push(reply);
                Ok(())
            }
        }
    }

    fn connection(&self, link: &Link) -> Connection {
        let returns = Returns::to(link.connected().get("server"));
        Connection { version: link.version(), returns, epoch: self.epoch }
    }

    fn unsubscribe(
        &mut self,
        id: String,
        headers: &Headers,
        reply: Option<Reply>,
        link: &mut Link,
    ) -> Result<(), Error> {
        let Some(owed) = self.subscriptions.leave(&id) else {
            // It has ended already.
            if let Some(reply) = reply {
                let _ = reply.send(Ok(()));
            }
            return Ok(());
        };
        if let Some(nack) = owed {
            link.feed(&nack)?;
        }
        let mut frame = Frame::new(Command::Unsubscribe).with("id", &id);
        if !headers.is_empty() && Returns::to(link.connected().get("server")) == Returns::Final {
            // ActiveMQ ends no durable subscription that somebody uses.
            link.feed(&frame)?;
        }
        for (name, value) in headers.iter() {
            frame.headers.push(name, value);
        }
        link.feed(&self.receipts.ask(frame, Owed::Unsubscribe(id, reply)))
    }

    /// Takes what the server says, and tells whether that was its goodbye.
    fn receive(&mut self, frame: Frame, link: &mut Link) -> Result<bool, Error> {
        match frame.command {
            Command::Message if self.leaving.until.is_some() => Ok(false),
            Command::Message => {
                if let Some(frame) = self.answer(frame) {
                    self.stuck = self.subscriptions.deliver(frame, &self.outbox);
                    link.set_reading(self.stuck.is_none());
                }
                Ok(false)
            }
            Command::Receipt => {
                match frame.headers.get("receipt-id").and_then(|id| self.receipts.take(id)) {
                    Some(Owed::Reply(reply)) => drop(reply.send(Ok(()))),
                    Some(Owed::Subscribe(id)) => self.subscriptions.confirm(&id),
                    Some(Owed::Unsubscribe(id, reply)) => {
                        self.subscriptions.remove(&id);
                        if let Some(reply) = reply {
                            let _ = reply.send(Ok(()));
                        }
                    }
                    Some(Owed::Disconnect) => return Ok(true),
                    None => tracing::debug!(?frame, "a receipt that nobody asked for"),
                }
                Ok(false)
            }
            Command::Error => Err(self.blame(frame)),
            _ => Err(Error::UnexpectedFrame(Box::new(frame))),
        }
    }

    /// A message that answers a call goes to the caller; any other is given back.
    fn answer(&mut self, frame: Frame) -> Option<Frame> {
        if self.calls.is_empty() {
            return Some(frame);
        }
        let is_answer = frame.headers.get("subscription") == Some(REPLY_TO);
        let number = frame.headers.get("correlation-id").and_then(|id| id.parse().ok());
        let Some(reply) = number.filter(|_| is_answer).and_then(|number: u64| self.calls.remove(&number))
        else {
            return Some(frame);
        };
        let is_error = frame.headers.get("error").is_some();
        let answer = if is_error { Err(Error::StompReply(Box::new(frame))) } else { Ok(frame) };
        let _ = reply.send(answer);
        None
    }

    /// Who is at fault for an ERROR is told so, as far as the server says who it is. Not all servers do: as one of
    /// them would otherwise end every connection, a SUBSCRIBE that was not answered is then to blame.
    fn blame(&mut self, frame: Frame) -> Error {
        let named = frame.headers.get("receipt-id").map(|id| self.receipts.take(id));
        let error = || Error::StompError(Box::new(frame.clone()));
        match named.unwrap_or_else(|| self.receipts.take_subscribe()) {
            Some(Owed::Reply(reply)) | Some(Owed::Unsubscribe(_, Some(reply))) => {
                let _ = reply.send(Err(error()));
            }
            Some(Owed::Subscribe(id)) => self.subscriptions.refuse(&id, error()),
            Some(Owed::Unsubscribe(_, None) | Owed::Disconnect) | None => {}
        }
        error()
    }

    fn retry(&mut self, link: &mut Link) {
        self.stuck = self.stuck.take().and_then(|stuck| self.subscriptions.push(stuck));
        if self.stuck.is_none() {
            link.set_reading(true);
        }
    }

    /// What was asked for on the connection and not answered is answered now: nobody knows.
    fn lose(&mut self) {
        self.outbox.lose();
        self.stuck = None;
        self.receipts.lose();
        self.subscriptions.lose();
        for (_, reply) in self.calls.drain() {
            let _ = reply.send(Err(Error::ConnectionLost));
        }
    }

    /// The next connection; `None` where there is to be none, and then all is told.
    async fn reconnect(&mut self, failed: &mut u32, why: Arc<Error>) -> Option<Link> {
        let mut why = why;
        loop {
            let Some(delay) = self.plan.backoff.delay(*failed, rand::random()) else {
                self.give_up(why);
                return None;
            };
            let attempt = async {
                sleep(delay).await;
                self.plan.connect().await
            };
            let connected = tokio::select! {
                connected = attempt => connected,
                () = self.outbox.left() => {
                    self.end(End::Disconnected);
                    return None;
                }
            };
            match connected {
                Ok(link) => return Some(link),
                Err(error) => {
                    *failed += 1;
                    tracing::debug!(%error, attempts = *failed, "no connection yet");
                    let is_final = is_final(&error);
                    why = Arc::new(error);
                    if is_final {
                        self.give_up(why);
                        return None;
                    }
                }
            }
        }
    }

    fn give_up(&mut self, why: Arc<Error>) {
        tracing::warn!(%why, "the client gives up");
        self.outbox.tell(&ClientEvent::GaveUp(why.clone()));
        self.end(End::GaveUp(why));
    }

    async fn part(mut self, mut link: Link, parting: Parting) {
        let replies = std::mem::take(&mut self.leaving.replies);
        self.outbox.lose();
        let said = match parting {
            Parting::Left => {
                // The server may close first, or not at all: all that was to be said is.
                let _ = link.close().await;
                true
            }
            Parting::Late => false,
        };
        for reply in replies {
            let _ = reply.send(if said { Ok(()) } else { Err(Error::Timeout("RECEIPT of DISCONNECT")) });
        }
        self.end(End::Disconnected);
    }

    fn end(&mut self, end: End) {
        self.lose();
        let mut replies = std::mem::take(&mut self.leaving.replies);
        for request in self.outbox.end(end.clone()) {
            // Whoever waits for anything else is told by its being dropped.
            if let Request::Disconnect { reply } = request {
                replies.push(reply);
            }
        }
        for reply in replies {
            let why = match &end {
                // Nobody knows what the server got.
                End::Disconnected => Error::ConnectionLost,
                End::GaveUp(why) => Error::GaveUp(why.clone()),
            };
            let _ = reply.send(Err(why));
        }
    }
}

fn greeting(link: &Link) -> Greeting {
    Greeting { version: link.version(), headers: link.connected().clone() }
}

enum Moved {
    Frame(Frame),
    /// Where something was stuck, there may be room.
    Room,
    /// What was too much is written.
    Written,
}

/// Reads and writes, or only writes while something is stuck. May be cancelled.
async fn progress(
    link: &mut Link,
    stuck: Option<&Stuck>,
    subscriptions: &Subscriptions,
) -> Result<Moved, Error> {
    let Some(stuck) = stuck else {
        return Ok(link.progress().await?.map_or(Moved::Written, Moved::Frame));
    };
    tokio::select! {
        () = poll_fn(|cx| subscriptions.poll_room(stuck, cx)) => Ok(Moved::Room),
        written = link.write() => written.map(|()| Moved::Written),
    }
}

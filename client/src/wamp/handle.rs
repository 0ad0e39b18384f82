//! What all handles of a client share, and what they ask of its session.
//!
//! The session's task holds none of it: it ends when the last handle is gone. What is dropped cannot wait for room in
//! a queue, so it goes into a list beside it, which has at most one entry for each request, subscription and
//! registration that there was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use tandem_protocols::payload::Content;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::options::MatchPolicy;

use crate::buffer::{self, Overflow};
use crate::wamp::error::Error;
use crate::wamp::event::RawEvent;
use crate::wamp::invocation::Handler;
use crate::wamp::status::{Status, Watchers};
use crate::wamp::value::Raw;

/// How many commands may wait for the session; whoever has another one waits.
pub(super) const COMMANDS_MAX: usize = 256;

/// How many requests of one client may be unanswered; whoever has another one waits.
pub(super) const REQUESTS_MAX: usize = 64 * 1024;

/// What a subscription's or a call's stream holds, unless it is said otherwise.
pub(super) const BUFFERED: (usize, Overflow) = (1024, Overflow::DropOldest);

/// Where the answer to a request goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Names a call, a subscription or a registration, whatever session it is in.
pub(super) type Token = u64;

/// One of [`REQUESTS_MAX`], given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit(#[allow(dead_code, reason = "it is held, not looked at")] OwnedSemaphorePermit);

/// What is asked of the session.
#[derive(Debug)]
pub(super) enum Command {
    Call(Box<CallCommand>),
    /// More arguments of a call.
    Chunk {
        call: Token,
        payload: Content,
        is_last: bool,
    },
    Publish {
        topic: String,
        options: Dict,
        payload: Content,
        reply: Option<(Reply<Id>, Permit)>,
    },
    Subscribe(Box<SubscribeCommand>),
    Unsubscribe(Token, Reply<()>),
    Register(Box<RegisterCommand>),
    Unregister(Token, Reply<()>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct CallCommand {
    pub(super) token: Token,
    pub(super) procedure: String,
    pub(super) options: Dict,
    pub(super) payload: Content,
    pub(super) reply: Reply<Raw>,
    /// Where partial results go, if they are wanted.
    pub(super) partials: Option<buffer::Sender<Raw>>,
    pub(super) is_idempotent: bool,
    #[allow(dead_code, reason = "it is held, not looked at")]
    pub(super) permit: Permit,
}

#[derive(Debug)]
pub(super) struct SubscribeCommand {
    pub(super) token: Token,
    pub(super) topic: String,
    pub(super) policy: MatchPolicy,
    pub(super) options: Dict,
    pub(super) wants_retained: bool,
    pub(super) events: buffer::Sender<RawEvent>,
    /// Why there are no more.
    pub(super) end: Reply<()>,
    pub(super) reply: Reply<()>,
    pub(super) permit: Permit,
}

pub(super) struct RegisterCommand {
    pub(super) token: Token,
    pub(super) procedure: String,
    pub(super) options: Dict,
    /// Whether the handler takes the arguments of a call in pieces.
    pub(super) takes_pieces: bool,
    pub(super) handler: Handler,
    pub(super) concurrency: usize,
    pub(super) waiting_max: usize,
    pub(super) grace: Duration,
    /// Why there are no more invocations.
    pub(super) end: Reply<()>,
    pub(super) reply: Reply<()>,
    pub(super) permit: Permit,
}

impl std::fmt::Debug for RegisterCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegisterCommand").field("procedure", &self.procedure).finish_non_exhaustive()
    }
}

/// What nobody holds any more.
#[derive(Clone, Copy, Debug)]
pub(super) enum Forsaken {
    Call(Token),
    Subscription(Token),
    Registration(Token),
}

/// All of it that the session has not looked at.
#[derive(Debug, Default)]
pub(super) struct ForsakenList {
    list: Mutex<Vec<Forsaken>>,
    grown: Notify,
}

impl ForsakenList {
    fn push(&self, forsaken: Forsaken) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(forsaken);
        self.grown.notify_one();
    }

    pub(super) fn take(&self) -> Vec<Forsaken> {
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn grown(&self) {
        self.grown.notified().await;
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// To wait for a connection where there is none.
    pub(super) connection: Duration,
    /// To wait for the answer to all requests but calls.
    pub(super) reply: Duration,
    /// To wait for the result of a call, unless it says so itself.
    pub(super) call: Option<Duration>,
}

/// What all handles share.
#[derive(Debug)]
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) watchers: Arc<Watchers>,
    forsaken: Arc<ForsakenList>,
    requests: Arc<Semaphore>,
    next_token: AtomicU64,
    pub(super) patience: Patience,
}

impl Handle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        status: watch::Receiver<Status>,
        watchers: Arc<Watchers>,
        forsaken: Arc<ForsakenList>,
        patience: Patience,
    ) -> Self {
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        Self { commands, status, watchers, forsaken, requests, next_token: AtomicU64::new(1), patience }
    }

    pub(super) fn token(&self) -> Token {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn forsake(&self, forsaken: Forsaken) {
        self.forsaken.push(forsaken);
    }

    /// Waits for a connection, as long as was agreed on.
    pub(super) async fn connected(&self) -> Result<(), Error> {
        let judge = |status: &Status| match status {
            Status::Connected(_) => Some(Ok(())),
            Status::Ended(end) => Some(Err(end.to_error())),
            Status::Connecting => None,
        };
        if let Some(judged) = judge(&self.status.borrow()) {
            return judged;
        }
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| !matches!(status, Status::Connecting));
        match timeout(self.patience.connection, settled).await {
            Ok(Ok(status)) => judge(&status).unwrap_or(Err(Error::ConnectionLost)),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::ConnectionLost),
        }
    }

    /// Room for one more request that is not answered.
    pub(super) async fn permit(&self) -> Result<Permit, Error> {
        self.requests.clone().acquire_owned().await.map(Permit).map_err(|_| Error::Closed)
    }

    /// Hands a command to the session, once there is a connection and room.
    pub(super) async fn send(&self, command: Command) -> Result<(), Error> {
        self.connected().await?;
        self.hand_in(command).await
    }

    /// The same, connected or not.
    pub(super) async fn hand_in(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| self.ended())
    }

    /// Waits for the answer to a request, as long as was agreed on.
    pub(super) async fn reply<T>(
        &self,
        answer: oneshot::Receiver<Result<T, Error>>,
        what: &'static str,
    ) -> Result<T, Error> {
        match timeout(self.patience.reply, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.ended()),
            Err(_) => Err(Error::Timeout(what)),
        }
    }

    /// For what is answered by nobody any more.
    pub(super) fn ended(&self) -> Error {
        match &*self.status.borrow() {
            Status::Ended(end) => end.to_error(),
            Status::Connecting | Status::Connected(_) => Error::Closed,
        }
    }
}

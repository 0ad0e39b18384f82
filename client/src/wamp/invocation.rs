//! What a handler is given, and how its future is run.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use tandem_protocols::payload::Content;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{CANCELED, TIMEOUT, UNAVAILABLE};
use tandem_protocols::wamp::id::Id;

use crate::buffer;
use crate::wamp::error::{ApplicationError, Error};
use crate::wamp::value::{FromPayload, Raw, ToPayload};

/// An invocation, in the session of which the callee was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InvocationKey {
    pub(super) epoch: u64,
    pub(super) request: Id,
}

/// What a handler says, of which nothing follows an answer.
#[derive(Debug)]
pub(super) enum Said {
    Part(Content),
    Answer(Result<Content, ApplicationError>),
}

/// What a handler's future is made of.
pub(super) type Handler = Arc<dyn Fn(Invocation) -> Running + Send + Sync>;

type Running = Pin<Box<dyn Future<Output = Result<Content, ApplicationError>> + Send>>;

/// An invocation that waits for its turn, or has it.
pub(super) struct Invocation {
    pub(super) arguments: Arguments,
    pub(super) ctx: InvocationCtx,
}

/// What a handler is called with.
pub(super) enum Arguments {
    Whole(Content),
    Pieces(buffer::Receiver<Raw>),
}

/// Why an invocation is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// Its caller does not want it any more.
    Canceled,
    /// Its time is over.
    TimedOut,
    /// Its caller sends more than the handler takes.
    Overrun,
}

/// What a handler knows of its invocation, and can do about it.
///
/// When the caller gives up, a handler that has asked for [`cancelled`](Self::cancelled) gets a time of grace to come
/// to its end; then, or at once where it has not asked, its future is dropped. Either way the call is answered with
/// `wamp.error.canceled`, unless the handler still gives a result.
#[derive(Clone)]
pub struct InvocationCtx {
    inner: Arc<Inner>,
}

struct Inner {
    key: InvocationKey,
    procedure: Arc<str>,
    details: Dict,
    said: mpsc::Sender<(InvocationKey, Said)>,
    interrupt: watch::Receiver<Option<Interrupt>>,
    has_asked: AtomicBool,
    grace: Duration,
}

impl InvocationCtx {
    pub(super) fn new(
        key: InvocationKey,
        procedure: Arc<str>,
        details: Dict,
        said: mpsc::Sender<(InvocationKey, Said)>,
        interrupt: watch::Receiver<Option<Interrupt>>,
        grace: Duration,
    ) -> Self {
        let has_asked = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { key, procedure, details, said, interrupt, has_asked, grace }) }
    }

    pub(super) fn key(&self) -> InvocationKey {
        self.inner.key
    }

    /// The procedure that was called, which for a registration of a pattern is not that.
    pub fn procedure(&self) -> &str {
        &self.inner.procedure
    }

    /// The session of the caller, if the router tells.
    pub fn caller(&self) -> Option<Id> {
        self.inner.details.id("caller").ok().flatten()
    }

    /// Who calls, if the router tells.
    pub fn caller_authid(&self) -> Option<&str> {
        self.inner.details.str("caller_authid").ok().flatten()
    }

    /// What the caller may do, if the router tells.
    pub fn caller_authrole(&self) -> Option<&str> {
        self.inner.details.str("caller_authrole").ok().flatten()
    }

    /// All that the router says of the invocation.
    pub fn details(&self) -> &Dict {
        &self.inner.details
    }

    /// Whether the caller wants partial results.
    pub fn wants_progress(&self) -> bool {
        self.inner.details.bool("receive_progress").ok().flatten() == Some(true)
    }

    /// Sends a partial result; where the caller wants none, nothing happens. Waits while there is no room.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], and [`Error::Closed`] where the client is closed.
    pub async fn progress<T: ToPayload>(&self, part: &T) -> Result<(), Error> {
        if !self.wants_progress() {
            return Ok(());
        }
        let part = part.to_payload()?;
        self.say(Said::Part(part)).await
    }

    /// Waits until the caller gives up, its time is over, or the connection is lost: for ever, if that never happens.
    pub async fn cancelled(&self) {
        self.inner.has_asked.store(true, Ordering::Relaxed);
        self.interrupted().await;
    }

    /// Whether [`cancelled`](Self::cancelled) would return at once.
    pub fn is_cancelled(&self) -> bool {
        self.inner.has_asked.store(true, Ordering::Relaxed);
        self.inner.interrupt.borrow().is_some()
    }

    async fn interrupted(&self) -> Interrupt {
        let mut interrupt = self.inner.interrupt.clone();
        match interrupt.wait_for(Option::is_some).await {
            Ok(interrupt) => interrupt.unwrap_or(Interrupt::Canceled),
            // The session that could say so is gone.
            Err(_) => Interrupt::Canceled,
        }
    }

    async fn say(&self, said: Said) -> Result<(), Error> {
        self.inner.said.send((self.inner.key, said)).await.map_err(|_| Error::Closed)
    }

    /// How long the caller waits, if the router leaves it to the callee to keep the time.
    fn timeout(&self) -> Option<Duration> {
        let timeout_ms = self.inner.details.uint("timeout").ok().flatten().filter(|ms| *ms > 0);
        timeout_ms.map(Duration::from_millis)
    }
}

impl fmt::Debug for InvocationCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvocationCtx")
            .field("request", &self.inner.key.request)
            .field("procedure", &self.inner.procedure)
            .finish_non_exhaustive()
    }
}

/// Runs a handler to its end, or until it is stopped, and answers.
pub(super) async fn run(handler: Handler, invocation: Invocation) {
    let ctx = invocation.ctx.clone();
    let stop = async {
        let interrupt = match ctx.timeout() {
            Some(timeout) => tokio::select! {
                interrupt = ctx.interrupted() => interrupt,
                () = sleep(timeout) => Interrupt::TimedOut,
            },
            None => ctx.interrupted().await,
        };
        if ctx.inner.has_asked.load(Ordering::Relaxed) && interrupt != Interrupt::TimedOut {
            sleep(ctx.inner.grace).await;
        }
        interrupt
    };
    let answer = tokio::select! {
        biased;
        answer = handler(invocation) => answer,
        interrupt = stop => Err(interrupt.to_error()),
    };
    // Where nobody is left to hear it, there is nobody who asked.
    let _ = ctx.say(Said::Answer(answer)).await;
}

impl Interrupt {
    fn to_error(self) -> ApplicationError {
        match self {
            Self::Canceled => ApplicationError::new(CANCELED),
            Self::TimedOut => ApplicationError::new(TIMEOUT),
            Self::Overrun => {
                ApplicationError::new(UNAVAILABLE).args(("arguments come faster than they are taken",))
            }
        }
    }
}

/// The arguments of a call that come in pieces, as a stream; it ends with the last. A piece that does not decode is an
/// error, and others follow.
#[derive(Debug)]
pub struct Chunks<C> {
    receiver: buffer::Receiver<Raw>,
    piece: PhantomData<fn() -> C>,
}

impl<C: FromPayload> Chunks<C> {
    pub(super) fn new(receiver: buffer::Receiver<Raw>) -> Self {
        Self { receiver, piece: PhantomData }
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<C, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<C: FromPayload> Stream for Chunks<C> {
    type Item = Result<C, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let taken = ready!(self.receiver.poll_take(cx));
        Poll::Ready(taken.map(|(_, Raw { details, payload })| Ok(C::from_payload(payload, details)?)))
    }
}

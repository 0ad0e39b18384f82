//! Serving a procedure: calls are messages, and their answers go to where they say.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::{JoinHandle, JoinSet};

use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::{Command, Frame};

use crate::error::Error;
use crate::stomp::body;
use crate::stomp::delivery::Delivery;
use crate::stomp::outbox::{Alive, Request};
use crate::stomp::subscribe::Subscribe;
use crate::stomp::subscription::Subscription;

/// How many calls are served at a time, unless something else is said.
pub const CONCURRENCY: usize = 32;

/// The error of whoever is called and goes away.
const CANCELED: &str = "wamp.error.canceled";

/// The error for arguments that are not what the procedure takes.
const INVALID_ARGUMENT: &str = "wamp.error.invalid_argument";

/// The error of a handler that failed for reasons of its own.
const RUNTIME_ERROR: &str = "wamp.error.runtime_error";

/// How a call fails for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure, such as `com.example.no_such_order`.
    pub uri: String,
    /// More about it, for people.
    pub text: String,
}

impl Failure {
    /// One of that kind.
    pub fn new(uri: impl Into<String>, text: impl Into<String>) -> Failure {
        Failure { uri: uri.into(), text: text.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(RUNTIME_ERROR, error.to_string())
    }
}

/// A procedure that is served when this is awaited.
#[must_use = "nothing is served before it is awaited"]
pub struct Serve<F, A> {
    alive: Arc<Alive>,
    subscribe: Subscribe,
    concurrency: usize,
    handler: F,
    argument: PhantomData<fn() -> A>,
}

impl<F, A> Serve<F, A> {
    pub(super) fn new(alive: Arc<Alive>, subscribe: Subscribe, handler: F) -> Self {
        Serve { alive, subscribe, concurrency: CONCURRENCY, handler, argument: PhantomData }
    }

    /// A header of SUBSCRIBE, such as `x-invoke:roundrobin` to share the procedure with others.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.subscribe = self.subscribe.header(name, value);
        self
    }

    /// So many calls are served at a time; others wait.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls.max(1);
        self
    }
}

impl<F, A, R, Fut> IntoFuture for Serve<F, A>
where
    F: Fn(A, Delivery) -> Fut + Send + 'static,
    Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    A: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
{
    type Output = Result<Serving, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let calls = self.subscribe.await?;
            let task = tokio::spawn(run(calls, self.alive.clone(), self.concurrency, self.handler));
            Ok(Serving { task: Some(task) })
        })
    }
}

/// A procedure that is served; no more when this is dropped. Calls that are served then fail.
#[derive(Debug)]
pub struct Serving {
    task: Option<JoinHandle<Result<(), Error>>>,
}

impl Serving {
    /// Goes on serving as long as there is a session.
    pub fn detach(mut self) {
        self.task = None;
    }

    /// Ready when it is served no more: because the client has ended, or with the server's words because the server
    /// refused it after a reconnect.
    ///
    /// # Errors
    ///
    /// [`Error::StompError`].
    pub async fn ended(&mut self) -> Result<(), Error> {
        match &mut self.task {
            // It is only aborted when this is dropped; what panics is a handler, in a task of its own.
            Some(task) => task.await.unwrap_or(Err(Error::Disconnected)),
            None => Ok(()),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run<F, A, R, Fut>(
    mut calls: Subscription,
    alive: Arc<Alive>,
    concurrency: usize,
    handler: F,
) -> Result<(), Error>
where
    F: Fn(A, Delivery) -> Fut,
    Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    A: DeserializeOwned,
    R: Serialize + Send + 'static,
{
    let mut served = JoinSet::new();
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut calls).poll_next(cx));
        let call = tokio::select! {
            call = next, if served.len() < concurrency => call,
            Some(_) = served.join_next(), if !served.is_empty() => continue,
        };
        let Some(call) = call.transpose()? else { break };
        let Some(answer) = Owed::new(&call, alive.clone()) else { continue };
        match call.decode() {
            Ok(argument) => {
                let working = handler(argument, call);
                served.spawn(async move { answer.give(working.await).await });
            }
            Err(error) => {
                let failure = Failure::new(INVALID_ARGUMENT, error.to_string());
                answer.give(Err::<(), _>(failure)).await;
            }
        }
    }
    // What is being served may still be answered if there is a session.
    while served.join_next().await.is_some() {}
    Ok(())
}

/// An answer that somebody waits for; dropped, it is that nobody serves the call any more.
struct Owed {
    alive: Arc<Alive>,
    /// SEND without a body.
    frame: Option<Frame>,
    epoch: u64,
}

impl Owed {
    /// None where nobody waits, or nobody any more.
    fn new(call: &Delivery, alive: Arc<Alive>) -> Option<Owed> {
        if call.is_stale() {
            return None;
        }
        let mut frame = Frame::new(Command::Send).with("destination", call.header("reply-to")?);
        if let Some(number) = call.header("correlation-id") {
            frame.headers.push("correlation-id", number);
        }
        Some(Owed { alive, frame: Some(frame), epoch: call.epoch() })
    }

    async fn give<R: Serialize>(mut self, result: Result<R, Failure>) {
        let result = result.and_then(|value| body::write(Format::Json, &value).map_err(Failure::from));
        let Some(frame) = self.frame.clone() else { return };
        let (request, alive) = (self.request(answered(frame, result)), self.alive.clone());
        // From the moment on that it is in the line, dropping this must not answer.
        let given = alive.0.enqueue_if(request, || {
            self.frame = None;
            Ok(true)
        });
        if let Err(why) = given.await {
            tracing::debug!(%why, "an answer came too late");
        }
    }

    fn request(&self, frame: Frame) -> Request {
        // Whoever called over a connection that was lost waits no more.
        Request::Frame { frame, epoch: Some(self.epoch), reply: None }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            let gone = Failure::new(CANCELED, "nobody serves the call any more");
            self.alive.0.undo(self.request(answered(frame, Err(gone))));
        }
    }
}

fn answered(mut frame: Frame, result: Result<bytes::Bytes, Failure>) -> Frame {
    match result {
        Ok(bytes) => {
            frame.headers.push("content-type", body::content_type(Format::Json));
            frame.body = bytes;
        }
        Err(failure) => {
            frame.headers.push("error", &failure.uri);
            frame.headers.push("content-type", "text/plain");
            frame.body = failure.text.into();
        }
    }
    frame
}

impl<F, A> fmt::Debug for Serve<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("subscribe", &self.subscribe).finish_non_exhaustive()
    }
}

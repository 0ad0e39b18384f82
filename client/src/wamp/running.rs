//! A call that was made, and has no result yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use tandem_protocols::payload::Content;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::TIMEOUT;

use crate::buffer;
use crate::wamp::error::Error;
use crate::wamp::handle::{CallCommand, Command, Forsaken, Handle, Token};
use crate::wamp::value::Raw;

/// What is waited for where a result is.
pub(super) const RESULT: &str = "RESULT";

/// Where the result comes.
pub(super) type Answer = oneshot::Receiver<Result<Raw, Error>>;

/// What is the same for all pieces of a call.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) handle: Arc<Handle>,
    pub(super) procedure: String,
    pub(super) options: Dict,
}

impl Pieces {
    pub(super) async fn begin(
        self,
        payload: Content,
        partials: Option<buffer::Sender<Raw>>,
        is_idempotent: bool,
    ) -> Result<(Running, Answer), Error> {
        let Self { handle, procedure, options } = self;
        let permit = handle.permit().await?;
        let token = handle.token();
        let (reply, answer) = oneshot::channel();
        // Made before it is sent: from then on, whoever lets go of it cancels the call.
        let running = Running { handle, token, has_ended: false };
        let command =
            CallCommand { token, procedure, options, payload, reply, partials, is_idempotent, permit };
        running.handle.send(Command::Call(Box::new(command))).await?;
        Ok((running, answer))
    }
}

/// A call that was made; dropped before it has ended, it is cancelled.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) handle: Arc<Handle>,
    pub(super) token: Token,
    pub(super) has_ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            self.handle.forsake(Forsaken::Call(self.token));
        }
    }
}

pub(super) async fn bounded<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match limit {
        Some(limit) => timeout(limit, work).await.unwrap_or(Err(Error::Timeout(RESULT))),
        None => work.await,
    }
}

/// Whoever sets a time gets the same error, be it the client or the router that looked at the clock first.
pub(super) fn timed_out(error: Error, limit: Option<Duration>) -> Error {
    match error {
        Error::Application(error) if limit.is_some() && error.uri() == TIMEOUT => Error::Timeout(RESULT),
        error => error,
    }
}

//! The server's word that it has done something.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::error::Error;
use crate::stomp::outbox::{Outbox, Reply};

/// Ready when the server has said that it did what was asked of it, or that it did not. May be dropped: what was
/// asked for is done all the same.
///
/// There is no limit to the time that it takes: put one around it where one is wanted.
#[derive(Debug)]
#[must_use = "nothing is known before it is awaited"]
pub struct Receipt<T = ()> {
    answer: oneshot::Receiver<Result<T, Error>>,
    outbox: Arc<Outbox>,
}

impl<T> Receipt<T> {
    /// One, and the end where it is answered.
    pub(super) fn new(outbox: Arc<Outbox>) -> (Reply<T>, Receipt<T>) {
        let (reply, answer) = oneshot::channel();
        (reply, Receipt { answer, outbox })
    }
}

impl<T> Future for Receipt<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.outbox.lost())))
    }
}

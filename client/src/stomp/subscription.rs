//! Messages of a subscription, as a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use tandem_protocols::stomp::frame::{Frame, Headers};

use crate::buffer::{Gap, Receiver};
use crate::error::Error;
use crate::stomp::delivery::Delivery;
use crate::stomp::outbox::{Alive, Request};
use crate::stomp::receipt::Receipt;
use crate::stomp::settlement::Arrived;

/// Makes of a message what its subscriber wants to have.
pub(super) type Reading<T> = fn(&Frame) -> Result<T, Error>;

/// Messages as they come; unsubscribed when dropped.
///
/// After a reconnect it goes on: a [`Gap`] says so where something may be missing. Where messages are acknowledged,
/// and the broker keeps what was not (queues and durable subscriptions), nothing is missing: what was delivered and
/// not acknowledged is delivered again, with [`is_redelivered`](Delivery::is_redelivered).
///
/// A message that cannot be read as a `T` is an [`Error::Decode`], and is given back if it is to be acknowledged;
/// the stream goes on. Whoever wants to decide about such takes bytes, and [`Delivery::decode`]. The stream ends when
/// the client does, and after [`Error::StompError`] where the server refused to subscribe again after a reconnect.
pub struct Subscription<T = Bytes> {
    receiver: Receiver<Result<Arrived, Error>>,
    read: Reading<T>,
    id: String,
    /// What UNSUBSCRIBE must say to end a durable subscription.
    ending: Headers,
    /// Before something that was not handed out.
    gap: Option<Gap>,
    is_over: bool,
    alive: Arc<Alive>,
}

impl<T> Subscription<T> {
    pub(super) fn new(
        receiver: Receiver<Result<Arrived, Error>>,
        read: Reading<T>,
        (id, ending): (String, Headers),
        alive: Arc<Alive>,
    ) -> Self {
        Subscription { receiver, read, id, ending, gap: None, is_over: false, alive }
    }

    /// The id that it has on the wire.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How many messages wait to be read.
    pub fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// Unsubscribes, and waits until the server has done so. What was not read is given back. A durable subscription
    /// goes on to gather messages.
    ///
    /// # Errors
    ///
    /// [`Error::StompError`], and what there is at the end of a client.
    pub async fn unsubscribe(self) -> Result<(), Error> {
        self.end(Headers::new()).await
    }

    /// Unsubscribes, and ends a durable subscription with all that it has gathered.
    ///
    /// # Errors
    ///
    /// See [`unsubscribe`](Self::unsubscribe).
    pub async fn delete(self) -> Result<(), Error> {
        let headers = self.ending.clone();
        self.end(headers).await
    }

    /// It never was.
    pub(super) fn forget(mut self) {
        self.is_over = true;
    }

    async fn end(mut self, headers: Headers) -> Result<(), Error> {
        self.is_over = true;
        // What was not read is given back before: not every broker takes it after.
        self.receiver.close();
        let (reply, receipt) = Receipt::new(self.alive.0.clone());
        // It takes no room: there is one for each subscription.
        self.alive.0.undo(Request::Unsubscribe { id: self.id.clone(), headers, reply: Some(reply) });
        drop(self);
        receipt.await
    }

    fn note(&mut self, gap: Option<Gap>) {
        self.gap = match (self.gap, gap) {
            (Some(earlier), Some(later)) => Some(earlier.and(later)),
            (earlier, later) => earlier.or(later),
        };
    }
}

impl<T> Stream for Subscription<T> {
    type Item = Result<Delivery<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some((gap, item)) = ready!(self.receiver.poll_take(cx)) else { return Poll::Ready(None) };
            self.note(gap);
            let arrived = match item {
                Ok(arrived) => arrived,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            // Nobody could acknowledge it, and where the broker keeps it, it comes again.
            if arrived.settlement.as_ref().is_some_and(|settlement| settlement.is_stale()) {
                continue;
            }
            let payload = match (self.read)(&arrived.frame) {
                Ok(payload) => payload,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            let gap = self.gap.take();
            let delivery = Delivery::new((payload, gap), arrived, self.alive.clone());
            return Poll::Ready(Some(Ok(delivery)));
        }
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        if !self.is_over {
            self.receiver.close();
            let (id, headers) = (std::mem::take(&mut self.id), Headers::new());
            self.alive.0.undo(Request::Unsubscribe { id, headers, reply: None });
        }
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

//! A message that was delivered, and what is owed for it.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use tandem_protocols::stomp::frame::{Command, Frame, Headers};

use crate::buffer::Gap;
use crate::error::Error;
use crate::stomp::body;
use crate::stomp::outbox::{Alive, Request};
use crate::stomp::receipt::Receipt;
use crate::stomp::send::Sending;
use crate::stomp::settlement::{Arrived, Giveback, Settlement};

/// A message of a subscription.
///
/// Where it is to be acknowledged by itself, and is dropped without having been, it is given back with NACK. What came
/// before the connection was lost cannot be acknowledged any more ([`Error::ConnectionLost`]): the broker hands it
/// out again, to whomever it likes.
#[derive(Debug)]
pub struct Delivery<T = Bytes> {
    /// The body as what the subscription reads it.
    pub payload: T,
    /// Something is missing before this.
    pub gap: Option<Gap>,
    frame: Frame,
    epoch: u64,
    settlement: Option<Arc<Settlement>>,
    alive: Arc<Alive>,
}

impl<T> Delivery<T> {
    pub(super) fn new((payload, gap): (T, Option<Gap>), arrived: Arrived, alive: Arc<Alive>) -> Self {
        let Arrived { frame, epoch, settlement } = arrived;
        Delivery { payload, gap, frame, epoch, settlement, alive }
    }

    /// All headers.
    pub fn headers(&self) -> &Headers {
        &self.frame.headers
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.frame.headers.get(name)
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.frame.body
    }

    /// Where it was sent to.
    pub fn destination(&self) -> &str {
        self.header("destination").unwrap_or_default()
    }

    /// What the server calls it.
    pub fn message_id(&self) -> &str {
        self.header("message-id").unwrap_or_default()
    }

    /// Whether it was delivered before, to us or to somebody else, and not acknowledged: what it asks for may have
    /// been done.
    pub fn is_redelivered(&self) -> bool {
        self.header("redelivered") == Some("true")
    }

    /// How often it was delivered before, where the broker says so.
    pub fn redeliveries(&self) -> Option<u64> {
        self.header("x-delivery-count")?.parse().ok()
    }

    /// The value that the body is, by its `content-type`: JSON, CBOR, MessagePack or text.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] where it is none, or no `V`.
    pub fn decode<V: DeserializeOwned>(&self) -> Result<V, Error> {
        body::read(self.headers(), self.body())
    }

    /// An answer: to where the message says, with its `correlation-id`. It is only sent on the connection on which the
    /// message came, as others do not know of it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where nobody waits for an answer.
    pub fn reply(&self) -> Result<Sending, Error> {
        let nobody = Error::Unsupported("the message has no reply-to");
        let sending =
            Sending::new(self.alive.clone(), self.header("reply-to").ok_or(nobody)?, Some(self.epoch));
        Ok(match self.header("correlation-id") {
            Some(number) => sending.header("correlation-id", number),
            None => sending,
        })
    }

    /// The connection on which it came.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether that is gone.
    pub(super) fn is_stale(&self) -> bool {
        self.epoch != self.alive.0.epoch()
    }

    /// Acknowledges it, and in [`Mode::Client`](crate::stomp::Mode::Client) all before it. Ready when the client has
    /// taken that up; if the connection is lost before the server has it, the message is delivered once more.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] where it came before the connection was lost, [`Error::Settled`],
    /// [`Error::Unsupported`] where nothing is to be acknowledged.
    pub async fn ack(&self) -> Result<(), Error> {
        self.settle(Command::Ack, &[]).await
    }

    /// Acknowledges it, and waits until the server has that.
    ///
    /// # Errors
    ///
    /// See [`ack`](Self::ack); [`Error::ConnectionLost`] also where the connection is lost meanwhile, so that it may
    /// be delivered once more, or not.
    pub async fn ack_confirmed(&self) -> Result<(), Error> {
        let settlement = self.settlement()?;
        let (reply, receipt) = Receipt::new(self.alive.0.clone());
        let frame = settlement.frame(Command::Ack);
        let request = Request::Frame { frame, epoch: Some(settlement.epoch()), reply: Some(reply) };
        if self.alive.0.enqueue_if(request, || settlement.settle_for_good(Command::Ack)).await? {
            receipt.await?;
        }
        Ok(())
    }

    /// Gives it back, to be delivered once more, or as often as the broker allows.
    ///
    /// # Errors
    ///
    /// See [`ack`](Self::ack).
    pub async fn nack(&self) -> Result<(), Error> {
        self.settle(Command::Nack, &[]).await
    }

    /// Refuses it for good: it goes where the broker keeps such messages, if it has such a place.
    ///
    /// # Errors
    ///
    /// See [`ack`](Self::ack).
    pub async fn reject(&self) -> Result<(), Error> {
        self.settle(Command::Nack, &[("requeue", "false")]).await
    }

    /// The settlement, or the error of whoever asks where there is none.
    pub(super) fn settlement(&self) -> Result<&Arc<Settlement>, Error> {
        self.settlement.as_ref().ok_or(Error::Unsupported("the subscription acknowledges nothing"))
    }

    async fn settle(&self, command: Command, headers: &[(&str, &str)]) -> Result<(), Error> {
        let settlement = self.settlement()?;
        let mut frame = settlement.frame(command);
        for (name, value) in headers {
            frame.headers.push(name, value);
        }
        let request = Request::Frame { frame, epoch: Some(settlement.epoch()), reply: None };
        self.alive.0.enqueue_if(request, || settlement.settle_for_good(command)).await.map(|_| ())
    }
}

//! A message on its way to a destination.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::{Command, Frame};

use crate::error::Error;
use crate::stomp::body;
use crate::stomp::outbox::{Alive, Request};
use crate::stomp::receipt::Receipt;

/// Nobody is told whether the server got it.
#[derive(Debug)]
pub struct Unconfirmed;

/// A RECEIPT is asked for.
#[derive(Debug)]
pub struct Confirmed;

/// A message that is sent when this is awaited.
///
/// Without a receipt it is ready when the client has taken the message up, for which it waits until there is room.
/// It is sent then, but may be lost with the connection; messages that were not sent yet when the connection was lost
/// are sent on the next. With a [`receipt`](Sending::receipt) it is ready when the server has said that it has it.
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Sending<R = Unconfirmed> {
    alive: Arc<Alive>,
    frame: Frame,
    /// Of a transaction: its connection.
    epoch: Option<u64>,
    receipt: PhantomData<fn() -> R>,
}

impl Sending<Unconfirmed> {
    pub(super) fn new(alive: Arc<Alive>, destination: &str, epoch: Option<u64>) -> Self {
        let frame = Frame::new(Command::Send).with("destination", destination);
        Sending { alive, frame, epoch, receipt: PhantomData }
    }

    /// Asks for a RECEIPT. In a transaction it comes when that is committed.
    pub fn receipt(self) -> Sending<Confirmed> {
        Sending { alive: self.alive, frame: self.frame, epoch: self.epoch, receipt: PhantomData }
    }

    async fn run(self) -> Result<(), Error> {
        let request = Request::Frame { frame: self.frame, epoch: self.epoch, reply: None };
        self.alive.0.enqueue(request).await
    }
}

impl<R> Sending<R> {
    /// A header. The first of a name counts.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.frame.headers.push(name, value);
        self
    }

    /// A value as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] where it has no such form.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, Error> {
        self.value(Format::Json, value)
    }

    /// A value in any format.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] where it has no such form.
    pub fn value<T: Serialize + ?Sized>(self, format: Format, value: &T) -> Result<Self, Error> {
        let bytes = body::write(format, value)?;
        Ok(self.bytes(body::content_type(format), bytes))
    }

    /// Text.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.bytes("text/plain", text.into())
    }

    /// Bytes of any type; of none where `content_type` is empty.
    pub fn bytes(mut self, content_type: &str, bytes: impl Into<Bytes>) -> Self {
        if !content_type.is_empty() {
            self.frame.headers.push("content-type", content_type);
        }
        self.frame.body = bytes.into();
        self
    }

    /// The broker keeps it on disk, if it has one.
    pub fn persistent(self) -> Self {
        self.header("persistent", "true")
    }

    /// From that time on nobody gets it. RabbitMQ knows only [`time_to_live`](Self::time_to_live).
    pub fn expires(self, at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.header("expires", &since.as_millis().to_string())
    }

    /// After so long nobody gets it. ActiveMQ knows only [`expires`](Self::expires).
    pub fn time_to_live(self, time: Duration) -> Self {
        self.header("expiration", &time.as_millis().to_string())
    }

    /// The higher, the earlier it is delivered.
    pub fn priority(self, priority: u8) -> Self {
        self.header("priority", &priority.to_string())
    }
}

impl Sending<Confirmed> {
    /// Ready when the message is taken up: the receipt can be awaited later, while others are sent.
    ///
    /// # Errors
    ///
    /// [`Error::GaveUp`] and [`Error::Disconnected`].
    pub async fn enqueue(self) -> Result<Receipt, Error> {
        let (reply, receipt) = Receipt::new(self.alive.0.clone());
        let request = Request::Frame { frame: self.frame, epoch: self.epoch, reply: Some(reply) };
        self.alive.0.enqueue(request).await?;
        Ok(receipt)
    }

    async fn run(self) -> Result<(), Error> {
        self.enqueue().await?.await
    }
}

impl IntoFuture for Sending<Unconfirmed> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl IntoFuture for Sending<Confirmed> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

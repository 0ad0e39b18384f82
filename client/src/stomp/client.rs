//! A handle to a session.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use tandem_protocols::stomp::frame::{Headers, Version};

use crate::buffer::Receiver;
use crate::error::Error;
use crate::event::ClientEvent;
use crate::stomp::call::Call;
use crate::stomp::delivery::Delivery;
use crate::stomp::outbox::{Alive, Request};
use crate::stomp::receipt::Receipt;
use crate::stomp::send::Sending;
use crate::stomp::serve::{Failure, Serve};
use crate::stomp::subscribe::Subscribe;
use crate::stomp::transaction::Transaction;

/// A handle to a session, to be cloned and handed around.
#[derive(Clone, Debug)]
pub struct Client {
    alive: Arc<Alive>,
}

impl Client {
    pub(super) fn new(alive: Arc<Alive>) -> Client {
        Client { alive }
    }

    /// A message to a destination, such as `/queue/orders` or `/topic/news.sport`.
    pub fn send(&self, destination: &str) -> Sending {
        Sending::new(self.alive.clone(), destination, None)
    }

    /// Messages of a destination.
    pub fn subscribe(&self, destination: &str) -> Subscribe {
        Subscribe::new(self.alive.clone(), destination)
    }

    /// A call: of a procedure of Tandem at `/call/<procedure>`, or of whoever answers messages to their `reply-to`, as
    /// with RabbitMQ.
    pub fn call(&self, destination: &str) -> Call {
        Call::new(self.alive.clone(), destination)
    }

    /// Serves a procedure of Tandem at `/procedure/<procedure>`: `handler` gets the argument, by the `content-type` of the
    /// call, and the call itself. What it gives is the answer, as JSON. A handler that panics is an error for its
    /// caller, and nothing else.
    ///
    /// A call without exactly one positional argument comes as `{"args":[…],"kwargs":{…}}`, see `docs/mapping.md`.
    pub fn serve<F, A, R, Fut>(&self, destination: &str, handler: F) -> Serve<F, A>
    where
        F: Fn(A, Delivery) -> Fut + Send + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
    {
        Serve::new(self.alive.clone(), self.subscribe(destination), handler)
    }

    /// Begins a transaction.
    ///
    /// # Errors
    ///
    /// [`Error::GaveUp`] and [`Error::Disconnected`].
    pub async fn begin(&self) -> Result<Transaction, Error> {
        Transaction::begin(self.alive.clone()).await
    }

    /// What becomes of the connection from now on. Up to 64 events wait; then the oldest are dropped.
    pub fn events(&self) -> Events {
        Events(self.alive.0.listen())
    }

    /// The version that is spoken, or was when there last was a connection.
    pub fn version(&self) -> Version {
        self.alive.0.greeting().map_or(Version::V12, |greeting| greeting.version)
    }

    /// What the server said in CONNECTED, such as `server`, `session` and `user-name`.
    pub fn connected(&self) -> Headers {
        self.alive.0.greeting().map(|greeting| greeting.headers).unwrap_or_default()
    }

    /// Disconnects in order, after all that was asked for before: ready when the server has said that it got it.
    /// Other handles can do nothing any more.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] where the server does not say so in five seconds, [`Error::ConnectionLost`] where it is not
    /// known whether it got everything.
    pub async fn disconnect(self) -> Result<(), Error> {
        let (reply, receipt) = Receipt::new(self.alive.0.clone());
        self.alive.0.undo(Request::Disconnect { reply });
        self.alive.0.leave();
        match receipt.await {
            // Somebody else did.
            Err(Error::Disconnected) => Ok(()),
            result => result,
        }
    }
}

/// What becomes of a client's connection, as a stream. Ends with the client.
#[derive(Debug)]
pub struct Events(Receiver<ClientEvent>);

impl Stream for Events {
    type Item = ClientEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        let event = ready!(self.0.poll_take(cx));
        Poll::Ready(event.map(|(_gap, event)| event))
    }
}

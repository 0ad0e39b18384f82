//! How to subscribe.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use tandem_protocols::stomp::frame::{Command, Frame, Headers};
use tandem_protocols::stomp::state::AckMode;

use crate::buffer::{Overflow, buffer};
use crate::error::Error;
use crate::stomp::body;
use crate::stomp::outbox::{Alive, Request, Terms};
use crate::stomp::receipt::Receipt;
use crate::stomp::subscription::{Reading, Subscription};

/// How many messages wait for whoever reads a subscription, unless something else is said.
pub const BUFFER_MESSAGES: usize = 1024;

/// How many messages are delivered ahead of their acknowledgement, unless something else is said.
pub const PREFETCH_MESSAGES: usize = 32;

/// Places that keep what was not acknowledged, whether somebody is subscribed or not.
const KEPT: [&str; 3] = ["/queue/", "/amq/queue/", "/dsub/"];

/// A subscription that is made when this is awaited. It is then ready when the server has subscribed us, so that
/// nothing sent afterwards is missed.
#[must_use = "nothing is subscribed to before it is awaited"]
pub struct Subscribe<T = Bytes> {
    alive: Arc<Alive>,
    destination: String,
    mode: AckMode,
    prefetch: Option<usize>,
    buffer: Option<(usize, Overflow)>,
    durable: Option<String>,
    headers: Headers,
    read: Reading<T>,
}

impl Subscribe<Bytes> {
    pub(super) fn new(alive: Arc<Alive>, destination: &str) -> Self {
        Subscribe {
            alive,
            destination: destination.to_owned(),
            mode: AckMode::Auto,
            prefetch: None,
            buffer: None,
            durable: None,
            headers: Headers::new(),
            read: |frame| Ok(frame.body.clone()),
        }
    }
}

impl<T> Subscribe<T> {
    /// Payloads are values, by their `content-type`: JSON, CBOR, MessagePack or text.
    pub fn typed<V: DeserializeOwned>(self) -> Subscribe<V> {
        self.reading(|frame| body::read(&frame.headers, &frame.body))
    }

    /// Payloads are text, whatever their `content-type` says.
    pub fn text(self) -> Subscribe<String> {
        self.reading(|frame| body::read_text(&frame.body))
    }

    fn reading<V>(self, read: Reading<V>) -> Subscribe<V> {
        Subscribe {
            alive: self.alive,
            destination: self.destination,
            mode: self.mode,
            prefetch: self.prefetch,
            buffer: self.buffer,
            durable: self.durable,
            headers: self.headers,
            read,
        }
    }

    /// How messages are acknowledged; without it, not at all.
    pub fn ack(mut self, mode: AckMode) -> Self {
        self.mode = mode;
        self
    }

    /// So many are delivered ahead of their acknowledgement; 32 where messages are acknowledged.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = Some(messages.max(1));
        self
    }

    /// So many wait to be read, and what happens when there are more. Where messages are acknowledged, what may be
    /// prefetched has room anyway, and the overflow is always [`Overflow::Wait`].
    pub fn buffer(mut self, messages: usize, overflow: Overflow) -> Self {
        self.buffer = Some((messages.max(1), overflow));
        self
    }

    /// Only the messages that this selects, of which the broker knows how it is written.
    pub fn selector(self, selector: &str) -> Self {
        self.header("selector", selector)
    }

    /// The broker gathers messages under this name while we are not there: see [`Subscription::delete`]. ActiveMQ
    /// wants a `client-id` of the client as well.
    pub fn durable(mut self, name: &str) -> Self {
        self.durable = Some(name.to_owned());
        self
    }

    /// A header. The first of a name counts.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(name, value);
        self
    }

    fn terms(&self) -> (Terms, Headers) {
        let number = || format!("tandem-{}", self.alive.0.number());
        let id = self.durable.clone().unwrap_or_else(number);
        let mut frame = Frame::new(Command::Subscribe).with("id", &id).with("destination", &self.destination);
        for (name, value) in self.headers.iter() {
            frame.headers.push(name, value);
        }
        if self.mode != AckMode::Auto {
            frame.headers.push("ack", self.mode.as_str());
        }
        let usual = (self.mode != AckMode::Auto).then_some(self.capacity().0);
        if let Some(prefetch) = self.prefetch.or(usual) {
            // RabbitMQ's word and ours, and ActiveMQ's.
            frame.headers.push("prefetch-count", &prefetch.to_string());
            frame.headers.push("activemq.prefetchSize", &prefetch.to_string());
        }
        let mut ending = Headers::new();
        if let Some(name) = &self.durable {
            // RabbitMQ knows it by its id, ours and Artemis by a name, ActiveMQ by another.
            let durable = [
                ("durable", "true"),
                ("auto-delete", "false"),
                ("durable-subscription-name", name),
                ("activemq.subscriptionName", name),
            ];
            ending.push("destination", &self.destination);
            for (name, value) in durable {
                frame.headers.push(name, value);
                ending.push(name, value);
            }
        }
        let is_durable =
            self.durable.is_some() || KEPT.iter().any(|place| self.destination.starts_with(place));
        let is_kept = is_durable && self.mode != AckMode::Auto;
        (Terms { frame, id, mode: self.mode, is_kept }, ending)
    }

    /// Room, and what happens when there is none.
    fn capacity(&self) -> (usize, Overflow) {
        if self.mode == AckMode::Auto {
            return self.buffer.unwrap_or((BUFFER_MESSAGES, Overflow::default()));
        }
        let buffer = self.buffer.map(|(messages, _)| messages);
        let messages = buffer.into_iter().chain(self.prefetch).max().unwrap_or(PREFETCH_MESSAGES);
        // Of a broker that delivers more than it was asked for nothing is dropped either.
        (messages, Overflow::Wait)
    }

    async fn run(self) -> Result<Subscription<T>, Error> {
        let (terms, ending) = self.terms();
        let (messages, overflow) = self.capacity();
        let (sender, receiver) = buffer(messages, overflow);
        let (reply, receipt) = Receipt::new(self.alive.0.clone());
        let id = terms.id.clone();
        self.alive.0.enqueue(Request::Subscribe { terms: Box::new(terms), sender, reply }).await?;
        // From here on dropping it unsubscribes.
        let subscription = Subscription::new(receiver, self.read, (id, ending), self.alive);
        match receipt.await {
            Ok(()) => Ok(subscription),
            Err(error) => {
                subscription.forget();
                Err(error)
            }
        }
    }
}

impl<T: 'static> IntoFuture for Subscribe<T> {
    type Output = Result<Subscription<T>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<T> std::fmt::Debug for Subscribe<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscribe").field("destination", &self.destination).finish_non_exhaustive()
    }
}

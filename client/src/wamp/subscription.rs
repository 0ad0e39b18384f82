//! Subscribing, and what comes of it.

use std::future::{IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::oneshot;

use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::options::MatchPolicy;

use crate::buffer::{self, Gap, Overflow};
use crate::wamp::error::Error;
use crate::wamp::event::{Event, RawEvent};
use crate::wamp::handle::{BUFFERED, Command, Forsaken, Handle, SubscribeCommand, Token};
use crate::wamp::value::FromPayload;

/// A subscription that is not made yet: await it.
///
/// ```no_run
/// # #[derive(serde::Deserialize)] struct Price { value: f64 }
/// # async fn run(client: tandem_client::wamp::Client) -> Result<(), tandem_client::wamp::Error> {
/// use tandem_client::Overflow;
///
/// let mut prices =
///     client.subscribe::<Price>("com.example.price").prefix().buffer(64, Overflow::DropOldest).await?;
/// while let Some(event) = prices.next().await {
///     let event = event?;
///     if let Some(gap) = event.gap {
///         // So many were dropped here, or the connection was lost in between.
///     }
///     println!("{}: {}", event.topic, event.payload.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is subscribed to before it is awaited"]
pub struct Subscribe<T> {
    handle: Arc<Handle>,
    topic: String,
    policy: MatchPolicy,
    options: Dict,
    buffer: (usize, Overflow),
    payload: PhantomData<fn() -> T>,
}

impl<T> Subscribe<T> {
    pub(super) fn new(handle: Arc<Handle>, topic: String) -> Self {
        let (policy, options) = (MatchPolicy::Exact, Dict::new());
        Self { handle, topic, policy, options, buffer: BUFFERED, payload: PhantomData }
    }

    /// To all topics that begin so.
    pub fn prefix(self) -> Self {
        self.matching(MatchPolicy::Prefix)
    }

    /// To all topics that are so, where an empty component stands for any one: `com.example..temperature`.
    pub fn wildcard(self) -> Self {
        self.matching(MatchPolicy::Wildcard)
    }

    /// However the topic is to be matched.
    pub fn matching(mut self, policy: MatchPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// What the router has kept of the topic comes first.
    pub fn get_retained(self) -> Self {
        self.option("get_retained", true)
    }

    /// How many events may wait to be read, and what happens to more: unless it is said, 1024, and the oldest are
    /// dropped.
    pub fn buffer(mut self, capacity: usize, overflow: Overflow) -> Self {
        self.buffer = (capacity, overflow);
        self
    }

    /// Any option of SUBSCRIBE.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(key, value);
        self
    }

    async fn run(self) -> Result<Subscription<T>, Error> {
        let Self { handle, topic, policy, mut options, buffer, .. } = self;
        let permit = handle.permit().await?;
        if policy != MatchPolicy::Exact {
            options.insert("match", policy.as_str());
        }
        let wants_retained = options.bool("get_retained").ok().flatten() == Some(true);
        let token = handle.token();
        let (events, receiver) = buffer::buffer(buffer.0, buffer.1);
        let ((end, ended), (reply, answer)) = (oneshot::channel(), oneshot::channel());
        // Made before it is sent: from then on, whoever lets go of it unsubscribes.
        let subscription = Subscription {
            handle,
            token,
            receiver,
            ended: Some(ended),
            gap: None,
            is_kept: false,
            payload: PhantomData,
        };
        let command =
            SubscribeCommand { token, topic, policy, options, wants_retained, events, end, reply, permit };
        subscription.handle.send(Command::Subscribe(Box::new(command))).await?;
        subscription.handle.reply(answer, "SUBSCRIBED").await?;
        Ok(subscription)
    }
}

impl<T: 'static> IntoFuture for Subscribe<T> {
    type Output = Result<Subscription<T>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The events of a subscription, as a stream.
///
/// What does not decode is an error, and the stream goes on. After a lost connection it goes on in the next session,
/// and the first event then tells of the [`Gap`]. It ends when the client is closed; an error is its last item where
/// the router takes the subscription away, or the client gives up. Dropped, it is unsubscribed.
#[derive(Debug)]
#[must_use = "what is dropped is unsubscribed"]
pub struct Subscription<T> {
    handle: Arc<Handle>,
    token: Token,
    receiver: buffer::Receiver<RawEvent>,
    ended: Option<oneshot::Receiver<Result<(), Error>>>,
    /// That of an event which did not decode.
    gap: Option<Gap>,
    is_kept: bool,
    payload: PhantomData<fn() -> T>,
}

impl<T: FromPayload> Subscription<T> {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Event<T>, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<T> Subscription<T> {
    /// How many events wait to be read.
    pub fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// Lets go of the events but not of the subscription: the router goes on to send them, until the client is closed.
    pub fn detach(mut self) {
        self.is_kept = true;
    }

    /// Unsubscribes, and waits until the router has done so.
    ///
    /// # Errors
    ///
    /// [`Error::Application`] where the router knows of no such subscription.
    pub async fn unsubscribe(mut self) -> Result<(), Error> {
        self.is_kept = true;
        let (reply, answer) = oneshot::channel();
        self.handle.hand_in(Command::Unsubscribe(self.token, reply)).await?;
        self.handle.reply(answer, "UNSUBSCRIBED").await
    }
}

impl<T: FromPayload> Stream for Subscription<T> {
    type Item = Result<Event<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some((gap, raw)) = ready!(self.receiver.poll_take(cx)) {
            let gap = match (self.gap.take(), gap) {
                (Some(earlier), Some(later)) => Some(earlier.and(later)),
                (earlier, later) => earlier.or(later),
            };
            let event = Event::of(raw, gap);
            if event.is_err() {
                self.gap = gap;
            }
            return Poll::Ready(Some(event));
        }
        // The session says why before it lets go of the stream.
        let why = self.ended.take().and_then(|mut ended| ended.try_recv().ok());
        Poll::Ready(why.and_then(Result::err).map(Err))
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.handle.forsake(Forsaken::Subscription(self.token));
        }
    }
}

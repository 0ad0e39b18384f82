//! A subscription, as its peer sees it.

use std::sync::Arc;

use tandem_protocols::stomp::state::AckMode;

use crate::core::message::Publication;
use crate::core::name::Name;
use crate::core::parcel::{ConsumerId, RegistrationId, SubscriptionId};
use crate::core::queues::Filter;
use crate::stomp::dialogue::consumer::Consumer;

/// A subscription, as its peer sees it.
#[derive(Debug)]
pub(in crate::stomp) struct Subscription {
    /// The peer's name for it, which is in its messages.
    pub(in crate::stomp) id: Option<Box<str>>,
    /// Without what the session itself published.
    pub(in crate::stomp) no_local: bool,
    pub(in crate::stomp) feed: Feed,
    /// What few subscriptions have.
    pub(in crate::stomp) extras: Option<Box<Extras>>,
}

const _: () = assert!(size_of::<Subscription>() <= 48, "most idle sessions have one");

/// What few subscriptions have.
#[derive(Debug, Default)]
pub(in crate::stomp) struct Extras {
    /// The name of the durable subscription that it consumes from, if it asked for one.
    pub(in crate::stomp) durable: Option<Box<str>>,
    /// What it wants of what its topics bring.
    pub(in crate::stomp) filter: Option<Arc<dyn Filter>>,
    /// The header that tells the place of a message in its queue.
    pub(in crate::stomp) include_sequence: Option<Box<str>>,
    /// Where it looks, if it wants to know when it has seen everything.
    pub(in crate::stomp) browsed: Option<Box<str>>,
    /// Kept in 1.0 only, where it can end the subscription.
    pub(in crate::stomp) destination: Option<Box<str>>,
    /// Under which tag it wanted what its topics had kept; 0 if it did not.
    pub(in crate::stomp) replay: u64,
}

impl Extras {
    /// Nothing if there is nothing in it.
    pub(in crate::stomp) fn boxed(self) -> Option<Box<Extras>> {
        let Extras { durable, filter, include_sequence, browsed, destination, replay } = &self;
        let names = [durable, include_sequence, browsed, destination];
        let any = names.iter().any(|name| name.is_some()) || filter.is_some() || *replay > 0;
        any.then(|| Box::new(self))
    }
}

/// Where its messages come from.
#[derive(Debug)]
pub(in crate::stomp) enum Feed {
    Topics(SubscriptionId),
    /// Boxed, as most subscriptions are to topics.
    Queue(Box<Consumer>),
    Procedure(RegistrationId),
}

/// A queue for answers, which its owner calls `/temp-queue/...`.
#[derive(Debug)]
pub(in crate::stomp) struct Reply {
    pub(in crate::stomp) temp: Box<str>,
    pub(in crate::stomp) queue: Name,
    pub(in crate::stomp) consumer: ConsumerId,
}

impl Subscription {
    /// Whether a message of its topics is one that it asked for.
    pub(in crate::stomp) fn wants(&self, publication: &Publication) -> bool {
        let filter = self.extras.as_ref().and_then(|extras| extras.filter.as_ref());
        filter.is_none_or(|filter| filter.admits(publication))
    }

    /// Whether it does not want every message.
    pub(in crate::stomp) fn is_selective(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.filter.is_some())
    }

    /// What it was to, if that can end it.
    pub(in crate::stomp) fn destination(&self) -> Option<&str> {
        self.extras.as_ref()?.destination.as_deref()
    }

    /// Whether it wanted what its topics had kept under this tag, which is not 0.
    pub(in crate::stomp) fn is_replayed_as(&self, tag: u64) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.replay == tag)
    }

    /// Whether it gets no acknowledgements.
    pub(in crate::stomp) fn is_auto(&self) -> bool {
        match &self.feed {
            Feed::Topics(_) | Feed::Procedure(_) => true,
            Feed::Queue(consumer) => consumer.mode == AckMode::Auto,
        }
    }
}

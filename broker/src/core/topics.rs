//! Topics: who subscribes to what, and getting a publication to all of them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::RwLock;

use crate::core::access::Refusal;
use crate::core::index::Index;
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::message::{Publication, SessionId};
use crate::core::name::Pattern;
use crate::core::parcel::{Parcel, SubscriptionId};
use crate::core::queues::Queue;
use crate::metrics;

/// Where the events of a subscription go.
#[derive(Clone, Debug)]
pub enum Sink {
    /// To a session.
    Mailbox(Mailbox),
    /// To a queue that is bound to the topic.
    Queue(Arc<Queue>),
}

/// Who takes the events of a subscription: a session has one plain subscription to a pattern, and may have
/// any number of queues bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscriber {
    /// The session.
    pub session: SessionId,
    /// Tells apart the bound queues of a session; 0 for its plain subscription.
    pub binding: u64,
}

/// The topics of a realm.
#[derive(Debug, Default)]
pub struct Topics {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    index: Index<SubscriptionId>,
    /// Boxed: the table is up to half empty.
    subscriptions: HashMap<SubscriptionId, Box<Subscription>>,
    last_id: u64,
}

#[derive(Debug)]
struct Subscription {
    pattern: Pattern,
    subscribers: Subscribers,
}

/// Who subscribed to one pattern. Mostly that is one, and a map would take five times the memory of one.
#[derive(Debug)]
enum Subscribers {
    One(Subscriber, Sink),
    /// Never empty.
    Many(Box<IndexMap<Subscriber, Sink, RandomState>>),
}

/// What is left when a subscriber was taken out.
enum Removed {
    /// It was not there.
    Nothing,
    /// Others are left.
    Some(Sink),
    /// It was the only one.
    Last,
}

impl Subscribers {
    /// Adds one, unless it is there.
    fn insert(&mut self, subscriber: Subscriber, sink: Sink) {
        match self {
            Subscribers::One(known, _) if *known == subscriber => {}
            Subscribers::One(known, known_sink) => {
                let mut many = IndexMap::with_capacity_and_hasher(2, RandomState::new());
                many.insert(*known, known_sink.clone());
                many.insert(subscriber, sink);
                *self = Subscribers::Many(Box::new(many));
            }
            Subscribers::Many(many) => {
                many.entry(subscriber).or_insert(sink);
            }
        }
    }

    fn remove(&mut self, subscriber: Subscriber) -> Removed {
        match self {
            Subscribers::One(known, _) if *known == subscriber => Removed::Last,
            Subscribers::One(..) => Removed::Nothing,
            Subscribers::Many(many) if many.len() == 1 && many.contains_key(&subscriber) => Removed::Last,
            Subscribers::Many(many) => many.swap_remove(&subscriber).map_or(Removed::Nothing, Removed::Some),
        }
    }

    fn for_each(&self, mut visit: impl FnMut(Subscriber, &Sink)) {
        match self {
            Subscribers::One(subscriber, sink) => visit(*subscriber, sink),
            Subscribers::Many(many) => many.iter().for_each(|(subscriber, sink)| visit(*subscriber, sink)),
        }
    }
}

impl Topics {
    /// Adds a subscriber. All subscribers of one pattern share its subscription's number; subscribing
    /// again changes nothing and gives the same number.
    pub fn subscribe(
        &self,
        pattern: &Pattern,
        subscriber: Subscriber,
        sink: Sink,
    ) -> Result<SubscriptionId, Refusal> {
        let mut state = self.state.write();
        let State { index, subscriptions, last_id } = &mut *state;
        if let Some(id) = index.get(pattern) {
            if let Some(subscription) = subscriptions.get_mut(id) {
                subscription.subscribers.insert(subscriber, sink);
            }
            return Ok(*id);
        }
        let id = SubscriptionId(*last_id + 1);
        index.insert(pattern, id)?;
        *last_id += 1;
        let subscribers = Subscribers::One(subscriber, sink);
        subscriptions.insert(id, Box::new(Subscription { pattern: pattern.clone(), subscribers }));
        Ok(id)
    }

    /// Removes a subscriber. True when it was there.
    pub fn unsubscribe(&self, id: SubscriptionId, subscriber: Subscriber) -> bool {
        let mut state = self.state.write();
        let State { index, subscriptions, .. } = &mut *state;
        let Some(subscription) = subscriptions.get_mut(&id) else { return false };
        // The sink may be the last that knows a queue: it goes after the lock.
        match subscription.subscribers.remove(subscriber) {
            Removed::Nothing => false,
            Removed::Some(sink) => {
                drop(state);
                drop(sink);
                true
            }
            Removed::Last => {
                index.remove(&subscription.pattern);
                let subscription = subscriptions.remove(&id);
                drop(state);
                drop(subscription);
                true
            }
        }
    }

    /// Hands a publication to every subscriber whose pattern matches its name, once per subscription:
    /// exact patterns first, then prefixes from short to long, then wildcards. Never waits. Says how many
    /// took it.
    pub fn publish(&self, publication: &Arc<Publication>, exclude: Option<SessionId>) -> usize {
        let state = self.state.read();
        let mut taken = 0;
        state.index.for_each_match(publication.name.as_str(), |id| {
            let Some(subscription) = state.subscriptions.get(id) else { return };
            subscription.subscribers.for_each(|subscriber, sink| {
                if exclude == Some(subscriber.session) {
                    return;
                }
                let pushed = match sink {
                    Sink::Mailbox(mailbox) => {
                        mailbox.push(Parcel::Event { publication: publication.clone(), subscription: *id })
                    }
                    Sink::Queue(queue) => queue.push_bound(publication.clone()),
                };
                taken += usize::from(pushed == Pushed::Queued);
            });
        });
        metrics::EVENTS.add(taken as i64);
        taken
    }

    /// The pattern of a subscription.
    pub fn pattern(&self, id: SubscriptionId) -> Option<Pattern> {
        self.state.read().subscriptions.get(&id).map(|subscription| subscription.pattern.clone())
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.state.read().subscriptions.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

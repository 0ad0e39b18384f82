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
    subscriptions: HashMap<SubscriptionId, Subscription>,
    last_id: u64,
}

#[derive(Debug)]
struct Subscription {
    pattern: Pattern,
    subscribers: IndexMap<Subscriber, Sink, RandomState>,
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
        let id = match index.get(pattern) {
            Some(id) => *id,
            None => {
                let id = SubscriptionId(*last_id + 1);
                index.insert(pattern, id)?;
                *last_id += 1;
                let subscribers = IndexMap::with_hasher(RandomState::new());
                subscriptions.insert(id, Subscription { pattern: pattern.clone(), subscribers });
                id
            }
        };
        if let Some(subscription) = subscriptions.get_mut(&id) {
            subscription.subscribers.entry(subscriber).or_insert(sink);
        }
        Ok(id)
    }

    /// Removes a subscriber. True when it was there.
    pub fn unsubscribe(&self, id: SubscriptionId, subscriber: Subscriber) -> bool {
        let mut state = self.state.write();
        let State { index, subscriptions, .. } = &mut *state;
        let Some(subscription) = subscriptions.get_mut(&id) else { return false };
        let removed = subscription.subscribers.swap_remove(&subscriber);
        if subscription.subscribers.is_empty() {
            index.remove(&subscription.pattern);
            subscriptions.remove(&id);
        }
        // The sink may be the last that knows a queue: it goes after the lock.
        drop(state);
        removed.is_some()
    }

    /// Hands a publication to every subscriber whose pattern matches its name, once per subscription:
    /// exact patterns first, then prefixes from short to long, then wildcards. Never waits. Says how many
    /// took it.
    pub fn publish(&self, publication: &Arc<Publication>, exclude: Option<SessionId>) -> usize {
        let state = self.state.read();
        let mut taken = 0;
        state.index.for_each_match(publication.name.as_str(), |id| {
            let Some(subscription) = state.subscriptions.get(id) else { return };
            for (subscriber, sink) in &subscription.subscribers {
                if exclude == Some(subscriber.session) {
                    continue;
                }
                let pushed = match sink {
                    Sink::Mailbox(mailbox) => {
                        mailbox.push(Parcel::Event { publication: publication.clone(), subscription: *id })
                    }
                    Sink::Queue(queue) => queue.push_bound(publication.clone()),
                };
                taken += usize::from(pushed == Pushed::Queued);
            }
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

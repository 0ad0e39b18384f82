//! What a session consumes from: queues, and subscriptions that are acknowledged.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::core::parcel::{ConsumerId, SubscriptionId};
use crate::core::queues::Queue;

/// One consumer of a session.
#[derive(Debug)]
pub struct Consumption {
    /// What it takes from.
    pub queue: Arc<Queue>,
    /// The subscription that feeds the queue, if it is bound to topics.
    pub binding: Option<SubscriptionId>,
}

/// The consumers of a session. Most have none, and then it is one word.
#[derive(Debug, Default)]
pub struct Consumptions(Option<Box<Consuming>>);

#[derive(Debug, Default)]
struct Consuming {
    consumers: BTreeMap<ConsumerId, Consumption>,
    last: u64,
}

impl Consumptions {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |consuming| consuming.consumers.len())
    }

    /// A number that none had before.
    pub fn next_id(&mut self) -> ConsumerId {
        let consuming = self.0.get_or_insert_default();
        consuming.last += 1;
        ConsumerId(consuming.last)
    }

    /// One more.
    pub fn insert(&mut self, id: ConsumerId, consumption: Consumption) {
        self.0.get_or_insert_default().consumers.insert(id, consumption);
    }

    /// One of them.
    pub fn get(&self, id: ConsumerId) -> Option<&Consumption> {
        self.0.as_ref()?.consumers.get(&id)
    }

    /// Takes out one of them, if it is like that.
    pub fn remove_if(&mut self, id: ConsumerId, holds: impl Fn(&Consumption) -> bool) -> Option<Consumption> {
        match self.0.as_mut()?.consumers.entry(id) {
            Entry::Occupied(known) if holds(known.get()) => Some(known.remove()),
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        }
    }

    /// All of them, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&ConsumerId, &Consumption)> {
        self.0.iter().flat_map(|consuming| &consuming.consumers)
    }
}

//! Durable subscriptions: queues that are bound to topics, bear a name, and outlive the sessions that consume
//! from them. Whoever knows the name shares the queue; it is gone when somebody ends it who is alone with it.
//!
//! A queue is filled with what its maker may have. Somebody of another role, from whom rules withhold a part of that,
//! does not share it: nobody could tell any more what is whose.

use std::collections::HashMap;
use std::sync::Arc;

use crate::core::access::Refusal;
use crate::core::name::Pattern;
use crate::core::parcel::SubscriptionId;
use crate::core::queues::{Filter, Properties, Queue};
use crate::core::topics::Subscriber;

/// The longest name of a durable subscription, in bytes.
pub const DURABLE_NAME_BYTES_MAX: usize = 1024;

/// What is wanted of a durable subscription.
#[derive(Clone, Debug)]
pub struct DurableTerms {
    /// Its topics.
    pub pattern: Pattern,
    /// Which messages of those.
    pub filter: Option<Arc<dyn Filter>>,
    /// What its queue is like.
    pub properties: Properties,
}

/// The durable subscriptions of a realm.
#[derive(Debug, Default)]
pub struct Durables {
    by_name: HashMap<Box<str>, Durable>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Durable {
    /// Its queue.
    pub queue: Arc<Queue>,
    /// Its topics.
    pub pattern: Pattern,
    /// The role of who made it.
    pub role: Arc<str>,
    /// What feeds the queue.
    pub binding: SubscriptionId,
    /// Under which the binding is known.
    pub subscriber: Subscriber,
}

impl Durables {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Result<&Durable, Refusal> {
        self.by_name.get(name).ok_or_else(|| Refusal::NoSuchDurable(name.to_owned()))
    }

    /// The queue of the one of that name, if there is one; it must be as wanted.
    pub fn fitting(&self, name: &str, terms: &DurableTerms) -> Result<Option<Arc<Queue>>, Refusal> {
        let Some(Durable { queue, pattern, .. }) = self.by_name.get(name) else { return Ok(None) };
        let mut misfits = queue.misfits(&terms.properties);
        if *pattern != terms.pattern {
            misfits.push("destination");
        }
        if queue.filter_text() != terms.filter.as_deref().map(Filter::text) {
            misfits.push("selector");
        }
        if misfits.is_empty() {
            return Ok(Some(queue.clone()));
        }
        Err(Refusal::OtherProperties(queue.name().clone(), misfits.join(", ")))
    }

    /// The one that has this queue.
    pub fn of(&self, queue: &Arc<Queue>) -> Option<&Durable> {
        self.by_name.values().find(|durable| Arc::ptr_eq(&durable.queue, queue))
    }

    /// Adds one.
    pub fn insert(&mut self, name: &str, durable: Durable) {
        self.by_name.insert(name.into(), durable);
    }

    /// Takes one out that nobody but this session's one consumer, or nobody at all, consumes from.
    pub fn remove(&mut self, name: &str, own_consumers: usize) -> Result<Durable, Refusal> {
        if self.get(name)?.queue.consumers() > own_consumers {
            return Err(Refusal::InUse(format!("durable subscription {name:?}")));
        }
        self.by_name.remove(name).ok_or_else(|| Refusal::NoSuchDurable(name.to_owned()))
    }
}

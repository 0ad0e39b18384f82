//! Durable subscriptions: queues that are bound to topics, bear a name, and outlive the sessions that consume
//! from them. Whoever knows the name shares the queue; it is gone when somebody ends it who is alone with it.
//!
//! A queue is filled with what its maker may have. Somebody of another role, from whom rules withhold a part of that,
//! does not share it: nobody could tell any more what is whose.
//!
//! Where there is a store, they outlive the broker: what they are is written with their queue's properties, as a
//! [`Definition`], before anybody is told that they exist.

use std::collections::HashMap;
use std::sync::Arc;

use crate::core::access::{Principal, Refusal};
use crate::core::name::{MatchKind, Name, Pattern};
use crate::core::parcel::SubscriptionId;
use crate::core::queues::{Filter, Properties, Queue};
use crate::core::store;
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

/// Makes a filter of how it was written; `None` if it is none.
pub type ReadFilter<'a> = &'a dyn Fn(&str) -> Option<Arc<dyn Filter>>;

/// What must be known of a durable subscription, beside what its queue is like, to make it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its topics.
    pub pattern: Pattern,
    /// Which messages of those, as that was written.
    pub filter: Option<String>,
    /// Who subscribed first: permissions and lists of publishers are asked about them.
    pub owner: Owner,
}

/// Who a durable subscription is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    id: String,
    role: String,
    trust: Option<u32>,
}

const NAME: &str = "durable-name";
const MATCH: &str = "durable-match";
const PATTERN: &str = "durable-pattern";
const FILTER: &str = "durable-selector";
const OWNER: &str = "durable-owner";
const ROLE: &str = "durable-role";
const TRUST: &str = "durable-trust";

/// How an owner is known who was read from a store.
const STORED_METHOD: &str = "stored";

impl Owner {
    /// The one that this session is of.
    pub fn of(principal: &Principal) -> Owner {
        let Principal { id, role, trust, .. } = principal;
        Owner { id: id.to_string(), role: role.to_string(), trust: *trust }
    }

    /// As permissions know them.
    pub fn principal(&self) -> Principal {
        let principal = Principal::new(&*self.id, &*self.role, STORED_METHOD);
        Principal { trust: self.trust, ..principal }
    }
}

impl Definition {
    /// As a store keeps it, beside the properties of the queue.
    pub fn written(&self) -> store::Properties {
        let Definition { name, pattern, filter, owner } = self;
        let all = [
            (NAME, Some(name.clone())),
            (MATCH, Some(pattern.kind().to_string())),
            (PATTERN, Some(pattern.as_str().to_owned())),
            (FILTER, filter.clone()),
            (OWNER, Some(owner.id.clone())),
            (ROLE, Some(owner.role.clone())),
            (TRUST, owner.trust.map(|trust| trust.to_string())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Whether these are of a durable subscription.
    pub fn is_in(written: &[(String, String)]) -> bool {
        written.iter().any(|(name, _)| name == NAME)
    }

    /// As [`written`](Definition::written). `None` if it is not whole.
    pub fn read(written: &[(String, String)]) -> Option<Definition> {
        let get = |name: &str| written.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        let (kind, text) = (get(MATCH)?, get(PATTERN)?);
        let pattern = match kind {
            _ if kind == MatchKind::Exact.to_string() => Pattern::exact(Name::parse(text).ok()?),
            _ if kind == MatchKind::Prefix.to_string() => Pattern::prefix(text).ok()?,
            _ if kind == MatchKind::Components.to_string() => read_components(text)?,
            _ => return None,
        };
        let trust = get(TRUST).map(str::parse).transpose().ok()?;
        let owner = Owner { id: get(OWNER)?.to_owned(), role: get(ROLE)?.to_owned(), trust };
        let filter = get(FILTER).map(str::to_owned);
        Some(Definition { name: get(NAME)?.to_owned(), pattern, filter, owner })
    }
}

/// A pattern of components by its one spelling.
fn read_components(text: &str) -> Option<Pattern> {
    let (parts, tail) = match text.strip_suffix(".#") {
        Some(parts) => (Some(parts), true),
        None if text == "#" => (None, true),
        None => (Some(text), false),
    };
    let parts = parts.into_iter().flat_map(|parts| parts.split('.'));
    Pattern::components(parts.map(|part| Some(part).filter(|part| !part.is_empty())), tail).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_read_as_it_was_written() {
        let patterns = [
            Pattern::exact(Name::parse("a.b").unwrap()),
            Pattern::prefix("a.").unwrap(),
            Pattern::wildcard("a..b").unwrap(),
            Pattern::wildcard("").unwrap(),
            Pattern::components([Some("a"), None], true).unwrap(),
            Pattern::components([], true).unwrap(),
        ];
        for (number, pattern) in patterns.into_iter().enumerate() {
            let owner =
                Owner { id: "joe".to_owned(), role: "user".to_owned(), trust: (number > 2).then_some(7) };
            let filter = (number > 3).then(|| "a = 'b'".to_owned());
            let definition = Definition { name: format!("d {number}"), pattern, filter, owner };
            let mut written = definition.written();
            written.push(("max-length".to_owned(), "3".to_owned()));
            assert!(Definition::is_in(&written));
            assert_eq!(Definition::read(&written).as_ref(), Some(&definition));
            written.retain(|(name, _)| name != ROLE);
            assert_eq!(Definition::read(&written), None);
        }
        assert!(!Definition::is_in(&[]));
    }
}

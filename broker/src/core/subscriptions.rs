//! What a session subscribes to.

use crate::core::parcel::SubscriptionId;

/// The plain subscriptions of a session, in order of their numbers, and which of them are to patterns: where a language
/// says the topic of an event only if it is not known, it is asked for each event.
#[derive(Debug, Default)]
pub struct Subscriptions(Vec<(SubscriptionId, bool)>);

impl Subscriptions {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether one is to a pattern; `None` if it is not held.
    pub fn is_pattern(&self, id: SubscriptionId) -> Option<bool> {
        self.find(id).ok().map(|place| self.0[place].1)
    }

    /// One more, unless it is there.
    pub fn insert(&mut self, id: SubscriptionId, is_pattern: bool) {
        if let Err(place) = self.find(id) {
            if self.0.len() < 4 {
                // Most sessions have one or two: no room is held for more.
                self.0.reserve_exact(1);
            }
            self.0.insert(place, (id, is_pattern));
        }
    }

    /// One less. False if it is not there.
    pub fn remove(&mut self, id: SubscriptionId) -> bool {
        self.find(id).map(|place| self.0.remove(place)).is_ok()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = SubscriptionId> {
        self.0.iter().map(|(id, _)| *id)
    }

    fn find(&self, id: SubscriptionId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |(known, _)| *known)
    }
}

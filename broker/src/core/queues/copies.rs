//! Copies of what a queue took, the last so many, for who wants to read it again.
//!
//! The copy of a message of the store is its record there: when the message is done with, the record stays, marked as
//! such, until the copy falls out. What went to the queue for dead letters left its record there, and its copy is in
//! memory only.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::message::Publication;
use crate::core::queues::consumer::Browse;
use crate::core::queues::item::{Body, Item};
use crate::core::queues::state::State;
use crate::core::store::DONE;

impl State {
    /// Of how many messages copies are kept; none if it is not said.
    fn kept_max(&self) -> Option<u64> {
        self.properties.kept_max.filter(|max| *max > 0)
    }

    /// Keeps a copy of what the queue took, and no more of them than it may.
    pub(super) fn keep(&mut self, sequence: u64, item: &Item) {
        if self.kept_max().is_some() {
            self.add_copy(sequence, item.clone());
            self.trim_copies();
        }
    }

    /// Takes a message of the store that was done with before. One that is not wanted any more leaves the store.
    pub(super) fn restore_copy(&mut self, sequence: u64, mut item: Item) {
        match self.kept_max() {
            Some(_) => {
                item.set_done();
                self.add_copy(sequence, item);
            }
            None => self.durable.removed.push(sequence),
        }
    }

    /// The same for one that is still in the queue.
    pub(super) fn restore_copy_of(&mut self, sequence: u64, item: &Item) {
        if self.kept_max().is_some() {
            self.add_copy(sequence, item.clone());
        }
    }

    fn add_copy(&mut self, sequence: u64, item: Item) {
        let cost = item.cost();
        self.kept.insert(sequence, item);
        self.kept_bytes += cost;
        self.total_bytes.fetch_add(cost, Ordering::Relaxed);
    }

    /// Lets the oldest copies go, and what is in the store for them alone.
    pub(super) fn trim_copies(&mut self) {
        let (kept_max, bytes_max) = (self.kept_max().unwrap_or(0), self.bytes_max());
        while (self.kept.len() as u64 > kept_max || self.kept_bytes > bytes_max)
            && let Some((sequence, _)) = self.kept.first_key_value()
        {
            let sequence = *sequence;
            if let Some(oldest) = self.remove_copy(sequence)
                && oldest.is_done()
                && oldest.is_stored()
            {
                self.durable.removed.push(sequence);
            }
        }
    }

    pub(super) fn remove_copy(&mut self, sequence: u64) -> Option<Item> {
        let copy = self.kept.remove(&sequence)?;
        self.kept_bytes -= copy.cost();
        self.total_bytes.fetch_sub(copy.cost(), Ordering::Relaxed);
        Some(copy)
    }

    /// A message of the store is done with. True if it stays there for its copy.
    pub(super) fn stays_as_copy(&mut self, sequence: u64) -> bool {
        let Some(copy) = self.kept.get_mut(&sequence).filter(|copy| copy.is_stored()) else { return false };
        copy.set_done();
        self.durable.delivered.push((sequence, DONE));
        true
    }

    /// A message leaves for another queue, and the store: its copy does not.
    pub(super) fn detach_copy(&mut self, sequence: u64) {
        match self.kept.get_mut(&sequence) {
            Some(copy) if copy.is_away() => drop(self.remove_copy(sequence)),
            Some(copy) => copy.set_stored(false),
            None => {}
        }
    }

    /// The same for all: the queue leaves the store.
    pub(super) fn detach_copies(&mut self) {
        let stored = self.kept.iter().filter(|(_, copy)| copy.is_stored());
        let stored: Vec<u64> = stored.map(|(sequence, _)| *sequence).collect();
        stored.into_iter().for_each(|sequence| self.detach_copy(sequence));
    }

    /// A message was read from the store: its copy is here too, if somebody may want to see it.
    pub(super) fn fill_copy(&mut self, sequence: u64, publication: &Arc<Publication>, from_topic: bool) {
        let is_read = self.browsers.iter().any(|key| {
            let browser = self.consumers.get(key);
            browser.is_some_and(|browser| matches!(browser.terms.browse, Some(Browse::Kept { .. })))
        });
        if let Some(copy) = self.kept.get_mut(&sequence).filter(|copy| is_read && copy.is_away()) {
            copy.body = Body::Here(publication.clone());
            copy.set_from_topic(from_topic);
        }
    }

    /// Leaves a copy in the store that was shown to somebody, if memory becomes scarce.
    pub(super) fn relax_copy(&mut self, sequence: u64) {
        let Some(journal) = &self.journal else { return };
        let is_scarce = self.kept_bytes > journal.limits.window_bytes_max / 2;
        if let Some(copy) = self.kept.get_mut(&sequence).filter(|copy| is_scarce && copy.is_stored()) {
            copy.body = Body::Away;
        }
    }
}

//! Who consumes from a queue: coming and going, whose turn it is, and what they decide.

use crate::core::access::Refusal;
use crate::core::mailbox::Mailbox;
use crate::core::queues::consumer::{Browse, ConsumeTerms, Consumer, ConsumerKey, Credit};
use crate::core::queues::item::{Death, Settlement};
use crate::core::queues::state::{SCANNERS_MAX, State};

impl State {
    pub(super) fn add_consumer(
        &mut self,
        key: ConsumerKey,
        mailbox: Mailbox,
        credit: Credit,
        terms: ConsumeTerms,
    ) -> Result<(), Refusal> {
        let scans = terms.filter.is_some() || terms.browse.is_some();
        if scans && self.pickers.len() + self.browsers.len() >= SCANNERS_MAX {
            return Err(Refusal::TooMany(
                "consumers with a selector, and browsers, of a queue",
                SCANNERS_MAX,
            ));
        }
        if matches!(terms.browse, Some(Browse::Kept { .. }))
            && self.properties.kept_max.is_none_or(|max| max == 0)
        {
            return Err(Refusal::NothingKept(self.name.clone()));
        }
        self.last_joined += 1;
        let (exclusive, order) = (terms.exclusive, (-i64::from(terms.priority), self.last_joined));
        if terms.browse.is_some() {
            self.browsers.insert(key);
        } else if terms.filter.is_some() {
            self.pickers.insert(key);
        }
        let mut consumer = Consumer::new(mailbox, credit, terms, self.last_joined);
        if let Some(Browse::Kept { from, .. }) = consumer.terms.browse {
            consumer.next_kept = from.unwrap_or(self.last_sequence + 1);
        }
        self.consumers.insert(key, consumer);
        self.unused_since_ms = None;
        if exclusive {
            self.exclusive.insert(order, key);
            self.groups.clear();
            for other in self.consumers_by_age() {
                self.release_reserved(other);
                self.give_turn(other);
            }
        }
        self.give_turn(key);
        Ok(())
    }

    /// A consumer gets nothing more; it may settle what it holds.
    pub(super) fn close(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(&key) else { return };
        consumer.open = false;
        let order = (-i64::from(consumer.terms.priority), consumer.joined);
        self.groups.release(key);
        self.release_reserved(key);
        self.pickers.remove(&key);
        self.give_turn(key);
        if self.exclusive.remove(&order).is_some() {
            self.consumers_by_age().into_iter().for_each(|other| self.give_turn(other));
        }
    }

    /// All of them, first who came first: so they get their turns when all may have one again.
    fn consumers_by_age(&self) -> Vec<ConsumerKey> {
        let mut all: Vec<_> = self.consumers.iter().map(|(key, consumer)| (consumer.joined, *key)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, key)| key).collect()
    }

    pub(super) fn remove_consumer(&mut self, key: ConsumerKey, now_ms: u64) {
        self.close(key);
        let Some(consumer) = self.consumers.remove(&key) else { return };
        if !self.browsers.remove(&key) {
            for (sequence, item) in consumer.held.into_ascending() {
                self.put_back(sequence, item, now_ms);
            }
        }
        if self.consumers.is_empty() {
            self.unused_since_ms = Some(now_ms);
        }
    }

    pub(super) fn release_reserved(&mut self, key: ConsumerKey) {
        let reserved = self.consumers.get_mut(&key).map(|consumer| std::mem::take(&mut consumer.reserved));
        for (rank, item) in reserved.into_iter().flatten() {
            self.count(&item, -1);
            self.insert_ready(rank, item);
        }
        self.reserving.remove(&key);
    }

    /// Puts a consumer last among those with credit and its priority, unless it is among them, or takes it out.
    pub(super) fn give_turn(&mut self, key: ConsumerKey) {
        let elected = self.exclusive.first_key_value().is_none_or(|(_, elected)| *elected == key);
        let Some(consumer) = self.consumers.get_mut(&key) else { return };
        let may = elected && consumer.terms.browse.is_none() && consumer.has_credit();
        match (may, consumer.turn) {
            (true, None) => {
                self.last_turn += 1;
                let turn = (-i64::from(consumer.terms.priority), self.last_turn);
                consumer.turn = Some(turn);
                self.turns.insert(turn, key);
            }
            (false, Some(turn)) => {
                consumer.turn = None;
                self.turns.remove(&turn);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// What a consumer decided about a message that it holds.
    pub(super) fn settle(&mut self, key: ConsumerKey, sequence: u64, settlement: Settlement, now_ms: u64) {
        let Some(consumer) = self.consumers.get_mut(&key) else { return };
        let Some(item) = consumer.held.remove(sequence) else { return };
        consumer.held_bytes -= item.cost();
        let waits_for_credit = consumer.turn.is_none();
        if !self.browsers.contains(&key) {
            match settlement {
                Settlement::Accept => self.discard(sequence, &item),
                Settlement::Requeue if item.has_expired(now_ms) => {
                    self.give_up(sequence, item, Death::Expired)
                }
                Settlement::Requeue => self.put_back(sequence, item, now_ms),
                Settlement::Reject => self.give_up(sequence, item, Death::Rejected),
            }
        }
        if waits_for_credit {
            self.give_turn(key);
        }
    }
}

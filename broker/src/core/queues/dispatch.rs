//! Who gets what. Whoever takes everything gets the first message that is ready. Whoever wants only some has a place of
//! its own among them: what lies before it was shown to it once, and what it wanted of that is known. So no message is
//! shown to a filter twice, however deep the queue is, and at one time no more than [`SCANS_PER_OPERATION`] messages
//! are; the rest follows when the queue is next looked at.

use crate::core::mailbox::Pushed;
use crate::core::parcel::{Delivery, Parcel};
use crate::core::queues::consumer::{Consumer, ConsumerKey};
use crate::core::queues::item::{Death, Item, Rank};
use crate::core::queues::state::{SCANS_PER_OPERATION, State};
use crate::metrics;

impl State {
    /// Does what is due, and gives what is ready to who has credit, in turn, until one of both runs out.
    pub(super) fn dispatch(&mut self, now_ms: u64) {
        self.dispatch_and_scan(now_ms, SCANS_PER_OPERATION);
    }

    /// The same, with so many messages shown at most.
    pub(super) fn dispatch_and_scan(&mut self, now_ms: u64, scans_max: usize) {
        self.scans_left = scans_max;
        self.forget_wanted();
        if self.is_plain() {
            self.hand_plainly();
            if self.ready.is_empty() || self.turns.is_empty() {
                return;
            }
        }
        self.wake_delayed(now_ms);
        self.expire(now_ms);
        self.serve_browsers(now_ms);
        self.serve_owners(now_ms);
        while !self.ready.is_empty()
            && let Some((key, rank)) = self.next_pair(now_ms)
        {
            let Some(item) = self.take_ready(rank) else { continue };
            self.hand(key, rank, item);
        }
    }

    /// Nobody said yet what of the store it waits for.
    pub(super) fn forget_wanted(&mut self) {
        (self.durable.wanted, self.durable.looked_for) = (None, None);
    }

    /// Gives the first message to whose turn it is, as long as nothing more is to be known about either: what nearly
    /// always is all there is to do.
    fn hand_plainly(&mut self) {
        while let Some((_, key)) = self.turns.first_key_value()
            && let Some(first) = self.ready.first_entry()
        {
            let (key, rank) = (*key, *first.key());
            if !first.get().is_plain() || !self.durable.allows(rank) {
                return;
            }
            let item = first.remove();
            self.count(&item, -1);
            self.hand(key, rank, item);
        }
    }

    pub(super) fn wake_delayed(&mut self, now_ms: u64) {
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now_ms
        {
            let ((_, sequence), item) = first.remove_entry();
            self.count(&item, -1);
            if item.redeliveries() > 0 {
                self.make_available(sequence, item);
            } else if item.is_stored() {
                // Its place is its place in the store.
                self.insert_ready(item.rank(sequence), item);
            } else {
                // It takes its place when its time has come, not when it was sent.
                self.last_sequence += 1;
                self.insert(self.last_sequence, item);
            }
        }
    }

    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some((at, rank)) = self.expiring.first().copied()
            && at <= now_ms
        {
            self.expiring.remove(&(at, rank));
            if let Some(item) = self.take_ready(rank) {
                metrics::QUEUE_EXPIRED.add(1);
                self.give_up(rank.sequence(), item, Death::Expired);
            }
        }
    }

    /// Whom a message must go to because of its group.
    pub(super) fn owner(&self, item: &Item) -> Option<ConsumerKey> {
        if !self.exclusive.is_empty() {
            return None;
        }
        let owner = self.groups.owner(item.group()?)?;
        let consumer = self.consumers.get(&owner)?;
        (consumer.open && consumer.admits_item(item)).then_some(owner)
    }

    /// Consumers get first what came of their groups while they had no credit.
    pub(super) fn serve_owners(&mut self, now_ms: u64) {
        let owners: Vec<ConsumerKey> = self.reserving.iter().copied().collect();
        for key in owners {
            while let Some(consumer) = self.consumers.get_mut(&key)
                && consumer.turn.is_some()
                && let Some((rank, item)) = consumer.reserved.first_key_value()
            {
                let (rank, has_expired) = (*rank, item.has_expired(now_ms));
                if item.is_away() && !has_expired {
                    self.want(rank.sequence());
                    break;
                }
                let Some(item) = consumer.reserved.remove(&rank) else { break };
                self.count(&item, -1);
                if has_expired {
                    self.give_up(rank.sequence(), item, Death::Expired);
                } else {
                    self.hand(key, rank, item);
                }
            }
            if self.consumers.get(&key).is_none_or(|consumer| consumer.reserved.is_empty()) {
                self.reserving.remove(&key);
            }
        }
    }

    /// The next consumer that gets something, and what.
    pub(super) fn next_pair(&mut self, now_ms: u64) -> Option<(ConsumerKey, Rank)> {
        let mut next = self.turns.first_key_value().map(|(turn, key)| (*turn, *key));
        let mut first_waits = false;
        while let Some((turn, key)) = next {
            if let Some(rank) = self.candidate(key, now_ms) {
                return Some((key, rank));
            }
            if self.ready.is_empty() {
                return None;
            }
            // Those that take everything are passed over only while the first message waits for the store; then only
            // those that choose may get something.
            first_waits |= !self.pickers.contains(&key);
            let after = (turn.0, turn.1 + 1);
            next = if first_waits {
                let turn = |key: &ConsumerKey| Some((self.consumers.get(key)?.turn?, *key));
                self.pickers
                    .iter()
                    .filter_map(turn)
                    .filter(|(turn, _)| *turn >= after)
                    .min_by_key(|(turn, _)| *turn)
            } else {
                self.turns.range(after..).next().map(|(turn, key)| (*turn, *key))
            };
        }
        None
    }

    /// The first ready message that this consumer may have. What belongs to the owner of a group goes there.
    pub(super) fn candidate(&mut self, key: ConsumerKey, now_ms: u64) -> Option<Rank> {
        loop {
            let rank =
                if self.pickers.contains(&key) { self.scan(key)? } else { *self.ready.first_key_value()?.0 };
            if !self.durable.allows(rank) {
                return None;
            }
            let item = self.ready.get(&rank)?;
            let expired = item.has_expired(now_ms);
            if item.is_away() && !expired {
                self.want(rank.sequence());
                return None;
            }
            let owner = self.owner(item).filter(|owner| *owner != key);
            if !expired && owner.is_none() {
                return Some(rank);
            }
            let item = self.take_ready(rank)?;
            match owner {
                _ if expired => self.give_up(rank.sequence(), item, Death::Expired),
                Some(owner) => {
                    let has_turn = self.consumers.get(&owner).is_some_and(|consumer| consumer.turn.is_some());
                    match has_turn {
                        true => self.hand(owner, rank, item),
                        false => self.reserve(owner, rank, item),
                    }
                }
                None => self.insert_ready(rank, item),
            }
        }
    }

    /// The first message that passes a consumer's filter, as far as it may look now.
    pub(super) fn scan(&mut self, key: ConsumerKey) -> Option<Rank> {
        while self.scans_left > 0 || self.consumers.get(&key).is_some_and(|picker| !picker.wanted.is_empty())
        {
            let picker = self.consumers.get_mut(&key)?;
            if let Some(rank) = picker.wanted.first() {
                return Some(*rank);
            }
            let (rank, item) = self.ready.range(picker.cursor..).next()?;
            let rank = *rank;
            let Some(publication) = item.publication() else {
                self.want(rank.sequence());
                return None;
            };
            self.scans_left -= 1;
            picker.cursor = rank.after();
            if picker.admits(publication) {
                picker.wanted.insert(rank);
                return Some(rank);
            }
            self.relax(rank);
        }
        None
    }

    /// Gives a message that was taken out to a consumer whose turn it is.
    pub(super) fn hand(&mut self, key: ConsumerKey, rank: Rank, item: Item) {
        let grouped = self.exclusive.is_empty();
        let Some(consumer) = self.consumers.get_mut(&key) else {
            return self.insert_ready(rank, item);
        };
        if !deliver(consumer, key, rank.sequence(), &item) {
            self.insert_ready(rank, item);
            // Its session is over, and will take it away.
            return self.close(key);
        }
        if let Some(group) = item.group().filter(|_| grouped) {
            match item.ends_group() {
                true => self.groups.forget(group),
                false => self.groups.own(group, key),
            }
        }
        self.durable.note_delivery(rank.sequence(), &item);
        consumer.held.insert(rank.sequence(), item);
        // Alone it is next again.
        if self.turns.len() == 1 && consumer.turn.is_some() && consumer.has_credit() {
            return;
        }
        if let Some(turn) = consumer.turn.take() {
            self.turns.remove(&turn);
        }
        self.give_turn(key);
    }
}

/// Puts a message into a consumer's mailbox, and counts it. False if nobody looks into that any more.
pub(super) fn deliver(consumer: &mut Consumer, key: ConsumerKey, sequence: u64, item: &Item) -> bool {
    let Some(publication) = item.publication() else { return false };
    let pushed = consumer.mailbox.push(Parcel::Delivery(Delivery {
        publication: publication.clone(),
        consumer: key.consumer,
        sequence,
        redeliveries: item.redeliveries(),
        from_topic: item.is_from_topic(),
    }));
    let queued = pushed == Pushed::Queued;
    if queued {
        consumer.held_bytes += item.cost();
    }
    queued
}

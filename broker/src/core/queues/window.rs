//! Which messages of a queue are in memory, of those that the store has too: as many as fit a window of bytes, and
//! those that somebody is to get or to see next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::message::Publication;
use crate::core::queues::consumer::ConsumerKey;
use crate::core::queues::durable::Pending;
use crate::core::queues::item::{Body, DeadLetter, Group, Item, Rank, expiry};
use crate::core::queues::state::State;
use crate::core::store::record::Note;
use crate::core::store::{Change, StoredQueue};
use crate::metrics;

/// Where a message lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    Ready(Rank),
    Reserved(ConsumerKey, Rank),
    Dying,
}

impl State {
    // ---- what lies here and in the store -------------------------------------------------------------

    /// A message came among those that lie here, or left them.
    pub(super) fn count(&mut self, item: &Item, by: isize) {
        let Some(journal) = self.journal.as_deref().filter(|_| item.stored) else { return };
        match item.body {
            Body::Away => self.durable.away = self.durable.away.saturating_add_signed(by),
            Body::Here(_) => {
                let bytes = by * item.cost as isize;
                self.durable.window_bytes = self.durable.window_bytes.saturating_add_signed(bytes);
                // Two's complement: adding what a negative number wraps to subtracts.
                journal.windows.fetch_add(bytes as usize, Ordering::Relaxed);
            }
        }
    }

    /// Leaves the body of a new message in the store if the window is full, or others are there already.
    fn shorten(&mut self, rank: Rank) {
        let Some(journal) = self.journal.clone() else { return };
        let fits = self.durable.away == 0
            && self.durable.window_bytes <= journal.limits.window_bytes_max
            && journal.windows.load(Ordering::Relaxed) <= journal.limits.windows_bytes_max;
        if !fits {
            self.evict(rank);
        }
    }

    /// Leaves the body of a message in the store that was shown to somebody, if memory becomes scarce.
    pub(super) fn relax(&mut self, rank: Rank) {
        let Some(journal) = &self.journal else { return };
        if self.durable.window_bytes > journal.limits.window_bytes_max / 2 {
            self.evict(rank);
        }
    }

    fn evict(&mut self, rank: Rank) {
        let Some(item) = self.ready.get_mut(&rank).filter(|item| item.stored && !item.is_away()) else {
            return;
        };
        let before = item.clone();
        item.body = Body::Away;
        let after = Item { body: Body::Away, ..before.clone() };
        self.count(&before, -1);
        self.count(&after, 1);
    }

    /// Leaves the body of a message in the store that is to rest, or waits for one consumer that is busy.
    pub(super) fn lay_down(&mut self, item: &mut Item) {
        let is_scarce = self
            .journal
            .as_ref()
            .is_some_and(|journal| self.durable.window_bytes + item.cost() > journal.limits.window_bytes_max);
        if item.stored && is_scarce && self.durable.id.is_some() {
            item.body = Body::Away;
        }
    }

    /// The store has a message, or never will.
    pub(super) fn conclude(&mut self, rank: Rank, is_safe: bool, now_ms: u64) {
        let Some(Pending { mut item, deliver_at_ms }) = self.durable.pending.remove(&rank) else { return };
        if !is_safe {
            return self.release(&item);
        }
        self.keep(rank.sequence, &item);
        match deliver_at_ms.filter(|at| *at > now_ms) {
            Some(at) => {
                self.lay_down(&mut item);
                self.rest(at, rank.sequence, item);
            }
            None => {
                self.insert_ready(rank, item);
                self.shorten(rank);
            }
        }
    }

    /// Takes what the store had of the queue.
    pub(super) fn restore(&mut self, found: &StoredQueue, now_ms: u64) {
        self.durable.id = Some(found.queue);
        self.last_sequence = self.last_sequence.max(found.last_sequence);
        for message in &found.messages {
            let note = Note::decode(&message.note).unwrap_or_else(|| {
                tracing::error!(queue = %self.name, sequence = message.sequence, "the note of a stored message \
                                is damaged: its priority, its time and its group are lost");
                Note::default()
            });
            let item = Item {
                body: Body::Away,
                cost: message.cost,
                redeliveries: message.deliveries,
                // What the configuration says of it may have changed.
                priority: self.properties.priority(note.priority),
                from_topic: false,
                stored: true,
                expires: expiry(note.expires_at_ms),
                group: Group::of(note.group, note.ends_group),
            };
            self.count_in(&item);
            match note.deliver_at_ms.filter(|at| *at > now_ms) {
                Some(at) => self.rest(at, message.sequence, item),
                None => self.insert_ready(item.rank(message.sequence), item),
            }
        }
    }

    // ---- what is fetched -----------------------------------------------------------------------------

    /// A consumer is to get this one, which is not here.
    pub(super) fn want(&mut self, sequence: u64) {
        self.durable.wanted.get_or_insert(sequence);
    }

    /// The place from which on messages are to be read, unless some are on their way, and how many bytes.
    pub(super) fn next_fetch(&self) -> Option<(u64, usize)> {
        let (journal, durable) = (self.journal.as_ref()?, &self.durable);
        if durable.fetching || durable.id.is_none() {
            return None;
        }
        let dying = durable.dying.first_key_value().map(|(sequence, _)| *sequence);
        let from = dying.filter(|_| self.dead.is_empty()).or(durable.wanted).or(durable.looked_for)?;
        let free = journal.limits.window_bytes_max.saturating_sub(durable.window_bytes);
        Some((from, free.max(1)))
    }

    fn locate(&self, sequence: u64) -> Option<Place> {
        if self.durable.dying.contains_key(&sequence) {
            return Some(Place::Dying);
        }
        let (usual, highest) = (self.properties.priority(None), self.properties.priority(Some(u8::MAX)));
        let priorities = std::iter::once(usual).chain((0..=highest).filter(|priority| *priority != usual));
        for priority in priorities {
            let rank = Rank { priority: std::cmp::Reverse(priority), sequence };
            if self.ready.contains_key(&rank) {
                return Some(Place::Ready(rank));
            }
            let has = |key: &&ConsumerKey| {
                self.consumers.get(key).is_some_and(|consumer| consumer.reserved.contains_key(&rank))
            };
            if let Some(key) = self.reserving.iter().find(has) {
                return Some(Place::Reserved(*key, rank));
            }
        }
        None
    }

    /// Takes in a message that was read. One that was read by the way is left where it is if there is no room.
    pub(super) fn fill_in(&mut self, sequence: u64, read: (Publication, bool), is_wanted: bool) {
        let (publication, from_topic) = read;
        let Some(place) = self.locate(sequence) else { return };
        if let Place::Dying = place {
            if let Some((mut item, death)) = self.durable.dying.remove(&sequence) {
                self.durable.dying_bytes -= item.cost();
                item.body = Body::Here(Arc::new(publication));
                self.give_up(sequence, item, death);
            }
            return;
        }
        let item = match place {
            Place::Ready(rank) => self.ready.get_mut(&rank),
            Place::Reserved(key, rank) => {
                self.consumers.get_mut(&key).and_then(|consumer| consumer.reserved.get_mut(&rank))
            }
            Place::Dying => None,
        };
        let Some(item) = item.filter(|item| item.is_away()) else { return };
        let max = self.journal.as_ref().map_or(0, |journal| journal.limits.window_bytes_max);
        if !is_wanted && self.durable.window_bytes + item.cost() > max {
            return;
        }
        let before = item.clone();
        item.body = Body::Here(Arc::new(publication));
        item.from_topic = from_topic;
        let after = item.clone();
        self.count(&before, -1);
        self.count(&after, 1);
    }

    /// A message cannot be read: it is put aside, visibly, and the others go on. Nothing if it is not awaited.
    pub(super) fn put_aside(&mut self, sequence: u64) -> Option<Change> {
        let item = match self.locate(sequence)? {
            Place::Ready(rank) if self.ready.get(&rank).is_some_and(Item::is_away) => self.take_ready(rank),
            Place::Reserved(key, rank) => {
                let consumer = self.consumers.get_mut(&key)?;
                let is_away = consumer.reserved.get(&rank).is_some_and(Item::is_away);
                let item = is_away.then(|| consumer.reserved.remove(&rank)).flatten();
                item.inspect(|item| self.count(item, -1))
            }
            Place::Dying => {
                let (item, _) = self.durable.dying.remove(&sequence)?;
                self.durable.dying_bytes -= item.cost();
                Some(item)
            }
            Place::Ready(_) => None,
        }?;
        metrics::STORE_UNREADABLE.add(1);
        tracing::error!(queue = %self.name, sequence, "a stored message is damaged or missing, and not delivered");
        self.release(&item);
        self.durable.id.map(|queue| Change::PutAside { queue, sequence })
    }

    // ---- what the store is told ----------------------------------------------------------------------

    /// A message was handed to a consumer.
    pub(super) fn note_delivery(&mut self, sequence: u64, item: &Item) {
        if item.stored && self.durable.id.is_some() {
            self.durable.delivered.push((sequence, item.redeliveries + 1));
        }
    }

    /// A message is gone for good.
    pub(super) fn discard(&mut self, sequence: u64, item: &Item) {
        self.release(item);
        if item.stored && self.durable.id.is_some() {
            self.durable.removed.push(sequence);
        }
    }

    /// Whether what was given up is in the store, so that it must go on from there.
    pub(super) fn has_stored_dead(&self) -> bool {
        self.dead.iter().any(|letter: &DeadLetter| letter.origin.is_some())
    }

    /// What was removed and delivered since the store was last told.
    pub(super) fn take_changes(&mut self, changes: &mut Vec<Change>) {
        let Some(queue) = self.durable.id else { return };
        let delivered = std::mem::take(&mut self.durable.delivered).into_iter();
        changes.extend(delivered.map(|(sequence, deliveries)| Change::Delivered {
            queue,
            sequence,
            deliveries,
        }));
        let removed = std::mem::take(&mut self.durable.removed).into_iter();
        changes.extend(removed.map(|sequence| Change::Remove { queue, sequence }));
    }

    /// The queue's part of the store is to go. What was only there goes with it.
    pub(super) fn leave_store(&mut self) -> Option<Change> {
        let queue = self.durable.id.take()?;
        let is_away = |(_, item): &(&Rank, &Item)| item.is_away();
        let away: Vec<Rank> = self.ready.iter().filter(is_away).map(|(rank, _)| *rank).collect();
        for rank in away {
            if let Some(item) = self.take_ready(rank) {
                self.release(&item);
            }
        }
        let mut gone = Vec::new();
        for key in &self.reserving {
            let Some(consumer) = self.consumers.get_mut(key) else { continue };
            let (away, here) = split(std::mem::take(&mut consumer.reserved));
            consumer.reserved = here;
            gone.extend(away);
        }
        let (away, here) = split(std::mem::take(&mut self.delayed));
        self.delayed = here;
        gone.extend(away);
        for item in gone {
            self.count(&item, -1);
            self.release(&item);
        }
        for (item, _) in std::mem::take(&mut self.durable.dying).into_values() {
            self.release(&item);
        }
        self.durable.dying_bytes = 0;
        for letter in &mut self.dead {
            letter.origin = None;
        }
        self.durable.delivered.clear();
        self.durable.removed.clear();
        Some(Change::Delete { queue })
    }
}

/// Those that are in the store only, and the others.
fn split<K: Ord>(items: BTreeMap<K, Item>) -> (Vec<Item>, BTreeMap<K, Item>) {
    let (away, here): (Vec<_>, Vec<_>) = items.into_iter().partition(|(_, item)| item.is_away());
    (away.into_iter().map(|(_, item)| item).collect(), here.into_iter().collect())
}

//! Which messages of a queue are in memory, of those that the store has too: as many as fit a window of bytes, and
//! those that somebody is to get or to see next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::message::Publication;
use crate::core::queues::consumer::ConsumerKey;
use crate::core::queues::durable::Pending;
use crate::core::queues::item::{Body, DeadLetter, Group, Item, Rank};
use crate::core::queues::state::State;
use crate::core::store::record::Note;
use crate::core::store::{Change, DONE, StoredQueue};
use crate::metrics;

/// What is read from the store, and what comes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    sequence: u64,
    priority: Option<u8>,
}

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
        let Some(journal) = self.journal.as_deref().filter(|_| item.is_stored()) else { return };
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
        let Some(item) = self.ready.get_mut(&rank).filter(|item| item.is_stored() && !item.is_away()) else {
            return;
        };
        let before = item.clone();
        item.body = Body::Away;
        let after = item.clone();
        self.count(&before, -1);
        self.count(&after, 1);
    }

    /// Leaves the body of a message in the store that is to rest, or waits for one consumer that is busy.
    pub(super) fn lay_down(&mut self, item: &mut Item) {
        let is_scarce = self
            .journal
            .as_ref()
            .is_some_and(|journal| self.durable.window_bytes + item.cost() > journal.limits.window_bytes_max);
        if item.is_stored() && is_scarce && self.durable.id.is_some() {
            item.body = Body::Away;
        }
    }

    /// The store has a message, or never will.
    pub(super) fn conclude(&mut self, rank: Rank, is_safe: bool, now_ms: u64) {
        let Some(Pending { mut item, deliver_at_ms }) = self.durable.pending.remove(&rank) else { return };
        if !is_safe {
            return self.release(&item);
        }
        self.keep(rank.sequence(), &item);
        match deliver_at_ms.filter(|at| *at > now_ms) {
            Some(at) => {
                self.lay_down(&mut item);
                self.rest(at, rank.sequence(), item);
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
        let mut ready = Vec::new();
        for message in &found.messages {
            let note = Note::decode(&message.note).unwrap_or_else(|| {
                tracing::error!(queue = %self.name, sequence = message.sequence, "the note of a stored message \
                                is damaged: its priority, its time and its group are lost");
                Note::default()
            });
            // What the configuration says of it may have changed.
            let item = Item::new(Body::Away, message.cost, self.properties.priority(note.priority));
            let mut item = item.with(note.expires_at_ms, Group::of(note.group, note.ends_group));
            item.set_stored(true);
            if message.deliveries == DONE {
                self.restore_copy(message.sequence, item);
                continue;
            }
            item.set_redeliveries(message.deliveries);
            self.restore_copy_of(message.sequence, &item);
            self.count_in(&item);
            match note.deliver_at_ms.filter(|at| *at > now_ms) {
                Some(at) => self.rest(at, message.sequence, item),
                None => ready.push((item.rank(message.sequence), item)),
            }
        }
        self.trim_copies();
        self.insert_all_ready(ready);
        // It may be larger than it is to be now.
        self.make_room();
    }

    /// Puts many among those that are ready, before there are consumers: a map that is made at once has less air in it.
    fn insert_all_ready(&mut self, ready: Vec<(Rank, Item)>) {
        for (rank, item) in &ready {
            if let Some(at) = item.expires_at_ms() {
                self.expiring.insert((at, *rank));
            }
            self.count(item, 1);
        }
        self.ready.append(&mut ready.into_iter().collect());
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

    /// What is read for: the place, and the priority of what is there.
    pub(super) fn wanted_at(&self, sequence: u64) -> Wanted {
        let priority = match self.locate(sequence) {
            Some(Place::Ready(rank) | Place::Reserved(_, rank)) => Some(rank.priority()),
            Some(Place::Dying) | None => None,
        };
        Wanted { sequence, priority }
    }

    /// The store cannot be read any more: nobody waits for it. What was given up and is only there is let go of, and
    /// will be given up again when the broker is started again. Says how many that are.
    pub(super) fn stop_reading(&mut self) -> usize {
        self.durable.unreadable = true;
        let dying = std::mem::take(&mut self.durable.dying);
        self.durable.dying_bytes = 0;
        dying.values().for_each(|(item, _)| self.release(item));
        dying.len()
    }

    fn locate(&self, sequence: u64) -> Option<Place> {
        if self.durable.dying.contains_key(&sequence) {
            return Some(Place::Dying);
        }
        let (usual, highest) = (self.properties.priority(None), self.properties.priority(Some(u8::MAX)));
        let priorities = std::iter::once(usual).chain((0..=highest).filter(|priority| *priority != usual));
        for priority in priorities {
            let rank = Rank::new(priority, sequence);
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
    ///
    /// So is one that comes after others that are not here: in a queue of many priorities those that lie beside what is
    /// wanted in the store are not what is wanted next.
    pub(super) fn fill_in(&mut self, sequence: u64, read: (Publication, bool), wanted: Wanted) {
        let (publication, from_topic) = (Arc::new(read.0), read.1);
        self.fill_copy(sequence, &publication, from_topic);
        let Some(place) = self.locate(sequence) else { return };
        if let Place::Dying = place {
            if let Some((mut item, death)) = self.durable.dying.remove(&sequence) {
                self.durable.dying_bytes -= item.cost();
                item.body = Body::Here(publication);
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
        let is_near = wanted.priority.is_none_or(|priority| priority == item.priority);
        if sequence != wanted.sequence && (!is_near || self.durable.window_bytes + item.cost() > max) {
            return;
        }
        let before = item.clone();
        item.body = Body::Here(publication);
        item.set_from_topic(from_topic);
        let after = item.clone();
        self.count(&before, -1);
        self.count(&after, 1);
    }

    /// A message cannot be read: it is put aside, visibly, and the others go on. Nothing if it is not awaited.
    pub(super) fn put_aside(&mut self, sequence: u64) -> Option<Change> {
        let copy = match self.kept.get(&sequence) {
            Some(copy) if copy.is_away() => self.remove_copy(sequence),
            _ => None,
        };
        let item = match self.locate(sequence) {
            None if copy.is_some_and(|copy| copy.is_done()) => None,
            None => return None,
            Some(Place::Ready(rank)) if self.ready.get(&rank).is_some_and(Item::is_away) => {
                Some(self.take_ready(rank)?)
            }
            Some(Place::Reserved(key, rank)) => {
                let consumer = self.consumers.get_mut(&key)?;
                let is_away = consumer.reserved.get(&rank).is_some_and(Item::is_away);
                let item = is_away.then(|| consumer.reserved.remove(&rank)).flatten()?;
                self.count(&item, -1);
                Some(item)
            }
            Some(Place::Dying) => {
                let (item, _) = self.durable.dying.remove(&sequence)?;
                self.durable.dying_bytes -= item.cost();
                Some(item)
            }
            Some(Place::Ready(_)) => return None,
        };
        metrics::STORE_UNREADABLE.add(1);
        tracing::error!(queue = %self.name, sequence, "a stored message is damaged or missing, and not delivered");
        if let Some(item) = item {
            self.release(&item);
        }
        self.durable.id.map(|queue| Change::PutAside { queue, sequence })
    }

    // ---- what the store is told ----------------------------------------------------------------------

    /// A message is gone for good.
    pub(super) fn discard(&mut self, sequence: u64, item: &Item) {
        self.release(item);
        if item.is_stored() && self.durable.id.is_some() && !self.stays_as_copy(sequence) {
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
        self.detach_copies();
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

//! The inside of a queue: what waits in it, and what comes in and goes out. Who waits for it is in `consumers`, who gets
//! what in `dispatch`, and who only looks in `browsing`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::core::access::Refusal;
use crate::core::message::Publication;
use crate::core::name::Name;
use crate::core::queues::consumer::{ConsumerKey, Consumers, Turn};
use crate::core::queues::durable::{Durable, Journal};
use crate::core::queues::groups::Groups;
use crate::core::queues::item::{Body, DeadLetter, Death, Group, Item, Rank};
use crate::core::queues::properties::{DELIVERY_LIMIT, Properties, QueueLimits, WhenFull};
use crate::metrics;

/// How many messages are shown to filters and browsers at once when a queue is looked at for that.
pub const SCANS_AT_ONCE: usize = 1000;

/// How many are when somebody comes for something else, who should not have to pay for others.
pub const SCANS_PER_OPERATION: usize = 64;

/// How many consumers of a queue may have a filter, or look without taking: each message is shown to them.
pub const SCANNERS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct State {
    pub(super) name: Name,
    pub(super) properties: Properties,
    pub(super) limits: QueueLimits,
    /// Where what cannot be delivered goes though nobody said where; nowhere if none.
    pub(super) usual_dead_letters: Option<Name>,
    pub(super) ready: BTreeMap<Rank, Item>,
    /// By the time at which they become ready, and their number.
    pub(super) delayed: BTreeMap<(u64, u64), Item>,
    /// Of what is ready, what will be too old, by when.
    pub(super) expiring: BTreeSet<(u64, Rank)>,
    pub(super) consumers: Consumers,
    /// Those of them that have credit, in the order in which it is their turn.
    pub(super) turns: BTreeMap<Turn, ConsumerKey>,
    /// Those that want to be the only one, first the one that is.
    pub(super) exclusive: BTreeMap<(i64, u64), ConsumerKey>,
    /// Those with a filter that take.
    pub(super) pickers: BTreeSet<ConsumerKey>,
    pub(super) browsers: BTreeSet<ConsumerKey>,
    pub(super) groups: Groups,
    /// Owners of groups for whom something is reserved.
    pub(super) reserving: BTreeSet<ConsumerKey>,
    /// What it took, for who wants to read it again.
    pub(super) kept: BTreeMap<u64, Item>,
    /// What it gave up and that has not left it yet.
    pub(super) dead: Vec<DeadLetter>,
    pub(super) dead_bytes: usize,
    pub(super) last_turn: u64,
    pub(super) last_joined: u64,
    pub(super) last_sequence: u64,
    /// Messages here, ready or held or anything else.
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) kept_bytes: usize,
    /// Of all queues of the realm.
    pub(super) total_bytes: Arc<AtomicUsize>,
    /// Since when it has no consumers.
    pub(super) unused_since_ms: Option<u64>,
    /// When it is to be looked at, as the agenda knows it.
    pub(super) scheduled_ms: Option<u64>,
    pub(super) scans_left: usize,
    /// Where persistent messages are kept, if they are.
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) durable: Durable,
}

impl State {
    pub(super) fn new(
        name: Name,
        properties: Properties,
        limits: QueueLimits,
        usual_dead_letters: Option<Name>,
        total_bytes: Arc<AtomicUsize>,
        journal: Option<Arc<Journal>>,
        now_ms: u64,
    ) -> State {
        State {
            name,
            properties,
            limits,
            usual_dead_letters,
            ready: BTreeMap::new(),
            delayed: BTreeMap::new(),
            expiring: BTreeSet::new(),
            consumers: Consumers::default(),
            turns: BTreeMap::new(),
            exclusive: BTreeMap::new(),
            pickers: BTreeSet::new(),
            browsers: BTreeSet::new(),
            groups: Groups::default(),
            reserving: BTreeSet::new(),
            kept: BTreeMap::new(),
            dead: Vec::new(),
            dead_bytes: 0,
            last_turn: 0,
            last_joined: 0,
            last_sequence: 0,
            messages: 0,
            bytes: 0,
            kept_bytes: 0,
            total_bytes,
            unused_since_ms: Some(now_ms),
            scheduled_ms: None,
            scans_left: 0,
            journal,
            durable: Durable::default(),
        }
    }

    pub(super) fn held(&self, key: ConsumerKey, sequence: u64) -> Option<&Item> {
        self.consumers.get(&key)?.held.get(sequence)
    }

    /// Whether no time matters to it: nothing waits for one, or goes at one.
    pub(super) fn is_timeless(&self) -> bool {
        self.delayed.is_empty()
            && self.expiring.is_empty()
            && self.reserving.is_empty()
            && self.browsers.is_empty()
    }

    /// Whether only the order of messages and of consumers says who gets what, for all that is known of the queue.
    pub(super) fn is_plain(&self) -> bool {
        self.pickers.is_empty() && self.is_timeless()
    }

    pub(super) fn is_browser(&self, key: ConsumerKey) -> bool {
        self.browsers.contains(&key)
    }

    pub(super) fn has_no_messages_and_consumers(&self) -> bool {
        self.messages == 0 && self.kept.is_empty() && self.consumers.is_empty() && self.durable.leaving == 0
    }

    /// Its time without consumers begins anew.
    pub(super) fn renew(&mut self, now_ms: u64) {
        self.unused_since_ms = Some(now_ms);
    }

    /// Whether nobody consumed from it for as long as it is kept then.
    pub(super) fn is_abandoned(&self, now_ms: u64) -> bool {
        let limit = self.properties.unused_ms_max;
        limit.zip(self.unused_since_ms).is_some_and(|(limit, since)| since.saturating_add(limit) <= now_ms)
    }

    /// Whether something that it gave up is only here: in memory, in its part of the store, or on its way.
    pub(super) fn has_dying(&self) -> bool {
        !self.dead.is_empty() || !self.durable.dying.is_empty() || self.durable.leaving > 0
    }

    /// When it is to be looked at again.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let unfinished = self.scans_left == 0 && !self.durable.fetching && self.has_more_to_scan();
        if unfinished || !self.dead.is_empty() {
            return Some(0);
        }
        // What it gave up goes first; then it is looked at again.
        let unused = self.properties.unused_ms_max.zip(self.unused_since_ms).filter(|_| !self.has_dying());
        [
            self.expiring.first().map(|(at, _)| *at),
            self.delayed.first_key_value().map(|((at, _), _)| *at),
            unused.map(|(limit, since)| since.saturating_add(limit)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // ---- what comes in and goes out ------------------------------------------------------------------

    pub(super) fn messages_max(&self) -> usize {
        let own = self.properties.messages_max.and_then(|max| usize::try_from(max).ok());
        own.unwrap_or(usize::MAX).min(self.limits.messages_max)
    }

    pub(super) fn bytes_max(&self) -> usize {
        let own = self.properties.bytes_max.and_then(|max| usize::try_from(max).ok());
        own.unwrap_or(usize::MAX).min(self.limits.bytes_max)
    }

    /// Whether one more message of this cost has room, after these changes in this queue and in all of them.
    pub(super) fn check_room(&self, here: Sum, total: Sum, cost: usize) -> Result<(), Refusal> {
        let all_bytes = self.total_bytes.load(Ordering::Relaxed).saturating_add_signed(total.bytes);
        let full = match self.properties.when_full {
            // All can go that nobody holds.
            Some(WhenFull::DropHead) => {
                let can_go = self.ready.len() + self.delayed.len() + self.durable.dying.len();
                self.messages.saturating_sub(can_go) >= self.messages_max()
            }
            Some(WhenFull::Reject) | None => {
                self.messages.saturating_add_signed(here.messages) >= self.messages_max()
                    || self.bytes.saturating_add_signed(here.bytes) >= self.bytes_max()
            }
        };
        if full || all_bytes + cost > self.limits.total_bytes_max {
            return Err(Refusal::QueueFull(self.name.clone()));
        }
        Ok(())
    }

    /// Takes a message, and gives it and others to who has credit. That there is room was checked before.
    pub(super) fn append_and_dispatch(
        &mut self,
        publication: Arc<Publication>,
        from_topic: bool,
        now_ms: u64,
    ) {
        let goes_straight = self.ready.is_empty()
            && publication.handling.is_none()
            && self.is_plain()
            && self.properties.message_ttl_ms.is_none()
            && self.properties.when_full != Some(WhenFull::DropHead);
        let (true, Some((_, key))) = (goes_straight, self.turns.first_key_value()) else {
            self.append(publication, from_topic, now_ms);
            return self.dispatch(now_ms);
        };
        let key = *key;
        let (sequence, item, _) = self.admit(publication, from_topic, false, now_ms);
        let rank = item.rank(sequence);
        self.keep(sequence, &item);
        if self.durable.allows(rank) {
            self.forget_wanted();
            self.hand(key, rank, item);
        } else {
            self.insert_ready(rank, item);
        }
        if !self.ready.is_empty() {
            self.dispatch(now_ms);
        }
    }

    /// Takes a message. That there is room was checked before.
    pub(super) fn append(&mut self, publication: Arc<Publication>, from_topic: bool, now_ms: u64) {
        let (sequence, item, deliver_at_ms) = self.admit(publication, from_topic, false, now_ms);
        match deliver_at_ms {
            Some(at) => self.rest(at, sequence, item),
            None => self.insert(sequence, item),
        }
        self.make_room();
    }

    /// Counts a message in, gives it its place, and says until when it is to rest.
    pub(super) fn admit(
        &mut self,
        publication: Arc<Publication>,
        from_topic: bool,
        stored: bool,
        now_ms: u64,
    ) -> (u64, Item, Option<u64>) {
        metrics::ENQUEUED.add(1);
        let cost = u32::try_from(publication.cost()).unwrap_or(u32::MAX);
        self.last_sequence += 1;
        if publication.handling.is_none() && self.properties.message_ttl_ms.is_none() {
            let mut item = Item::new(Body::Here(publication), cost, self.properties.priority(None));
            item.set_from_topic(from_topic);
            item.set_stored(stored);
            self.count_in(&item);
            return (self.last_sequence, item, None);
        }
        let said = publication.handling.as_deref();
        let expires = [
            said.and_then(|said| said.expires_at_ms),
            said.and_then(|said| said.ttl_ms).map(|ttl| now_ms.saturating_add(ttl)),
            self.properties.message_ttl_ms.map(|ttl| now_ms.saturating_add(ttl)),
        ];
        let deliver_at_ms = [
            said.and_then(|said| said.deliver_at_ms),
            said.and_then(|said| said.delay_ms).map(|delay| now_ms.saturating_add(delay)),
        ];
        let group = said.and_then(|said| Group::of(said.group.clone(), said.ends_group));
        let priority = self.properties.priority(said.and_then(|said| said.priority));
        let item = Item::new(Body::Here(publication), cost, priority);
        let mut item = item.with(expires.into_iter().flatten().min(), group);
        item.set_from_topic(from_topic);
        item.set_stored(stored);
        self.count_in(&item);
        let deliver_at_ms = deliver_at_ms.into_iter().flatten().max().filter(|at| *at > now_ms);
        (self.last_sequence, item, deliver_at_ms)
    }

    pub(super) fn count_in(&mut self, item: &Item) {
        self.total_bytes.fetch_add(item.cost(), Ordering::Relaxed);
        self.bytes += item.cost();
        self.messages += 1;
    }

    /// Puts a message among those that are ready later.
    pub(super) fn rest(&mut self, at_ms: u64, sequence: u64, item: Item) {
        self.count(&item, 1);
        self.delayed.insert((at_ms, sequence), item);
    }

    /// Puts a message among those that are ready, for the first time.
    pub(super) fn insert(&mut self, sequence: u64, item: Item) {
        self.keep(sequence, &item);
        self.insert_ready(item.rank(sequence), item);
    }

    pub(super) fn insert_ready(&mut self, rank: Rank, item: Item) {
        if let Some(at) = item.expires_at_ms() {
            self.expiring.insert((at, rank));
        }
        for key in &self.pickers {
            let Some(picker) = self.consumers.get_mut(key).filter(|picker| rank < picker.cursor) else {
                continue;
            };
            match item.publication() {
                Some(publication) if picker.admits(publication) => drop(picker.wanted.insert(rank)),
                Some(_) => {}
                // It must be shown when it is here; what comes after it is then shown once more.
                None => picker.cursor = rank,
            }
        }
        self.count(&item, 1);
        self.ready.insert(rank, item);
    }

    pub(super) fn take_ready(&mut self, rank: Rank) -> Option<Item> {
        let item = self.ready.remove(&rank)?;
        self.count(&item, -1);
        if let Some(at) = item.expires_at_ms() {
            self.expiring.remove(&(at, rank));
        }
        for key in &self.pickers {
            if let Some(picker) = self.consumers.get_mut(key) {
                picker.wanted.remove(&rank);
            }
        }
        Some(item)
    }

    /// What a message that is gone for good had taken.
    pub(super) fn release(&mut self, item: &Item) {
        let cost = item.cost();
        self.bytes -= cost;
        self.messages -= 1;
        self.total_bytes.fetch_sub(cost, Ordering::Relaxed);
    }

    /// Drops the oldest of the lowest priority, if that is the policy, until it holds no more than it may.
    pub(super) fn make_room(&mut self) {
        if self.properties.when_full != Some(WhenFull::DropHead) {
            return;
        }
        while self.messages - self.dead.len() - self.durable.dying.len() > self.messages_max()
            || self.bytes - self.dead_bytes - self.durable.dying_bytes > self.bytes_max()
        {
            let oldest = match self.ready.last_key_value() {
                Some((last, _)) => {
                    let lowest = last.first_like_it();
                    let oldest = self.ready.range(lowest..).next().map(|(rank, _)| *rank);
                    oldest.and_then(|rank| Some((rank.sequence(), self.take_ready(rank)?)))
                }
                None => self.delayed.pop_first().map(|((_, sequence), item)| {
                    self.count(&item, -1);
                    (sequence, item)
                }),
            };
            let Some((sequence, item)) = oldest else { return };
            metrics::QUEUE_DROPPED.add(1);
            self.give_up(sequence, item, Death::NoRoom);
        }
    }

    /// A message leaves, for another queue if there is one for such. If only the store has it, it is fetched first.
    pub(super) fn give_up(&mut self, sequence: u64, item: Item, death: Death) {
        let usual = self.usual_dead_letters.as_ref().filter(|_| death.is_kept_by_default());
        let to = self.properties.dead_letters.as_ref().or(usual).cloned();
        match (to, &item.body) {
            (None, _) => self.discard(sequence, &item),
            (Some(to), Body::Here(publication)) => {
                self.detach_copy(sequence);
                self.dead_bytes += item.cost();
                let (publication, from) = (publication.clone(), self.name.clone());
                let origin = self.durable.id.filter(|_| item.is_stored()).map(|queue| (queue, sequence));
                self.dead.push(DeadLetter { publication, to, from, death, origin });
            }
            (Some(_), Body::Away) if self.durable.unreadable => self.release(&item),
            (Some(_), Body::Away) => {
                self.durable.dying_bytes += item.cost();
                self.durable.dying.insert(sequence, (item, death));
            }
        }
    }

    /// What it gave up, which leaves it now.
    pub(super) fn take_dead(&mut self) -> Vec<DeadLetter> {
        if self.dead.is_empty() {
            return Vec::new();
        }
        let dead = std::mem::take(&mut self.dead);
        self.messages -= dead.len();
        self.bytes -= self.dead_bytes;
        self.total_bytes.fetch_sub(std::mem::take(&mut self.dead_bytes), Ordering::Relaxed);
        self.durable.leaving += dead.iter().filter(|letter| letter.origin.is_some()).count();
        dead
    }

    /// Of what it gave up that which the store has and which is for one of these: it leaves together with what gave
    /// rise to it.
    pub(super) fn take_stored_dead(&mut self, is_ready: impl Fn(&Name) -> bool) -> Vec<DeadLetter> {
        let leaves = |letter: &mut DeadLetter| letter.origin.is_some() && is_ready(&letter.to);
        let stored: Vec<DeadLetter> = self.dead.extract_if(.., leaves).collect();
        let bytes: usize = stored.iter().map(|letter| letter.publication.cost()).sum();
        self.messages -= stored.len();
        self.bytes -= bytes;
        self.dead_bytes -= bytes;
        self.total_bytes.fetch_sub(bytes, Ordering::Relaxed);
        stored
    }

    /// Where what a consumer rejects, or gives back too often, goes.
    pub(super) fn dead_letters(&self) -> Option<Name> {
        self.properties.dead_letters.as_ref().or(self.usual_dead_letters.as_ref()).cloned()
    }

    /// A message that somebody held comes back: to its place, later, or not at all.
    pub(super) fn put_back(&mut self, sequence: u64, mut item: Item, now_ms: u64) {
        let redeliveries = item.redeliveries() + 1;
        item.set_redeliveries(redeliveries);
        let limit = self.properties.delivery_limit.unwrap_or(DELIVERY_LIMIT);
        if redeliveries > limit {
            return self.give_up(sequence, item, Death::DeliveryLimit);
        }
        match self.properties.backoff(redeliveries) {
            Some(rest) => {
                self.lay_down(&mut item);
                self.rest(now_ms.saturating_add(rest), sequence, item);
            }
            None => self.make_available(sequence, item),
        }
    }

    /// A message that was delivered before is ready again: for the owner of its group, or for anybody.
    pub(super) fn make_available(&mut self, sequence: u64, item: Item) {
        let rank = item.rank(sequence);
        match self.owner(&item) {
            Some(owner) => self.reserve(owner, rank, item),
            None => self.insert_ready(rank, item),
        }
    }

    /// Keeps a message for the owner of its group.
    pub(super) fn reserve(&mut self, owner: ConsumerKey, rank: Rank, mut item: Item) {
        if !self.consumers.contains_key(&owner) {
            return self.insert_ready(rank, item);
        }
        self.lay_down(&mut item);
        self.count(&item, 1);
        if let Some(consumer) = self.consumers.get_mut(&owner) {
            consumer.reserved.insert(rank, item);
        }
        self.reserving.insert(owner);
    }

    /// All of it goes.
    pub(super) fn clear(&mut self) {
        self.total_bytes.fetch_sub(self.bytes + self.kept_bytes, Ordering::Relaxed);
        let last_sequence = self.last_sequence;
        let fresh = State::new(
            self.name.clone(),
            self.properties.clone(),
            self.limits,
            self.usual_dead_letters.clone(),
            self.total_bytes.clone(),
            self.journal.clone(),
            0,
        );
        if let Some(journal) = &self.journal {
            journal.windows.fetch_sub(self.durable.window_bytes, Ordering::Relaxed);
        }
        let (scheduled_ms, unused_since_ms) = (self.scheduled_ms, self.unused_since_ms);
        let durable = Durable { leaving: self.durable.leaving, ..Durable::default() };
        *self = State { last_sequence, scheduled_ms, unused_since_ms, durable, ..fresh };
    }
}

/// What the steps before one would change: in a queue, or in all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) messages: isize,
    pub(super) bytes: isize,
}

impl Sum {
    pub(super) fn add(&mut self, messages: isize, cost: usize) {
        self.messages += messages;
        self.bytes += messages * cost as isize;
    }
}

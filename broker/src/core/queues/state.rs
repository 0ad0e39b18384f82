//! The inside of a queue: what waits, who waits for it, and who gets what.
//!
//! Whoever takes everything gets the first message that is ready. Whoever wants only some, or looks without
//! taking, has a place of its own among them: what lies before it was shown to it once, and what it wanted of
//! that is known. So no message is shown to a filter twice, however deep the queue is, and at one time no more
//! than [`SCANS_AT_ONCE`] messages are; the rest follows when the queue is next looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::core::access::Refusal;
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::message::Publication;
use crate::core::name::Name;
use crate::core::parcel::{Delivery, Parcel};
use crate::core::queues::consumer::{Browse, ConsumeTerms, Consumer, ConsumerKey, Credit, Turn};
use crate::core::queues::durable::{Durable, Journal};
use crate::core::queues::groups::Groups;
use crate::core::queues::item::{Body, DeadLetter, Death, Group, Item, Rank, Settlement};
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
    limits: QueueLimits,
    /// Where what cannot be delivered goes though nobody said where; nowhere if none.
    pub(super) usual_dead_letters: Option<Name>,
    pub(super) ready: BTreeMap<Rank, Item>,
    /// By the time at which they become ready, and their number.
    pub(super) delayed: BTreeMap<(u64, u64), Item>,
    /// Of what is ready, what will be too old, by when.
    pub(super) expiring: BTreeSet<(u64, Rank)>,
    pub(super) consumers: HashMap<ConsumerKey, Consumer>,
    /// Those of them that have credit, in the order in which it is their turn.
    turns: BTreeMap<Turn, ConsumerKey>,
    /// Those that want to be the only one, first the one that is.
    exclusive: BTreeMap<(i64, u64), ConsumerKey>,
    /// Those with a filter that take.
    pickers: BTreeSet<ConsumerKey>,
    pub(super) browsers: BTreeSet<ConsumerKey>,
    groups: Groups,
    /// Owners of groups for whom something is reserved.
    pub(super) reserving: BTreeSet<ConsumerKey>,
    /// What it took, for who wants to read it again.
    pub(super) kept: BTreeMap<u64, Item>,
    /// What it gave up and that has not left it yet.
    pub(super) dead: Vec<DeadLetter>,
    dead_bytes: usize,
    last_turn: u64,
    last_joined: u64,
    pub(super) last_sequence: u64,
    /// Messages here, ready or held or anything else.
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) kept_bytes: usize,
    /// Of all queues of the realm.
    pub(super) total_bytes: Arc<AtomicUsize>,
    /// Since when it has no consumers.
    unused_since_ms: Option<u64>,
    /// When it is to be looked at, as the agenda knows it.
    pub(super) scheduled_ms: Option<u64>,
    scans_left: usize,
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
            consumers: HashMap::new(),
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
        self.consumers.get(&key)?.held.get(&sequence)
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

    fn messages_max(&self) -> usize {
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
        let cost = u32::try_from(publication.cost()).unwrap_or(u32::MAX);
        let priority = self.properties.priority(said.and_then(|said| said.priority));
        let item = Item::new(Body::Here(publication), cost, priority);
        let mut item = item.with(expires.into_iter().flatten().min(), group);
        item.set_from_topic(from_topic);
        item.set_stored(stored);
        self.count_in(&item);
        self.last_sequence += 1;
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
    fn insert(&mut self, sequence: u64, item: Item) {
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
    fn put_back(&mut self, sequence: u64, mut item: Item, now_ms: u64) {
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
    fn make_available(&mut self, sequence: u64, item: Item) {
        let rank = item.rank(sequence);
        match self.owner(&item) {
            Some(owner) => self.reserve(owner, rank, item),
            None => self.insert_ready(rank, item),
        }
    }

    /// Keeps a message for the owner of its group.
    fn reserve(&mut self, owner: ConsumerKey, rank: Rank, mut item: Item) {
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

    // ---- consumers -----------------------------------------------------------------------------------

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
            let others: Vec<ConsumerKey> = self.consumers.keys().copied().collect();
            for other in others {
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
            let others: Vec<ConsumerKey> = self.consumers.keys().copied().collect();
            others.into_iter().for_each(|other| self.give_turn(other));
        }
    }

    pub(super) fn remove_consumer(&mut self, key: ConsumerKey, now_ms: u64) {
        self.close(key);
        let Some(consumer) = self.consumers.remove(&key) else { return };
        if !self.browsers.remove(&key) {
            for (sequence, item) in consumer.held {
                self.put_back(sequence, item, now_ms);
            }
        }
        if self.consumers.is_empty() {
            self.unused_since_ms = Some(now_ms);
        }
    }

    fn release_reserved(&mut self, key: ConsumerKey) {
        let reserved = self.consumers.get_mut(&key).map(|consumer| std::mem::take(&mut consumer.reserved));
        for (rank, item) in reserved.into_iter().flatten() {
            self.count(&item, -1);
            self.insert_ready(rank, item);
        }
        self.reserving.remove(&key);
    }

    /// Puts a consumer last among those with credit and its priority, unless it is among them, or takes it out.
    fn give_turn(&mut self, key: ConsumerKey) {
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
        let Some(item) = consumer.held.remove(&sequence) else { return };
        consumer.held_bytes -= item.cost();
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
        self.give_turn(key);
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

    // ---- delivery ------------------------------------------------------------------------------------

    /// Does what is due, and gives what is ready to who has credit, in turn, until one of both runs out.
    pub(super) fn dispatch(&mut self, now_ms: u64) {
        self.dispatch_and_scan(now_ms, SCANS_PER_OPERATION);
    }

    /// The same, with so many messages shown at most.
    pub(super) fn dispatch_and_scan(&mut self, now_ms: u64, scans_max: usize) {
        self.scans_left = scans_max;
        (self.durable.wanted, self.durable.looked_for) = (None, None);
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

    fn wake_delayed(&mut self, now_ms: u64) {
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

    fn expire(&mut self, now_ms: u64) {
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
    fn owner(&self, item: &Item) -> Option<ConsumerKey> {
        if !self.exclusive.is_empty() {
            return None;
        }
        let owner = self.groups.owner(item.group()?)?;
        let consumer = self.consumers.get(&owner)?;
        (consumer.open && consumer.admits_item(item)).then_some(owner)
    }

    /// Consumers get first what came of their groups while they had no credit.
    fn serve_owners(&mut self, now_ms: u64) {
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
    fn next_pair(&mut self, now_ms: u64) -> Option<(ConsumerKey, Rank)> {
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
    fn candidate(&mut self, key: ConsumerKey, now_ms: u64) -> Option<Rank> {
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
    fn scan(&mut self, key: ConsumerKey) -> Option<Rank> {
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
    fn hand(&mut self, key: ConsumerKey, rank: Rank, item: Item) {
        let grouped = self.exclusive.is_empty();
        let Some(consumer) = self.consumers.get_mut(&key) else {
            return self.insert_ready(rank, item);
        };
        if let Some(turn) = consumer.turn.take() {
            self.turns.remove(&turn);
        }
        if deliver(consumer, key, rank.sequence(), &item) {
            if let Some(group) = item.group().filter(|_| grouped) {
                match item.ends_group() {
                    true => self.groups.forget(group),
                    false => self.groups.own(group, key),
                }
            }
            consumer.held.insert(rank.sequence(), item.clone());
            self.note_delivery(rank.sequence(), &item);
            self.give_turn(key);
        } else {
            self.insert_ready(rank, item);
            // Its session is over, and will take it away.
            self.close(key);
        }
    }

    // ---- looking without taking ----------------------------------------------------------------------

    fn serve_browsers(&mut self, now_ms: u64) {
        let browsers: Vec<ConsumerKey> = self.browsers.iter().copied().collect();
        for key in browsers {
            while self.scans_left > 0 && self.show_next(key, now_ms) {}
        }
    }

    /// Shows a browser one more message. False if it gets no more now.
    fn show_next(&mut self, key: ConsumerKey, now_ms: u64) -> bool {
        let Some(browser) = self.consumers.get_mut(&key) else { return false };
        if browser.exhausted || !browser.has_credit() {
            return false;
        }
        let is_of_past = matches!(browser.terms.browse, Some(Browse::Kept { .. }));
        let next = if is_of_past {
            self.kept.range(browser.next_kept..).next().map(|(sequence, item)| (*sequence, item))
        } else {
            self.ready.range(browser.cursor..).next().map(|(rank, item)| (rank.sequence(), item))
        };
        let Some((sequence, item)) = next else {
            finish_browsing(browser, key);
            return false;
        };
        let rank = item.rank(sequence);
        let has_expired = item.has_expired(now_ms);
        if item.is_away() && !has_expired {
            self.durable.looked_for.get_or_insert(sequence);
            return false;
        }
        match is_of_past {
            true => browser.next_kept = sequence + 1,
            false => browser.cursor = rank.after(),
        }
        self.scans_left -= 1;
        if !has_expired && browser.admits_item(item) {
            if deliver(browser, key, sequence, item) {
                browser.held.insert(sequence, item.clone());
            } else {
                browser.open = false;
            }
        }
        match is_of_past {
            true => self.relax_copy(sequence),
            false => self.relax(rank),
        }
        true
    }

    /// Whether somebody has credit who was not shown everything, though it was shown as much as may be at once.
    fn has_more_to_scan(&self) -> bool {
        let behind = |key: &ConsumerKey| {
            let Some(consumer) = self.consumers.get(key) else { return false };
            let more = match consumer.terms.browse {
                Some(Browse::Kept { .. }) => self.kept.range(consumer.next_kept..).next().is_some(),
                Some(Browse::Waiting { .. }) | None => self.ready.range(consumer.cursor..).next().is_some(),
            };
            let active = consumer.turn.is_some() || consumer.terms.browse.is_some() && !consumer.exhausted;
            active && consumer.has_credit() && more
        };
        self.pickers.iter().chain(&self.browsers).any(behind)
    }
}

/// Puts a message into a consumer's mailbox, and counts it. False if nobody looks into that any more.
fn deliver(consumer: &mut Consumer, key: ConsumerKey, sequence: u64, item: &Item) -> bool {
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

/// There is nothing more to look at: who wanted to know is told.
fn finish_browsing(browser: &mut Consumer, key: ConsumerKey) {
    if let Some(Browse::Waiting { ends: true } | Browse::Kept { ends: true, .. }) = browser.terms.browse {
        browser.exhausted = true;
        browser.mailbox.push(Parcel::Exhausted { consumer: key.consumer });
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

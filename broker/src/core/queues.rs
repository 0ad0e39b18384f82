//! Work queues: each message to one consumer, in order, until it is acknowledged. What is to outlive the
//! process is in [`durable`].
//!
//! A consumer has credit, in messages and in bytes; what it holds unsettled never exceeds that. A message
//! that comes back takes the place that it had. A queue that has neither messages nor consumers does not
//! exist: nothing is left of a name that nobody uses.
//!
//! Locks are taken in this order: the map of queues, queues by their number, mailboxes and the store's list of
//! what is to be written. What is written of one queue is submitted under its lock, so that it is in order.

pub mod durable;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::core::access::{REPLY_PREFIX, Refusal};
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::message::{Publication, SessionId};
use crate::core::name::Name;
use crate::core::parcel::{ConsumerId, Delivery, Parcel};
use crate::core::queues::durable::{Asker, Durable, Journal, Keeping, Progress, Writing};
use crate::core::store::{Change, StoredQueue, Submission, Unstorable};
use crate::metrics;

/// What queues may hold.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// How many queues a realm may have.
    pub queues_max: usize,
    /// How many messages one queue may hold.
    pub messages_max: usize,
    /// How many bytes one queue may hold.
    pub bytes_max: usize,
    /// How many bytes all queues of the realm may hold.
    pub total_bytes_max: usize,
}

/// How much a consumer may hold unsettled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// In messages.
    pub messages: usize,
    /// In bytes. One message is allowed whatever its size.
    pub bytes: usize,
}

/// What a consumer decides about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is done: the message goes.
    Accept,
    /// It is to be delivered again, to whoever is next.
    Requeue,
    /// It cannot be done: the message goes.
    Reject,
}

/// A consumer, in the whole realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConsumerKey {
    /// Its session.
    pub session: SessionId,
    /// Its number there.
    pub consumer: ConsumerId,
}

/// One step of a transaction that concerns queues.
#[derive(Debug)]
pub enum Step {
    /// Put a message into the queue that it names.
    Send(Arc<Publication>),
    /// Settle a delivery.
    Settle {
        /// The queue it came from.
        queue: Arc<Queue>,
        /// The consumer that holds it.
        consumer: ConsumerKey,
        /// Its place in the queue.
        sequence: u64,
        /// The decision.
        settlement: Settlement,
    },
}

/// The queues of a realm.
#[derive(Debug)]
pub struct Queues {
    limits: QueueLimits,
    keeping: Keeping,
    queues: RwLock<HashMap<Name, Arc<Queue>>>,
    total_bytes: Arc<AtomicUsize>,
    last_id: AtomicU64,
}

/// One queue.
#[derive(Debug)]
pub struct Queue {
    id: u64,
    name: Name,
    /// Only this session may consume from it.
    owner: Option<SessionId>,
    limits: QueueLimits,
    total_bytes: Arc<AtomicUsize>,
    /// Where persistent messages are kept. A queue that only its owner consumes from keeps none.
    journal: Option<Arc<Journal>>,
    /// For what the store answers.
    me: Weak<Queue>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: BTreeMap<u64, Item>,
    consumers: HashMap<ConsumerKey, Consumer>,
    /// Those of them that have credit, in the order in which it is their turn.
    turns: BTreeMap<u64, ConsumerKey>,
    last_turn: u64,
    last_sequence: u64,
    /// Messages here, ready or held.
    messages: usize,
    bytes: usize,
    durable: Durable,
}

#[derive(Debug)]
struct Item {
    body: Body,
    cost: u32,
    redeliveries: u32,
    /// It is in the store too, or is about to be.
    stored: bool,
}

const _: () = assert!(size_of::<Item>() <= 24, "this is what a message costs that is only in the store");

/// The message itself.
#[derive(Debug)]
enum Body {
    Here(Arc<Publication>),
    /// It is in the store only.
    Away,
}

impl Item {
    fn cost(&self) -> usize {
        self.cost as usize
    }
}

#[derive(Debug)]
struct Consumer {
    mailbox: Mailbox,
    credit: Credit,
    /// False when it gets nothing more, but may still settle what it holds.
    open: bool,
    held: BTreeMap<u64, Item>,
    held_bytes: usize,
    /// Its place among those with credit; none while it has none.
    turn: Option<u64>,
}

impl Consumer {
    fn has_credit(&self) -> bool {
        let has_bytes = self.held.is_empty() || self.held_bytes < self.credit.bytes;
        self.open && has_bytes && self.held.len() < self.credit.messages
    }
}

impl Queues {
    /// No queues yet, and none that keeps anything.
    pub fn new(limits: QueueLimits) -> Queues {
        Queues::with_keeping(limits, Keeping::InMemory)
    }

    /// No queues yet.
    pub fn with_keeping(limits: QueueLimits, keeping: Keeping) -> Queues {
        let (queues, total_bytes, last_id) = (RwLock::default(), Arc::default(), AtomicU64::new(0));
        Queues { limits, keeping, queues, total_bytes, last_id }
    }

    /// Makes the queues that the store had, as they were. For the start, before there are sessions.
    pub fn restore(&self, stored: Vec<StoredQueue>) {
        let mut queues = self.queues.write();
        for found in stored {
            let Ok(name) = Name::parse(&found.name) else {
                tracing::error!(name = &*found.name, "a stored queue has no proper name, and is left alone");
                metrics::STORE_UNREADABLE.add(found.messages.len() as i64);
                continue;
            };
            if queues.contains_key(&name) {
                tracing::error!(queue = %name, "there are two stored queues of one name; the later is left alone");
                metrics::STORE_UNREADABLE.add(found.messages.len() as i64);
                continue;
            }
            let queue = self.make(&name, None);
            queue.restore(&found);
            queues.insert(name, queue.clone());
            forget_if_idle(&mut queues, &queue);
        }
    }

    /// The bytes of stored messages that are in memory as well, ready to be delivered.
    pub fn window_bytes(&self) -> usize {
        self.journal().map_or(0, |journal| journal.window_bytes())
    }

    /// True while too much waits for the store; `waker` is woken when that ends.
    pub fn congested(&self, waker: &Waker) -> bool {
        self.journal().is_some_and(|journal| journal.congested(waker))
    }

    /// Tells when everything up to here is safe, if anything is kept.
    pub fn flush(&self, asker: Asker) -> Progress {
        let Some(journal) = self.journal() else { return Progress::Done };
        journal.flush(asker);
        Progress::Storing
    }

    fn journal(&self) -> Option<&Arc<Journal>> {
        match &self.keeping {
            Keeping::Stored(journal) => Some(journal),
            Keeping::InMemory | Keeping::Refused => None,
        }
    }

    /// Whether a message is to be kept, which may be refused.
    fn is_kept(&self, publication: &Publication) -> Result<bool, Refusal> {
        if !publication.is_persistent() {
            return Ok(false);
        }
        match &self.keeping {
            Keeping::Stored(journal) => journal.store.admit().map(|()| true).map_err(Refusal::Unstorable),
            Keeping::Refused => Err(Refusal::Unstorable(Unstorable::NoStore)),
            Keeping::InMemory => {
                durable::warn_once();
                Ok(false)
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.queues.read().len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that all of them hold.
    pub fn bytes(&self) -> usize {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Puts a message into the queue that it names, which is made if need be.
    pub fn send(&self, publication: Arc<Publication>) -> Result<(), Refusal> {
        self.send_for(publication, None).map(|_| ())
    }

    /// The same. Who asks is told when the store has it, if it is to be kept.
    pub fn send_for(&self, publication: Arc<Publication>, asker: Option<Asker>) -> Result<Progress, Refusal> {
        let kept = self.is_kept(&publication)?;
        {
            let queues = self.queues.read();
            if let Some(queue) = queues.get(&publication.name) {
                return queue.push(publication, kept, asker);
            }
        }
        let mut queues = self.queues.write();
        let name = publication.name.clone();
        let queue = self.get_or_make(&mut queues, &name, None)?.clone();
        let outcome = queue.push(publication, kept, asker);
        if outcome.is_err() {
            // It may have been made for nothing.
            forget_if_idle(&mut queues, &queue);
        }
        outcome
    }

    /// Puts a message into a queue if it exists. True when it did.
    pub fn send_existing(&self, publication: Arc<Publication>) -> Result<bool, Refusal> {
        match self.queues.read().get(&publication.name) {
            Some(queue) => queue.push(publication, false, None).map(|_| true),
            None => Ok(false),
        }
    }

    /// Adds a consumer to a queue, which is made if need be, unless it could only be a reply queue: those
    /// are their owners' to make, and nobody inherits the answers to somebody who is gone.
    pub fn consume(
        &self,
        name: &Name,
        key: ConsumerKey,
        mailbox: Mailbox,
        credit: Credit,
    ) -> Result<Arc<Queue>, Refusal> {
        let mut queues = self.queues.write();
        if name.as_str().starts_with(REPLY_PREFIX)
            && queues.get(name).is_none_or(|queue| queue.owner != Some(key.session))
        {
            return Err(Refusal::NotOwner(name.clone()));
        }
        let queue = self.get_or_make(&mut queues, name, None)?.clone();
        queue.add_consumer(key, mailbox, credit);
        Ok(queue)
    }

    /// Makes a queue that only `key` consumes from, and that others can send to by its name.
    pub fn own(
        &self,
        name: &Name,
        key: ConsumerKey,
        mailbox: Mailbox,
        credit: Credit,
    ) -> Result<Arc<Queue>, Refusal> {
        let mut queues = self.queues.write();
        let queue = self.get_or_make(&mut queues, name, Some(key.session))?.clone();
        queue.add_consumer(key, mailbox, credit);
        Ok(queue)
    }

    /// Makes a queue that no name leads to: for a subscription to topics that acknowledges.
    pub fn unnamed(&self, name: &Name, key: ConsumerKey, mailbox: Mailbox, credit: Credit) -> Arc<Queue> {
        let queue = self.make(name, Some(key.session));
        queue.add_consumer(key, mailbox, credit);
        queue
    }

    /// Takes a consumer away, whose unsettled messages become ready again, and the queue with it if
    /// nothing is left in it or its owner goes.
    pub fn leave(&self, queue: &Arc<Queue>, key: ConsumerKey) {
        queue.remove_consumer(key);
        self.forget_if_idle(queue);
    }

    /// Settles one delivery.
    pub fn settle(
        &self,
        queue: &Arc<Queue>,
        key: ConsumerKey,
        sequence: u64,
        settlement: Settlement,
    ) -> Result<(), Refusal> {
        self.settle_for(queue, key, sequence, settlement, None).map(|_| ())
    }

    /// The same. Who asks is told when the store knows it, if it must.
    pub fn settle_for(
        &self,
        queue: &Arc<Queue>,
        key: ConsumerKey,
        sequence: u64,
        settlement: Settlement,
        asker: Option<Asker>,
    ) -> Result<Progress, Refusal> {
        let mut state = queue.state.lock();
        if state.held(key, sequence).is_none() {
            return Err(Refusal::NoSuchDelivery);
        }
        let mut writing = Writing::default();
        queue.apply_settlement(&mut state, key, sequence, settlement, &mut writing);
        let progress = self.journal().map_or(Progress::Done, |journal| writing.submit(journal, asker));
        queue.dispatch(&mut state);
        let idle = state.is_idle();
        drop(state);
        if idle {
            self.forget_if_idle(queue);
        }
        Ok(progress)
    }

    /// Takes all of these steps, or none of them.
    ///
    /// What is sent to a reply queue that does not exist any more is dropped: whoever waited for it is gone.
    pub fn commit(&self, steps: Vec<Step>) -> Result<(), Refusal> {
        self.commit_for(steps, None).map(|_| ())
    }

    /// The same. Who asks is told when the store has them, if it must.
    pub fn commit_for(&self, mut steps: Vec<Step>, asker: Option<Asker>) -> Result<Progress, Refusal> {
        let kept = self.is_any_kept(&steps)?;
        let mut queues = self.queues.write();
        steps.retain(|step| match step {
            Step::Send(publication) => {
                let name = publication.name.as_str();
                !name.starts_with(REPLY_PREFIX) || queues.contains_key(name)
            }
            Step::Settle { .. } => true,
        });
        let mut involved = Vec::new();
        let mut outcome = Ok(());
        for step in &steps {
            involved.push(match step {
                Step::Send(publication) => match self.get_or_make(&mut queues, &publication.name, None) {
                    Ok(queue) => queue.clone(),
                    Err(refusal) => {
                        outcome = Err(refusal);
                        break;
                    }
                },
                Step::Settle { queue, .. } => queue.clone(),
            });
        }
        let journal = self.journal().filter(|_| kept);
        let outcome = outcome.and_then(|()| take_steps(steps, &involved, journal, asker));
        // Those that were made for nothing, and those that are empty now.
        for queue in &involved {
            forget_if_idle(&mut queues, queue);
        }
        outcome
    }

    /// Whether the store has a part in these steps: then all of them wait for it, so that they happen together.
    fn is_any_kept(&self, steps: &[Step]) -> Result<bool, Refusal> {
        let mut kept = false;
        for step in steps {
            kept |= match step {
                Step::Send(publication) => self.is_kept(publication)?,
                Step::Settle { queue, consumer, sequence, .. } => {
                    queue.state.lock().held(*consumer, *sequence).is_some_and(|item| item.stored)
                }
            };
        }
        Ok(kept)
    }

    fn get_or_make<'a>(
        &self,
        queues: &'a mut HashMap<Name, Arc<Queue>>,
        name: &Name,
        owner: Option<SessionId>,
    ) -> Result<&'a Arc<Queue>, Refusal> {
        if queues.len() >= self.limits.queues_max && !queues.contains_key(name) {
            return Err(Refusal::TooMany("queues", self.limits.queues_max));
        }
        Ok(queues.entry(name.clone()).or_insert_with(|| self.make(name, owner)))
    }

    fn make(&self, name: &Name, owner: Option<SessionId>) -> Arc<Queue> {
        Arc::new_cyclic(|me| Queue {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            name: name.clone(),
            owner,
            limits: self.limits,
            total_bytes: self.total_bytes.clone(),
            journal: self.journal().filter(|_| owner.is_none()).cloned(),
            me: me.clone(),
            state: Mutex::default(),
        })
    }

    fn forget_if_idle(&self, queue: &Arc<Queue>) {
        forget_if_idle(&mut self.queues.write(), queue);
    }
}

fn forget_if_idle(queues: &mut HashMap<Name, Arc<Queue>>, queue: &Arc<Queue>) {
    let known = queues.get(&queue.name).is_some_and(|known| known.id == queue.id);
    let mut state = queue.state.lock();
    let unreachable = (!known || queue.owner.is_some()) && state.consumers.is_empty();
    if unreachable {
        queue.clear(&mut state);
    }
    if known && state.is_idle() {
        queues.remove(&queue.name);
        if let Some((journal, queue)) = queue.journal.as_ref().zip(state.durable.id.take()) {
            journal.store.submit(Submission { changes: vec![Change::Delete { queue }], done: None });
        }
    }
}

/// Takes each step in its queue, all of which are locked meanwhile, or none of them. With a journal, what is
/// sent waits for the store.
fn take_steps(
    steps: Vec<Step>,
    involved: &[Arc<Queue>],
    journal: Option<&Arc<Journal>>,
    asker: Option<Asker>,
) -> Result<Progress, Refusal> {
    let mut by_id: Vec<&Arc<Queue>> = involved.iter().collect();
    by_id.sort_by_key(|queue| queue.id);
    by_id.dedup_by_key(|queue| queue.id);
    let mut locked: BTreeMap<u64, MutexGuard<'_, State>> = BTreeMap::new();
    for queue in &by_id {
        locked.insert(queue.id, queue.state.lock());
    }
    check_steps(&steps, involved, &locked)?;
    let mut writing = Writing::default();
    for (step, queue) in steps.into_iter().zip(involved) {
        let Some(state) = locked.get_mut(&queue.id) else { continue };
        match (step, journal) {
            (Step::Send(publication), Some(journal)) => {
                queue.append_pending(state, publication, journal, &mut writing);
            }
            (Step::Send(publication), None) => queue.append(state, publication),
            (Step::Settle { consumer, sequence, settlement, .. }, _) => {
                queue.apply_settlement(state, consumer, sequence, settlement, &mut writing);
            }
        }
    }
    let progress = journal.map_or(Progress::Done, |journal| writing.submit(journal, asker));
    for queue in by_id {
        if let Some(state) = locked.get_mut(&queue.id) {
            queue.dispatch(state);
        }
    }
    Ok(progress)
}

/// What the steps before one would change: in a queue, or in all of them.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    messages: isize,
    bytes: isize,
}

impl Sum {
    fn add(&mut self, messages: isize, cost: usize) {
        self.messages += messages;
        self.bytes += messages * cost as isize;
    }
}

/// Whether all steps can be taken, with what the earlier ones among them would change.
fn check_steps(
    steps: &[Step],
    involved: &[Arc<Queue>],
    locked: &BTreeMap<u64, MutexGuard<'_, State>>,
) -> Result<(), Refusal> {
    let mut changes: HashMap<u64, Sum> = HashMap::new();
    let mut total = Sum::default();
    let mut settled = HashSet::new();
    for (step, queue) in steps.iter().zip(involved) {
        let state = &locked[&queue.id];
        let change = changes.entry(queue.id).or_default();
        match step {
            Step::Send(publication) => {
                let cost = publication.cost();
                queue.check_room(state, *change, total, cost)?;
                change.add(1, cost);
                total.add(1, cost);
            }
            Step::Settle { consumer, sequence, settlement, .. } => {
                let item = state.held(*consumer, *sequence).ok_or(Refusal::NoSuchDelivery)?;
                if !settled.insert((queue.id, *sequence)) {
                    return Err(Refusal::NoSuchDelivery);
                }
                if *settlement != Settlement::Requeue {
                    let cost = item.cost();
                    change.add(-1, cost);
                    total.add(-1, cost);
                }
            }
        }
    }
    Ok(())
}

impl Queue {
    /// Its name. A queue that is bound to a topic bears the topic's, or one for its pattern.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How many messages it holds, ready or unsettled.
    pub fn len(&self) -> usize {
        self.state.lock().messages
    }

    /// True when it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what a topic that this queue is bound to brings. A queue that is full ends its consumers'
    /// sessions: they are slow consumers of the topic.
    pub fn push_bound(&self, publication: Arc<Publication>) -> Pushed {
        let mut state = self.state.lock();
        let none = Sum::default();
        if self.check_room(&state, none, none, publication.cost()).is_err() {
            metrics::EVENTS_DROPPED.add(1);
            state.consumers.values().for_each(|consumer| consumer.mailbox.overflow());
            return Pushed::Full;
        }
        self.append(&mut state, publication);
        self.dispatch(&mut state);
        Pushed::Queued
    }

    /// Stops deliveries to a consumer, which may still settle what it holds.
    pub fn close(&self, key: ConsumerKey) {
        let mut state = self.state.lock();
        if let Some(consumer) = state.consumers.get_mut(&key) {
            consumer.open = false;
            state.give_turn(key);
        }
    }

    /// True when the consumer holds nothing any more.
    pub fn is_settled(&self, key: ConsumerKey) -> bool {
        self.state.lock().consumers.get(&key).is_none_or(|consumer| consumer.held.is_empty())
    }

    fn push(
        self: &Arc<Queue>,
        publication: Arc<Publication>,
        kept: bool,
        asker: Option<Asker>,
    ) -> Result<Progress, Refusal> {
        let mut state = self.state.lock();
        self.check_room(&state, Sum::default(), Sum::default(), publication.cost())?;
        if let Some(journal) = self.journal.as_ref().filter(|_| kept) {
            let mut writing = Writing::default();
            self.append_pending(&mut state, publication, journal, &mut writing);
            // Nobody gets it before the store has it: there is nothing to hand out.
            return Ok(writing.submit(journal, asker));
        }
        self.append(&mut state, publication);
        self.dispatch(&mut state);
        Ok(Progress::Done)
    }

    /// Whether one more message of this cost has room, after these changes in this queue and in all of them.
    fn check_room(&self, state: &State, here: Sum, total: Sum, cost: usize) -> Result<(), Refusal> {
        let messages = state.messages.saturating_add_signed(here.messages);
        let bytes = state.bytes.saturating_add_signed(here.bytes);
        let all_bytes = self.total_bytes.load(Ordering::Relaxed).saturating_add_signed(total.bytes);
        let full = messages >= self.limits.messages_max
            || bytes >= self.limits.bytes_max
            || all_bytes + cost > self.limits.total_bytes_max;
        if full { Err(Refusal::QueueFull(self.name.clone())) } else { Ok(()) }
    }

    fn append(&self, state: &mut State, publication: Arc<Publication>) {
        let (sequence, item) = self.admit(state, publication, false);
        state.put_ready(sequence, item, None);
    }

    /// Counts a message in, and gives it its place.
    fn admit(&self, state: &mut State, publication: Arc<Publication>, stored: bool) -> (u64, Item) {
        metrics::ENQUEUED.add(1);
        let cost = u32::try_from(publication.cost()).unwrap_or(u32::MAX);
        let item = Item { body: Body::Here(publication), cost, redeliveries: 0, stored };
        self.count_in(state, &item);
        state.last_sequence += 1;
        (state.last_sequence, item)
    }

    fn count_in(&self, state: &mut State, item: &Item) {
        self.total_bytes.fetch_add(item.cost(), Ordering::Relaxed);
        state.bytes += item.cost();
        state.messages += 1;
    }

    /// Counts a message out.
    fn release(&self, state: &mut State, item: &Item) {
        self.total_bytes.fetch_sub(item.cost(), Ordering::Relaxed);
        state.bytes -= item.cost();
        state.messages -= 1;
    }

    fn restore(&self, found: &StoredQueue) {
        let mut state = self.state.lock();
        state.durable.id = Some(found.queue);
        state.last_sequence = found.last_sequence;
        for message in &found.messages {
            let item =
                Item { body: Body::Away, cost: message.cost, redeliveries: message.deliveries, stored: true };
            self.count_in(&mut state, &item);
            state.put_ready(message.sequence, item, self.journal.as_deref());
        }
    }

    fn apply_settlement(
        &self,
        state: &mut State,
        key: ConsumerKey,
        sequence: u64,
        settlement: Settlement,
        writing: &mut Writing,
    ) {
        let Some(consumer) = state.consumers.get_mut(&key) else { return };
        let Some(mut item) = consumer.held.remove(&sequence) else { return };
        consumer.held_bytes -= item.cost();
        match settlement {
            Settlement::Requeue => {
                item.redeliveries += 1;
                state.put_ready(sequence, item, self.journal.as_deref());
            }
            Settlement::Accept | Settlement::Reject => {
                self.unstore(state, sequence, &item, writing);
                self.release(state, &item);
            }
        }
        state.give_turn(key);
    }

    fn dispatch(&self, state: &mut State) {
        state.dispatch(self.journal.as_deref());
        self.follow_up(state);
    }

    fn add_consumer(&self, key: ConsumerKey, mailbox: Mailbox, credit: Credit) {
        let mut state = self.state.lock();
        let (held, held_bytes, turn) = (BTreeMap::new(), 0, None);
        state.consumers.insert(key, Consumer { mailbox, credit, open: true, held, held_bytes, turn });
        state.give_turn(key);
        self.dispatch(&mut state);
    }

    fn remove_consumer(&self, key: ConsumerKey) {
        let mut state = self.state.lock();
        let Some(consumer) = state.consumers.remove(&key) else { return };
        if let Some(turn) = consumer.turn {
            state.turns.remove(&turn);
        }
        for (sequence, mut item) in consumer.held {
            item.redeliveries += 1;
            state.put_ready(sequence, item, self.journal.as_deref());
        }
        self.dispatch(&mut state);
    }

    fn clear(&self, state: &mut State) {
        self.total_bytes.fetch_sub(state.bytes, Ordering::Relaxed);
        *state = State { last_sequence: state.last_sequence, ..State::default() };
    }
}

impl State {
    fn held(&self, key: ConsumerKey, sequence: u64) -> Option<&Item> {
        self.consumers.get(&key)?.held.get(&sequence)
    }

    fn is_idle(&self) -> bool {
        self.messages == 0 && self.consumers.is_empty()
    }

    /// Puts a consumer last among those with credit, unless it is among them, or takes it out.
    fn give_turn(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(&key) else { return };
        match (consumer.has_credit(), consumer.turn) {
            (true, None) => {
                self.last_turn += 1;
                consumer.turn = Some(self.last_turn);
                self.turns.insert(self.last_turn, key);
            }
            (false, Some(turn)) => {
                consumer.turn = None;
                self.turns.remove(&turn);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Gives ready messages to consumers with credit, in turn, until one of both runs out. What it costs
    /// depends on neither of their numbers.
    fn dispatch(&mut self, journal: Option<&Journal>) {
        while let Some((sequence, item)) = self.ready.first_key_value()
            && self.durable.allows(*sequence)
            && let Body::Here(publication) = &item.body
            && let Some((_, key)) = self.turns.pop_first()
        {
            let Some(consumer) = self.consumers.get_mut(&key) else { continue };
            consumer.turn = None;
            let sequence = *sequence;
            let pushed = consumer.mailbox.push(Parcel::Delivery(Delivery {
                publication: publication.clone(),
                consumer: key.consumer,
                sequence,
                redeliveries: item.redeliveries,
            }));
            if pushed == Pushed::Queued {
                self.hand_over(sequence, key, journal);
            } else {
                consumer.open = false;
            }
            self.give_turn(key);
        }
    }

    /// A ready message is a consumer's now.
    fn hand_over(&mut self, sequence: u64, key: ConsumerKey, journal: Option<&Journal>) {
        let Some(item) = self.take_ready(sequence, journal) else { return };
        self.note_delivery(sequence, &item);
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.held_bytes += item.cost();
            consumer.held.insert(sequence, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::core::mailbox::Inbox;
    use crate::core::testing::{UNIT, large_mailbox, name, publication, take};

    const ROOMY: QueueLimits = QueueLimits {
        queues_max: 100,
        messages_max: 1_000_000,
        bytes_max: 1 << 30,
        total_bytes_max: 1 << 30,
    };

    const ENDLESS: Credit = Credit { messages: usize::MAX, bytes: usize::MAX };

    fn messages(messages: usize) -> Credit {
        Credit { messages, bytes: usize::MAX }
    }

    fn key(session: u64) -> ConsumerKey {
        ConsumerKey { session: SessionId(session), consumer: ConsumerId(1) }
    }

    /// A consumer with a mailbox of its own.
    struct Worker {
        key: ConsumerKey,
        queue: Arc<Queue>,
        inbox: Inbox,
    }

    impl Worker {
        fn consume(queues: &Queues, queue: &str, session: u64, credit: Credit) -> Worker {
            let (mailbox, inbox) = large_mailbox();
            let queue = queues.consume(&name(queue), key(session), mailbox, credit).unwrap();
            Worker { key: key(session), queue, inbox }
        }

        fn got(&mut self) -> Vec<(u64, u64, u32)> {
            let delivery = |parcel| match parcel {
                Parcel::Delivery(d) => (d.publication.id, d.sequence, d.redeliveries),
                other => panic!("not a delivery: {other:?}"),
            };
            take(&mut self.inbox).into_iter().map(delivery).collect()
        }

        fn ids(&mut self) -> Vec<u64> {
            self.got().into_iter().map(|(id, _, _)| id).collect()
        }

        fn settle(&self, queues: &Queues, sequence: u64, settlement: Settlement) -> Result<(), Refusal> {
            queues.settle(&self.queue, self.key, sequence, settlement)
        }

        fn step(&self, sequence: u64, settlement: Settlement) -> Step {
            Step::Settle { queue: self.queue.clone(), consumer: self.key, sequence, settlement }
        }
    }

    fn send(queues: &Queues, queue: &str, id: u64) {
        queues.send(publication(queue, id)).unwrap();
    }

    fn assert_nothing_is_left(queues: &Queues) {
        assert_eq!((queues.len(), queues.bytes()), (0, 0));
    }

    #[test]
    fn consumers_get_messages_in_turn() {
        let queues = Queues::new(ROOMY);
        let mut workers: Vec<_> = (1..=3).map(|n| Worker::consume(&queues, "q", n, ENDLESS)).collect();
        (1..=7).for_each(|id| send(&queues, "q", id));
        assert_eq!(workers[0].ids(), [1, 4, 7]);
        assert_eq!(workers[1].ids(), [2, 5]);
        assert_eq!(workers[2].ids(), [3, 6]);
    }

    #[test]
    fn a_consumer_holds_no_more_messages_than_its_credit() {
        let queues = Queues::new(ROOMY);
        (1..=5).for_each(|id| send(&queues, "q", id));
        let mut worker = Worker::consume(&queues, "q", 1, messages(2));
        assert_eq!(worker.got(), [(1, 1, 0), (2, 2, 0)]);
        worker.settle(&queues, 2, Settlement::Accept).unwrap();
        assert_eq!(worker.got(), [(3, 3, 0)]);
        worker.settle(&queues, 1, Settlement::Reject).unwrap();
        worker.settle(&queues, 3, Settlement::Accept).unwrap();
        assert_eq!(worker.ids(), [4, 5]);
    }

    #[test]
    fn a_consumer_holds_no_more_bytes_than_its_credit_and_the_message_that_reaches_it() {
        let queues = Queues::new(ROOMY);
        (1..=5).for_each(|id| send(&queues, "q", id));
        let credit = Credit { messages: 10, bytes: 2 * UNIT - 1 };
        let mut worker = Worker::consume(&queues, "q", 1, credit);
        assert_eq!(worker.ids(), [1, 2]);
        worker.settle(&queues, 1, Settlement::Accept).unwrap();
        assert_eq!(worker.ids(), [3]);
    }

    #[test]
    fn one_message_is_allowed_whatever_its_size() {
        let queues = Queues::new(ROOMY);
        (1..=2).for_each(|id| send(&queues, "q", id));
        let mut worker = Worker::consume(&queues, "q", 1, Credit { messages: 10, bytes: 0 });
        assert_eq!(worker.ids(), [1]);
    }

    #[test]
    fn a_message_that_comes_back_takes_the_place_that_it_had_and_says_so() {
        let queues = Queues::new(ROOMY);
        (1..=4).for_each(|id| send(&queues, "q", id));
        let mut worker = Worker::consume(&queues, "q", 1, messages(2));
        assert_eq!(worker.got(), [(1, 1, 0), (2, 2, 0)]);
        worker.settle(&queues, 1, Settlement::Requeue).unwrap();
        assert_eq!(worker.got(), [(1, 1, 1)], "before 3 and 4");
        worker.settle(&queues, 1, Settlement::Requeue).unwrap();
        assert_eq!(worker.got(), [(1, 1, 2)]);
    }

    #[test]
    fn what_a_consumer_held_when_it_left_comes_back_in_its_place() {
        let queues = Queues::new(ROOMY);
        let mut first = Worker::consume(&queues, "q", 1, messages(2));
        let mut second = Worker::consume(&queues, "q", 2, messages(1));
        (1..=5).for_each(|id| send(&queues, "q", id));
        assert_eq!((first.ids(), second.ids()), (vec![1, 3], vec![2]));
        queues.leave(&first.queue, first.key);
        let mut holds = 2;
        for (id, redeliveries) in [(1, 1), (3, 1), (4, 0), (5, 0)] {
            second.settle(&queues, holds, Settlement::Accept).unwrap();
            assert_eq!(second.got(), [(id, id, redeliveries)]);
            holds = id;
        }
    }

    #[test]
    fn a_consumer_that_closed_gets_nothing_more_but_settles_what_it_holds() {
        let queues = Queues::new(ROOMY);
        (1..=3).for_each(|id| send(&queues, "q", id));
        let mut worker = Worker::consume(&queues, "q", 1, messages(1));
        assert_eq!(worker.ids(), [1]);
        worker.queue.close(worker.key);
        assert!(!worker.queue.is_settled(worker.key));
        worker.settle(&queues, 1, Settlement::Accept).unwrap();
        assert!(worker.ids().is_empty());
        assert!(worker.queue.is_settled(worker.key));
        queues.leave(&worker.queue, worker.key);
        let mut next = Worker::consume(&queues, "q", 2, ENDLESS);
        assert_eq!(next.got(), [(2, 2, 0), (3, 3, 0)]);
    }

    #[test]
    fn a_consumer_whose_mailbox_closed_does_not_swallow_messages() {
        let queues = Queues::new(ROOMY);
        let mut gone = Worker::consume(&queues, "q", 1, ENDLESS);
        drop(std::mem::replace(&mut gone.inbox, large_mailbox().1));
        send(&queues, "q", 1);
        let mut worker = Worker::consume(&queues, "q", 2, ENDLESS);
        assert_eq!(worker.got(), [(1, 1, 0)]);
        send(&queues, "q", 2);
        assert_eq!(worker.ids(), [2]);
    }

    #[test]
    fn only_what_is_held_can_be_settled_and_only_once_by_its_holder() {
        let queues = Queues::new(ROOMY);
        let worker = Worker::consume(&queues, "q", 1, messages(1));
        let other = Worker::consume(&queues, "q", 2, messages(1));
        send(&queues, "q", 1);
        assert_eq!(other.settle(&queues, 1, Settlement::Accept), Err(Refusal::NoSuchDelivery));
        assert_eq!(worker.settle(&queues, 2, Settlement::Accept), Err(Refusal::NoSuchDelivery));
        assert_eq!(worker.settle(&queues, 1, Settlement::Accept), Ok(()));
        assert_eq!(worker.settle(&queues, 1, Settlement::Accept), Err(Refusal::NoSuchDelivery));
    }

    #[test]
    fn a_reply_queue_is_its_owners_alone_and_goes_with_it() {
        let queues = Queues::new(ROOMY);
        let reply = name("tandem.reply.1");
        let (mailbox, mut inbox) = large_mailbox();
        let queue = queues.own(&reply, key(1), mailbox.clone(), messages(1)).unwrap();
        let thief = queues.consume(&reply, key(2), mailbox.clone(), ENDLESS);
        assert_eq!(thief.err(), Some(Refusal::NotOwner(reply.clone())));
        for id in 1..=3 {
            assert_eq!(queues.send_existing(publication("tandem.reply.1", id)), Ok(true));
        }
        assert_eq!(take(&mut inbox).len(), 1);
        queues.leave(&queue, key(1));
        assert_nothing_is_left(&queues);
        assert_eq!(queues.send_existing(publication("tandem.reply.1", 4)), Ok(false));
        let heir = queues.consume(&reply, key(2), mailbox, ENDLESS);
        assert_eq!(heir.err(), Some(Refusal::NotOwner(reply)), "nobody inherits the answers");
        assert_nothing_is_left(&queues);
    }

    #[test]
    fn an_unnamed_queue_cannot_be_sent_to_and_goes_with_its_consumer() {
        let queues = Queues::new(ROOMY);
        let (mailbox, mut inbox) = large_mailbox();
        let queue = queues.unnamed(&name("tandem.bound.1"), key(1), mailbox, messages(1));
        assert!(queues.is_empty());
        assert_eq!(queues.send_existing(publication("tandem.bound.1", 1)), Ok(false));
        assert_eq!(queue.push_bound(publication("a.topic", 2)), Pushed::Queued);
        assert_eq!(queue.push_bound(publication("a.topic", 3)), Pushed::Queued);
        assert_eq!(take(&mut inbox).len(), 1);
        assert_eq!((queue.len(), queues.bytes()), (2, 2 * UNIT));
        queues.leave(&queue, key(1));
        assert!(queue.is_empty());
        assert_nothing_is_left(&queues);
    }

    #[test]
    fn a_bound_queue_that_is_full_ends_its_consumers_session() {
        let queues = Queues::new(QueueLimits { messages_max: 2, ..ROOMY });
        let (mailbox, mut inbox) = large_mailbox();
        let queue = queues.unnamed(&name("tandem.bound.1"), key(1), mailbox.clone(), messages(1));
        assert_eq!(queue.push_bound(publication("a.topic", 1)), Pushed::Queued);
        assert_eq!(queue.push_bound(publication("a.topic", 2)), Pushed::Queued);
        assert_eq!(queue.push_bound(publication("a.topic", 3)), Pushed::Full);
        assert!(mailbox.is_closed());
        assert!(matches!(take(&mut inbox)[..], [Parcel::Farewell(_)]));
    }

    #[test]
    fn each_limit_refuses_what_would_pass_it() {
        let full = |limits| {
            let queues = Queues::new(limits);
            let results: Vec<_> = (1..=3).map(|id| queues.send(publication("q", id))).collect();
            let refusal = Err(Refusal::QueueFull(name("q")));
            assert_eq!(results, [Ok(()), Ok(()), refusal]);
        };
        full(QueueLimits { messages_max: 2, ..ROOMY });
        full(QueueLimits { bytes_max: 2 * UNIT, ..ROOMY });
        full(QueueLimits { total_bytes_max: 3 * UNIT - 1, ..ROOMY });

        let queues = Queues::new(QueueLimits { queues_max: 2, ..ROOMY });
        send(&queues, "q1", 1);
        let worker = Worker::consume(&queues, "q2", 1, ENDLESS);
        let too_many = Refusal::TooMany("queues", 2);
        assert_eq!(queues.send(publication("q3", 1)), Err(too_many.clone()));
        let (mailbox, _inbox) = large_mailbox();
        let refused = queues.consume(&name("q3"), key(1), mailbox.clone(), ENDLESS);
        assert_eq!(refused.err(), Some(too_many.clone()));
        let refused = queues.own(&name("tandem.reply.1"), key(1), mailbox, ENDLESS);
        assert_eq!(refused.err(), Some(too_many));
        queues.leave(&worker.queue, worker.key);
        send(&queues, "q3", 1);
    }

    #[test]
    fn what_is_refused_leaves_no_queue_behind() {
        let queues = Queues::new(QueueLimits { total_bytes_max: 3 * UNIT - 1, queues_max: 3, ..ROOMY });
        send(&queues, "q1", 1);
        send(&queues, "q2", 1);
        assert!(queues.send(publication("q3", 1)).is_err());
        assert_eq!(queues.len(), 2);
        let steps = ["q3", "q4"].map(|queue| Step::Send(publication(queue, 1)));
        assert_eq!(queues.commit(steps.into()), Err(Refusal::TooMany("queues", 3)));
        assert_eq!(queues.len(), 2);
        assert!(queues.commit(vec![Step::Send(publication("q3", 1))]).is_err());
        assert_eq!(queues.len(), 2);
    }

    #[test]
    fn a_transaction_happens_in_all_its_queues_or_in_none() {
        let queues = Queues::new(QueueLimits { messages_max: 2, ..ROOMY });
        send(&queues, "in", 1);
        send(&queues, "in", 2);
        let mut worker = Worker::consume(&queues, "in", 1, ENDLESS);
        assert_eq!(worker.ids(), [1, 2]);
        let out = |id| Step::Send(publication("out", id));

        let too_many = vec![worker.step(1, Settlement::Accept), out(1), out(2), out(3)];
        assert_eq!(queues.commit(too_many), Err(Refusal::QueueFull(name("out"))));
        let unknown = vec![out(1), worker.step(1, Settlement::Accept), worker.step(9, Settlement::Accept)];
        assert_eq!(queues.commit(unknown), Err(Refusal::NoSuchDelivery));
        let twice = vec![out(1), worker.step(1, Settlement::Accept), worker.step(1, Settlement::Requeue)];
        assert_eq!(queues.commit(twice), Err(Refusal::NoSuchDelivery));
        assert_eq!((queues.len(), queues.bytes(), worker.queue.len()), (1, 2 * UNIT, 2));

        let right = vec![
            worker.step(1, Settlement::Accept),
            out(1),
            worker.step(2, Settlement::Requeue),
            out(2),
            Step::Send(publication("in", 3)),
        ];
        assert_eq!(queues.commit(right), Ok(()));
        assert_eq!(worker.got(), [(2, 2, 1), (3, 3, 0)]);
        let mut outcome = Worker::consume(&queues, "out", 2, ENDLESS);
        assert_eq!(outcome.ids(), [1, 2]);
    }

    #[test]
    fn what_a_transaction_settles_makes_room_for_what_it_sends_after() {
        let queues = Queues::new(QueueLimits { messages_max: 1, total_bytes_max: UNIT, ..ROOMY });
        send(&queues, "in", 1);
        let worker = Worker::consume(&queues, "in", 1, ENDLESS);
        let send_first = vec![Step::Send(publication("out", 2)), worker.step(1, Settlement::Accept)];
        assert_eq!(queues.commit(send_first), Err(Refusal::QueueFull(name("out"))));
        let requeue = vec![worker.step(1, Settlement::Requeue), Step::Send(publication("out", 2))];
        assert_eq!(queues.commit(requeue), Err(Refusal::QueueFull(name("out"))));
        let moved = vec![worker.step(1, Settlement::Accept), Step::Send(publication("out", 2))];
        assert_eq!(queues.commit(moved), Ok(()));
        assert_eq!(queues.bytes(), UNIT);
    }

    #[test]
    fn an_answer_in_a_transaction_to_somebody_who_is_gone_is_dropped() {
        let queues = Queues::new(ROOMY);
        let steps = vec![Step::Send(publication("tandem.reply.1", 1)), Step::Send(publication("q", 2))];
        assert_eq!(queues.commit(steps), Ok(()));
        assert_eq!((queues.len(), queues.bytes()), (1, UNIT));
    }

    #[test]
    fn a_transaction_delivers_before_a_later_send() {
        let queues = Queues::new(ROOMY);
        let mut worker = Worker::consume(&queues, "q", 1, ENDLESS);
        queues.commit((1..=3).map(|id| Step::Send(publication("q", id))).collect()).unwrap();
        send(&queues, "q", 4);
        assert_eq!(worker.ids(), [1, 2, 3, 4]);
        assert_eq!(queues.commit(Vec::new()), Ok(()));
    }

    #[test]
    fn idle_queues_leave_nothing_behind() {
        let queues = Queues::new(ROOMY);
        for session in 0..1000 {
            let queue = format!("q{session}");
            let mut worker = Worker::consume(&queues, &queue, session, ENDLESS);
            send(&queues, &queue, 1);
            let (_, sequence, _) = worker.got()[0];
            worker.settle(&queues, sequence, Settlement::Accept).unwrap();
            queues.leave(&worker.queue, worker.key);
        }
        assert_nothing_is_left(&queues);
        send(&queues, "q", 1);
        let mut worker = Worker::consume(&queues, "q", 1, ENDLESS);
        assert_eq!(worker.ids(), [1]);
        worker.queue.close(worker.key);
        worker.settle(&queues, 1, Settlement::Accept).unwrap();
        queues.leave(&worker.queue, worker.key);
        assert_nothing_is_left(&queues);
    }

    #[test]
    fn many_consumers_without_credit_cost_a_send_nothing() {
        let queues = Queues::new(ROOMY);
        let count = 20_000;
        let (mailbox, _inbox) = large_mailbox();
        for session in 1..=count {
            queues.consume(&name("q"), key(session), mailbox.clone(), messages(1)).unwrap();
        }
        // Searching for one with credit, or for the one that settles, would take minutes.
        (1..=2 * count).for_each(|id| send(&queues, "q", id));
        let queue = queues.queues.read()["q"].clone();
        for session in 1..=count {
            queues.settle(&queue, key(session), session, Settlement::Accept).unwrap();
        }
        for session in 1..=count {
            queues.leave(&queue, key(session));
        }
        assert_eq!((queue.len() as u64, queues.bytes() as u64), (count, count * UNIT as u64));
    }

    #[test]
    fn threads_that_send_while_queues_come_and_go_lose_nothing() {
        let queues = Queues::new(ROOMY);
        let (senders, each) = (4, 2000);
        let mut seen = BTreeSet::new();
        std::thread::scope(|scope| {
            for sender in 0..senders {
                let queues = &queues;
                scope.spawn(move || (0..each).for_each(|id| send(queues, "q", sender * each + id)));
            }
            let mut session = 0;
            while seen.len() < (senders * each) as usize {
                session += 1;
                let mut worker = Worker::consume(&queues, "q", session, messages(50));
                for (id, sequence, _) in worker.got() {
                    assert!(seen.insert(id), "{id} came twice");
                    worker.settle(&queues, sequence, Settlement::Accept).unwrap();
                }
                queues.leave(&worker.queue, worker.key);
            }
        });
        assert_nothing_is_left(&queues);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Send { queue: usize },
        Consume { queue: usize, credit: usize },
        Settle { which: usize, settlement: Settlement },
        Close { worker: usize },
        Leave { worker: usize },
        Commit { sends: Vec<usize>, settles: Vec<(usize, Settlement)>, unknown: bool },
    }

    fn action() -> impl Strategy<Value = Action> {
        let settlement =
            || prop::sample::select(vec![Settlement::Accept, Settlement::Requeue, Settlement::Reject]);
        let any = 0..1000_usize;
        prop_oneof![
            6 => (0..3_usize).prop_map(|queue| Action::Send { queue }),
            2 => (0..3_usize, 1..5_usize).prop_map(|(queue, credit)| Action::Consume { queue, credit }),
            6 => (any.clone(), settlement()).prop_map(|(which, settlement)| Action::Settle { which, settlement }),
            1 => any.clone().prop_map(|worker| Action::Close { worker }),
            1 => any.clone().prop_map(|worker| Action::Leave { worker }),
            2 => (vec(0..3_usize, 0..4), vec((any, settlement()), 0..4), prop::bool::weighted(0.2))
                .prop_map(|(sends, settles, unknown)| Action::Commit { sends, settles, unknown }),
        ]
    }

    const NAMES: [&str; 3] = ["q0", "q1", "q2"];
    const MESSAGES_MAX: usize = 12;

    struct Modelled {
        worker: Worker,
        queue: usize,
        credit: usize,
        open: bool,
        /// By sequence: what the test saw delivered and has not settled.
        held: BTreeMap<u64, u64>,
    }

    /// What should be: for each queue what is in it, and who holds what.
    struct Model {
        queues: Queues,
        workers: Vec<Modelled>,
        /// Sent and neither accepted nor rejected, with the times that they came back.
        alive: [BTreeMap<u64, u32>; 3],
        delivered_once: [u64; 3],
        last_id: u64,
        last_session: u64,
    }

    impl Model {
        fn new() -> Model {
            let queues = Queues::new(QueueLimits { messages_max: MESSAGES_MAX, ..ROOMY });
            let (alive, delivered_once) = Default::default();
            Model { queues, workers: Vec::new(), alive, delivered_once, last_id: 0, last_session: 0 }
        }

        fn act(&mut self, action: Action) {
            match action {
                Action::Send { queue } => {
                    self.last_id += 1;
                    let sent = self.queues.send(publication(NAMES[queue], self.last_id));
                    assert_eq!(sent.is_ok(), self.alive[queue].len() < MESSAGES_MAX);
                    if sent.is_ok() {
                        self.alive[queue].insert(self.last_id, 0);
                    }
                }
                Action::Consume { queue, credit } => {
                    self.last_session += 1;
                    let worker =
                        Worker::consume(&self.queues, NAMES[queue], self.last_session, messages(credit));
                    self.workers.push(Modelled { worker, queue, credit, open: true, held: BTreeMap::new() });
                }
                Action::Settle { which, settlement } => {
                    let Some((worker, sequence)) = self.pick(which) else { return };
                    let known = &self.workers[worker].worker;
                    known.settle(&self.queues, sequence, settlement).unwrap();
                    self.settled(worker, sequence, settlement);
                }
                Action::Close { worker } if !self.workers.is_empty() => {
                    let place = worker % self.workers.len();
                    let known = &mut self.workers[place];
                    known.worker.queue.close(known.worker.key);
                    known.open = false;
                }
                Action::Leave { worker } if !self.workers.is_empty() => {
                    let gone = self.workers.swap_remove(worker % self.workers.len());
                    self.queues.leave(&gone.worker.queue, gone.worker.key);
                    for id in gone.held.values() {
                        *self.alive[gone.queue].get_mut(id).unwrap() += 1;
                    }
                }
                Action::Close { .. } | Action::Leave { .. } => {}
                Action::Commit { sends, settles, unknown } => self.commit(sends, settles, unknown),
            }
            self.collect();
        }

        fn commit(&mut self, sends: Vec<usize>, settles: Vec<(usize, Settlement)>, unknown: bool) {
            let mut steps = Vec::new();
            let mut decided: Vec<(usize, u64, Settlement)> = Vec::new();
            let mut twice = false;
            let mut sizes = [0, 1, 2].map(|queue| self.alive[queue].len());
            for (which, settlement) in settles {
                let Some((worker, sequence)) = self.pick(which) else { continue };
                twice |= decided.iter().any(|known| (known.0, known.1) == (worker, sequence));
                decided.push((worker, sequence, settlement));
                steps.push(self.workers[worker].worker.step(sequence, settlement));
                if settlement != Settlement::Requeue && !twice {
                    sizes[self.workers[worker].queue] -= 1;
                }
            }
            if unknown && let Some(known) = self.workers.first() {
                twice = true;
                steps.push(known.worker.step(u64::MAX, Settlement::Accept));
            }
            let first = self.last_id + 1;
            for queue in &sends {
                self.last_id += 1;
                sizes[*queue] += 1;
                steps.push(Step::Send(publication(NAMES[*queue], self.last_id)));
            }
            let grows = |queue: usize| sends.contains(&queue) && sizes[queue] > MESSAGES_MAX;
            let right = !twice && !(0..3).any(grows);
            assert_eq!(self.queues.commit(steps).is_ok(), right);
            if right {
                for (worker, sequence, settlement) in decided {
                    self.settled(worker, sequence, settlement);
                }
                for (id, queue) in (first..).zip(sends) {
                    self.alive[queue].insert(id, 0);
                }
            }
        }

        /// One of all deliveries that are held.
        fn pick(&self, which: usize) -> Option<(usize, u64)> {
            let held = |(worker, known): (usize, &Modelled)| {
                known.held.keys().map(move |sequence| (worker, *sequence)).collect::<Vec<_>>()
            };
            let all: Vec<_> = self.workers.iter().enumerate().flat_map(held).collect();
            (!all.is_empty()).then(|| all[which % all.len()])
        }

        fn settled(&mut self, worker: usize, sequence: u64, settlement: Settlement) {
            let known = &mut self.workers[worker];
            let id = known.held.remove(&sequence).unwrap();
            match settlement {
                Settlement::Requeue => *self.alive[known.queue].get_mut(&id).unwrap() += 1,
                Settlement::Accept | Settlement::Reject => {
                    self.alive[known.queue].remove(&id).unwrap();
                }
            }
        }

        /// Takes in what was delivered, and holds it against what should be.
        fn collect(&mut self) {
            let mut first_times = [const { Vec::new() }; 3];
            for known in &mut self.workers {
                let mut last = 0;
                for (id, sequence, redeliveries) in known.worker.got() {
                    assert_eq!(self.alive[known.queue].get(&id), Some(&redeliveries));
                    assert!(known.open);
                    assert_eq!(known.held.insert(sequence, id), None);
                    if redeliveries == 0 {
                        assert!(id > last, "{id} came after {last}");
                        last = id;
                        first_times[known.queue].push(id);
                    }
                }
                assert!(known.held.len() <= known.credit);
            }
            for (queue, mut ids) in first_times.into_iter().enumerate() {
                // Between several workers there is no order to be seen but that of what came before.
                ids.sort_unstable();
                for id in ids {
                    assert!(id > self.delivered_once[queue], "{id} was overtaken");
                    self.delivered_once[queue] = id;
                }
                let workers = || self.workers.iter().filter(move |known| known.queue == queue);
                let held: Vec<u64> = workers().flat_map(|known| known.held.values().copied()).collect();
                let once: BTreeSet<u64> = held.iter().copied().collect();
                assert_eq!(once.len(), held.len(), "a message is held twice");
                let waits = self.alive[queue].len() - held.len();
                let has_credit = workers().any(|known| known.open && known.held.len() < known.credit);
                assert!(waits == 0 || !has_credit, "{waits} wait although somebody has credit");
                let exists = self.queues.queues.read().contains_key(NAMES[queue]);
                assert_eq!(exists, !self.alive[queue].is_empty() || workers().next().is_some());
            }
            let alive: usize = self.alive.iter().map(BTreeMap::len).sum();
            assert_eq!(self.queues.bytes(), alive * UNIT);
        }

        /// Everybody leaves, and somebody takes what is left.
        fn end(mut self) {
            while !self.workers.is_empty() {
                self.act(Action::Leave { worker: 0 });
            }
            for (queue, alive) in self.alive.iter().enumerate() {
                let mut last = Worker::consume(&self.queues, NAMES[queue], u64::MAX, ENDLESS);
                let left = last.got();
                let ids: Vec<u64> = left.iter().map(|(id, _, _)| *id).collect();
                assert_eq!(ids, alive.keys().copied().collect::<Vec<_>>());
                for (_, sequence, _) in left {
                    last.settle(&self.queues, sequence, Settlement::Accept).unwrap();
                }
                self.queues.leave(&last.queue, last.key);
            }
            assert_nothing_is_left(&self.queues);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn queues_do_what_a_simple_model_does(actions in vec(action(), 1..150)) {
            let mut model = Model::new();
            actions.into_iter().for_each(|action| model.act(action));
            model.end();
        }
    }
}

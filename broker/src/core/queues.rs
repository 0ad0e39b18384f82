//! Work queues in memory: each message to one consumer, in order, until it is acknowledged.
//!
//! A consumer has credit, in messages and in bytes; what it holds unsettled never exceeds that. A message
//! that comes back takes the place that it had. A queue that has neither messages nor consumers does not
//! exist: nothing is left of a name that nobody uses.
//!
//! Locks are taken in this order: the map of queues, queues by their number, mailboxes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::core::access::{REPLY_PREFIX, Refusal};
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::message::{Publication, SessionId};
use crate::core::name::Name;
use crate::core::parcel::{ConsumerId, Delivery, Parcel};
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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: BTreeMap<u64, Item>,
    consumers: Vec<Consumer>,
    /// The consumer whose turn it is.
    turn: usize,
    last_sequence: u64,
    /// Messages here, ready or held.
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Item {
    publication: Arc<Publication>,
    redeliveries: u32,
}

#[derive(Debug)]
struct Consumer {
    key: ConsumerKey,
    mailbox: Mailbox,
    credit: Credit,
    /// False when it gets nothing more, but may still settle what it holds.
    open: bool,
    held: BTreeMap<u64, Item>,
    held_bytes: usize,
}

impl Consumer {
    fn has_credit(&self) -> bool {
        self.open && self.held.len() < self.credit.messages && self.held_bytes < self.credit.bytes
    }
}

impl Queues {
    /// No queues yet.
    pub fn new(limits: QueueLimits) -> Queues {
        Queues { limits, queues: RwLock::default(), total_bytes: Arc::default(), last_id: AtomicU64::new(0) }
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
        {
            let queues = self.queues.read();
            if let Some(queue) = queues.get(&publication.name) {
                return queue.push(publication);
            }
        }
        let mut queues = self.queues.write();
        let name = publication.name.clone();
        self.get_or_make(&mut queues, &name, None)?.push(publication)
    }

    /// Puts a message into a queue if it exists. True when it did.
    pub fn send_existing(&self, publication: Arc<Publication>) -> Result<bool, Refusal> {
        match self.queues.read().get(&publication.name) {
            Some(queue) => queue.push(publication).map(|()| true),
            None => Ok(false),
        }
    }

    /// Adds a consumer to a queue, which is made if need be.
    pub fn consume(
        &self,
        name: &Name,
        key: ConsumerKey,
        mailbox: Mailbox,
        credit: Credit,
    ) -> Result<Arc<Queue>, Refusal> {
        let mut queues = self.queues.write();
        let queue = self.get_or_make(&mut queues, name, None)?.clone();
        if queue.owner.is_some_and(|owner| owner != key.session) {
            return Err(Refusal::NotOwner(name.clone()));
        }
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
        let mut state = queue.state.lock();
        if !state.holds(key, sequence) {
            return Err(Refusal::NoSuchDelivery);
        }
        queue.apply_settlement(&mut state, key, sequence, settlement);
        state.dispatch();
        let idle = state.is_idle();
        drop(state);
        if idle {
            self.forget_if_idle(queue);
        }
        Ok(())
    }

    /// Takes all of these steps, or none of them.
    ///
    /// What is sent to a reply queue that does not exist any more is dropped: whoever waited for it is gone.
    pub fn commit(&self, mut steps: Vec<Step>) -> Result<(), Refusal> {
        let mut queues = self.queues.write();
        steps.retain(|step| match step {
            Step::Send(publication) => {
                let name = publication.name.as_str();
                !name.starts_with(REPLY_PREFIX) || queues.contains_key(name)
            }
            Step::Settle { .. } => true,
        });
        let mut involved = Vec::new();
        for step in &steps {
            involved.push(match step {
                Step::Send(publication) => self.get_or_make(&mut queues, &publication.name, None)?.clone(),
                Step::Settle { queue, .. } => queue.clone(),
            });
        }
        let mut locked: BTreeMap<u64, MutexGuard<'_, State>> = BTreeMap::new();
        let mut by_id: Vec<&Arc<Queue>> = involved.iter().collect();
        by_id.sort_by_key(|queue| queue.id);
        by_id.dedup_by_key(|queue| queue.id);
        for queue in &by_id {
            locked.insert(queue.id, queue.state.lock());
        }
        let outcome = check_steps(&steps, &involved, &locked);
        if outcome.is_ok() {
            for (step, queue) in steps.into_iter().zip(&involved) {
                let Some(state) = locked.get_mut(&queue.id) else { continue };
                match step {
                    Step::Send(publication) => queue.append(state, publication),
                    Step::Settle { consumer, sequence, settlement, .. } => {
                        queue.apply_settlement(state, consumer, sequence, settlement);
                    }
                }
            }
            locked.values_mut().for_each(|state| state.dispatch());
        }
        drop(locked);
        // Those that were made for nothing, and those that are empty now.
        for queue in by_id {
            forget_if_idle(&mut queues, queue);
        }
        outcome
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
        Arc::new(Queue {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            name: name.clone(),
            owner,
            limits: self.limits,
            total_bytes: self.total_bytes.clone(),
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
    }
}

/// Whether all steps can be taken, with what the earlier ones among them would change.
fn check_steps(
    steps: &[Step],
    involved: &[Arc<Queue>],
    locked: &BTreeMap<u64, MutexGuard<'_, State>>,
) -> Result<(), Refusal> {
    let mut sent: HashMap<u64, (usize, usize)> = HashMap::new();
    let mut settled = std::collections::HashSet::new();
    let mut total = 0;
    for (step, queue) in steps.iter().zip(involved) {
        let state = &locked[&queue.id];
        match step {
            Step::Send(publication) => {
                let (messages, bytes) = sent.entry(queue.id).or_default();
                queue.check_room(state, *messages, *bytes, total + publication.cost())?;
                *messages += 1;
                *bytes += publication.cost();
                total += publication.cost();
            }
            Step::Settle { consumer, sequence, .. } => {
                if !state.holds(*consumer, *sequence) || !settled.insert((queue.id, *sequence)) {
                    return Err(Refusal::NoSuchDelivery);
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
        if self.check_room(&state, 0, 0, publication.cost()).is_err() {
            metrics::EVENTS_DROPPED.add(1);
            state.consumers.iter().for_each(|consumer| consumer.mailbox.overflow());
            return Pushed::Full;
        }
        self.append(&mut state, publication);
        state.dispatch();
        Pushed::Queued
    }

    /// Stops deliveries to a consumer, which may still settle what it holds.
    pub fn close(&self, key: ConsumerKey) {
        let mut state = self.state.lock();
        if let Some(consumer) = state.consumer(key) {
            consumer.open = false;
        }
    }

    /// True when the consumer holds nothing any more.
    pub fn is_settled(&self, key: ConsumerKey) -> bool {
        self.state.lock().consumer(key).is_none_or(|consumer| consumer.held.is_empty())
    }

    fn push(&self, publication: Arc<Publication>) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        self.check_room(&state, 0, 0, publication.cost())?;
        self.append(&mut state, publication);
        state.dispatch();
        Ok(())
    }

    /// Whether one more message has room, after `messages` more with `bytes` more in this queue, and
    /// `total` more in all queues, itself among them.
    fn check_room(&self, state: &State, messages: usize, bytes: usize, total: usize) -> Result<(), Refusal> {
        let full = state.messages + messages >= self.limits.messages_max
            || state.bytes + bytes >= self.limits.bytes_max
            || self.total_bytes.load(Ordering::Relaxed) + total > self.limits.total_bytes_max;
        if full { Err(Refusal::QueueFull(self.name.clone())) } else { Ok(()) }
    }

    fn append(&self, state: &mut State, publication: Arc<Publication>) {
        metrics::ENQUEUED.add(1);
        let cost = publication.cost();
        self.total_bytes.fetch_add(cost, Ordering::Relaxed);
        state.bytes += cost;
        state.messages += 1;
        state.last_sequence += 1;
        state.ready.insert(state.last_sequence, Item { publication, redeliveries: 0 });
    }

    fn apply_settlement(&self, state: &mut State, key: ConsumerKey, sequence: u64, settlement: Settlement) {
        let Some(consumer) = state.consumer(key) else { return };
        let Some(mut item) = consumer.held.remove(&sequence) else { return };
        let cost = item.publication.cost();
        consumer.held_bytes -= cost;
        match settlement {
            Settlement::Requeue => {
                item.redeliveries += 1;
                state.ready.insert(sequence, item);
            }
            Settlement::Accept | Settlement::Reject => {
                state.bytes -= cost;
                state.messages -= 1;
                self.total_bytes.fetch_sub(cost, Ordering::Relaxed);
            }
        }
    }

    fn add_consumer(&self, key: ConsumerKey, mailbox: Mailbox, credit: Credit) {
        let mut state = self.state.lock();
        let held = BTreeMap::new();
        state.consumers.push(Consumer { key, mailbox, credit, open: true, held, held_bytes: 0 });
        state.dispatch();
    }

    fn remove_consumer(&self, key: ConsumerKey) {
        let mut state = self.state.lock();
        let Some(place) = state.consumers.iter().position(|consumer| consumer.key == key) else { return };
        let consumer = state.consumers.remove(place);
        for (sequence, mut item) in consumer.held {
            item.redeliveries += 1;
            state.ready.insert(sequence, item);
        }
        state.dispatch();
    }

    fn clear(&self, state: &mut State) {
        self.total_bytes.fetch_sub(state.bytes, Ordering::Relaxed);
        *state = State { last_sequence: state.last_sequence, ..State::default() };
    }
}

impl State {
    fn consumer(&mut self, key: ConsumerKey) -> Option<&mut Consumer> {
        self.consumers.iter_mut().find(|consumer| consumer.key == key)
    }

    fn holds(&self, key: ConsumerKey, sequence: u64) -> bool {
        self.consumers.iter().any(|consumer| consumer.key == key && consumer.held.contains_key(&sequence))
    }

    fn is_idle(&self) -> bool {
        self.messages == 0 && self.consumers.is_empty()
    }

    /// Gives ready messages to consumers with credit, in turn, until one of both runs out.
    fn dispatch(&mut self) {
        while !self.ready.is_empty() {
            let count = self.consumers.len();
            let turns = (0..count).map(|step| (self.turn + step) % count);
            let Some(place) = turns.into_iter().find(|place| self.consumers[*place].has_credit()) else {
                return;
            };
            self.turn = (place + 1) % count;
            let Some((sequence, item)) = self.ready.pop_first() else { return };
            let consumer = &mut self.consumers[place];
            let pushed = consumer.mailbox.push(Parcel::Delivery(Delivery {
                publication: item.publication.clone(),
                consumer: consumer.key.consumer,
                sequence,
                redeliveries: item.redeliveries,
            }));
            if pushed == Pushed::Queued {
                consumer.held_bytes += item.publication.cost();
                consumer.held.insert(sequence, item);
            } else {
                consumer.open = false;
                self.ready.insert(sequence, item);
            }
        }
    }
}

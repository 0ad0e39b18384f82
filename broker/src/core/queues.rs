//! Work queues: each message to one consumer, in order, until it is acknowledged. What is to outlive the
//! process is in [`durable`].
//!
//! A consumer has credit, in messages and in bytes; what it holds unsettled never exceeds that. A message
//! that comes back takes the place that it had. A queue that has neither messages nor consumers does not
//! exist: nothing is left of a name that nobody uses, unless somebody said how long it is to stay.
//!
//! What a queue gives up goes to its queue for dead letters: that which its properties name; without one, what
//! was rejected or came back too often goes to the queue `dlq.` and its name, and what is too old or had no room
//! is gone.
//!
//! Locks are taken in this order: the map of queues, queues by their number, mailboxes, the agenda and the store's
//! list of what is to be written. What is written of one queue is submitted under its lock, so that it is in order.
//! A dead letter of the store goes over in one submission under the lock of the queue that takes it; until then its
//! own queue stays in the store.

mod agenda;
mod browsing;
mod consumer;
mod consumers;
mod copies;
mod dispatch;
pub mod durable;
mod groups;
mod item;
mod keep;
mod outstanding;
mod properties;
mod queue;
mod state;
mod transaction;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::RwLock;

use crate::core::access::{HOUSE_PREFIX, REPLY_PREFIX, Refusal};
use crate::core::history::WallClock;
use crate::core::mailbox::Mailbox;
use crate::core::message::{Attributes, Publication, SessionId};
use crate::core::name::Name;
use crate::core::queues::agenda::Agenda;
pub use crate::core::queues::consumer::{Browse, ConsumeTerms, ConsumerKey, Credit, Filter};
use crate::core::queues::durable::{Asker, Journal, Keeping, Progress};
pub use crate::core::queues::groups::GROUPS_MAX;
use crate::core::queues::item::DeadLetter;
pub use crate::core::queues::item::Settlement;
pub use crate::core::queues::outstanding::Outstanding;
pub use crate::core::queues::properties::{
    BACKOFF_MS_MAX, DEAD_LETTER_BYTES_MAX, DEAD_LETTER_PREFIX, DEAD_LETTERS_MAX, DELIVERY_LIMIT,
    PRIORITY_MAX, PRIORITY_USUAL, Properties, QueueLimits, WhenFull, is_for_dead_letters,
};
use crate::core::queues::queue::{Blueprint, Definition, Letters, Settled};
pub use crate::core::queues::queue::{Census, Queue};
pub use crate::core::queues::state::{SCANNERS_MAX, SCANS_AT_ONCE, SCANS_PER_OPERATION};
use crate::core::queues::transaction::take_steps;
pub use crate::core::queues::transaction::{QueueTerms, Step};
use crate::core::store::{self, Change, StoredQueue, Submission, Unstorable};
use crate::metrics;

/// How often a message may die: so none goes round for ever among queues that give up to each other.
pub const DEATHS_MAX: u32 = 16;

/// What a dead letter says of itself: where it died first and of what, and how often it did.
pub const DEATH_ATTRIBUTES: [&str; 3] = ["x-first-death-queue", "x-first-death-reason", "x-death-count"];

/// The queues of a realm.
#[derive(Debug)]
pub struct Queues {
    limits: QueueLimits,
    keeping: Keeping,
    queues: RwLock<HashMap<Name, Arc<Queue>>>,
    total_bytes: Arc<AtomicUsize>,
    last_id: AtomicU64,
    agenda: Arc<Agenda<Queue>>,
}

/// What a queue is founded with that outlives its consumers for a reason of its own.
#[derive(Clone, Debug, Default)]
pub struct Founding {
    /// What it is like.
    pub properties: Properties,
    /// What it takes of what topics bring.
    pub filter: Option<Arc<dyn Filter>>,
    /// What must be known to make it again.
    pub definition: store::Properties,
}

/// What a queue that is to be made is like.
#[derive(Default)]
struct Plan<'a> {
    owner: Option<SessionId>,
    is_permanent: bool,
    filter: Option<Arc<dyn Filter>>,
    terms: Option<&'a QueueTerms>,
    definition: Definition,
}

impl Queues {
    /// No queues yet, in a house where time stands still.
    pub fn new(limits: QueueLimits) -> Queues {
        Queues::with_clock(limits, Arc::new(|| 0))
    }

    /// No queues yet. The clock tells milliseconds since 1970.
    pub fn with_clock(limits: QueueLimits, clock: WallClock) -> Queues {
        Queues::with_keeping(limits, clock, Keeping::InMemory)
    }

    /// The same, with a place for persistent messages.
    pub fn with_keeping(limits: QueueLimits, clock: WallClock, keeping: Keeping) -> Queues {
        Queues {
            limits,
            keeping,
            queues: RwLock::default(),
            total_bytes: Arc::default(),
            last_id: AtomicU64::new(0),
            agenda: Arc::new(Agenda::new(clock)),
        }
    }

    /// Makes the queues that the store had, as they were. For the start, before there are sessions. One that was made
    /// already is as it was made.
    pub fn restore(&self, stored: Vec<StoredQueue>) {
        let mut queues = self.queues.write();
        for found in stored {
            let Ok(name) = Name::parse(&found.name) else {
                tracing::error!(name = &*found.name, "a stored queue has no proper name, and is left alone");
                metrics::STORE_UNREADABLE.add(found.messages.len() as i64);
                continue;
            };
            let known = queues.get(&name).cloned();
            if known
                .as_ref()
                .is_some_and(|known| known.journal.is_none() || known.state.lock().durable.id.is_some())
            {
                tracing::error!(queue = %name, "there are two stored queues of one name; the later is left alone");
                metrics::STORE_UNREADABLE.add(found.messages.len() as i64);
                continue;
            }
            let terms = QueueTerms { properties: Properties::read(&found.properties), existing: false };
            let queue =
                known.unwrap_or_else(|| self.make(&name, Plan { terms: Some(&terms), ..Plan::default() }));
            queue.restore(&found);
            queues.insert(name, queue.clone());
            forget_if_idle(&mut queues, &queue);
        }
    }

    /// The bytes of stored messages that are in memory as well, and that nobody holds.
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
        match publication.is_persistent() {
            true => self.admit().map(|()| self.journal().is_some()),
            false => Ok(false),
        }
    }

    /// Whether persistent messages are taken now, to be kept or where nothing is.
    pub fn admit(&self) -> Result<(), Refusal> {
        match &self.keeping {
            Keeping::Stored(journal) => journal.store.admit().map_err(Refusal::Unstorable),
            Keeping::Refused => Err(Refusal::Unstorable(Unstorable::NoStore)),
            Keeping::InMemory => {
                durable::warn_once();
                Ok(())
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

    /// The queue of that name, if there is one.
    pub fn get(&self, name: &Name) -> Option<Arc<Queue>> {
        self.queues.read().get(name).cloned()
    }

    /// The deepest, no more than so many. Queues of one session, for answers, are nobody else's business.
    pub fn deepest(&self, count_max: usize) -> Vec<(Name, Census)> {
        let is_shown =
            |queue: &Queue| queue.owner.is_none() && !queue.name().as_str().starts_with(REPLY_PREFIX);
        // Looked at without the lock of the map, which whoever sends may want.
        let all: Vec<Arc<Queue>> =
            self.queues.read().values().filter(|queue| is_shown(queue)).cloned().collect();
        let mut found: Vec<(Name, Census)> =
            all.iter().map(|queue| (queue.name().clone(), queue.census())).collect();
        found.sort_unstable_by(|(name, census), (other, others)| {
            others.messages.cmp(&census.messages).then_with(|| name.as_str().cmp(other.as_str()))
        });
        found.truncate(count_max);
        found
    }

    /// Makes a queue that stays, also when it is empty and nobody uses it. It may exist, if it is like that.
    pub fn declare(
        &self,
        name: &Name,
        properties: Properties,
        filter: Option<Arc<dyn Filter>>,
    ) -> Result<Arc<Queue>, Refusal> {
        let terms = QueueTerms { properties, existing: false };
        let plan = Plan { is_permanent: true, filter, terms: Some(&terms), ..Plan::default() };
        self.get_or_make(&mut self.queues.write(), name, plan).cloned()
    }

    /// The same for one that there is not yet, which a store is to know from the beginning if there is one, and what
    /// must be known beside its properties to make it again. Who asks is told when it does.
    pub fn found(
        &self,
        name: &Name,
        founding: Founding,
        asker: Asker,
    ) -> Result<(Arc<Queue>, Progress), Refusal> {
        if let Some(journal) = self.journal()
            && journal.store.admit() == Err(Unstorable::Failed)
        {
            return Err(Refusal::Unstorable(Unstorable::Failed));
        }
        let queue = self.found_again(name, founding)?;
        let progress = queue.enter_store(Some(asker));
        Ok((queue, progress))
    }

    fn found_again(&self, name: &Name, founding: Founding) -> Result<Arc<Queue>, Refusal> {
        let Founding { properties, filter, definition } = founding;
        let terms = QueueTerms { properties, existing: false };
        let definition = definition.into_boxed_slice();
        let plan = Plan { is_permanent: true, filter, terms: Some(&terms), definition, ..Plan::default() };
        self.get_or_make(&mut self.queues.write(), name, plan).cloned()
    }

    /// Makes a queue again that was [`found`](Queues::found)ed and that a store had.
    pub fn restore_founded(&self, found: &StoredQueue, founding: Founding) -> Result<Arc<Queue>, Refusal> {
        let name = Name::parse(&found.name).map_err(|_| Refusal::NoSuchDurable(found.name.to_string()))?;
        let queue = self.found_again(&name, founding)?;
        queue.restore(found);
        Ok(queue)
    }

    /// Whether persistent messages are anything else than others here.
    pub fn has_store(&self) -> bool {
        !matches!(self.keeping, Keeping::InMemory)
    }

    /// Takes a queue away. What is in it goes with its last consumer, or at once.
    pub fn delete(&self, queue: &Arc<Queue>) {
        // What it gave up before goes where it is to go.
        self.bury(queue.finish(queue.state.lock()));
        let mut queues = self.queues.write();
        if queues.get(queue.name()).is_some_and(|known| known.id == queue.id) {
            queues.remove(queue.name());
            // Another of that name may come at once.
            queue.leave_store(&mut queue.state.lock());
        }
        forget_if_idle(&mut queues, queue);
    }

    /// Puts a message into the queue that it names, which is made if need be.
    pub fn send(&self, publication: Arc<Publication>) -> Result<(), Refusal> {
        self.send_on(publication, &QueueTerms::default())
    }

    /// The same, if the queue is as wanted.
    pub fn send_on(&self, publication: Arc<Publication>, terms: &QueueTerms) -> Result<(), Refusal> {
        self.send_for(publication, terms, None).map(|_| ())
    }

    /// The same. Who asks is told when the store has it, if it is to be kept.
    pub fn send_for(
        &self,
        publication: Arc<Publication>,
        terms: &QueueTerms,
        asker: Option<Asker>,
    ) -> Result<Progress, Refusal> {
        let (letters, progress) = self.push(publication, terms, asker)?;
        self.bury(letters);
        Ok(progress)
    }

    fn push(
        &self,
        publication: Arc<Publication>,
        terms: &QueueTerms,
        asker: Option<Asker>,
    ) -> Result<(Letters, Progress), Refusal> {
        let kept = self.is_kept(&publication)?;
        {
            let queues = self.queues.read();
            if let Some(queue) = queues.get(&publication.name) {
                check_fits(queue, terms)?;
                return queue.push(publication, kept, asker);
            }
        }
        let mut queues = self.queues.write();
        let name = publication.name.clone();
        let plan = Plan { terms: Some(terms), ..Plan::default() };
        let queue = self.get_or_make(&mut queues, &name, plan)?.clone();
        let outcome = queue.push(publication, kept, asker);
        // It may have been made for nothing.
        forget_if_idle(&mut queues, &queue);
        outcome
    }

    /// Puts a message into a queue if it exists. True when it did.
    pub fn send_existing(&self, publication: Arc<Publication>) -> Result<bool, Refusal> {
        let (letters, _) = match self.queues.read().get(&publication.name) {
            Some(queue) => queue.push(publication, false, None)?,
            None => return Ok(false),
        };
        self.bury(letters);
        Ok(true)
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
        self.consume_on(name, key, mailbox, credit, ConsumeTerms::default(), &QueueTerms::default())
    }

    /// The same, on terms.
    pub fn consume_on(
        &self,
        name: &Name,
        key: ConsumerKey,
        mailbox: Mailbox,
        credit: Credit,
        terms: ConsumeTerms,
        wanted: &QueueTerms,
    ) -> Result<Arc<Queue>, Refusal> {
        let mut queues = self.queues.write();
        if name.as_str().starts_with(REPLY_PREFIX)
            && queues.get(name).is_none_or(|queue| queue.owner != Some(key.session))
        {
            return Err(Refusal::NotOwner(name.clone()));
        }
        let plan = Plan { terms: Some(wanted), ..Plan::default() };
        let queue = self.get_or_make(&mut queues, name, plan)?.clone();
        let added = queue.add_consumer(key, mailbox, credit, terms);
        if added.is_err() {
            forget_if_idle(&mut queues, &queue);
        }
        added.map(|()| queue)
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
        let plan = Plan { owner: Some(key.session), ..Plan::default() };
        let queue = self.get_or_make(&mut queues, name, plan)?.clone();
        queue.add_consumer(key, mailbox, credit, ConsumeTerms::default())?;
        Ok(queue)
    }

    /// Makes a queue that no name leads to: for a subscription to topics that acknowledges. It takes only what
    /// passes the filter, if there is one.
    pub fn unnamed(
        &self,
        name: &Name,
        key: ConsumerKey,
        mailbox: Mailbox,
        credit: Credit,
        filter: Option<Arc<dyn Filter>>,
    ) -> Result<Arc<Queue>, Refusal> {
        let queue = self.make(name, Plan { owner: Some(key.session), filter, ..Plan::default() });
        queue.add_consumer(key, mailbox, credit, ConsumeTerms::default())?;
        Ok(queue)
    }

    /// Takes a consumer away, whose unsettled messages become ready again, and the queue with it if
    /// nothing is left in it or its owner goes.
    pub fn leave(&self, queue: &Arc<Queue>, key: ConsumerKey) {
        let letters = queue.remove_consumer(key);
        self.bury(letters);
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
        self.settle_for(queue, key, &[sequence], settlement, None).map(|_| ())
    }

    /// Settles all of these deliveries of one consumer, or none. Who asks is told when the store knows it, if it must.
    pub fn settle_for(
        &self,
        queue: &Arc<Queue>,
        key: ConsumerKey,
        sequences: &[u64],
        settlement: Settlement,
        asker: Option<Asker>,
    ) -> Result<Progress, Refusal> {
        let Settled { letters, progress, asker, is_idle } =
            queue.settle(key, sequences, settlement, asker)?;
        self.bury(letters);
        if is_idle {
            self.forget_if_idle(queue);
        }
        Ok(asker.map_or(progress, |asker| self.flush(asker)))
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
            Step::Send(publication, _) => {
                let name = publication.name.as_str();
                !name.starts_with(REPLY_PREFIX) || queues.contains_key(name)
            }
            Step::Settle { .. } => true,
        });
        let mut involved = Vec::new();
        let mut outcome = Ok(());
        for step in &steps {
            involved.push(match step {
                Step::Send(publication, terms) => {
                    let plan = Plan { terms: Some(terms), ..Plan::default() };
                    match self.get_or_make(&mut queues, &publication.name, plan) {
                        Ok(queue) => queue.clone(),
                        Err(refusal) => {
                            outcome = Err(refusal);
                            break;
                        }
                    }
                }
                Step::Settle { queue, .. } => queue.clone(),
            });
        }
        let journal = self.journal().filter(|_| kept);
        // What is given up on the way is part of it, if the store has it.
        let mut graves = Vec::new();
        if outcome.is_ok() && journal.is_some() {
            for (step, queue) in steps.iter().zip(&involved) {
                if matches!(step, Step::Settle { settlement, .. } if *settlement != Settlement::Accept)
                    && let Some(name) = queue.state.lock().dead_letters()
                    && let Ok(grave) = self.get_or_make(&mut queues, &name, Plan::default())
                {
                    graves.push(grave.clone());
                }
            }
        }
        let outcome = outcome.and_then(|()| take_steps(steps, &involved, &graves, dead, journal, asker));
        // Those that were made for nothing, and those that are empty now.
        for queue in involved.iter().chain(&graves) {
            forget_if_idle(&mut queues, queue);
        }
        drop(queues);
        let (letters, progress, asker) = outcome?;
        self.bury(letters);
        Ok(asker.map_or(progress, |asker| self.flush(asker)))
    }

    /// Whether the store has a part in these steps: then all of them wait for it, so that they happen together.
    fn is_any_kept(&self, steps: &[Step]) -> Result<bool, Refusal> {
        let mut kept = false;
        for step in steps {
            kept |= match step {
                Step::Send(publication, _) => self.is_kept(publication)?,
                Step::Settle { queue, consumer, sequence, .. } => {
                    queue.state.lock().held(*consumer, *sequence).is_some_and(|item| item.is_stored())
                }
            };
        }
        Ok(kept)
    }

    /// When something is to be done though nobody comes, in milliseconds of the clock; `waker` is woken when
    /// that changes to something earlier.
    pub fn deadline_ms(&self, waker: &Waker) -> Option<u64> {
        self.agenda.earliest(waker)
    }

    /// What the clock says.
    pub fn now_ms(&self) -> u64 {
        self.agenda.now_ms()
    }

    /// Does what is due, or the beginning of it: what is left is due at once.
    pub fn tick(&self) {
        for queue in self.agenda.due() {
            let letters = queue.tick();
            self.bury(letters);
            if queue.is_idle(&queue.state.lock()) {
                self.forget_if_idle(&queue);
            }
        }
    }

    /// Brings what queues gave up to the queues for such.
    fn bury(&self, letters: Letters) {
        for (source, letter) in letters {
            let (from, death, origin) = (letter.from.clone(), letter.death, letter.origin);
            let removal = || origin.map(|(queue, sequence)| Change::Remove { queue, sequence });
            let buried = match dead(letter) {
                Some(publication) => self.push_dead(Arc::new(publication), removal()),
                None => false,
            };
            if !buried {
                metrics::DEAD_LETTERS_LOST.add(1);
                tracing::debug!(queue = %from.as_str(), reason = death.as_str(), "a dead letter is lost");
                if let Some((journal, removal)) = self.journal().zip(removal()) {
                    journal.store.submit(Submission { changes: vec![removal], done: None });
                }
            }
            if let Some(queue) = origin.and_then(|_| source.upgrade()) {
                queue.has_left();
                self.forget_if_idle(&queue);
            }
        }
    }

    /// Puts a dead letter into its queue. What that gives up in turn is dealt with when it is next looked at.
    fn push_dead(&self, publication: Arc<Publication>, removal: Option<Change>) -> bool {
        let mut queues = self.queues.write();
        let name = publication.name.clone();
        let Ok(queue) = self.get_or_make(&mut queues, &name, Plan::default()).cloned() else { return false };
        let is_pushed = queue.push_dead(publication, removal);
        forget_if_idle(&mut queues, &queue);
        is_pushed
    }

    fn get_or_make<'a>(
        &self,
        queues: &'a mut HashMap<Name, Arc<Queue>>,
        name: &Name,
        plan: Plan<'_>,
    ) -> Result<&'a Arc<Queue>, Refusal> {
        let known = queues.contains_key(name);
        if !known && plan.terms.is_some_and(|terms| terms.existing) {
            return Err(Refusal::NoSuchQueue(name.clone()));
        }
        if queues.len() >= self.limits.queues_max && !known {
            return Err(Refusal::TooMany("queues", self.limits.queues_max));
        }
        if let Some((queue, terms)) = queues.get(name).zip(plan.terms) {
            check_fits(queue, terms)?;
        }
        Ok(queues.entry(name.clone()).or_insert_with(|| self.make(name, plan)))
    }

    fn make(&self, name: &Name, plan: Plan<'_>) -> Arc<Queue> {
        let properties = plan.terms.map(|terms| terms.properties.clone()).unwrap_or_default();
        // What belongs to a session has none: it goes with that.
        let may_die_usually =
            plan.owner.is_none() && !name.as_str().starts_with(HOUSE_PREFIX) && !is_for_dead_letters(name);
        let dead_letters = || Name::parse(&format!("{DEAD_LETTER_PREFIX}{}", name.as_str())).ok();
        let blueprint = Blueprint {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            name: name.clone(),
            owner: plan.owner,
            is_permanent: plan.is_permanent,
            filter: plan.filter,
            properties: properties.completed(name),
            usual_dead_letters: may_die_usually.then(dead_letters).flatten(),
            journal: self.journal().filter(|_| plan.owner.is_none()).cloned(),
            definition: plan.definition,
        };
        Queue::new(blueprint, self.limits, self.total_bytes.clone(), self.agenda.clone())
    }

    /// Takes what is left of empty queues out of the store: the realm goes, and another may come by its name.
    pub fn leave_store(&self) {
        for queue in self.queues.read().values() {
            queue.leave_store(&mut queue.state.lock());
        }
    }

    fn forget_if_idle(&self, queue: &Arc<Queue>) {
        forget_if_idle(&mut self.queues.write(), queue);
    }
}

fn check_fits(queue: &Queue, terms: &QueueTerms) -> Result<(), Refusal> {
    if terms.properties.is_empty() {
        return Ok(());
    }
    match &queue.misfits(&terms.properties)[..] {
        [] => Ok(()),
        misfits => Err(Refusal::OtherProperties(queue.name().clone(), misfits.join(", "))),
    }
}

fn forget_if_idle(queues: &mut HashMap<Name, Arc<Queue>>, queue: &Arc<Queue>) {
    let known = queues.get(queue.name()).is_some_and(|known| known.id == queue.id);
    let mut state = queue.state.lock();
    let unreachable = (!known || queue.owner.is_some()) && state.consumers.is_empty();
    if unreachable {
        queue.clear(&mut state);
    }
    if known && queue.is_idle(&state) {
        queue.clear(&mut state);
        queues.remove(queue.name());
    }
}

/// What becomes of a message that died, if it did not die too often.
fn dead(letter: DeadLetter) -> Option<Publication> {
    let DeadLetter { publication, to, from, death, .. } = letter;
    let [queue, reason, count] = DEATH_ATTRIBUTES;
    let attributes = &publication.attributes;
    let deaths = attributes.get(count).and_then(|count| count.parse().ok()).unwrap_or(0_u32) + 1;
    if deaths > DEATHS_MAX {
        return None;
    }
    let first_queue = attributes.get(queue).unwrap_or(from.as_str()).to_owned();
    let first_reason = attributes.get(reason).unwrap_or(death.as_str()).to_owned();
    let own = [(queue, first_queue), (reason, first_reason), (count, deaths.to_string())];
    let own = own.iter().map(|(name, value)| (*name, value.as_str().into()));
    let others = attributes.all().filter(|(name, _)| !DEATH_ATTRIBUTES.contains(name));
    let attributes: Attributes = own.chain(others.map(|(name, value)| (name, value.clone()))).collect();
    // Its time and its turn were those of the other queue.
    Some(Publication { name: to, attributes, handling: None, ..publication.uncharged() })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::core::mailbox::{Inbox, Pushed};
    use crate::core::parcel::{ConsumerId, Parcel};
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
        let queue = queues.unnamed(&name("tandem.bound.1"), key(1), mailbox, messages(1), None).unwrap();
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
        let queue =
            queues.unnamed(&name("tandem.bound.1"), key(1), mailbox.clone(), messages(1), None).unwrap();
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
        let steps = ["q3", "q4"].map(|queue| Step::Send(publication(queue, 1), QueueTerms::default()));
        assert_eq!(queues.commit(steps.into()), Err(Refusal::TooMany("queues", 3)));
        assert_eq!(queues.len(), 2);
        assert!(queues.commit(vec![Step::Send(publication("q3", 1), QueueTerms::default())]).is_err());
        assert_eq!(queues.len(), 2);
    }

    #[test]
    fn a_transaction_happens_in_all_its_queues_or_in_none() {
        let queues = Queues::new(QueueLimits { messages_max: 2, ..ROOMY });
        send(&queues, "in", 1);
        send(&queues, "in", 2);
        let mut worker = Worker::consume(&queues, "in", 1, ENDLESS);
        assert_eq!(worker.ids(), [1, 2]);
        let out = |id| Step::Send(publication("out", id), QueueTerms::default());

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
            Step::Send(publication("in", 3), QueueTerms::default()),
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
        let send_first = vec![
            Step::Send(publication("out", 2), QueueTerms::default()),
            worker.step(1, Settlement::Accept),
        ];
        assert_eq!(queues.commit(send_first), Err(Refusal::QueueFull(name("out"))));
        let requeue = vec![
            worker.step(1, Settlement::Requeue),
            Step::Send(publication("out", 2), QueueTerms::default()),
        ];
        assert_eq!(queues.commit(requeue), Err(Refusal::QueueFull(name("out"))));
        let moved = vec![
            worker.step(1, Settlement::Accept),
            Step::Send(publication("out", 2), QueueTerms::default()),
        ];
        assert_eq!(queues.commit(moved), Ok(()));
        assert_eq!(queues.bytes(), UNIT);
    }

    #[test]
    fn an_answer_in_a_transaction_to_somebody_who_is_gone_is_dropped() {
        let queues = Queues::new(ROOMY);
        let steps = vec![
            Step::Send(publication("tandem.reply.1", 1), QueueTerms::default()),
            Step::Send(publication("q", 2), QueueTerms::default()),
        ];
        assert_eq!(queues.commit(steps), Ok(()));
        assert_eq!((queues.len(), queues.bytes()), (1, UNIT));
    }

    #[test]
    fn a_transaction_delivers_before_a_later_send() {
        let queues = Queues::new(ROOMY);
        let mut worker = Worker::consume(&queues, "q", 1, ENDLESS);
        queues
            .commit((1..=3).map(|id| Step::Send(publication("q", id), QueueTerms::default())).collect())
            .unwrap();
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

    /// Admits every hundredth message, and counts how many it was shown.
    #[derive(Debug, Default)]
    struct Hundredth(AtomicUsize);

    impl Filter for Hundredth {
        fn admits(&self, publication: &Publication) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            publication.id.is_multiple_of(100)
        }

        fn text(&self) -> &str {
            "hundredth"
        }
    }

    fn tick_until_nothing_is_due(queues: &Queues) -> usize {
        let mut ticks = 0;
        while queues.deadline_ms(Waker::noop()).is_some_and(|at| at <= queues.now_ms()) {
            queues.tick();
            ticks += 1;
        }
        ticks
    }

    #[test]
    fn a_filter_is_shown_each_message_once_and_a_deep_queue_in_steps() {
        let queues = Queues::new(ROOMY);
        let deep = 10 * SCANS_AT_ONCE as u64;
        (1..=deep).for_each(|id| send(&queues, "q", id));
        let (mailbox, inbox) = large_mailbox();
        let hundredth = Arc::new(Hundredth::default());
        let terms = ConsumeTerms { filter: Some(hundredth.clone()), ..ConsumeTerms::default() };
        let wanted = QueueTerms::default();
        let queue = queues.consume_on(&name("q"), key(1), mailbox, ENDLESS, terms, &wanted).unwrap();
        let mut worker = Worker { key: key(1), queue, inbox };
        let shown = || hundredth.0.load(Ordering::Relaxed);
        assert_eq!((worker.ids().len(), shown()), (0, SCANS_PER_OPERATION));
        // Others are served at once meanwhile.
        let mut other = Worker::consume(&queues, "q", 2, messages(1));
        assert_eq!(other.ids(), [1]);
        assert_eq!(tick_until_nothing_is_due(&queues), 10);
        assert_eq!(worker.ids().len() as u64, deep / 100);
        let before = shown();
        assert!(before as u64 <= deep);
        for (id, more) in [(deep + 1, 1), (deep + 100, 1)] {
            send(&queues, "q", id);
            assert_eq!(shown() - before, usize::from(id > deep + 1) + more, "only the new one");
        }
        assert_eq!(worker.ids(), [deep + 100]);
    }

    #[test]
    fn deadlines_wake_who_waits_for_them_and_only_when_they_are_earlier() {
        use std::sync::atomic::AtomicU64;

        let now = Arc::new(AtomicU64::new(100));
        let clock = now.clone();
        let queues = Queues::with_clock(ROOMY, Arc::new(move || clock.load(Ordering::Relaxed)));
        let (count, waker) = crate::core::testing::Count::new();
        let expiring = |ttl| {
            let handling = crate::core::message::Handling { ttl_ms: Some(ttl), ..Default::default() };
            let publication =
                Publication { handling: Some(Arc::new(handling)), ..publication("q", ttl).uncharged() };
            queues.send(Arc::new(publication)).unwrap();
        };
        assert_eq!(queues.deadline_ms(&waker), None);
        expiring(50);
        assert_eq!((queues.deadline_ms(&waker), count.get()), (Some(150), 1));
        expiring(60);
        assert_eq!((queues.deadline_ms(&waker), count.get()), (Some(150), 1));
        expiring(10);
        assert_eq!((queues.deadline_ms(&waker), count.get()), (Some(110), 2));
        now.store(155, Ordering::Relaxed);
        assert_eq!(tick_until_nothing_is_due(&queues), 1);
        assert_eq!((queues.len(), queues.deadline_ms(&waker)), (1, Some(160)));
        now.store(160, Ordering::Relaxed);
        queues.tick();
        assert_nothing_is_left(&queues);
        assert_eq!(queues.deadline_ms(&waker), None);
    }

    #[test]
    fn groups_filters_and_exclusive_consumers_that_come_and_go_lose_nothing() {
        let queues = Queues::new(ROOMY);
        let grouped = |id: u64| {
            let group = format!("g{}", id % 5).into();
            let handling = crate::core::message::Handling { group: Some(group), ..Default::default() };
            let publication =
                Publication { handling: Some(Arc::new(handling)), ..publication("q", id).uncharged() };
            queues.send(Arc::new(publication)).unwrap();
        };
        let mut seen = BTreeMap::new();
        let mut workers: Vec<Worker> = Vec::new();
        for round in 1..=400_u64 {
            grouped(round);
            if round % 3 == 0 {
                let (mailbox, inbox) = large_mailbox();
                let filter: Option<Arc<dyn Filter>> =
                    (round % 2 == 0).then(|| Arc::new(Hundredth::default()) as Arc<dyn Filter>);
                let terms = ConsumeTerms {
                    filter,
                    exclusive: round % 7 == 0,
                    priority: (round % 4) as i32,
                    ..ConsumeTerms::default()
                };
                let wanted = QueueTerms::default();
                let queue =
                    queues.consume_on(&name("q"), key(round), mailbox, messages(2), terms, &wanted).unwrap();
                workers.push(Worker { key: key(round), queue, inbox });
            }
            for worker in &mut workers {
                for (id, sequence, _) in worker.got() {
                    if id % 3 == 0 && !seen.contains_key(&id) {
                        seen.insert(id, false);
                        queues.settle(&worker.queue, worker.key, sequence, Settlement::Requeue).unwrap();
                    } else {
                        assert_ne!(seen.insert(id, true), Some(true), "{id} came twice");
                        queues.settle(&worker.queue, worker.key, sequence, Settlement::Accept).unwrap();
                    }
                }
            }
            if round % 5 == 0 && !workers.is_empty() {
                let gone = workers.remove(round as usize % workers.len());
                queues.leave(&gone.queue, gone.key);
            }
        }
        for worker in workers {
            queues.leave(&worker.queue, worker.key);
        }
        let mut last = Worker::consume(&queues, "q", 9999, ENDLESS);
        for (id, sequence, _) in last.got() {
            assert_ne!(seen.insert(id, true), Some(true));
            last.settle(&queues, sequence, Settlement::Accept).unwrap();
        }
        assert_eq!(seen.len(), 400);
        queues.leave(&last.queue, last.key);
        assert_nothing_is_left(&queues);
    }

    /// Wants nothing.
    #[derive(Debug)]
    struct Nothing;

    impl Filter for Nothing {
        fn admits(&self, _: &Publication) -> bool {
            false
        }

        fn text(&self) -> &str {
            "FALSE"
        }
    }

    /// What is done alike in two houses: somebody with a filter consumes from the queue of one of them, where the straight
    /// way of [`dispatch`] is therefore never taken.
    struct Twins {
        houses: [Queues; 2],
        workers: [Vec<Worker>; 2],
        held: Vec<(u64, u64)>,
        last_id: u64,
    }

    impl Twins {
        fn new() -> Twins {
            let houses = [(), ()].map(|()| Queues::new(QueueLimits { messages_max: 40, ..ROOMY }));
            for house in &houses {
                house.declare(&name("tandem.q"), Properties::default(), None).unwrap();
            }
            let (mailbox, _) = large_mailbox();
            let terms = ConsumeTerms { filter: Some(Arc::new(Nothing)), ..ConsumeTerms::default() };
            houses[1]
                .consume_on(
                    &name("tandem.q"),
                    key(1_000_000),
                    mailbox,
                    ENDLESS,
                    terms,
                    &QueueTerms::default(),
                )
                .unwrap();
            Twins { houses, workers: Default::default(), held: Vec::new(), last_id: 0 }
        }

        fn act(&mut self, (action, number): (u8, u64)) {
            match action {
                0..=4 => self.send(number),
                5 | 6 => self.consume(number),
                7..=12 if !self.held.is_empty() => self.settle(number),
                13..=15 if !self.workers[0].is_empty() => {
                    let place = number as usize % self.workers[0].len();
                    let gone = self.workers.each_mut().map(|workers| workers.swap_remove(place));
                    for (house, worker) in self.houses.iter().zip(&gone) {
                        match action {
                            13 => house.leave(&worker.queue, worker.key),
                            14 => worker.queue.close(worker.key),
                            // Its session is over, and did not say so yet.
                            _ => {}
                        }
                    }
                    self.held.retain(|(session, _)| *session != gone[0].key.session.0);
                }
                _ => {}
            }
            self.compare();
        }

        fn send(&mut self, number: u64) {
            self.last_id += 1;
            let handling = crate::core::message::Handling {
                priority: number.is_multiple_of(3).then_some((number % 10) as u8),
                group: number.is_multiple_of(5).then(|| (number % 2).to_string().into()),
                ..Default::default()
            };
            let handling = (handling != Default::default()).then(|| Arc::new(handling));
            let sent = self.houses.each_ref().map(|house| {
                let publication = publication("tandem.q", self.last_id);
                house.send(Arc::new(Publication { handling: handling.clone(), ..publication.uncharged() }))
            });
            assert_eq!(sent[0], sent[1]);
        }

        fn consume(&mut self, number: u64) {
            self.last_id += 1;
            for (house, workers) in self.houses.iter().zip(&mut self.workers) {
                let (mailbox, inbox) = large_mailbox();
                let terms = ConsumeTerms {
                    priority: (number % 2) as i32,
                    exclusive: number.is_multiple_of(11),
                    ..ConsumeTerms::default()
                };
                let (key, credit) = (key(self.last_id), messages(number as usize % 7 + 1));
                let wanted = QueueTerms::default();
                let queue =
                    house.consume_on(&name("tandem.q"), key, mailbox, credit, terms, &wanted).unwrap();
                workers.push(Worker { key, queue, inbox });
            }
        }

        fn settle(&mut self, number: u64) {
            let (session, sequence) = self.held.swap_remove(number as usize % self.held.len());
            let all = [Settlement::Accept, Settlement::Requeue, Settlement::Accept, Settlement::Reject];
            for (house, workers) in self.houses.iter().zip(&self.workers) {
                let worker = workers.iter().find(|worker| worker.key.session.0 == session).unwrap();
                worker.settle(house, sequence, all[number as usize % all.len()]).unwrap();
            }
        }

        fn compare(&mut self) {
            let [plain, other] = &mut self.workers;
            for (worker, twin) in plain.iter_mut().zip(other) {
                let got = worker.got();
                assert_eq!(got, twin.got());
                self.held.extend(got.iter().map(|(_, sequence, _)| (worker.key.session.0, *sequence)));
            }
            assert_eq!(self.houses[0].bytes(), self.houses[1].bytes());
        }
    }

    proptest! {
        #[test]
        fn the_straight_way_leads_where_the_general_one_does(
            actions in vec((0..16_u8, 0..1000_u64), 1..200),
        ) {
            let mut twins = Twins::new();
            actions.into_iter().for_each(|action| twins.act(action));
        }
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

    /// Of the house, so that what is rejected is gone.
    const NAMES: [&str; 3] = ["tandem.q0", "tandem.q1", "tandem.q2"];
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
                steps.push(Step::Send(publication(NAMES[*queue], self.last_id), QueueTerms::default()));
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

//! One queue: its lock, and what is done under it.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::core::access::Refusal;
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::message::{Publication, SessionId};
use crate::core::name::Name;
use crate::core::queues::agenda::Agenda;
use crate::core::queues::consumer::{ConsumeTerms, ConsumerKey, Credit, Filter};
use crate::core::queues::durable::{Asker, Journal, Progress, Writing};
use crate::core::queues::item::{DeadLetter, Settlement};
use crate::core::queues::properties::{Properties, QueueLimits};
use crate::core::queues::state::{SCANS_AT_ONCE, State, Sum};
use crate::core::store::{Change, Submission, Unstorable};
use crate::metrics;

/// One queue.
#[derive(Debug)]
pub struct Queue {
    pub(super) id: u64,
    name: Name,
    /// Only this session may consume from it.
    pub(super) owner: Option<SessionId>,
    /// It stays when it is empty and nobody consumes from it, until it is taken away.
    pub(super) is_permanent: bool,
    /// What it takes of the topics that it is bound to.
    filter: Option<Arc<dyn Filter>>,
    agenda: Arc<Agenda<Queue>>,
    /// Where persistent messages are kept. A queue that only its owner consumes from keeps none.
    pub(super) journal: Option<Arc<Journal>>,
    /// What a store must know of it beside its properties, to make it again for whom it was made.
    pub(super) definition: Definition,
    /// For what the store answers, too.
    pub(super) me: Weak<Queue>,
    pub(super) state: Mutex<State>,
}

/// How a queue fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Messages in it, also those that somebody holds.
    pub messages: usize,
    /// What they cost.
    pub bytes: usize,
    /// Messages that a consumer holds, and has not settled; what browsers look at counts, too.
    pub unacknowledged: usize,
    /// Messages whose time has not come.
    pub delayed: usize,
    /// Who consumes and who browses.
    pub consumers: usize,
    /// How many were ever put in since there is this queue, or since the broker started.
    pub enqueued: u64,
}

/// What came of settling.
pub(super) struct Settled {
    /// What was given up by it.
    pub(super) letters: Letters,
    pub(super) progress: Progress,
    /// Who asked, if what it waits for is done only when the dead letters are elsewhere.
    pub(super) asker: Option<Asker>,
    /// Nothing is left of the queue.
    pub(super) is_idle: bool,
}

/// What queues gave up, on its way to others.
pub(super) type Letters = Vec<(Weak<Queue>, DeadLetter)>;

/// What a queue is made of.
pub(super) struct Blueprint {
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) owner: Option<SessionId>,
    pub(super) is_permanent: bool,
    pub(super) filter: Option<Arc<dyn Filter>>,
    pub(super) properties: Properties,
    pub(super) usual_dead_letters: Option<Name>,
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) definition: Definition,
}

/// What a store must know of a queue beside its properties, by names that those do not have.
pub(super) type Definition = Box<[(String, String)]>;

impl Queue {
    pub(super) fn new(
        blueprint: Blueprint,
        limits: QueueLimits,
        total_bytes: Arc<AtomicUsize>,
        agenda: Arc<Agenda<Queue>>,
    ) -> Arc<Queue> {
        let Blueprint { id, name, owner, is_permanent, filter, .. } = blueprint;
        let Blueprint { properties, usual_dead_letters, journal, definition, .. } = blueprint;
        let now_ms = agenda.now_ms();
        let kept = journal.clone();
        let state =
            State::new(name.clone(), properties, limits, usual_dead_letters, total_bytes, kept, now_ms);
        Arc::new_cyclic(|me| Queue {
            id,
            name,
            owner,
            is_permanent,
            filter,
            agenda,
            journal,
            definition,
            me: me.clone(),
            state: Mutex::new(state),
        })
    }

    /// Tells it apart from all other queues of its realm.
    pub fn id(&self) -> u64 {
        self.id
    }

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

    /// How many consume from it.
    pub fn consumers(&self) -> usize {
        self.state.lock().consumers.len()
    }

    /// What is in it now, and what was.
    pub fn census(&self) -> Census {
        let state = self.state.lock();
        Census {
            messages: state.messages,
            bytes: state.bytes,
            unacknowledged: state.consumers.values().map(|consumer| consumer.held.len()).sum(),
            delayed: state.delayed.len(),
            consumers: state.consumers.len(),
            enqueued: state.last_sequence,
        }
    }

    /// What it takes of the topics that it is bound to, as that was written.
    pub fn filter_text(&self) -> Option<&str> {
        self.filter.as_deref().map(Filter::text)
    }

    /// Which of these properties are not true of it.
    pub fn misfits(&self, wanted: &Properties) -> Vec<&'static str> {
        wanted.misfits(&self.state.lock().properties)
    }

    /// Whether it outlives the sessions that consume from it, so that it keeps what is persistent.
    pub fn is_lasting(&self) -> bool {
        self.owner.is_none()
    }

    /// Whether the store does not know it yet, and is about to.
    pub fn is_founding(&self) -> bool {
        self.state.lock().durable.making
    }

    /// Takes what a topic that this queue is bound to brings. One that belongs to a session and is full ends
    /// that: it is a slow consumer of the topic. Another does what its properties say.
    pub fn push_bound(self: &Arc<Queue>, publication: Arc<Publication>) -> Pushed {
        if self.filter.as_ref().is_some_and(|filter| !filter.admits(&publication)) {
            return Pushed::Full;
        }
        let mut state = self.state.lock();
        let none = Sum::default();
        if state.check_room(none, none, publication.cost()).is_err() {
            metrics::EVENTS_DROPPED.add(1);
            if self.owner.is_some() {
                state.consumers.values().for_each(|consumer| consumer.mailbox.overflow());
            }
            return Pushed::Full;
        }
        if let Some(journal) = self.journal.as_ref().filter(|_| publication.is_persistent()) {
            // Who published was let in: what is short since then is for those who come after. The publisher is told
            // once that all queues have it, so that none may leave it out.
            if journal.store.admit() == Err(Unstorable::Failed) {
                metrics::EVENTS_DROPPED.add(1);
                return Pushed::Full;
            }
            let mut writing = Writing::default();
            self.append_pending(&mut state, publication, true, journal, &mut writing);
            state.take_changes(&mut writing.changes);
            // Who published asks for all queues at once.
            let _nobody_asks = writing.submit(journal, None);
            self.leave_alone(state);
            return Pushed::Queued;
        }
        let now_ms = self.now_ms_to_append(&state, &publication);
        state.append_and_dispatch(publication, true, now_ms);
        self.leave_alone(state);
        Pushed::Queued
    }

    /// Stops deliveries to a consumer, which may still settle what it holds.
    pub fn close(&self, key: ConsumerKey) {
        let mut state = self.state.lock();
        state.close(key);
        state.dispatch(self.agenda.now_ms());
        self.leave_alone(state);
    }

    /// True when the consumer holds nothing any more.
    pub fn is_settled(&self, key: ConsumerKey) -> bool {
        self.state.lock().consumers.get(&key).is_none_or(|consumer| consumer.held.is_empty())
    }

    pub(super) fn push(
        self: &Arc<Queue>,
        publication: Arc<Publication>,
        kept: bool,
        asker: Option<Asker>,
    ) -> Result<(Letters, Progress), Refusal> {
        let mut state = self.state.lock();
        state.check_room(Sum::default(), Sum::default(), publication.cost())?;
        if let Some(journal) = self.journal.as_ref().filter(|_| kept) {
            let mut writing = Writing::default();
            self.append_pending(&mut state, publication, false, journal, &mut writing);
            state.take_changes(&mut writing.changes);
            // Nobody gets it before the store has it: there is nothing to hand out.
            let progress = writing.submit(journal, asker);
            return Ok((self.finish(state), progress));
        }
        let now_ms = self.now_ms_to_append(&state, &publication);
        state.append_and_dispatch(publication, false, now_ms);
        Ok((self.finish(state), Progress::Done))
    }

    /// Takes what another queue gave up, if it has room. What the store has of that goes over at once, or not at all.
    pub(super) fn push_dead(
        self: &Arc<Queue>,
        publication: Arc<Publication>,
        removal: Option<Change>,
    ) -> bool {
        let mut state = self.state.lock();
        if state.check_room(Sum::default(), Sum::default(), publication.cost()).is_err() {
            return false;
        }
        if let Some(journal) =
            self.journal.as_ref().filter(|_| removal.is_some() && publication.is_persistent())
        {
            let mut writing = Writing::default();
            writing.changes.extend(removal);
            self.append_pending(&mut state, publication, false, journal, &mut writing);
            state.take_changes(&mut writing.changes);
            let _nobody_asks = writing.submit(journal, None);
            self.leave_alone(state);
            return true;
        }
        if let (Some(journal), Some(removal)) = (&self.journal, removal) {
            journal.store.submit(Submission { changes: vec![removal], done: None });
        }
        let now_ms = self.agenda.now_ms();
        state.append_and_dispatch(publication, false, now_ms);
        self.leave_alone(state);
        true
    }

    /// Settles all of these deliveries, or none if one of them is not the consumer's.
    pub(super) fn settle(
        &self,
        key: ConsumerKey,
        sequences: &[u64],
        settlement: Settlement,
        asker: Option<Asker>,
    ) -> Result<Settled, Refusal> {
        let mut state = self.state.lock();
        let consumer = state.consumers.get(&key).ok_or(Refusal::NoSuchDelivery)?;
        if sequences.iter().any(|sequence| consumer.held.get(*sequence).is_none()) {
            return Err(Refusal::NoSuchDelivery);
        }
        let now_ms = self.now_ms_if(settlement != Settlement::Accept || !state.is_timeless());
        for sequence in sequences {
            state.settle(key, *sequence, settlement, now_ms);
        }
        let (now, later) = if state.has_stored_dead() { (None, asker) } else { (asker, None) };
        let mut writing: Writing<Queue> = Writing::default();
        state.take_changes(&mut writing.changes);
        let progress = self.journal.as_ref().map_or(Progress::Done, |journal| writing.submit(journal, now));
        state.dispatch(now_ms);
        let letters = self.take_letters(&mut state);
        let is_idle = self.is_idle(&state);
        self.leave_alone(state);
        Ok(Settled { letters, progress, asker: later, is_idle })
    }

    /// Adds a consumer, which must have been let in by whoever keeps the queue.
    pub(in crate::core) fn add_consumer(
        &self,
        key: ConsumerKey,
        mailbox: Mailbox,
        credit: Credit,
        terms: ConsumeTerms,
    ) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        state.add_consumer(key, mailbox, credit, terms)?;
        state.dispatch(self.agenda.now_ms());
        self.leave_alone(state);
        Ok(())
    }

    pub(super) fn remove_consumer(&self, key: ConsumerKey) -> Letters {
        let mut state = self.state.lock();
        let now_ms = self.agenda.now_ms();
        state.remove_consumer(key, now_ms);
        state.dispatch(now_ms);
        self.finish(state)
    }

    /// Its time has come.
    pub(super) fn tick(&self) -> Letters {
        let mut state = self.state.lock();
        // The agenda forgot it when it was due.
        state.scheduled_ms = None;
        let now_ms = self.agenda.now_ms();
        if state.consumers.is_empty() && state.is_abandoned(now_ms) && !state.has_dying() {
            if self.definition.is_empty() {
                self.leave_store(&mut state);
                state.clear();
            } else {
                // What is in it is gone, but not whom it is for.
                self.begin_again_in_store(&mut state);
            }
            if self.is_permanent {
                state.renew(now_ms);
            }
        }
        state.dispatch_and_scan(now_ms, SCANS_AT_ONCE);
        self.finish(state)
    }

    /// Whether nothing is left of it, so that it need not exist.
    pub(super) fn is_idle(&self, state: &State) -> bool {
        let waits = state.properties.unused_ms_max.is_some() && !state.is_abandoned(self.agenda.now_ms());
        state.has_no_messages_and_consumers() && !self.is_permanent && !waits
    }

    /// The end of an operation: the lock goes, and what was given up is the caller's to bring away.
    pub(super) fn finish(&self, mut state: MutexGuard<'_, State>) -> Letters {
        let letters = self.take_letters(&mut state);
        self.leave_alone(state);
        letters
    }

    fn take_letters(&self, state: &mut State) -> Letters {
        state.take_dead().into_iter().map(|letter| (self.me.clone(), letter)).collect()
    }

    /// The end of an operation by somebody who cannot bring anything away: that is done when it is looked at
    /// again.
    pub(super) fn leave_alone(&self, mut state: MutexGuard<'_, State>) {
        self.follow_up(&mut state);
        let due = state.due_ms();
        let mut waker = None;
        if due != state.scheduled_ms {
            waker = self.agenda.change(self.id, &self.me, state.scheduled_ms, due);
            state.scheduled_ms = due;
        }
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// It is gone: all that was in it goes, and nobody looks at it again.
    pub(super) fn clear(&self, state: &mut State) {
        self.leave_store(state);
        state.clear();
        self.agenda.change(self.id, &self.me, state.scheduled_ms.take(), None);
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.agenda.now_ms()
    }

    /// The time, for a message that is put in; nobody asks the clock where no time matters.
    fn now_ms_to_append(&self, state: &State, publication: &Publication) -> u64 {
        let has_times = publication.handling.is_some() || state.properties.message_ttl_ms.is_some();
        self.now_ms_if(has_times || !state.is_timeless())
    }

    fn now_ms_if(&self, matters: bool) -> u64 {
        if matters { self.agenda.now_ms() } else { 0 }
    }
}

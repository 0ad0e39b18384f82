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
use crate::core::queues::item::{DeadLetter, Settlement};
use crate::core::queues::properties::{Properties, QueueLimits};
use crate::core::queues::state::{Change, SCANS_AT_ONCE, State};
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
    me: Weak<Queue>,
    pub(super) state: Mutex<State>,
}

/// What a queue is made of.
pub(super) struct Blueprint {
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) owner: Option<SessionId>,
    pub(super) is_permanent: bool,
    pub(super) filter: Option<Arc<dyn Filter>>,
    pub(super) properties: Properties,
    pub(super) usual_dead_letters: Option<Name>,
}

impl Queue {
    pub(super) fn new(
        blueprint: Blueprint,
        limits: QueueLimits,
        total_bytes: Arc<AtomicUsize>,
        agenda: Arc<Agenda<Queue>>,
    ) -> Arc<Queue> {
        let Blueprint { id, name, owner, is_permanent, filter, properties, usual_dead_letters } = blueprint;
        let now_ms = agenda.now_ms();
        let state = State::new(name.clone(), properties, limits, usual_dead_letters, total_bytes, now_ms);
        Arc::new_cyclic(|me| Queue {
            id,
            name,
            owner,
            is_permanent,
            filter,
            agenda,
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

    /// What it takes of the topics that it is bound to, as that was written.
    pub fn filter_text(&self) -> Option<&str> {
        self.filter.as_deref().map(Filter::text)
    }

    /// Which of these properties are not true of it.
    pub fn misfits(&self, wanted: &Properties) -> Vec<&'static str> {
        wanted.misfits(&self.state.lock().properties)
    }

    /// Takes what a topic that this queue is bound to brings. One that belongs to a session and is full ends
    /// that: it is a slow consumer of the topic. Another does what its properties say.
    pub fn push_bound(&self, publication: Arc<Publication>) -> Pushed {
        if self.filter.as_ref().is_some_and(|filter| !filter.admits(&publication)) {
            return Pushed::Full;
        }
        let mut state = self.state.lock();
        let none = Change::default();
        if state.check_room(none, none, publication.cost()).is_err() {
            metrics::EVENTS_DROPPED.add(1);
            if self.owner.is_some() {
                state.consumers.values().for_each(|consumer| consumer.mailbox.overflow());
            }
            return Pushed::Full;
        }
        let now_ms = self.agenda.now_ms();
        state.append(publication, true, now_ms);
        state.dispatch(now_ms);
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

    pub(super) fn push(&self, publication: Arc<Publication>) -> Result<Vec<DeadLetter>, Refusal> {
        let mut state = self.state.lock();
        state.check_room(Change::default(), Change::default(), publication.cost())?;
        let now_ms = self.agenda.now_ms();
        state.append(publication, false, now_ms);
        state.dispatch(now_ms);
        Ok(self.finish(state))
    }

    /// Takes what another queue gave up, if it has room.
    pub(super) fn push_dead(&self, publication: Arc<Publication>) -> bool {
        let mut state = self.state.lock();
        if state.check_room(Change::default(), Change::default(), publication.cost()).is_err() {
            return false;
        }
        let now_ms = self.agenda.now_ms();
        state.append(publication, false, now_ms);
        state.dispatch(now_ms);
        self.leave_alone(state);
        true
    }

    pub(super) fn settle(
        &self,
        key: ConsumerKey,
        sequence: u64,
        settlement: Settlement,
    ) -> Result<Vec<DeadLetter>, Refusal> {
        let mut state = self.state.lock();
        if state.held(key, sequence).is_none() {
            return Err(Refusal::NoSuchDelivery);
        }
        let now_ms = self.agenda.now_ms();
        state.settle(key, sequence, settlement, now_ms);
        state.dispatch(now_ms);
        Ok(self.finish(state))
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

    pub(super) fn remove_consumer(&self, key: ConsumerKey) -> Vec<DeadLetter> {
        let mut state = self.state.lock();
        let now_ms = self.agenda.now_ms();
        state.remove_consumer(key, now_ms);
        state.dispatch(now_ms);
        self.finish(state)
    }

    /// Its time has come.
    pub(super) fn tick(&self) -> Vec<DeadLetter> {
        let mut state = self.state.lock();
        // The agenda forgot it when it was due.
        state.scheduled_ms = None;
        let now_ms = self.agenda.now_ms();
        if state.consumers.is_empty() && state.is_abandoned(now_ms) {
            state.clear();
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
    pub(super) fn finish(&self, mut state: MutexGuard<'_, State>) -> Vec<DeadLetter> {
        let dead = state.take_dead();
        self.leave_alone(state);
        dead
    }

    /// The end of an operation by somebody who cannot bring anything away: that is done when it is looked at
    /// again.
    pub(super) fn leave_alone(&self, mut state: MutexGuard<'_, State>) {
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
        state.clear();
        self.agenda.change(self.id, &self.me, state.scheduled_ms.take(), None);
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.agenda.now_ms()
    }
}

//! What a queue hands to the store, and what it gets back.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::core::message::Publication;
use crate::core::queues::durable::{Appender, Asker, Journal, Pending, Progress, Writing};
use crate::core::queues::item::{Item, Rank};
use crate::core::queues::queue::Queue;
use crate::core::queues::state::State;
use crate::core::store::record::{self, Note};
use crate::core::store::{Change, Fetch, Fetched, QueueId, StoredQueue, Submission, Unstorable};

impl Appender for Queue {
    fn conclude(&self, ranks: &mut dyn Iterator<Item = Rank>, outcome: Result<(), Unstorable>) {
        let mut state = self.state.lock();
        let now_ms = self.now_ms();
        for rank in ranks {
            state.conclude(rank, outcome.is_ok(), now_ms);
        }
        state.dispatch(now_ms);
        self.leave_alone(state);
    }
}

impl Queue {
    /// Puts a message in that must wait for the store: because it is to be kept, or because it is sent
    /// together with others that are.
    pub(super) fn append_pending(
        self: &Arc<Queue>,
        state: &mut State,
        publication: Arc<Publication>,
        from_topic: bool,
        journal: &Journal,
        writing: &mut Writing<Queue>,
    ) {
        let stored = publication.is_persistent() && self.journal.is_some();
        let (sequence, item, deliver_at_ms) = state.admit(publication, from_topic, stored, self.now_ms());
        let rank = item.rank(sequence);
        if let (true, Some(publication)) = (stored, item.publication()) {
            let queue = match state.durable.id {
                Some(queue) => queue,
                None => self.make_in_store(state, journal, &mut writing.changes),
            };
            let record =
                if from_topic { record::encode_brought(publication) } else { record::encode(publication) };
            let note = note(&item, state, deliver_at_ms);
            writing.bytes += record.len() + note.len();
            writing.changes.push(Change::Append { queue, sequence, cost: item.cost, note, record });
        }
        writing.appended.push((self.clone(), rank));
        state.durable.pending.insert(rank, Pending { item, deliver_at_ms });
        state.make_room();
    }

    /// The queue's part of the store is to be, with nothing in it yet.
    fn make_in_store(&self, state: &mut State, journal: &Journal, changes: &mut Vec<Change>) -> QueueId {
        let queue = journal.store.next_queue();
        let mut properties = state.properties.written();
        properties.extend_from_slice(&self.definition);
        let (realm, name) = (journal.realm().clone(), self.name().as_str().into());
        changes.push(Change::Make { queue, realm, name, properties });
        state.durable.id = Some(queue);
        queue
    }

    /// Lets the store know of the queue before there is anything in it. Nobody gets anything from it before the store
    /// does, so that who asks is told first.
    pub(super) fn enter_store(self: &Arc<Queue>, asker: Option<Asker>) -> Progress {
        let Some(journal) = &self.journal else { return Progress::Done };
        let mut state = self.state.lock();
        let mut changes = Vec::new();
        self.make_in_store(&mut state, journal, &mut changes);
        state.durable.making = true;
        let me = self.me.clone();
        let done = move |outcome: Result<(), Unstorable>| {
            if let Some(asker) = asker {
                asker.tell(outcome);
            }
            if let Some(queue) = me.upgrade() {
                let mut state = queue.state.lock();
                state.durable.making = false;
                state.dispatch(queue.now_ms());
                queue.leave_alone(state);
            }
        };
        journal.store.submit(Submission { changes, done: Some(Box::new(done)) });
        Progress::Storing
    }

    /// All of it goes, here and in the store, which at no time does not know the queue.
    pub(super) fn begin_again_in_store(&self, state: &mut State) {
        let mut changes: Vec<Change> = state.leave_store().into_iter().collect();
        state.clear();
        if let Some(journal) = &self.journal {
            self.make_in_store(state, journal, &mut changes);
            journal.store.submit(Submission { changes, done: None });
        }
    }

    /// What the store had of it.
    pub(super) fn restore(&self, found: &StoredQueue) {
        let mut state = self.state.lock();
        state.restore(found, self.now_ms());
        self.leave_alone(state);
    }

    /// Takes the queue out of the store.
    pub(super) fn leave_store(&self, state: &mut State) {
        if let (Some(journal), Some(change)) = (&self.journal, state.leave_store()) {
            journal.store.submit(Submission { changes: vec![change], done: None });
        }
    }

    /// A dead letter of this queue is in another one, or nowhere.
    pub(super) fn has_left(&self) {
        let mut state = self.state.lock();
        state.durable.leaving = state.durable.leaving.saturating_sub(1);
        // It may have waited for that to go itself.
        self.leave_alone(state);
    }

    /// Tells the store what was delivered and what is gone, and asks it for what somebody is to get next.
    pub(super) fn follow_up(&self, state: &mut MutexGuard<'_, State>) {
        let Some((journal, queue)) = self.journal.as_ref().zip(state.durable.id) else { return };
        let mut changes = Vec::new();
        state.take_changes(&mut changes);
        if !changes.is_empty() {
            journal.store.submit(Submission { changes, done: None });
        }
        let Some((from, bytes_max)) = state.next_fetch() else { return };
        state.durable.fetching = true;
        let me = self.me.clone();
        let answer = Box::new(move |read: Result<Vec<Fetched>, Unstorable>| {
            // A queue that is gone wants nothing any more.
            if let Some(queue) = me.upgrade() {
                queue.take_in(from, read);
            }
        });
        journal.store.fetch(Fetch { queue, from, bytes_max, answer });
    }

    /// What was fetched.
    fn take_in(&self, from: u64, read: Result<Vec<Fetched>, Unstorable>) {
        let Some(journal) = self.journal.as_deref() else { return };
        let mut state = self.state.lock();
        let Ok(read) = read else {
            // It failed for good: it is not asked again, and what is only there cannot be had.
            let (queue, waiting, given_up) = (self.name(), state.durable.away, state.stop_reading());
            tracing::error!(%queue, waiting, given_up, "the store cannot be read: what of this queue is only there \
                            is not delivered before the broker is started again");
            state.dispatch(self.now_ms());
            return self.leave_alone(state);
        };
        state.durable.fetching = false;
        let wanted = state.wanted_at(from);
        let mut changes = Vec::new();
        let is_there = read.first().is_some_and(|first| first.sequence == from);
        if !is_there {
            changes.extend(state.put_aside(from));
        }
        for Fetched { sequence, record } in read {
            match record.and_then(|bytes| record::decode_brought(self.name(), &bytes)) {
                Some(read) => state.fill_in(sequence, read, wanted),
                None => changes.extend(state.put_aside(sequence)),
            }
        }
        if !changes.is_empty() {
            journal.store.submit(Submission { changes, done: None });
        }
        state.dispatch(self.now_ms());
        self.leave_alone(state);
    }
}

/// What is to be known of a message while only the store has it.
fn note(item: &Item, state: &State, deliver_at_ms: Option<u64>) -> bytes::Bytes {
    let is_usual = item.priority == state.properties.priority(None);
    let note = Note {
        priority: (!is_usual).then_some(item.priority),
        expires_at_ms: item.expires_at_ms(),
        deliver_at_ms,
        group: item.group().map(Box::from),
        ends_group: item.ends_group(),
    };
    note.encode()
}

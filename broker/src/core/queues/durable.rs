//! What queues keep in a store, and what waits for it.
//!
//! A persistent message is *pending* from when it is sent until the store has it: nobody gets it before, and
//! nothing that came to its queue after it overtakes it. Then it is ready like any other. Beyond a window of
//! bytes its body stays in the store, and is fetched when a consumer is near. When a consumer settles it, it
//! is gone here at once, and in the store a little later: after a crash in between it comes once more.
//!
//! That a message was delivered is written too, but nobody waits for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use crate::core::access::Refusal;
use crate::core::budget::Budget;
use crate::core::mailbox::Mailbox;
use crate::core::message::{PUBLICATION_OVERHEAD, Publication};
use crate::core::parcel::Parcel;
use crate::core::queues::{Body, Item, Queue, State};
use crate::core::store::{Change, Fetch, Fetched, QueueId, Store, Submission, Unstorable, record};
use crate::metrics;

/// What a realm does with persistent messages.
#[derive(Debug, Default)]
pub enum Keeping {
    /// It treats them like others, and says so once.
    #[default]
    InMemory,
    /// It refuses them.
    Refused,
    /// It keeps them.
    Stored(Arc<Journal>),
}

/// How much of what is kept may be in memory.
#[derive(Clone, Copy, Debug)]
pub struct JournalLimits {
    /// Bytes of messages that wait for the store. Beyond that those who send are no longer read.
    pub backlog_bytes_max: usize,
    /// Bytes of ready messages of one queue.
    pub window_bytes_max: usize,
    /// The same for all queues. One that has nothing in memory may fetch all the same.
    pub windows_bytes_max: usize,
}

/// A realm's part of a store.
#[derive(Debug)]
pub struct Journal {
    pub(super) store: Arc<dyn Store>,
    realm: Arc<str>,
    limits: JournalLimits,
    backlog: Arc<Budget>,
    windows: AtomicUsize,
}

impl Journal {
    /// The part of the realm of that name.
    pub fn new(store: Arc<dyn Store>, realm: &str, limits: JournalLimits) -> Arc<Journal> {
        let (realm, backlog) = (realm.into(), Budget::new(limits.backlog_bytes_max));
        Arc::new(Journal { store, realm, limits, backlog, windows: AtomicUsize::new(0) })
    }

    /// The realm.
    pub fn realm(&self) -> &Arc<str> {
        &self.realm
    }

    /// The bytes of ready messages that are in the store and here.
    pub fn window_bytes(&self) -> usize {
        self.windows.load(Ordering::Relaxed)
    }

    /// True while too much waits for the store; `waker` is woken when that ends.
    pub fn congested(&self, waker: &Waker) -> bool {
        self.backlog.exceeded(waker)
    }

    /// Tells when everything up to here is safe.
    pub fn flush(&self, asker: Asker) {
        let done = Box::new(move |outcome| asker.tell(outcome));
        self.store.submit(Submission { changes: Vec::new(), done: Some(done) });
    }
}

/// Who is told, in a [`Parcel::Stored`], that something is safe.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Where to.
    pub mailbox: Mailbox,
    /// The session's own number for it; 0 to be told only if it failed.
    pub ticket: u64,
}

impl Asker {
    fn tell(self, outcome: Result<(), Unstorable>) {
        if self.ticket != 0 || outcome.is_err() {
            let outcome = outcome.map_err(Refusal::Unstorable);
            self.mailbox.push(Parcel::Stored { ticket: self.ticket, outcome });
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a receipt must wait for the store"]
pub enum Progress {
    /// It is done.
    Done,
    /// It is done once the store has it: a [`Parcel::Stored`] says so.
    Storing,
}

/// The part of a queue's state that concerns the store.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// The queue's number in the store, once it is known there.
    pub(super) id: Option<QueueId>,
    /// What the store does not have yet, by its place.
    pub(super) pending: BTreeMap<u64, Item>,
    /// Bytes of the ready messages that are in the store and here.
    window_bytes: usize,
    /// Ready messages that are in the store only.
    away: usize,
    fetching: bool,
    /// What was handed to consumers since the store was last told: places, and how often.
    delivered: Vec<(u64, u32)>,
}

impl Durable {
    /// Whether a place is before everything that the store does not have yet.
    pub(super) fn allows(&self, sequence: u64) -> bool {
        self.pending.first_key_value().is_none_or(|(first, _)| sequence < *first)
    }
}

/// What an operation changes in a store, collected while the queues that it concerns are locked.
#[derive(Default)]
pub(super) struct Writing {
    changes: Vec<Change>,
    appended: Vec<(Arc<Queue>, u64)>,
    bytes: usize,
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").field("changes", &self.changes).finish_non_exhaustive()
    }
}

impl Writing {
    /// Hands it to the store, in order with what others change in these queues, which are still locked.
    pub(super) fn submit(self, journal: &Journal, asker: Option<Asker>) -> Progress {
        let Writing { changes, appended, bytes } = self;
        if changes.is_empty() && appended.is_empty() {
            return Progress::Done;
        }
        if appended.is_empty() && asker.is_none() {
            journal.store.submit(Submission { changes, done: None });
            return Progress::Storing;
        }
        let charge = journal.backlog.charge(bytes + changes.len() * PUBLICATION_OVERHEAD);
        let done = move |outcome: Result<(), Unstorable>| {
            // Publishers that were not read for it are read again.
            drop(charge);
            // A receipt comes before the message that its frame causes.
            if let Some(asker) = asker {
                asker.tell(outcome);
            }
            let mut rest = &appended[..];
            while let Some((queue, _)) = rest.first() {
                let same = rest.iter().take_while(|(other, _)| Arc::ptr_eq(other, queue)).count();
                let (of_queue, others) = rest.split_at(same);
                queue.conclude(of_queue.iter().map(|(_, sequence)| *sequence), outcome);
                rest = others;
            }
        };
        journal.store.submit(Submission { changes, done: Some(Box::new(done)) });
        Progress::Storing
    }
}

impl Queue {
    /// Puts a message in that must wait for the store: because it is to be kept, or because it is sent
    /// together with others that are.
    pub(super) fn append_pending(
        self: &Arc<Queue>,
        state: &mut State,
        publication: Arc<Publication>,
        journal: &Journal,
        writing: &mut Writing,
    ) {
        let stored = publication.is_persistent() && self.journal.is_some();
        let (sequence, item) = self.admit(state, publication, stored);
        if let (true, Body::Here(publication)) = (stored, &item.body) {
            let queue = *state.durable.id.get_or_insert_with(|| {
                let queue = journal.store.next_queue();
                writing.changes.push(Change::Make {
                    queue,
                    realm: journal.realm.clone(),
                    name: self.name.as_str().into(),
                    properties: Vec::new(),
                });
                queue
            });
            let record = record::encode(publication);
            writing.bytes += record.len();
            writing.changes.push(Change::Append { queue, sequence, cost: item.cost, record });
        }
        writing.appended.push((self.clone(), sequence));
        state.durable.pending.insert(sequence, item);
    }

    /// A message was settled for good.
    pub(super) fn unstore(&self, state: &State, sequence: u64, item: &Item, writing: &mut Writing) {
        if let (true, Some(queue)) = (item.stored, state.durable.id) {
            writing.changes.push(Change::Remove { queue, sequence });
        }
    }

    /// The store has these, or never will.
    fn conclude(&self, sequences: impl Iterator<Item = u64>, outcome: Result<(), Unstorable>) {
        let mut state = self.state.lock();
        for sequence in sequences {
            let Some(mut item) = state.durable.pending.remove(&sequence) else { continue };
            match outcome {
                Ok(()) => {
                    if let (true, Some(journal)) = (item.stored, &self.journal) {
                        state.shorten(&mut item, journal);
                    }
                    state.put_ready(sequence, item, self.journal.as_deref());
                }
                Err(_) => self.release(&mut state, &item),
            }
        }
        self.dispatch(&mut state);
    }

    /// Tells the store what was delivered, and asks it for what a consumer is to get next.
    pub(super) fn follow_up(&self, state: &mut State) {
        let Some((journal, queue)) = self.journal.as_ref().zip(state.durable.id) else { return };
        if !state.durable.delivered.is_empty() {
            let delivered = std::mem::take(&mut state.durable.delivered).into_iter();
            let change = |(sequence, deliveries)| Change::Delivered { queue, sequence, deliveries };
            let changes = delivered.map(change).collect();
            journal.store.submit(Submission { changes, done: None });
        }
        let Some(from) = state.wanted() else { return };
        state.durable.fetching = true;
        let me = self.me.clone();
        let answer = Box::new(move |read: Result<Vec<Fetched>, Unstorable>| {
            // A queue that is gone wants nothing any more.
            if let Some(queue) = me.upgrade() {
                queue.take_in(from, read);
            }
        });
        let bytes_max = journal.limits.window_bytes_max;
        journal.store.fetch(Fetch { queue, from, bytes_max, answer });
    }

    /// What was fetched.
    fn take_in(&self, from: u64, read: Result<Vec<Fetched>, Unstorable>) {
        let Some(journal) = self.journal.as_deref() else { return };
        let Ok(read) = read else {
            // It failed for good, and said so; what is only there cannot be had.
            return;
        };
        let mut state = self.state.lock();
        state.durable.fetching = false;
        let last = read.iter().map(|fetched| fetched.sequence).max().unwrap_or(from).max(from);
        for Fetched { sequence, record } in read {
            let is_away = state.ready.get(&sequence).is_some_and(|item| matches!(item.body, Body::Away));
            if !is_away {
                continue;
            }
            match record.and_then(|bytes| record::decode(&self.name, &bytes)) {
                Some(publication) => state.fill_in(sequence, publication, journal),
                None => self.give_up(&mut state, sequence),
            }
        }
        // What was not read although it lies in between is missing.
        let still_away = |(_, item): &(&u64, &Item)| matches!(item.body, Body::Away);
        let missing: Vec<u64> =
            state.ready.range(from..=last).filter(still_away).map(|(at, _)| *at).collect();
        missing.into_iter().for_each(|sequence| self.give_up(&mut state, sequence));
        self.dispatch(&mut state);
    }

    /// A message cannot be read: it is put aside, visibly, and the others go on.
    fn give_up(&self, state: &mut State, sequence: u64) {
        let Some(item) = state.take_ready(sequence, self.journal.as_deref()) else { return };
        metrics::STORE_UNREADABLE.add(1);
        tracing::error!(queue = %self.name, sequence, "a stored message is damaged or missing, and not delivered");
        self.release(state, &item);
        if let Some((journal, queue)) = self.journal.as_ref().zip(state.durable.id) {
            let changes = vec![Change::PutAside { queue, sequence }];
            journal.store.submit(Submission { changes, done: None });
        }
    }
}

impl State {
    /// Leaves the body of a message in the store if the window is full, or others before it are there.
    fn shorten(&self, item: &mut Item, journal: &Journal) {
        let cost = item.cost as usize;
        let fits = self.durable.away == 0
            && self.durable.window_bytes + cost <= journal.limits.window_bytes_max
            && journal.windows.load(Ordering::Relaxed) + cost <= journal.limits.windows_bytes_max;
        if !fits {
            item.body = Body::Away;
        }
    }

    /// Makes a message ready.
    pub(super) fn put_ready(&mut self, sequence: u64, item: Item, journal: Option<&Journal>) {
        if let (true, Some(journal)) = (item.stored, journal) {
            self.count(&item, journal, 1);
        }
        self.ready.insert(sequence, item);
    }

    /// Takes a ready message out.
    pub(super) fn take_ready(&mut self, sequence: u64, journal: Option<&Journal>) -> Option<Item> {
        let item = self.ready.remove(&sequence)?;
        if let (true, Some(journal)) = (item.stored, journal) {
            self.count(&item, journal, -1);
        }
        Some(item)
    }

    /// A stored message came among those that are ready, or left them.
    fn count(&mut self, item: &Item, journal: &Journal, by: isize) {
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

    fn fill_in(&mut self, sequence: u64, publication: Publication, journal: &Journal) {
        if let Some(mut item) = self.take_ready(sequence, Some(journal)) {
            item.body = Body::Here(Arc::new(publication));
            self.put_ready(sequence, item, Some(journal));
        }
    }

    /// The place of the message that somebody waits for and that is not here, unless it is on its way.
    fn wanted(&self) -> Option<u64> {
        let (first, item) = self.ready.first_key_value()?;
        let wanted = matches!(item.body, Body::Away)
            && self.durable.allows(*first)
            && !self.durable.fetching
            && !self.turns.is_empty();
        wanted.then_some(*first)
    }

    /// A message was handed to a consumer.
    pub(super) fn note_delivery(&mut self, sequence: u64, item: &Item) {
        if item.stored {
            self.durable.delivered.push((sequence, item.redeliveries + 1));
        }
    }
}

/// Says once in the life of the process that persistent messages are not kept.
pub(super) fn warn_once() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "persistent messages are kept in memory only, for there is no [store] in the configuration; \
             this is said once"
        );
    }
}

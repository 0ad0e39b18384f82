//! What queues keep in a store, and what waits for it. What a queue does about it is in `keep`, and which bodies are
//! in memory in `window`.
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
use crate::core::message::PUBLICATION_OVERHEAD;
use crate::core::parcel::Parcel;
use crate::core::queues::item::{Death, Item, Rank};
use crate::core::store::{Change, QueueId, Store, Submission, Unstorable};

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
    pub(super) limits: JournalLimits,
    backlog: Arc<Budget>,
    pub(super) windows: AtomicUsize,
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

    /// Whether something may be added to the store now.
    pub fn admit(&self) -> Result<(), Refusal> {
        self.store.admit().map_err(Refusal::Unstorable)
    }

    /// Takes changes of whoever tells nobody by itself; see [`conclude`](Journal::conclude).
    pub(in crate::core) fn submit(&self, changes: Vec<Change>) {
        self.store.submit(Submission { changes, done: None });
    }

    /// A number for something new in the store.
    pub(in crate::core) fn next_queue(&self) -> QueueId {
        self.store.next_queue()
    }

    /// Tells when everything up to here is safe. Until then these bytes count as waiting.
    pub(in crate::core) fn conclude(&self, bytes: usize, asker: Option<Asker>) {
        let charge = self.backlog.charge(bytes + PUBLICATION_OVERHEAD);
        let done = move |outcome| {
            // Publishers that were not read for it are read again.
            drop(charge);
            if let Some(asker) = asker {
                asker.tell(outcome);
            }
        };
        self.store.submit(Submission { changes: Vec::new(), done: Some(Box::new(done)) });
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
    pub(super) fn tell(self, outcome: Result<(), Unstorable>) {
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
    /// What the store does not have yet.
    pub(super) pending: BTreeMap<Rank, Pending>,
    /// Bytes of the messages that lie in the queue, in the store and here.
    pub(super) window_bytes: usize,
    /// Those that are in the store only, and not to rest.
    pub(super) away: usize,
    pub(super) fetching: bool,
    /// A message that a consumer is to get next, and that is not here.
    pub(super) wanted: Option<u64>,
    /// The same for who looks without taking.
    pub(super) looked_for: Option<u64>,
    /// What was handed to consumers since the store was last told: places, and how often.
    pub(super) delivered: Vec<(u64, u32)>,
    /// What is gone for good since then.
    pub(super) removed: Vec<u64>,
    /// What was given up, is for another queue, and must be fetched for that.
    pub(super) dying: BTreeMap<u64, (Item, Death)>,
    pub(super) dying_bytes: usize,
    /// Dead letters that left and are not in another queue yet: until then they are in this one's part of the store.
    pub(super) leaving: usize,
    /// The store could not be read, and is not asked again.
    pub(super) unreadable: bool,
    /// The store does not know the queue yet, and is told of it before there is anything in it.
    pub(super) making: bool,
}

/// A message that waits for the store.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) item: Item,
    pub(super) deliver_at_ms: Option<u64>,
}

impl Durable {
    /// Whether a message is before everything that the store does not have yet.
    pub(super) fn allows(&self, rank: Rank) -> bool {
        !self.making && self.pending.first_key_value().is_none_or(|(first, _)| rank < *first)
    }

    /// A message was handed to a consumer.
    pub(super) fn note_delivery(&mut self, sequence: u64, item: &Item) {
        if item.is_stored() && self.id.is_some() {
            self.delivered.push((sequence, item.redeliveries() + 1));
        }
    }
}

/// A queue that is told what became of what it appended.
pub(super) trait Appender: Send + Sync + 'static {
    /// The store has these, or never will.
    fn conclude(&self, ranks: &mut dyn Iterator<Item = Rank>, outcome: Result<(), Unstorable>);
}

/// What an operation changes in a store, collected while the queues that it concerns are locked.
pub(super) struct Writing<Q> {
    pub(super) changes: Vec<Change>,
    pub(super) appended: Vec<(Arc<Q>, Rank)>,
    pub(super) bytes: usize,
}

impl<Q> Default for Writing<Q> {
    fn default() -> Writing<Q> {
        Writing { changes: Vec::new(), appended: Vec::new(), bytes: 0 }
    }
}

impl<Q> fmt::Debug for Writing<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").field("changes", &self.changes).finish_non_exhaustive()
    }
}

impl<Q: Appender> Writing<Q> {
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
                queue.conclude(&mut of_queue.iter().map(|(_, rank)| *rank), outcome);
                rest = others;
            }
        };
        journal.store.submit(Submission { changes, done: Some(Box::new(done)) });
        Progress::Storing
    }
}

/// Says once in the life of the process that persistent messages are not kept.
pub(in crate::core) fn warn_once() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "persistent messages are kept in memory only, for there is no [store] in the configuration; \
             this is said once"
        );
    }
}

//! A store in memory that forgets like a disk: for tests, and for simulations in one thread under a seed.
//!
//! Nothing happens by itself. What was submitted is safe after [`sync`](SimulatedStore::sync); a
//! [`crash`](SimulatedStore::crash) loses the rest, or what chance leaves of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::core::store::kept::is_shelf;
use crate::core::store::{
    Change, Fetch, Fetched, Properties, QueueId, Store, StoredMessage, StoredQueue, StoredShelf, Submission,
    Unstorable,
};

/// The store.
#[derive(Debug, Default)]
pub struct SimulatedStore(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    disk: Disk,
    waiting: VecDeque<Submission>,
    fetches: VecDeque<Fetch>,
    last_queue: u64,
    next_sync_fails: bool,
    failed: bool,
    full: bool,
    waiting_max: Option<usize>,
    damaged: BTreeSet<(QueueId, u64)>,
    syncs: usize,
}

type Disk = BTreeMap<QueueId, Kept>;

#[derive(Clone, Debug)]
struct Kept {
    realm: Arc<str>,
    name: Arc<str>,
    properties: Properties,
    last_sequence: u64,
    messages: BTreeMap<u64, Message>,
}

#[derive(Clone, Debug)]
struct Message {
    cost: u32,
    deliveries: u32,
    note: Bytes,
    record: Bytes,
}

impl SimulatedStore {
    /// An empty one.
    pub fn new() -> Arc<SimulatedStore> {
        Arc::default()
    }

    /// What is safe now of queues.
    pub fn recovered(&self) -> Vec<StoredQueue> {
        let is_queue = |queue: &StoredQueue| !is_shelf(&queue.properties);
        self.all().into_iter().filter(is_queue).collect()
    }

    /// The same of what topics keep.
    pub fn recovered_shelves(&self) -> Vec<StoredShelf> {
        let shelves = self.all().into_iter().filter(|queue| is_shelf(&queue.properties));
        let inner = self.0.lock();
        let shelf = |queue: StoredQueue| {
            let kept = &inner.disk[&queue.queue];
            let record = |message: &StoredMessage| {
                let whole = !inner.damaged.contains(&(queue.queue, message.sequence));
                whole.then(|| kept.messages[&message.sequence].record.clone())
            };
            let records = queue.messages.iter().map(record).collect();
            StoredShelf { queue, records }
        };
        shelves.map(shelf).collect()
    }

    fn all(&self) -> Vec<StoredQueue> {
        let stored = |(queue, kept): (&QueueId, &Kept)| {
            let message = |(sequence, message): (&u64, &Message)| StoredMessage {
                sequence: *sequence,
                cost: message.cost,
                deliveries: message.deliveries,
                note: message.note.as_ref().into(),
            };
            StoredQueue {
                queue: *queue,
                realm: kept.realm.clone(),
                name: kept.name.clone(),
                properties: kept.properties.clone(),
                last_sequence: kept.last_sequence,
                messages: kept.messages.iter().map(message).collect(),
            }
        };
        self.0.lock().disk.iter().map(stored).collect()
    }

    /// How many submissions are not safe yet.
    pub fn unsynced(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// How often something was made safe.
    pub fn syncs(&self) -> usize {
        self.0.lock().syncs
    }

    /// Makes safe all that was submitted, or fails for good; answers; reads what is to be read.
    pub fn sync(&self) {
        self.sync_first(usize::MAX);
    }

    /// The same with so many submissions only.
    pub fn sync_first(&self, count: usize) {
        let (submissions, outcome, fetches, read) = {
            let mut inner = self.0.lock();
            let count = count.min(inner.waiting.len());
            let submissions: Vec<Submission> = inner.waiting.drain(..count).collect();
            inner.failed |= inner.next_sync_fails && !submissions.is_empty();
            let outcome = if inner.failed { Err(Unstorable::Failed) } else { Ok(()) };
            if outcome.is_ok() && !submissions.is_empty() {
                inner.syncs += 1;
                let changes = submissions.iter().flat_map(|submission| &submission.changes).cloned();
                changes.collect::<Vec<_>>().into_iter().for_each(|change| apply(&mut inner.disk, change));
            }
            let fetches = std::mem::take(&mut inner.fetches);
            let read: Vec<_> = fetches.iter().map(|fetch| outcome.map(|()| inner.read(fetch))).collect();
            (submissions, outcome, fetches, read)
        };
        // Outside of the lock: they submit more.
        submissions.into_iter().filter_map(|submission| submission.done).for_each(|done| done(outcome));
        for (fetch, read) in fetches.into_iter().zip(read) {
            (fetch.answer)(read);
        }
    }

    /// Makes the next sync fail, and with it the store.
    pub fn fail_next_sync(&self) {
        self.0.lock().next_sync_fails = true;
    }

    /// Whether space is short.
    pub fn set_nearly_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// How many submissions may wait before messages are refused.
    pub fn set_waiting_max(&self, waiting_max: usize) {
        self.0.lock().waiting_max = Some(waiting_max);
    }

    /// Spoils a message.
    pub fn damage(&self, queue: QueueId, sequence: u64) {
        self.0.lock().damaged.insert((queue, sequence));
    }

    /// The store after the power failed: with what was safe, and of what was not the first `kept` submissions,
    /// which had reached the disk although nobody was told. One that reached it in part did not happen.
    pub fn crash(&self, kept: usize) -> Arc<SimulatedStore> {
        let inner = self.0.lock();
        let mut disk = inner.disk.clone();
        let reached = inner.waiting.iter().take(kept).flat_map(|submission| &submission.changes);
        reached.cloned().for_each(|change| apply(&mut disk, change));
        let (last_queue, damaged) = (inner.last_queue, inner.damaged.clone());
        Arc::new(SimulatedStore(Mutex::new(Inner { disk, last_queue, damaged, ..Inner::default() })))
    }
}

fn apply(disk: &mut Disk, change: Change) {
    match change {
        Change::Make { queue, realm, name, properties } => {
            disk.insert(queue, Kept { realm, name, properties, last_sequence: 0, messages: BTreeMap::new() });
        }
        Change::Delete { queue } => drop(disk.remove(&queue)),
        Change::Append { queue, sequence, cost, note, record } => {
            let kept = disk.get_mut(&queue).expect("a queue is made before it is appended to");
            assert!(sequence > kept.last_sequence, "places only go up");
            kept.last_sequence = sequence;
            kept.messages.insert(sequence, Message { cost, deliveries: 0, note, record });
        }
        Change::Remove { queue, sequence } => {
            // A queue may be gone before all that was given up in it has found its place elsewhere.
            let Some(kept) = disk.get_mut(&queue) else { return };
            assert!(kept.messages.remove(&sequence).is_some(), "what is removed was there");
        }
        Change::PutAside { queue, sequence } => {
            disk.get_mut(&queue).and_then(|kept| kept.messages.remove(&sequence));
        }
        Change::Delivered { queue, sequence, deliveries } => {
            let message = disk.get_mut(&queue).and_then(|kept| kept.messages.get_mut(&sequence));
            message.expect("what is delivered is there").deliveries = deliveries;
        }
    }
}

impl Inner {
    fn read(&self, fetch: &Fetch) -> Vec<Fetched> {
        let Some(kept) = self.disk.get(&fetch.queue) else { return Vec::new() };
        let mut bytes = 0;
        let mut read = Vec::new();
        for (sequence, message) in kept.messages.range(fetch.from..) {
            if bytes > 0 && bytes + message.record.len() > fetch.bytes_max {
                break;
            }
            bytes += message.record.len();
            let whole = !self.damaged.contains(&(fetch.queue, *sequence));
            read.push(Fetched { sequence: *sequence, record: whole.then(|| message.record.clone()) });
        }
        read
    }
}

impl Store for SimulatedStore {
    fn next_queue(&self) -> QueueId {
        let mut inner = self.0.lock();
        inner.last_queue += 1;
        QueueId(inner.last_queue)
    }

    fn admit(&self) -> Result<(), Unstorable> {
        let inner = self.0.lock();
        match (inner.failed, inner.full) {
            (true, _) => Err(Unstorable::Failed),
            (false, true) => Err(Unstorable::NearlyFull),
            (false, false) if inner.waiting_max.is_some_and(|max| inner.waiting.len() >= max) => {
                Err(Unstorable::Busy)
            }
            (false, false) => Ok(()),
        }
    }

    fn submit(&self, submission: Submission) {
        self.0.lock().waiting.push_back(submission);
    }

    fn fetch(&self, fetch: Fetch) {
        self.0.lock().fetches.push_back(fetch);
    }
}

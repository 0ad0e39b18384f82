//! Making changes safe: all that came while the disk was busy goes with the next commit.
//!
//! One commit is one transaction of the engine, which costs two calls of fsync. When many wait for one, the
//! next one waits a moment for as many: those who were answered come again. When nobody waits, changes lie for
//! a short time, so that they go with others.
//!
//! The first commit that fails is the last: what the disk then holds is known only when it is read again.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use redb::{Database, ReadableTable, Table, WriteTransaction};
use tokio_util::sync::CancellationToken;

use crate::core::mailbox::Batch;
use crate::core::store::kept::is_shelf;
use crate::core::store::{Change, Done, Submission, Unstorable};
use crate::metrics;
use crate::store::layout::{
    self, ASIDE, BLOCKS, Block, Entry, FORMAT, FORMAT_KEY, Key, META, NOTES, QUEUES, QUEUES_COPY, QueueRow,
    RECORDS, TOTALS, Totals, encode_record, seal,
};
use crate::store::space::{Gauge, SpaceLimits};

/// How much one commit takes: more would keep those who wait for the first of it waiting.
const COMMIT_BYTES_MAX: usize = 16 << 20;
/// The same in changes.
const COMMIT_CHANGES_MAX: usize = 16_384;

/// How long changes lie that nobody waits for.
const IDLE_TIME_MAX: Duration = Duration::from_millis(50);

/// How long a commit waits for as many as waited for the last.
const GATHER_TIME_MAX: Duration = Duration::from_millis(2);

/// How often it is looked whether there is space again.
const SPACE_INTERVAL: Duration = Duration::from_millis(250);

/// How often it is looked whether others took the space, while there is nothing to write.
const IDLE_SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) submissions: VecDeque<Submission>,
    pub(super) changes: usize,
    pub(super) bytes: usize,
    /// How many of the submissions somebody waits for.
    pub(super) awaited: usize,
    /// How many of those the writer sleeps for.
    wanted: usize,
    pub(super) closing: bool,
}

impl Inbox {
    /// True when the writer is to be woken for it.
    pub(super) fn push(&mut self, submission: Submission) -> bool {
        self.changes += submission.changes.len();
        self.bytes += bytes(&submission);
        self.awaited += usize::from(submission.done.is_some());
        self.submissions.push_back(submission);
        self.submissions.len() == 1
            || self.awaited > 0 && self.awaited >= self.wanted
            || self.changes >= COMMIT_CHANGES_MAX
            || self.bytes >= COMMIT_BYTES_MAX
    }

    /// What the next commit takes.
    fn take(&mut self) -> Vec<Submission> {
        let (mut taken, mut changes, mut size) = (Vec::new(), 0, 0);
        while let Some(next) = self.submissions.front() {
            changes += next.changes.len();
            size += bytes(next);
            if !taken.is_empty() && (changes > COMMIT_CHANGES_MAX || size > COMMIT_BYTES_MAX) {
                break;
            }
            self.changes -= next.changes.len();
            self.bytes -= bytes(next);
            self.awaited -= usize::from(next.done.is_some());
            taken.extend(self.submissions.pop_front());
        }
        taken
    }
}

fn bytes(submission: &Submission) -> usize {
    let record = |change: &Change| match change {
        Change::Append { note, record, .. } => note.len() + record.len(),
        _ => 0,
    };
    submission.changes.iter().map(record).sum()
}

/// Where those who submit and the thread that writes meet.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) inbox: Mutex<Inbox>,
    pub(super) submitted: Condvar,
    failed: AtomicBool,
    /// The same, for who waits for it.
    pub(super) failure: CancellationToken,
    nearly_full: AtomicBool,
}

impl Desk {
    /// Whether a commit failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Whether there is too little space to append.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.nearly_full.load(Ordering::Relaxed)
    }

    /// Lets the thread end once everything is written.
    pub(super) fn close(&self) {
        self.inbox.lock().closing = true;
        self.submitted.notify_all();
    }
}

/// The thread that writes.
pub(super) struct Writer {
    pub(super) desk: Arc<Desk>,
    pub(super) database: Arc<Database>,
    pub(super) gauge: Box<dyn Gauge>,
    pub(super) limits: SpaceLimits,
    pub(super) live_bytes: u64,
    /// How many waited for the last commit.
    pub(super) gathered: usize,
}

impl Writer {
    /// Writes until the store is closed and everything is written.
    pub(super) fn run(mut self) {
        self.look_at_space();
        while let Some(group) = self.next_group() {
            self.look_at_space();
            let outcome = self.write(&group);
            let dones: Vec<Done> = group.into_iter().filter_map(|submission| submission.done).collect();
            metrics::STORE_WAITERS.add(dones.len() as i64);
            self.gathered = dones.len();
            // Whoever hears of it is woken once, at the end.
            let _batch = Batch::begin();
            for done in dones {
                // Whoever panics at the answer must not take the store from everybody.
                if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
                    tracing::error!("an answer of the store was received badly");
                }
            }
            if outcome.is_err() {
                // After those who waited for it were told: they may be sent away over it.
                self.desk.failure.cancel();
            }
        }
    }

    /// What to write next, when it is time; `None` at the end.
    fn next_group(&mut self) -> Option<Vec<Submission>> {
        let desk = self.desk.clone();
        let mut inbox = desk.inbox.lock();
        let mut since: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let first = (!inbox.submissions.is_empty()).then(|| *since.get_or_insert(now));
            let lies_until = match first {
                None if inbox.closing => return None,
                None => None,
                Some(_) if inbox.closing || desk.has_failed() => return Some(inbox.take()),
                Some(_) if inbox.changes >= COMMIT_CHANGES_MAX || inbox.bytes >= COMMIT_BYTES_MAX => {
                    return Some(inbox.take());
                }
                Some(first) if inbox.awaited == 0 => Some(first + IDLE_TIME_MAX),
                Some(_) if inbox.awaited >= self.gathered => return Some(inbox.take()),
                Some(first) => Some(first + GATHER_TIME_MAX),
            };
            inbox.wanted = if inbox.awaited == 0 { 1 } else { self.gathered };
            match lies_until {
                Some(until) if until <= now => return Some(inbox.take()),
                Some(until) => drop(desk.submitted.wait_until(&mut inbox, until)),
                None => {
                    let interval = if desk.is_nearly_full() { SPACE_INTERVAL } else { IDLE_SPACE_INTERVAL };
                    if desk.submitted.wait_for(&mut inbox, interval).timed_out() {
                        // Nobody who submits is to wait for it.
                        MutexGuard::unlocked(&mut inbox, || self.look_at_space());
                    }
                }
            }
        }
    }

    fn look_at_space(&self) {
        let was = self.desk.is_nearly_full();
        let is = match self.gauge.space(self.live_bytes) {
            Ok(space) => self.limits.is_nearly_full(space),
            Err(error) => {
                tracing::warn!(%error, "cannot see how much space there is for the store");
                was
            }
        };
        if was == is {
            return;
        }
        self.desk.nearly_full.store(is, Ordering::Relaxed);
        metrics::STORE_NEARLY_FULL.add(if is { 1 } else { -1 });
        if is {
            tracing::error!("the disk of the store is nearly full: persistent messages are refused");
        } else {
            tracing::info!("the disk of the store has space again: persistent messages are taken");
        }
    }

    fn write(&mut self, group: &[Submission]) -> Result<(), Unstorable> {
        if self.desk.has_failed() {
            return Err(Unstorable::Failed);
        }
        if group.iter().all(|submission| submission.changes.is_empty()) {
            // Everything before is safe.
            return Ok(());
        }
        let database = self.database.clone();
        let live_bytes = self.live_bytes;
        // On a file that was damaged under it the engine may panic: that is a failure like others.
        let written = catch_unwind(AssertUnwindSafe(|| commit(&database, group, live_bytes)));
        let why = match written {
            Ok(Ok(sums)) => {
                metrics::STORE_COMMITS.add(1);
                metrics::STORE_MESSAGES.add(sums.appended);
                metrics::STORE_BYTES.add(sums.live_bytes as i64 - self.live_bytes as i64);
                self.live_bytes = sums.live_bytes;
                return Ok(());
            }
            Ok(Err(why)) => why.to_string(),
            Err(_) => "the engine panicked".to_owned(),
        };
        self.desk.failed.store(true, Ordering::Release);
        metrics::STORE_FAILED.add(1);
        tracing::error!(
            why,
            "the store failed: nothing persistent is taken or acknowledged any more. Look after the disk, and \
             start the broker again"
        );
        Err(Unstorable::Failed)
    }
}

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("{0}")]
    Engine(#[from] redb::Error),
    #[error("the index of queue number {0} is damaged")]
    Damaged(u64),
}

macro_rules! engine_errors {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for WriteError {
            fn from(error: redb::$error) -> WriteError {
                WriteError::Engine(error.into())
            }
        })*
    };
}

engine_errors!(TransactionError, TableError, StorageError, CommitError);

/// What a commit changed in sum.
struct Sums {
    appended: i64,
    live_bytes: u64,
}

fn commit(database: &Database, group: &[Submission], live_bytes: u64) -> Result<Sums, WriteError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut changes = group.iter().flat_map(|submission| &submission.changes);
    if changes.any(|change| matches!(change, Change::Make { properties, .. } if is_shelf(properties))) {
        // Those who know no shelves must not open it any more.
        transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    }
    let sums = {
        let mut work = Work::begin(&transaction, live_bytes)?;
        for change in group.iter().flat_map(|submission| &submission.changes) {
            work.apply(change)?;
        }
        work.end()?
    };
    transaction.commit()?;
    Ok(sums)
}

/// A commit under way. Blocks and totals are read and written once, however many changes they have.
struct Work<'t> {
    queues: Table<'t, u64, &'static [u8]>,
    copies: Table<'t, u64, &'static [u8]>,
    totals: Table<'t, u64, &'static [u8]>,
    blocks: Table<'t, Key, &'static [u8]>,
    records: Table<'t, Key, &'static [u8]>,
    notes: Table<'t, Key, &'static [u8]>,
    aside: Table<'t, Key, &'static [u8]>,
    changed_totals: BTreeMap<u64, Totals>,
    changed_blocks: BTreeMap<Key, Block>,
    sums: Sums,
}

impl<'t> Work<'t> {
    fn begin(transaction: &'t WriteTransaction, live_bytes: u64) -> Result<Work<'t>, WriteError> {
        Ok(Work {
            queues: transaction.open_table(QUEUES)?,
            copies: transaction.open_table(QUEUES_COPY)?,
            totals: transaction.open_table(TOTALS)?,
            blocks: transaction.open_table(BLOCKS)?,
            records: transaction.open_table(RECORDS)?,
            notes: transaction.open_table(NOTES)?,
            aside: transaction.open_table(ASIDE)?,
            changed_totals: BTreeMap::new(),
            changed_blocks: BTreeMap::new(),
            sums: Sums { appended: 0, live_bytes },
        })
    }

    fn apply(&mut self, change: &Change) -> Result<(), WriteError> {
        match change {
            Change::Make { queue, realm, name, properties } => {
                let (realm, name) = (realm.as_ref().to_owned(), name.as_ref().to_owned());
                let row = QueueRow { realm, name, properties: properties.clone() }.encode(queue.0);
                self.queues.insert(queue.0, &*row)?;
                self.copies.insert(queue.0, &*row)?;
                self.changed_totals.insert(queue.0, Totals::default());
            }
            Change::Delete { queue } => self.delete(queue.0)?,
            Change::Append { queue, sequence, cost, note, record } => {
                let key = (queue.0, *sequence);
                if !note.is_empty() {
                    self.notes.insert(key, &*seal(layout::Table::Notes, key, note.to_vec()))?;
                }
                self.records.insert(key, &*encode_record(key, *cost, record))?;
                let (block, place) = self.block(queue.0, *sequence)?;
                block.0.insert(place, Entry { cost: *cost, deliveries: 0 });
                let totals = self.totals_of(queue.0)?;
                totals.last_sequence = totals.last_sequence.max(*sequence);
                totals.add(*cost);
                self.sums.appended += 1;
                self.sums.live_bytes += u64::from(*cost);
            }
            Change::Remove { queue, sequence } => {
                self.records.remove((queue.0, *sequence))?;
                self.forget(queue.0, *sequence)?;
            }
            Change::PutAside { queue, sequence } => {
                let key = (queue.0, *sequence);
                let left = self.records.remove(key)?.map(|row| row.value().to_vec());
                self.aside.insert(key, &*left.unwrap_or_default())?;
                self.forget(queue.0, *sequence)?;
            }
            Change::Delivered { queue, sequence, deliveries } => {
                let (block, place) = self.block(queue.0, *sequence)?;
                if let Some(entry) = block.0.get_mut(&place) {
                    entry.deliveries = *deliveries;
                }
            }
        }
        Ok(())
    }

    /// Takes a message out of the index.
    fn forget(&mut self, queue: u64, sequence: u64) -> Result<(), WriteError> {
        let (block, place) = self.block(queue, sequence)?;
        let entry = block.0.remove(&place);
        self.notes.remove((queue, sequence))?;
        if let Some(entry) = entry {
            self.totals_of(queue)?.subtract(entry.cost);
            self.sums.live_bytes = self.sums.live_bytes.saturating_sub(u64::from(entry.cost));
        }
        Ok(())
    }

    fn delete(&mut self, queue: u64) -> Result<(), WriteError> {
        let left = *self.totals_of(queue)?;
        self.sums.live_bytes = self.sums.live_bytes.saturating_sub(left.bytes);
        self.changed_totals.remove(&queue);
        self.changed_blocks.retain(|key, _| key.0 != queue);
        self.queues.remove(queue)?;
        self.copies.remove(queue)?;
        self.totals.remove(queue)?;
        self.blocks.retain_in((queue, 0)..=(queue, u64::MAX), |_, _| false)?;
        self.records.retain_in((queue, 0)..=(queue, u64::MAX), |_, _| false)?;
        self.notes.retain_in((queue, 0)..=(queue, u64::MAX), |_, _| false)?;
        Ok(())
    }

    fn totals_of(&mut self, queue: u64) -> Result<&mut Totals, WriteError> {
        use std::collections::btree_map::Entry;
        match self.changed_totals.entry(queue) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let row = self.totals.get(queue)?;
                let totals = row.and_then(|row| Totals::decode(queue, row.value()));
                Ok(unknown.insert(totals.ok_or(WriteError::Damaged(queue))?))
            }
        }
    }

    fn block(&mut self, queue: u64, sequence: u64) -> Result<(&mut Block, u8), WriteError> {
        use std::collections::btree_map::Entry;
        let (key, place) = Block::of(queue, sequence);
        let block = match self.changed_blocks.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(match self.blocks.get(key)? {
                None => Block::default(),
                Some(row) => Block::decode(key, row.value()).ok_or(WriteError::Damaged(queue))?,
            }),
        };
        Ok((block, place))
    }

    fn end(mut self) -> Result<Sums, WriteError> {
        for (key, block) in std::mem::take(&mut self.changed_blocks) {
            if block.0.is_empty() {
                self.blocks.remove(key)?;
            } else {
                self.blocks.insert(key, &*block.encode(key))?;
            }
        }
        for (queue, totals) in std::mem::take(&mut self.changed_totals) {
            self.totals.insert(queue, &*totals.encode(queue))?;
        }
        Ok(self.sums)
    }
}

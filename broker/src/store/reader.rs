//! Reading what queues ask for, beside the writing: the two do not wait for each other.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use redb::{Database, ReadableDatabase};

use crate::core::mailbox::Batch;
use crate::core::store::{Fetch, Fetched, Unstorable};
use crate::store::layout::{RECORDS, decode_record};

/// What is to be read: of each queue no more than one request at a time.
#[derive(Debug, Default)]
pub(super) struct Asked {
    fetches: Mutex<Fetches>,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct Fetches {
    waiting: VecDeque<Fetch>,
    closing: bool,
}

impl Asked {
    pub(super) fn push(&self, fetch: Fetch) {
        let mut fetches = self.fetches.lock();
        if !fetches.closing {
            fetches.waiting.push_back(fetch);
            drop(fetches);
            self.asked.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.fetches.lock().closing = true;
        self.asked.notify_all();
    }

    /// The next request; `None` at the end.
    fn next(&self) -> Option<Fetch> {
        let mut fetches = self.fetches.lock();
        loop {
            if fetches.closing {
                return None;
            }
            match fetches.waiting.pop_front() {
                Some(fetch) => return Some(fetch),
                None => self.asked.wait(&mut fetches),
            }
        }
    }
}

/// The thread that reads.
pub(super) struct Reader {
    pub(super) asked: Arc<Asked>,
    pub(super) database: Arc<Database>,
}

impl Reader {
    /// Reads until the store is closed.
    pub(super) fn run(self) {
        while let Some(fetch) = self.asked.next() {
            // On a damaged file the engine may panic: that is a failure like others.
            let found = match catch_unwind(AssertUnwindSafe(|| read(&self.database, &fetch))) {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the engine panicked".to_owned()),
            };
            let found = found.map_err(|why| {
                tracing::error!(why, queue = fetch.queue.0, "stored messages cannot be read");
                Unstorable::Failed
            });
            let _batch = Batch::begin();
            let answer = fetch.answer;
            if catch_unwind(AssertUnwindSafe(|| answer(found))).is_err() {
                tracing::error!("an answer of the store was received badly");
            }
        }
    }
}

fn read(database: &Database, fetch: &Fetch) -> Result<Vec<Fetched>, redb::Error> {
    let reading = database.begin_read()?;
    let records = reading.open_table(RECORDS)?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut next = fetch.from;
    for row in records.range((fetch.queue.0, fetch.from)..=(fetch.queue.0, u64::MAX))? {
        let (key, row) = row?;
        let (queue, sequence) = key.value();
        if queue != fetch.queue.0 || sequence < next {
            // A damaged key: what it was the key of is missing, which the queue sees.
            continue;
        }
        let Some(after) = sequence.checked_add(1) else { break };
        next = after;
        bytes += row.value().len();
        if !found.is_empty() && bytes > fetch.bytes_max {
            break;
        }
        let record = decode_record(key.value(), row.value());
        let record = record.map(|(_, record)| Bytes::copy_from_slice(record));
        found.push(Fetched { sequence, record });
    }
    Ok(found)
}

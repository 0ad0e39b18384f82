//! Finding everything again: what is in the file, and what is not as it should be.
//!
//! Read are the queues, their totals and their blocks; messages only of a queue whose blocks are damaged, or
//! are not as many as its totals say, and those that lie on shelves.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableError};

use crate::core::store::kept::is_shelf;
use crate::core::store::{QueueId, StoredMessage, StoredQueue, StoredShelf};
use crate::store::layout::{
    ASIDE, BLOCKS, Block, Entry, FORMAT_KEY, FORMAT_OF_QUEUES, META, NOTES, QUEUES, QUEUES_COPY, QueueRow,
    RECORDS, TOTALS, Table, Totals, decode_record, unseal,
};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) queues: Vec<StoredQueue>,
    /// What topics kept.
    pub(super) shelves: Vec<StoredShelf>,
    /// The highest number of a queue.
    pub(super) last_queue: u64,
    /// The bytes of all messages.
    pub(super) bytes: u64,
    /// What was wrong, for the log, and how many messages it concerns.
    pub(super) complaints: Vec<(String, u64)>,
    /// Messages that were put aside before.
    pub(super) aside: u64,
}

/// The version of what is in the file, if it says so.
pub(super) fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    let reading = database.begin_read()?;
    match reading.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|format| format.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes the tables in an empty file.
pub(super) fn prepare(database: &Database) -> Result<(), redb::Error> {
    let mut writing = database.begin_write()?;
    writing.set_quick_repair(true);
    for table in [QUEUES, QUEUES_COPY, TOTALS] {
        writing.open_table(table)?;
    }
    for table in [BLOCKS, RECORDS, NOTES, ASIDE] {
        writing.open_table(table)?;
    }
    writing.open_table(META)?.insert(FORMAT_KEY, FORMAT_OF_QUEUES)?;
    writing.commit()?;
    Ok(())
}

/// What is known of the messages of a queue, by their places.
type Entries = Vec<(u64, Entry)>;

/// What is in the blocks of one queue.
#[derive(Debug, Default)]
struct Blocks {
    entries: Entries,
    damaged: usize,
}

/// Finds everything, and mends what can be.
pub(super) fn recover(database: &Database) -> Result<Found, redb::Error> {
    let mut found = Found::default();
    let reading = database.begin_read()?;
    found.aside = reading.open_table(ASIDE)?.range::<(u64, u64)>(..)?.count() as u64;
    let rows = queue_rows(&reading, &mut found)?;
    let mut blocks: BTreeMap<u64, Blocks> = BTreeMap::new();
    for row in reading.open_table(BLOCKS)?.range::<(u64, u64)>(..)? {
        let (key, row) = row?;
        let of_queue = blocks.entry(key.value().0).or_default();
        match Block::decode(key.value(), row.value()) {
            Some(Block(entries)) => {
                let entry = |(place, entry)| (Block::sequence(key.value(), place), entry);
                of_queue.entries.extend(entries.into_iter().map(entry));
            }
            None => of_queue.damaged += 1,
        }
    }
    let mut notes = notes(&reading, &mut found)?;
    let totals = reading.open_table(TOTALS)?;
    let mut mended = Vec::new();
    for (queue, row) in rows {
        found.last_queue = found.last_queue.max(queue);
        let of_queue = blocks.remove(&queue).unwrap_or_default();
        let said = totals.get(queue)?.and_then(|row| Totals::decode(queue, row.value()));
        let sound = said.is_some_and(|said| {
            let Totals { messages, bytes, .. } = sum(&of_queue.entries);
            of_queue.damaged == 0 && (said.messages, said.bytes) == (messages, bytes)
        });
        let (entries, last_sequence) = match said.filter(|_| sound) {
            Some(said) => (of_queue.entries, said.last_sequence),
            None => {
                let (entries, lost) = rebuild(&reading, queue, &of_queue, said)?;
                let label = format!("queue {:?} of realm {:?}", row.name, row.realm);
                found.complaints.push((format!("the index of {label} was damaged, and made anew"), lost));
                let last = entries.last().map_or(0, |(sequence, _)| *sequence);
                let last = last.max(said.map_or(0, |said| said.last_sequence));
                mended.push((queue, Totals { last_sequence: last, ..sum(&entries) }, entries.clone()));
                (entries, last)
            }
        };
        found.bytes += sum(&entries).bytes;
        let stored = stored(queue, row, entries, last_sequence, &mut notes);
        if is_shelf(&stored.properties) {
            let records = records(&reading, &stored)?;
            found.shelves.push(StoredShelf { queue: stored, records });
        } else {
            found.queues.push(stored);
        }
    }
    for (queue, orphans) in blocks {
        // Numbers are not given twice while something is left of a queue.
        found.last_queue = found.last_queue.max(queue);
        let complaint =
            format!("messages of queue number {queue}, whose name is lost, are left where they are");
        found.complaints.push((complaint, (orphans.entries.len() + orphans.damaged) as u64));
    }
    drop((totals, reading));
    mend(database, mended)?;
    Ok(found)
}

/// All queues, of two copies.
fn queue_rows(
    reading: &redb::ReadTransaction,
    found: &mut Found,
) -> Result<BTreeMap<u64, QueueRow>, redb::Error> {
    let (first, second) = (reading.open_table(QUEUES)?, reading.open_table(QUEUES_COPY)?);
    let mut numbers = BTreeSet::new();
    for table in [&first, &second] {
        for row in table.range::<u64>(..)? {
            numbers.insert(row?.0.value());
        }
    }
    let mut rows = BTreeMap::new();
    for queue in numbers {
        let of = |row: Option<redb::AccessGuard<'_, &[u8]>>| {
            row.and_then(|row| QueueRow::decode(queue, row.value()))
        };
        match (of(first.get(queue)?), of(second.get(queue)?)) {
            (Some(row), copy) => {
                if copy.is_none() {
                    found.complaints.push((format!("the copy of queue {:?} was damaged", row.name), 0));
                }
                rows.insert(queue, row);
            }
            (None, Some(row)) => {
                found.complaints.push((format!("queue {:?} was damaged, its copy was not", row.name), 0));
                rows.insert(queue, row);
            }
            (None, None) => {
                found.complaints.push((format!("what is kept as queue number {queue} is damaged"), 0));
            }
        }
    }
    Ok(rows)
}

fn sum(entries: &[(u64, Entry)]) -> Totals {
    let mut totals = Totals::default();
    entries.iter().for_each(|(_, entry)| totals.add(entry.cost));
    totals
}

/// The entries of a queue, by its messages; and how many are known to be missing.
fn rebuild(
    reading: &redb::ReadTransaction,
    queue: u64,
    blocks: &Blocks,
    said: Option<Totals>,
) -> Result<(Entries, u64), redb::Error> {
    let known: BTreeMap<u64, Entry> = blocks.entries.iter().copied().collect();
    let mut entries: BTreeMap<u64, Entry> = known.clone();
    for row in reading.open_table(RECORDS)?.range((queue, 0)..=(queue, u64::MAX))? {
        let (key, row) = row?;
        let (_, sequence) = key.value();
        if known.contains_key(&sequence) {
            continue;
        }
        if let Some((cost, _)) = decode_record(key.value(), row.value()) {
            // How often it was delivered is lost; that it was cannot be ruled out.
            entries.insert(sequence, Entry { cost, deliveries: 1 });
        }
    }
    let lost = said.map_or(0, |said| said.messages.saturating_sub(entries.len() as u64));
    Ok((entries.into_iter().collect(), lost))
}

type Notes = BTreeMap<(u64, u64), Box<[u8]>>;

/// What is to be known of messages beside their blocks. A file of an earlier version has none.
fn notes(reading: &redb::ReadTransaction, found: &mut Found) -> Result<Notes, redb::Error> {
    let table = match reading.open_table(NOTES) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Notes::new()),
        Err(error) => return Err(error.into()),
    };
    let (mut notes, mut damaged) = (Notes::new(), 0);
    for row in table.range::<(u64, u64)>(..)? {
        let (key, row) = row?;
        match unseal(Table::Notes, key.value(), row.value()) {
            Some(note) => drop(notes.insert(key.value(), note.into())),
            None => damaged += 1,
        }
    }
    if damaged > 0 {
        let complaint = format!("the priority, the time or the group of {damaged} messages was damaged");
        found.complaints.push((complaint, 0));
    }
    Ok(notes)
}

fn stored(queue: u64, row: QueueRow, entries: Entries, last_sequence: u64, notes: &mut Notes) -> StoredQueue {
    let message = |(sequence, Entry { cost, deliveries })| StoredMessage {
        sequence,
        cost,
        deliveries,
        note: notes.remove(&(queue, sequence)).unwrap_or_default(),
    };
    StoredQueue {
        queue: QueueId(queue),
        realm: row.realm.into(),
        name: row.name.into(),
        properties: row.properties,
        last_sequence,
        messages: entries.into_iter().map(message).collect(),
    }
}

/// What lies on a shelf, place by place.
fn records(reading: &redb::ReadTransaction, shelf: &StoredQueue) -> Result<Vec<Option<Bytes>>, redb::Error> {
    let table = reading.open_table(RECORDS)?;
    let record = |message: &StoredMessage| {
        let key = (shelf.queue.0, message.sequence);
        let row = table.get(key)?;
        let record = row.as_ref().and_then(|row| decode_record(key, row.value()));
        Ok(record.map(|(_, record)| Bytes::copy_from_slice(record)))
    };
    shelf.messages.iter().map(record).collect()
}

/// Writes indexes that were made anew.
fn mend(database: &Database, mended: Vec<(u64, Totals, Entries)>) -> Result<(), redb::Error> {
    if mended.is_empty() {
        return Ok(());
    }
    let mut writing = database.begin_write()?;
    writing.set_quick_repair(true);
    {
        let (mut blocks, mut totals) = (writing.open_table(BLOCKS)?, writing.open_table(TOTALS)?);
        for (queue, sums, entries) in mended {
            blocks.retain_in((queue, 0)..=(queue, u64::MAX), |_, _| false)?;
            let mut made: BTreeMap<(u64, u64), Block> = BTreeMap::new();
            for (sequence, entry) in entries {
                let (key, place) = Block::of(queue, sequence);
                made.entry(key).or_default().0.insert(place, entry);
            }
            for (key, block) in made {
                blocks.insert(key, &*block.encode(key))?;
            }
            totals.insert(queue, &*sums.encode(queue))?;
        }
    }
    writing.commit()?;
    Ok(())
}

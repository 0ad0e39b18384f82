//! A file in memory that loses what was not synced, as a disk does when the power fails; and how to ask a store.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

use tandem_broker::core::store::{
    Change, Fetch, Fetched, QueueId, Store, StoredQueue, Submission, Unstorable,
};
use tandem_broker::store::disk::{DiskStore, OpenError, Opened, StoreLimits};
use tandem_broker::store::space::{Gauge, Space, SpaceLimits};

/// What a disk can lose or keep of a write.
pub const SECTOR: usize = 512;

/// Something that was written and not yet synced.
#[derive(Clone, Debug)]
pub enum Write {
    At(u64, Vec<u8>),
    Length(u64),
}

/// The file.
#[derive(Clone, Debug, Default)]
pub struct FakeFile(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What survives.
    disk: Vec<u8>,
    /// What is read.
    view: Vec<u8>,
    unsynced: Vec<Write>,
    /// The disk before each of the last syncs, and what they made safe.
    syncs: Vec<(Vec<u8>, Vec<Write>)>,
    keeps_syncs: bool,
    sync_count: usize,
    sync_fails: bool,
    length_max: Option<u64>,
}

fn apply(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Length(length) => bytes.resize(*length as usize, 0),
        Write::At(offset, data) => {
            let end = *offset as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(data);
        }
    }
}

impl FakeFile {
    pub fn of(bytes: Vec<u8>) -> FakeFile {
        FakeFile(Arc::new(Mutex::new(State { disk: bytes.clone(), view: bytes, ..State::default() })))
    }

    /// What is safe.
    pub fn disk(&self) -> Vec<u8> {
        self.0.lock().disk.clone()
    }

    /// What is left after the power failed: of each sector that was written and not synced, the old or the new.
    pub fn crash(&self, mut chance: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.0.lock();
        let mut image = state.disk.clone();
        for write in &state.unsynced {
            match write {
                Write::Length(_) if chance() => apply(&mut image, write),
                Write::Length(_) => {}
                Write::At(offset, data) => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        if chance() {
                            let at = offset + (number * SECTOR) as u64;
                            apply(&mut image, &Write::At(at, sector.to_vec()));
                        }
                    }
                }
            }
        }
        image
    }

    pub fn keep_syncs(&self) {
        self.0.lock().keeps_syncs = true;
    }

    pub fn syncs(&self) -> Vec<(Vec<u8>, Vec<Write>)> {
        self.0.lock().syncs.clone()
    }

    pub fn sync_count(&self) -> usize {
        self.0.lock().sync_count
    }

    pub fn fail_syncs(&self, fails: bool) {
        self.0.lock().sync_fails = fails;
    }

    pub fn set_length_max(&self, length_max: Option<u64>) {
        self.0.lock().length_max = length_max;
    }
}

/// What is left if the power fails during this write, when everything before it reached the disk: for each
/// number of its sectors.
pub fn torn(disk: &[u8], writes: &[Write], mut each: impl FnMut(Vec<u8>)) {
    let mut image = disk.to_vec();
    for write in writes {
        if let Write::At(offset, data) = write {
            for end in (0..data.len()).step_by(SECTOR) {
                let mut torn = image.clone();
                apply(&mut torn, &Write::At(*offset, data[..end].to_vec()));
                each(torn);
            }
        }
        apply(&mut image, write);
    }
    each(image);
}

impl StorageBackend for FakeFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().view.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock();
        let offset = offset as usize;
        let bytes = offset.checked_add(out.len()).and_then(|end| state.view.get(offset..end));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Write::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.sync_count += 1;
        if state.sync_fails {
            return Err(io::Error::other("the disk is broken"));
        }
        let writes = std::mem::take(&mut state.unsynced);
        let before = std::mem::replace(&mut state.disk, state.view.clone());
        if state.keeps_syncs {
            state.syncs.push((before, writes));
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Write::At(offset, data.to_vec()))
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }
}

impl FakeFile {
    fn change(&self, write: Write) -> io::Result<()> {
        let state = &mut *self.0.lock();
        let end = match &write {
            Write::Length(length) => *length,
            Write::At(offset, data) => offset + data.len() as u64,
        };
        let grows = end > state.view.len() as u64;
        if grows && state.length_max.is_some_and(|length_max| end > length_max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut state.view, &write);
        state.unsynced.push(write);
        Ok(())
    }
}

/// How full the disk is said to be.
#[derive(Clone, Debug)]
pub struct FakeGauge(pub Arc<AtomicU64>);

impl Gauge for FakeGauge {
    fn space(&self, _live_bytes: u64) -> io::Result<Space> {
        Ok(Space { free: self.0.load(Ordering::SeqCst), total: 10_000 })
    }
}

pub const SPACE: SpaceLimits =
    SpaceLimits { free_bytes_min: 100, free_percent_min: 0, free_percent_bytes_max: 0 };

pub fn open(file: &FakeFile) -> Result<Opened, OpenError> {
    open_gauged(file, &FakeGauge(Arc::new(AtomicU64::new(10_000))))
}

pub fn open_gauged(file: &FakeFile, gauge: &FakeGauge) -> Result<Opened, OpenError> {
    DiskStore::open_with(file.clone(), Box::new(gauge.clone()), StoreLimits::new(SPACE))
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Submits, and waits for the answer.
pub fn write(store: &DiskStore, changes: Vec<Change>) -> Result<(), Unstorable> {
    let (sender, receiver) = sync_channel(1);
    let done = Box::new(move |outcome| sender.send(outcome).unwrap());
    store.submit(Submission { changes, done: Some(done) });
    receiver.recv_timeout(PATIENCE).expect("the store answers")
}

/// Reads all of a queue.
pub fn read(store: &DiskStore, queue: QueueId) -> Result<Vec<Fetched>, Unstorable> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let (sender, receiver) = sync_channel(1);
        let answer = Box::new(move |read| sender.send(read).unwrap());
        store.fetch(Fetch { queue, from, bytes_max: 4000, answer });
        let some: Vec<Fetched> = receiver.recv_timeout(PATIENCE).expect("the store answers")?;
        match some.last() {
            Some(last) => from = last.sequence + 1,
            None => return Ok(all),
        }
        all.extend(some);
    }
}

pub fn make(queue: QueueId, name: &str) -> Change {
    let properties = vec![("x".to_owned(), "y".to_owned())];
    Change::Make { queue, realm: "realm1".into(), name: name.into(), properties }
}

pub fn append(queue: QueueId, sequence: u64, bytes: usize) -> Change {
    Change::Append {
        queue,
        sequence,
        cost: bytes as u32 + 7,
        note: Default::default(),
        record: record(queue, sequence, bytes),
    }
}

/// Bytes that no other message has.
pub fn record(queue: QueueId, sequence: u64, bytes: usize) -> Bytes {
    let mut seed = queue.0 * 1_000_003 + sequence;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// What is in a store: of each queue its name, and of each message its place, cost, deliveries and bytes.
pub type Content = Vec<(String, Vec<(u64, u32, u32, Bytes)>)>;

/// All that is in a store, which must be whole.
pub fn content(opened: &Opened) -> Content {
    assert_eq!(opened.complaints, []);
    let mut all: Content = opened.queues.iter().map(|queue| whole(&opened.store, queue)).collect();
    all.sort();
    all
}

fn whole(store: &DiskStore, queue: &StoredQueue) -> (String, Vec<(u64, u32, u32, Bytes)>) {
    let read = read(store, queue.queue).unwrap();
    assert_eq!(read.len(), queue.messages.len());
    let message = |(known, read): (&tandem_broker::core::store::StoredMessage, Fetched)| {
        assert_eq!(known.sequence, read.sequence);
        (known.sequence, known.cost, known.deliveries, read.record.expect("it is whole"))
    };
    (queue.name.to_string(), queue.messages.iter().zip(read).map(message).collect())
}

//! The store itself: opening, closing, and what the house asks of it.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};
use tokio_util::sync::CancellationToken;

use crate::core::store::{Change, Fetch, QueueId, Store, StoredQueue, StoredShelf, Submission, Unstorable};
use crate::metrics;
use crate::store::layout::{FORMAT, FORMAT_OF_QUEUES};
use crate::store::reader::{Asked, Reader};
use crate::store::recovery::{self, Found};
use crate::store::space::{Disk, Gauge, SpaceLimits};
use crate::store::writer::{Desk, Writer};

/// The file, in its directory.
const FILE: &str = "queues.redb";

/// The file while it is made.
const NEW_FILE: &str = "queues.redb.new";

/// Who has this locked has the directory.
const LOCK_FILE: &str = "lock";

/// What the engine may keep of the file in memory, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Where its file is.
    pub directory: PathBuf,
    /// How much it takes.
    pub limits: StoreLimits,
}

/// How much a store takes.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// How much space it leaves.
    pub space: SpaceLimits,
    /// Changes that may wait to be written before messages are refused.
    pub waiting_changes_max: usize,
    /// The same in bytes of messages.
    pub waiting_bytes_max: usize,
}

impl StoreLimits {
    /// With the usual bounds on what waits.
    pub fn new(space: SpaceLimits) -> StoreLimits {
        StoreLimits { space, waiting_changes_max: 500_000, waiting_bytes_max: 256 << 20 }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file is not to be had.
    #[error("cannot use the store at {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else has it open.
    #[error("the store at {0} is in use by another process")]
    InUse(PathBuf),
    /// A newer broker wrote it.
    #[error(
        "the store has format {found}, and this broker knows formats up to {known}: run the broker that wrote \
         it, or a newer one"
    )]
    Newer {
        /// Its format.
        found: u64,
        /// The newest that this broker knows.
        known: u64,
    },
    /// It cannot be read as a whole.
    #[error("the store is damaged: {0}. Restore it from a copy, or move it away to begin with an empty one")]
    Damaged(String),
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Arc<DiskStore>,
    /// What is in it.
    pub queues: Vec<StoredQueue>,
    /// What topics kept in it.
    pub shelves: Vec<StoredShelf>,
    /// What was wrong: a sentence, and how many messages are known to be lost by it.
    pub complaints: Vec<(String, u64)>,
}

/// The store.
pub struct DiskStore {
    desk: Arc<Desk>,
    asked: Arc<Asked>,
    last_queue: AtomicU64,
    limits: StoreLimits,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Holds the lock on the directory.
    _lock: Option<File>,
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("failed", &self.has_failed()).finish_non_exhaustive()
    }
}

impl DiskStore {
    /// Opens the store of a directory, which is made if need be.
    pub fn open(settings: &StoreSettings) -> Result<Opened, OpenError> {
        let directory = &settings.directory;
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        let failed = |error| OpenError::Io { path: path.clone(), error };
        if !path.try_exists().map_err(failed)? {
            create(directory, &path)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let gauge = Box::new(Disk { file: path.clone() });
        let backend = FileBackend::new(file).map_err(|error| refused(&error, &path))?;
        DiskStore::open_on(backend, false, gauge, settings.limits, Some(lock), &path)
    }

    /// Opens the store on something that is like a file: for tests. Empty, it is made anew.
    pub fn open_with(
        backend: impl StorageBackend,
        gauge: Box<dyn Gauge>,
        limits: StoreLimits,
    ) -> Result<Opened, OpenError> {
        let path = Path::new("memory");
        let length = backend.len().map_err(|error| OpenError::Io { path: path.into(), error })?;
        DiskStore::open_on(backend, length == 0, gauge, limits, None, path)
    }

    fn open_on(
        backend: impl StorageBackend,
        is_new: bool,
        gauge: Box<dyn Gauge>,
        limits: StoreLimits,
        lock: Option<File>,
        path: &Path,
    ) -> Result<Opened, OpenError> {
        let (database, found) = read_all(backend, is_new, path)?;
        let Found { queues, shelves, last_queue, bytes, complaints, aside } = found;
        for (complaint, lost) in &complaints {
            tracing::error!(lost, "{complaint}");
            metrics::STORE_UNREADABLE.add(*lost as i64);
        }
        if aside > 0 {
            tracing::warn!(aside, "messages of this store could not be read, and are kept aside in its file");
        }
        metrics::STORE_BYTES.add(bytes as i64);
        let (desk, asked) = (Arc::new(Desk::default()), Arc::new(Asked::default()));
        let database = Arc::new(database);
        let writer = Writer {
            desk: desk.clone(),
            database: database.clone(),
            gauge,
            limits: limits.space,
            live_bytes: bytes,
            gathered: 0,
        };
        let reader = Reader { asked: asked.clone(), database };
        let threads = vec![
            spawn("store-writer", move || writer.run(), path)?,
            spawn("store-reader", move || reader.run(), path)?,
        ];
        let (last_queue, threads) = (AtomicU64::new(last_queue), Mutex::new(threads));
        let store = Arc::new(DiskStore { desk, asked, last_queue, limits, threads, _lock: lock });
        Ok(Opened { store, queues, shelves, complaints })
    }

    /// Whether it failed, and keeps nothing any more.
    pub fn has_failed(&self) -> bool {
        self.desk.has_failed()
    }

    /// Cancelled once it failed.
    pub fn failure(&self) -> &CancellationToken {
        &self.desk.failure
    }

    /// Writes what is to be written, answers, and closes the file. Waits for the disk.
    pub fn close(&self) {
        self.desk.close();
        self.asked.close();
        for thread in self.threads.lock().drain(..) {
            // One that panicked said so; the other one is waited for all the same.
            let _ended = thread.join();
        }
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        // Not waited for: the last to let go may be a thread of the store itself.
        self.desk.close();
        self.asked.close();
    }
}

impl Store for DiskStore {
    fn next_queue(&self) -> QueueId {
        QueueId(self.last_queue.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn admit(&self) -> Result<(), Unstorable> {
        if self.desk.has_failed() {
            return Err(Unstorable::Failed);
        }
        if self.desk.is_nearly_full() {
            return Err(Unstorable::NearlyFull);
        }
        let inbox = self.desk.inbox.lock();
        let busy =
            inbox.changes >= self.limits.waiting_changes_max || inbox.bytes >= self.limits.waiting_bytes_max;
        if busy { Err(Unstorable::Busy) } else { Ok(()) }
    }

    fn submit(&self, submission: Submission) {
        let mut inbox = self.desk.inbox.lock();
        // That something was delivered is worth knowing, but not an endless list: a consumer that gives messages
        // back as fast as it gets them could make one. All else is bounded by the messages that there are.
        let is_note = |change: &Change| matches!(change, Change::Delivered { .. });
        let is_note = submission.done.is_none() && submission.changes.iter().all(is_note);
        if is_note && inbox.changes >= self.limits.waiting_changes_max {
            return;
        }
        if !inbox.closing {
            let wakes = inbox.push(submission);
            drop(inbox);
            if wakes {
                self.desk.submitted.notify_one();
            }
        }
        // Once it is closing all sessions are gone, and nobody is left to be told.
    }

    fn fetch(&self, fetch: Fetch) {
        self.asked.push(fetch);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static, path: &Path) -> Result<JoinHandle<()>, OpenError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.map_err(|error| OpenError::Io { path: path.into(), error })
}

/// Takes the directory for this process alone.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::Io { path: directory.into(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let path = directory.join(LOCK_FILE);
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let lock = lock.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.into())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Makes an empty store under another name, so that there is a whole one or none.
fn create(directory: &Path, path: &Path) -> Result<(), OpenError> {
    let new = directory.join(NEW_FILE);
    let failed = |error| OpenError::Io { path: new.clone(), error };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new);
    let backend = FileBackend::new(file.map_err(failed)?).map_err(|error| refused(&error, &new))?;
    drop(read_all(backend, true, &new)?);
    std::fs::rename(&new, path).map_err(failed)?;
    // The names are safe when their directories are.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all()).map_err(failed)
}

/// Opens the engine and reads what is needed at the start. On a damaged file the engine may panic.
fn read_all(backend: impl StorageBackend, is_new: bool, path: &Path) -> Result<(Database, Found), OpenError> {
    let read = || -> Result<(Database, Found), OpenError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(|error| refused(&error, path))?;
        let damaged = |error: redb::Error| OpenError::Damaged(error.to_string());
        let format = recovery::format(&database).map_err(damaged)?;
        match format {
            None if is_new => recovery::prepare(&database).map_err(damaged)?,
            None => return Err(OpenError::Damaged("it does not say what format it has".into())),
            Some(FORMAT_OF_QUEUES..=FORMAT) => {}
            Some(found) if found > FORMAT => return Err(OpenError::Newer { found, known: FORMAT }),
            Some(found) => return Err(OpenError::Damaged(format!("there is no format {found}"))),
        }
        let found = recovery::recover(&database).map_err(damaged)?;
        Ok((database, found))
    };
    let read = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(OpenError::Damaged("the engine panicked reading it".into())));
    read.map_err(|error| match error {
        OpenError::Damaged(why) => OpenError::Damaged(format!("{}: {why}", path.display())),
        error => error,
    })
}

fn refused(error: &DatabaseError, path: &Path) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.into()),
        error => OpenError::Damaged(error.to_string()),
    }
}

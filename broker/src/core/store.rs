//! What a queue keeps on a disk, as the house sees it: what is to be kept, what was kept, and when it is safe.
//!
//! The house submits changes and is told when the disk has them; it waits for nothing. What it submits is
//! kept in the order in which it was submitted, and the changes of one [`Submission`] all together or not at
//! all, whatever happens to the process or to the power. The store knows no messages: a record is bytes,
//! which [`record`] makes.

pub mod kept;
pub mod record;
pub mod simulated;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Identifies a queue in its store, for ever: a queue that is made again has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// What a queue was made with, by name. The store only keeps it.
pub type Properties = Vec<(String, String)>;

/// How often a message was handed to a consumer that its queue is done with, and keeps for who wants to read it again.
pub const DONE: u32 = u32::MAX;

/// Something to keep, or to keep no longer.
#[derive(Clone, Debug)]
pub enum Change {
    /// There is a queue.
    Make {
        /// Its number, from [`Store::next_queue`].
        queue: QueueId,
        /// The realm that it is in.
        realm: Arc<str>,
        /// Its name there.
        name: Arc<str>,
        /// What it was made with.
        properties: Properties,
    },
    /// There is no such queue any more, nor what is in it.
    Delete {
        /// The queue.
        queue: QueueId,
    },
    /// There is one more message in a queue.
    Append {
        /// The queue.
        queue: QueueId,
        /// Its place: higher than any before it. Places may be left out.
        sequence: u64,
        /// What it costs its queue, in bytes.
        cost: u32,
        /// What is to be known of it without reading it; mostly nothing.
        note: Bytes,
        /// The message.
        record: Bytes,
    },
    /// A message is gone.
    Remove {
        /// The queue.
        queue: QueueId,
        /// Its place.
        sequence: u64,
    },
    /// A message cannot be read, or is missing: whatever is left of it is to be kept apart.
    PutAside {
        /// The queue.
        queue: QueueId,
        /// Its place.
        sequence: u64,
    },
    /// A message was handed to a consumer once more.
    Delivered {
        /// The queue.
        queue: QueueId,
        /// Its place.
        sequence: u64,
        /// How often by now; [`DONE`] if it is not to be any more.
        deliveries: u32,
    },
}

/// Told once that everything up to here is safe, or that nothing from here on is. Never called from within
/// [`Store::submit`]: whoever submits may hold locks.
pub type Done = Box<dyn FnOnce(Result<(), Unstorable>) + Send>;

/// Changes that belong together.
#[derive(Default)]
pub struct Submission {
    /// In order. None at all asks only when everything before is safe.
    pub changes: Vec<Change>,
    /// Who wants to know. If nobody does, it may take a little longer.
    pub done: Option<Done>,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("changes", &self.changes).finish_non_exhaustive()
    }
}

/// Why something is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// There is no store.
    #[error("this broker keeps nothing on disk, and persistent messages are refused")]
    NoStore,
    /// Little space is left on the disk.
    #[error("the disk is nearly full: no persistent message is taken until there is space again")]
    NearlyFull,
    /// The disk is slower than those who send.
    #[error("too much waits for the disk")]
    Busy,
    /// Something could not be written. What is on the disk then is known only at the next start.
    #[error("the store failed: nothing persistent is taken until the broker is started again")]
    Failed,
}

/// Asks for messages that were kept.
pub struct Fetch {
    /// The queue.
    pub queue: QueueId,
    /// The first place.
    pub from: u64,
    /// How many bytes of messages to read; one message is read whatever its size.
    pub bytes_max: usize,
    /// Told once what there is from there on, in order; not from within [`Store::fetch`].
    pub answer: Box<dyn FnOnce(Result<Vec<Fetched>, Unstorable>) + Send>,
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").field("queue", &self.queue).field("from", &self.from).finish_non_exhaustive()
    }
}

/// A message that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its place.
    pub sequence: u64,
    /// The message, as it was appended; `None` if it is damaged. One that is missing is not there at all.
    pub record: Option<Bytes>,
}

/// A queue as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredQueue {
    /// Its number.
    pub queue: QueueId,
    /// The realm that it is in.
    pub realm: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
    /// What it was made with.
    pub properties: Properties,
    /// The last place that was given to a message.
    pub last_sequence: u64,
    /// What is in it, in order.
    pub messages: Vec<StoredMessage>,
}

/// A message as it was found; the message itself is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its place.
    pub sequence: u64,
    /// What it costs its queue, in bytes.
    pub cost: u32,
    /// How often it was handed to a consumer; [`DONE`] if it is not to be any more.
    pub deliveries: u32,
    /// What was to be known of it without reading it.
    pub note: Box<[u8]>,
}

/// A shelf as it was found: what topics kept lies in the store as in a queue that nobody consumes from, and is marked
/// as such by its properties ([`kept`]). All of it is in memory while the broker runs, so that it comes whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredShelf {
    /// The shelf, and the places on it.
    pub queue: StoredQueue,
    /// What is at each place; `None` where it is damaged or missing.
    pub records: Vec<Option<Bytes>>,
}

/// Keeps what is in queues. None of these waits for the disk.
pub trait Store: Send + Sync + fmt::Debug {
    /// A number for a queue that is to be made.
    fn next_queue(&self) -> QueueId;

    /// Whether a message may be appended now. Everything else is always taken: it makes room.
    fn admit(&self) -> Result<(), Unstorable>;

    /// Takes changes.
    fn submit(&self, submission: Submission);

    /// Reads messages.
    fn fetch(&self, fetch: Fetch);
}

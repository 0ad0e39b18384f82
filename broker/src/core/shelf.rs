//! A shelf of a store: what topics keep on disk. It knows where each thing lies and what is left to write; what is kept,
//! and for how long, whoever owns it decides.

use std::sync::Arc;

use crate::core::access::Refusal;
use crate::core::message::Publication;
use crate::core::queues::durable::Journal;
use crate::core::store::kept;
use crate::core::store::{Change, Properties, QueueId, StoredShelf};
use crate::metrics;

/// What the store calls all shelves. No session can name a queue so.
const NAME: &str = "tandem.shelf";

/// A shelf. It is in the store while something lies on it.
#[derive(Debug)]
pub struct Shelf {
    journal: Arc<Journal>,
    properties: Properties,
    made: Option<QueueId>,
    last_place: u64,
    count: usize,
    changes: Vec<Change>,
}

/// Something that was found on a shelf.
#[derive(Debug)]
pub struct FromShelf {
    /// Its place.
    pub place: u64,
    /// What it is.
    pub publication: Publication,
    /// When it was published, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Shelf {
    /// An empty shelf of these properties, as [`kept`] makes them.
    pub fn new(journal: Arc<Journal>, properties: Properties) -> Shelf {
        Shelf { journal, properties, made: None, last_place: 0, count: 0, changes: Vec::new() }
    }

    /// What it is marked with.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Whether something may be put on it now.
    pub fn admit(&self) -> Result<(), Refusal> {
        self.journal.admit()
    }

    /// Whether nothing lies on it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts a publication on it, and gives its place.
    pub fn put(&mut self, publication: &Publication, at_ms: u64) -> u64 {
        let queue = match self.made {
            Some(queue) => queue,
            None => self.make(),
        };
        self.last_place += 1;
        self.count += 1;
        let sequence = self.last_place;
        let cost = u32::try_from(publication.cost()).unwrap_or(u32::MAX);
        let record = kept::encode(publication, at_ms);
        self.changes.push(Change::Append { queue, sequence, cost, note: Default::default(), record });
        sequence
    }

    /// Takes off what is at a place. With the last of it the shelf leaves the store.
    pub fn take_off(&mut self, place: u64) {
        let Some(queue) = self.made else { return };
        self.count = self.count.saturating_sub(1);
        self.changes.push(Change::Remove { queue, sequence: place });
        if self.count == 0 {
            self.made = None;
            self.changes.push(Change::Delete { queue });
        }
    }

    /// Hands over to the store what changed, all together, in order with what is put there later. Who owns the shelf
    /// still has it locked. True if there was something.
    pub fn submit(&mut self) -> bool {
        if self.changes.is_empty() {
            return false;
        }
        self.journal.submit(std::mem::take(&mut self.changes));
        true
    }

    /// Takes what the store had, and gives what is whole of it, in order. What is not is put aside there, counted and
    /// said. Nothing if something was put on the shelf before.
    pub fn restore(&mut self, found: StoredShelf) -> Vec<FromShelf> {
        let StoredShelf { queue, records } = found;
        let realm = &*queue.realm;
        if self.made.is_some() {
            tracing::error!(realm, shelf = ?queue.properties, "there are two stored shelves of one kind; one is left alone");
            metrics::STORE_UNREADABLE.add(records.len() as i64);
            return Vec::new();
        }
        let mut whole = Vec::new();
        for (message, record) in queue.messages.iter().zip(records) {
            let place = message.sequence;
            match record.and_then(|record| kept::decode(&record)) {
                Some((publication, at_ms)) => whole.push(FromShelf { place, publication, at_ms }),
                None => {
                    metrics::STORE_UNREADABLE.add(1);
                    tracing::error!(realm, shelf = ?queue.properties, place, "what topics kept is damaged, and put aside");
                    self.changes.push(Change::PutAside { queue: queue.queue, sequence: place });
                }
            }
        }
        self.last_place = queue.last_sequence;
        self.count = whole.len();
        if whole.is_empty() {
            self.changes.push(Change::Delete { queue: queue.queue });
        } else {
            self.made = Some(queue.queue);
        }
        self.submit();
        whole
    }

    fn make(&mut self) -> QueueId {
        let queue = self.journal.next_queue();
        self.made = Some(queue);
        self.last_place = 0;
        self.changes.push(Change::Make {
            queue,
            realm: self.journal.realm().clone(),
            name: NAME.into(),
            properties: self.properties.clone(),
        });
        queue
    }
}

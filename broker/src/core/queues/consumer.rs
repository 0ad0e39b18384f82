//! Who takes messages out of a queue, or looks at them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::core::mailbox::Mailbox;
use crate::core::message::{Publication, SessionId};
use crate::core::parcel::ConsumerId;
use crate::core::queues::item::{Item, Rank};
use crate::core::queues::outstanding::Outstanding;

/// How much a consumer may hold unsettled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// In messages.
    pub messages: usize,
    /// In bytes. One message is allowed whatever its size.
    pub bytes: usize,
}

/// A consumer, in the whole realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerKey {
    /// Its session.
    pub session: SessionId,
    /// Its number there.
    pub consumer: ConsumerId,
}

/// Which messages somebody wants.
pub trait Filter: fmt::Debug + Send + Sync {
    /// Whether this is one. What it costs must be bounded: it is asked while the queue waits.
    fn admits(&self, publication: &Publication) -> bool;

    /// How it was written, which tells whether two filters are the same.
    fn text(&self) -> &str;
}

/// How somebody looks at messages without taking them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browse {
    /// At those that wait, in the order in which they would be delivered.
    Waiting {
        /// Whether it ends with the last one.
        ends: bool,
    },
    /// At those that the queue keeps, in the order in which it took them.
    Kept {
        /// From this one on; `None` for those to come.
        from: Option<u64>,
        /// Whether it ends with the last one.
        ends: bool,
    },
}

/// How somebody consumes, beyond how much at a time.
#[derive(Clone, Debug, Default)]
pub struct ConsumeTerms {
    /// Which messages; else all.
    pub filter: Option<Arc<dyn Filter>>,
    /// Consumers with a higher one come first as long as they have credit.
    pub priority: i32,
    /// It gets all messages as long as it is there, and others nothing. Of several such the one with the
    /// highest priority, and of those the first.
    pub exclusive: bool,
    /// It looks, and takes nothing.
    pub browse: Option<Browse>,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) mailbox: Mailbox,
    pub(super) credit: Credit,
    /// False when it gets nothing more, but may still settle what it holds.
    pub(super) open: bool,
    pub(super) held: Outstanding<Item>,
    pub(super) held_bytes: usize,
    /// Its place among those with credit; none while it has none.
    pub(super) turn: Option<Turn>,
    pub(super) terms: ConsumeTerms,
    /// Tells who came first.
    pub(super) joined: u64,
    /// All messages before this one it has been shown: with a filter, those that it wants are in `wanted`.
    pub(super) cursor: Rank,
    /// Messages that are ready, before the cursor, and pass the filter.
    pub(super) wanted: BTreeSet<Rank>,
    /// Messages of its groups that came while it had no credit.
    pub(super) reserved: BTreeMap<Rank, Item>,
    /// Of the messages that are kept, the next to look at.
    pub(super) next_kept: u64,
    /// It was told that there is nothing more to look at.
    pub(super) exhausted: bool,
}

/// The consumers of a queue.
pub(super) type Consumers = HashMap<ConsumerKey, Consumer, BuildHasherDefault<KeyHasher>>;

/// What a [`ConsumerKey`] is found by. Both of its numbers are the house's own, and the session's is random: nobody can
/// choose them so that they fall together.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        // Odd, and far from anything regular: 2^64 by the golden ratio.
        self.0 = (self.0.rotate_left(32) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // A table looks at both ends, and multiplying mixes only upwards.
        self.0 ^ self.0 >> 32
    }
}

/// A place in the order of consumers: the higher its priority the earlier, and then as they came to have credit.
pub(super) type Turn = (i64, u64);

impl Consumer {
    pub(super) fn new(mailbox: Mailbox, credit: Credit, terms: ConsumeTerms, joined: u64) -> Consumer {
        Consumer {
            mailbox,
            credit,
            open: true,
            held: Outstanding::default(),
            held_bytes: 0,
            turn: None,
            terms,
            joined,
            cursor: Rank::default(),
            wanted: BTreeSet::new(),
            reserved: BTreeMap::new(),
            next_kept: 0,
            exhausted: false,
        }
    }

    pub(super) fn has_credit(&self) -> bool {
        let has_bytes = self.held.is_empty() || self.held_bytes < self.credit.bytes;
        self.open && has_bytes && self.held.len() < self.credit.messages
    }

    pub(super) fn admits(&self, publication: &Publication) -> bool {
        self.terms.filter.as_ref().is_none_or(|filter| filter.admits(publication))
    }

    /// Whether it wants a message, if that can be said: not of one that is in the store only, with a filter.
    pub(super) fn admits_item(&self, item: &Item) -> bool {
        match item.publication() {
            Some(publication) => self.admits(publication),
            None => self.terms.filter.is_none(),
        }
    }
}

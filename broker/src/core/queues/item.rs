//! A message in a queue, and where it stands there.

use std::cmp::Reverse;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::core::message::Publication;
use crate::core::name::Name;
use crate::core::store::QueueId;

/// The order in which messages are delivered: by priority, then as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: Reverse<u8>,
    pub(super) sequence: u64,
}

impl Default for Rank {
    /// Before all others.
    fn default() -> Rank {
        Rank { priority: Reverse(u8::MAX), sequence: 0 }
    }
}

impl Rank {
    /// The next one that there can be.
    pub(super) fn after(self) -> Rank {
        Rank { sequence: self.sequence.saturating_add(1), ..self }
    }
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) body: Body,
    pub(super) cost: u32,
    pub(super) redeliveries: u32,
    pub(super) priority: u8,
    /// A topic brought it.
    pub(super) from_topic: bool,
    /// It is in the store too, or is about to be.
    pub(super) stored: bool,
    /// From then on nobody gets it, in milliseconds.
    pub(super) expires: Option<NonZeroU64>,
    pub(super) group: Option<Arc<Group>>,
}

const _: () = assert!(size_of::<Item>() <= 40, "this is what a message costs that is only in the store");

/// The message itself.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Here(Arc<Publication>),
    /// It is in the store only.
    Away,
}

/// What is known of a message's group also while the message is in the store only.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Box<str>,
    /// After this message the group may go to another consumer.
    pub(super) ends: bool,
}

impl Group {
    pub(super) fn of(name: Option<Box<str>>, ends: bool) -> Option<Arc<Group>> {
        name.map(|name| Arc::new(Group { name, ends }))
    }
}

impl Item {
    pub(super) fn rank(&self, sequence: u64) -> Rank {
        Rank { priority: Reverse(self.priority), sequence }
    }

    pub(super) fn cost(&self) -> usize {
        self.cost as usize
    }

    pub(super) fn expires_at_ms(&self) -> Option<u64> {
        self.expires.map(NonZeroU64::get)
    }

    pub(super) fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms().is_some_and(|at| at <= now_ms)
    }

    pub(super) fn publication(&self) -> Option<&Arc<Publication>> {
        match &self.body {
            Body::Here(publication) => Some(publication),
            Body::Away => None,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self.body, Body::Away)
    }

    pub(super) fn group(&self) -> Option<&str> {
        self.group.as_deref().map(|group| &*group.name)
    }

    pub(super) fn ends_group(&self) -> bool {
        self.group.as_deref().is_some_and(|group| group.ends)
    }
}

/// A time at which a message expires; nothing does at 0.
pub(super) fn expiry(at_ms: Option<u64>) -> Option<NonZeroU64> {
    at_ms.map(|at| NonZeroU64::new(at).unwrap_or(NonZeroU64::MIN))
}

/// What a consumer decides about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is done: the message goes.
    Accept,
    /// It is to be delivered again, to whoever is next; not more often than the queue allows.
    Requeue,
    /// It cannot be done: the message goes, to the queue for such if there is one.
    Reject,
}

/// Why a queue gave a message up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// A consumer said so.
    Rejected,
    /// It came back too often.
    DeliveryLimit,
    /// It grew too old.
    Expired,
    /// The queue was full.
    NoRoom,
}

impl Death {
    /// RabbitMQ's word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Death::Rejected => "rejected",
            Death::DeliveryLimit => "delivery_limit",
            Death::Expired => "expired",
            Death::NoRoom => "maxlen",
        }
    }

    /// Whether the message is kept somewhere though nobody said where.
    pub(super) fn is_kept_by_default(self) -> bool {
        matches!(self, Death::Rejected | Death::DeliveryLimit)
    }
}

/// A message on its way from the queue that gave it up to the one for such.
#[derive(Debug)]
pub(super) struct DeadLetter {
    pub(super) publication: Arc<Publication>,
    pub(super) to: Name,
    pub(super) from: Name,
    pub(super) death: Death,
    /// Where the store has it, as long as it is not elsewhere.
    pub(super) origin: Option<(QueueId, u64)>,
}

//! A message in a queue, and where it stands there.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::core::message::Publication;
use crate::core::name::Name;

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

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) publication: Arc<Publication>,
    pub(super) redeliveries: u32,
    pub(super) priority: u8,
    /// A topic brought it.
    pub(super) from_topic: bool,
    /// From then on nobody gets it, in milliseconds.
    pub(super) expires_at_ms: Option<u64>,
}

impl Item {
    pub(super) fn rank(&self, sequence: u64) -> Rank {
        Rank { priority: Reverse(self.priority), sequence }
    }

    pub(super) fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    pub(super) fn group(&self) -> Option<&str> {
        self.publication.handling.as_ref()?.group.as_deref()
    }

    pub(super) fn ends_group(&self) -> bool {
        self.publication.handling.as_ref().is_some_and(|handling| handling.ends_group)
    }
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
}

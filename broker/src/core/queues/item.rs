//! A message in a queue, and where it stands there.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::core::message::Publication;
use crate::core::name::Name;
use crate::core::store::QueueId;

/// The order in which messages are delivered: by priority, then as they came. One number, for each message that is
/// only in the store costs its rank: in the upper bits how far the priority is from the highest, in the others
/// the place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u64);

const PLACE_BITS: u32 = 56;
const PLACE_MAX: u64 = (1 << PLACE_BITS) - 1;

impl Rank {
    /// Of a message of that priority in that place.
    pub(super) fn new(priority: u8, sequence: u64) -> Rank {
        debug_assert!(sequence <= PLACE_MAX, "no queue ever takes so many");
        Rank(u64::from(u8::MAX - priority) << PLACE_BITS | sequence.min(PLACE_MAX))
    }

    /// The place.
    pub(super) fn sequence(self) -> u64 {
        self.0 & PLACE_MAX
    }

    pub(super) fn priority(self) -> u8 {
        u8::MAX - (self.0 >> PLACE_BITS) as u8
    }

    /// Before all others of its priority.
    pub(super) fn first_like_it(self) -> Rank {
        Rank(self.0 & !PLACE_MAX)
    }

    /// The next one that there can be.
    pub(super) fn after(self) -> Rank {
        Rank(self.0.saturating_add(1))
    }
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) body: Body,
    /// What few messages have.
    rare: Option<Arc<Rare>>,
    pub(super) cost: u32,
    redeliveries: u16,
    pub(super) priority: u8,
    marks: u8,
}

const _: () = assert!(size_of::<Item>() <= 24, "this is what a message costs that is only in the store");

/// A topic brought it.
const FROM_TOPIC: u8 = 1;
/// It is in the store too, or is about to be.
const STORED: u8 = 2;
/// It is a copy of a message that is done with.
const DONE: u8 = 4;

/// The message itself.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Here(Arc<Publication>),
    /// It is in the store only.
    Away,
}

/// What is known of few messages, and also while they are in the store only.
#[derive(Debug)]
struct Rare {
    /// From then on nobody gets it, in milliseconds.
    expires: Option<NonZeroU64>,
    group: Option<Group>,
}

/// A message's group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Box<str>,
    /// After this message the group may go to another consumer.
    pub(super) ends: bool,
}

impl Group {
    pub(super) fn of(name: Option<Box<str>>, ends: bool) -> Option<Group> {
        name.map(|name| Group { name, ends })
    }
}

impl Item {
    pub(super) fn new(body: Body, cost: u32, priority: u8) -> Item {
        Item { body, rare: None, cost, redeliveries: 0, priority, marks: 0 }
    }

    /// The same, with what few have.
    pub(super) fn with(self, expires_at_ms: Option<u64>, group: Option<Group>) -> Item {
        let expires = expiry(expires_at_ms);
        let any = expires.is_some() || group.is_some();
        Item { rare: any.then(|| Arc::new(Rare { expires, group })), ..self }
    }

    fn marked(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    fn mark(&mut self, mark: u8, is: bool) {
        self.marks = if is { self.marks | mark } else { self.marks & !mark };
    }

    pub(super) fn is_from_topic(&self) -> bool {
        self.marked(FROM_TOPIC)
    }

    pub(super) fn set_from_topic(&mut self, is: bool) {
        self.mark(FROM_TOPIC, is);
    }

    /// Whether it is in the store too, or is about to be.
    pub(super) fn is_stored(&self) -> bool {
        self.marked(STORED)
    }

    pub(super) fn set_stored(&mut self, is: bool) {
        self.mark(STORED, is);
    }

    /// Whether it is a copy of a message that is done with.
    pub(super) fn is_done(&self) -> bool {
        self.marked(DONE)
    }

    pub(super) fn set_done(&mut self) {
        self.mark(DONE, true);
    }

    /// How often it came back. It is not counted any further than 65,535.
    pub(super) fn redeliveries(&self) -> u32 {
        self.redeliveries.into()
    }

    pub(super) fn set_redeliveries(&mut self, count: u32) {
        self.redeliveries = u16::try_from(count).unwrap_or(u16::MAX);
    }

    pub(super) fn rank(&self, sequence: u64) -> Rank {
        Rank::new(self.priority, sequence)
    }

    pub(super) fn cost(&self) -> usize {
        self.cost as usize
    }

    pub(super) fn expires_at_ms(&self) -> Option<u64> {
        self.rare.as_ref()?.expires.map(NonZeroU64::get)
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

    /// Whether it is here, and has nothing that few have.
    pub(super) fn is_plain(&self) -> bool {
        self.rare.is_none() && !self.is_away()
    }

    fn of_group(&self) -> Option<&Group> {
        self.rare.as_ref()?.group.as_ref()
    }

    pub(super) fn group(&self) -> Option<&str> {
        self.of_group().map(|group| &*group.name)
    }

    pub(super) fn ends_group(&self) -> bool {
        self.of_group().is_some_and(|group| group.ends)
    }
}

/// A time at which a message expires; nothing does at 0.
fn expiry(at_ms: Option<u64>) -> Option<NonZeroU64> {
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

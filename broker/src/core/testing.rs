//! What the tests of the house share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use tandem_protocols::payload::{Content, Payload};

use crate::core::access::Principal;
use crate::core::mailbox::{Bounds, Inbox, Mailbox, Overflow, mailbox};
use crate::core::message::{Attributes, Outgoing, PUBLICATION_OVERHEAD, Publication, SessionId};
use crate::core::name::{Name, Pattern};
use crate::core::parcel::Parcel;
use crate::core::queues::QueueLimits;
use crate::core::realm::{Realm, RealmLimits};
use crate::core::retained::RetainedLimits;

/// Counts how often it is woken.
#[derive(Default)]
pub struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    /// One, and what wakes it.
    pub fn new() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    /// How often it was woken.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the publications of the tests cost.
pub const UNIT: usize = 1000;

/// Of a realm in which tests do little.
pub const LIMITS: RealmLimits = RealmLimits {
    sessions_max: 9,
    subscriptions_max: 9,
    registrations_max: 9,
    consumers_max: 9,
    in_flight_bytes_max: 1 << 20,
    retained: RetainedLimits { messages_max: 9, bytes_max: 9999 },
    queues: QueueLimits { queues_max: 9, messages_max: 99, bytes_max: 1 << 20, total_bytes_max: 1 << 20 },
};

/// A realm within [`LIMITS`], whose chance counts up.
pub fn realm(name: &str) -> Arc<Realm> {
    let last = AtomicU64::new(0);
    Realm::new(name, LIMITS, Arc::new(move || last.fetch_add(1, Ordering::Relaxed)))
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn exact(text: &str) -> Pattern {
    Pattern::exact(name(text))
}

pub fn principal(id: &str, role: &str) -> Principal {
    Principal::new(id, role, "test")
}

/// A payload that makes what carries it cost [`UNIT`].
pub fn payload() -> Payload {
    Payload::new(Content::Opaque(vec![0; UNIT - PUBLICATION_OVERHEAD].into()))
}

/// A message of the cost of [`UNIT`].
pub fn outgoing(to: &str) -> Outgoing {
    Outgoing { name: name(to), payload: payload(), attributes: Attributes::default() }
}

pub fn publication(to: &str, id: u64) -> Arc<Publication> {
    Arc::new(Publication::new(id, name(to), SessionId(1), payload()))
}

/// A mailbox with room for everything.
pub fn large_mailbox() -> (Mailbox, Inbox) {
    let bytes_max = 1 << 30;
    mailbox(Bounds { bytes_soft_max: bytes_max, bytes_max, overflow: Overflow::Disconnect })
}

/// All that is in an inbox, which then counts as written.
pub fn take(inbox: &mut Inbox) -> Vec<Parcel> {
    let mut all = Vec::new();
    let mut batch = VecDeque::new();
    while inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready() {
        inbox.settled(batch.iter().map(crate::core::mailbox::cost).sum());
        all.extend(batch.drain(..));
    }
    all
}

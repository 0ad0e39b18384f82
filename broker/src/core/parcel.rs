//! What a session finds in its mailbox.

use std::sync::Arc;
use std::time::Duration;

use tandem_protocols::payload::Payload;

use crate::core::access::authorizer::Decision;
use crate::core::access::{Grant, Principal, Record, Refusal};
use crate::core::bundle::Bundle;
use crate::core::message::{Attributes, Publication, SessionId};
use crate::core::name::Name;
use crate::core::notice::Notice;
pub use crate::core::notice::{RegistrationId, SubscriptionId};

/// Identifies a consumer of a queue among those of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// Something for a session to tell its peer.
#[derive(Debug)]
pub enum Parcel {
    /// A message on a topic.
    Event {
        /// The message.
        publication: Arc<Publication>,
        /// The subscription that it matched.
        subscription: SubscriptionId,
    },
    /// Several messages on a topic.
    Events {
        /// The messages.
        bundle: Arc<Bundle>,
        /// The subscription that they matched.
        subscription: SubscriptionId,
    },
    /// The last message of a topic, kept from before the subscription.
    Retained {
        /// The message.
        publication: Arc<Publication>,
        /// The subscription that asked for it.
        subscription: SubscriptionId,
        /// What the session said in asking, to tell apart who in it asked.
        tag: u64,
    },
    /// A subscription was taken away from the session.
    SubscriptionRevoked {
        /// The subscription.
        subscription: SubscriptionId,
        /// Why, if somebody said so: a URI.
        reason: Option<Arc<str>>,
    },
    /// A message from a queue.
    Delivery(Delivery),
    /// There is nothing more for this consumer to look at.
    Exhausted {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// A call to answer.
    Invocation(Box<Invocation>),
    /// The caller of this invocation does not want it any more.
    Interrupt {
        /// The invocation.
        invocation: u64,
        /// Whose call it was: this comes after the invocation.
        caller: SessionId,
        /// How it ends is still waited for.
        is_awaited: bool,
    },
    /// The session's part in a registration was taken away.
    RegistrationRevoked {
        /// The registration.
        registration: RegistrationId,
        /// Why, if somebody said so: a URI. Otherwise another callee took it.
        reason: Option<Arc<str>>,
    },
    /// The answer to a call.
    Outcome(Box<Outcome>),
    /// The answer to the session's request to authenticate its peer.
    Authenticated(Box<Result<Grant, Refusal>>),
    /// The answer to the session's request for what is kept of a user.
    LookedUp(Box<Result<Record, Refusal>>),
    /// Something changed in the realm; for who watches it.
    Notice(Box<Notice>),
    /// The answer to the session's [`Inquiry`](crate::core::access::authorizer::Inquiry).
    Authorized(Box<Result<Decision, Refusal>>),
    /// What may be done in the realm changed.
    RulesChanged,
    /// The store has what the session sent or settled under this ticket, or it never will.
    Stored {
        /// The session's own number for it; 0 if it wanted to hear only of failure.
        ticket: u64,
        /// What came of it.
        outcome: Result<(), Refusal>,
    },
    /// The session is to end.
    Farewell(Farewell),
}

/// Whose messages stay in order among themselves. What is of two flows may overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// All that a session sends: events, calls and answers, whatever the topic or procedure.
    Sender(SessionId),
    /// What comes from a queue for one of the session's consumers.
    Consumer(ConsumerId),
    /// What the store says of the session's own messages.
    Store,
}

impl Parcel {
    /// The flow that it is part of. None: nothing may overtake it, nor may it overtake anything.
    pub fn flow(&self) -> Option<Flow> {
        match self {
            Parcel::Event { publication, .. } => Some(Flow::Sender(publication.publisher)),
            Parcel::Events { bundle, .. } => Some(Flow::Sender(bundle.publisher())),
            Parcel::Invocation(invocation) => Some(Flow::Sender(invocation.sender)),
            Parcel::Interrupt { caller, .. } => Some(Flow::Sender(*caller)),
            Parcel::Outcome(outcome) => Some(Flow::Sender(outcome.callee)),
            Parcel::Delivery(delivery) => Some(Flow::Consumer(delivery.consumer)),
            Parcel::Exhausted { consumer } => Some(Flow::Consumer(*consumer)),
            Parcel::Stored { .. } => Some(Flow::Store),
            // What was kept comes before what is new, whoever sends it; what is revoked, after its last event or
            // invocation. What the house says of itself is in the order in which it happened.
            Parcel::Retained { .. }
            | Parcel::SubscriptionRevoked { .. }
            | Parcel::RegistrationRevoked { .. }
            | Parcel::Authenticated(_)
            | Parcel::LookedUp(_)
            | Parcel::Notice(_)
            | Parcel::Authorized(_)
            | Parcel::RulesChanged
            | Parcel::Farewell(_) => None,
        }
    }
}

/// A message from a queue, in the care of a consumer until it settles it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub publication: Arc<Publication>,
    /// The consumer that got it.
    pub consumer: ConsumerId,
    /// Its place in the queue; with the consumer this names the delivery.
    pub sequence: u64,
    /// How often it was delivered before.
    pub redeliveries: u32,
    /// It came into the queue from a topic, whose name it bears.
    pub from_topic: bool,
}

/// A call, as its callee sees it.
#[derive(Debug)]
pub struct Invocation {
    /// Identifies it in the callee's session: 1, 2, 3 and so on.
    pub id: u64,
    /// Whose call it is, also where the callee is not to know: what one session sends stays in order.
    pub sender: SessionId,
    /// The registration that it was matched to.
    pub registration: RegistrationId,
    /// The procedure that was called.
    pub procedure: Name,
    /// True when the registration is a pattern, so that the callee cannot know the procedure.
    pub by_pattern: bool,
    /// Who calls, if the callee may know.
    pub caller: Option<(SessionId, Arc<Principal>)>,
    /// How far the caller is trusted, if there is a word about it.
    pub trust: Option<u32>,
    /// The arguments.
    pub payload: Payload,
    /// What travels with them.
    pub attributes: Attributes,
    /// The caller takes results as they come, before the last one.
    pub takes_progress: bool,
    /// How long the caller waits, if the callee wanted to know.
    pub timeout: Option<Duration>,
    /// More arguments follow.
    pub more_follows: bool,
    /// These arguments follow others, under the same number.
    pub continues: bool,
}

/// The answer to a call, as its caller sees it.
#[derive(Debug)]
pub struct Outcome {
    /// The caller's own number for the call.
    pub call: u64,
    /// Who was called: what one session sends stays in order.
    pub callee: SessionId,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// A result.
#[derive(Debug)]
pub struct Answer {
    /// The values.
    pub payload: Payload,
    /// What travels with them.
    pub attributes: Attributes,
    /// More is to come.
    pub is_progress: bool,
}

/// An application's error, or the house's.
#[derive(Debug)]
pub struct Failure {
    /// The error's name: a URI.
    pub error: Arc<str>,
    /// The arguments of the error.
    pub payload: Payload,
    /// What travels with them.
    pub attributes: Attributes,
}

/// Why the house ends a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The broker shuts down.
    Shutdown,
    /// The session's mailbox was full.
    SlowConsumer,
    /// Somebody who may wants it to.
    Killed(Arc<Verdict>),
}

/// What is said to a session that somebody ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why: a URI.
    pub reason: Box<str>,
    /// The same for humans, if something was said.
    pub message: Option<Box<str>>,
}

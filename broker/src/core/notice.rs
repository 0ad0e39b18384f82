//! What there is in a realm, as somebody who looks at it from outside sees it, and how an observer hears that it
//! changed.

use std::sync::Arc;

use crate::core::access::{Peer, Principal, SessionId};
use crate::core::name::Pattern;

/// Identifies a subscription in its realm: all sessions that subscribe to one pattern share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub u64);

/// Identifies a registration in its realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrationId(pub u64);

/// How one of the callees of a procedure is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// There is but one.
    #[default]
    Single,
    /// Who registered first.
    First,
    /// Who registered last.
    Last,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

/// Where a session comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where its peer connects from.
    pub peer: Peer,
    /// How it speaks, as its language names that; empty if it has no wire.
    pub dialect: &'static str,
}

impl Origin {
    /// A session of this process.
    pub const LOCAL: Origin = Origin { peer: Peer::Local, dialect: "" };
}

/// A session that is in a realm, the house's own not among them.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its number.
    pub session: SessionId,
    /// Who it is.
    pub principal: Arc<Principal>,
    /// Where it comes from.
    pub origin: Origin,
}

/// A subscription, whoever holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionFacts {
    /// Its number.
    pub id: SubscriptionId,
    /// What it is to.
    pub pattern: Pattern,
    /// Since when it is, in milliseconds since 1970.
    pub created_ms: u64,
}

/// A registration, whoever holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationFacts {
    /// Its number.
    pub id: RegistrationId,
    /// What it is of.
    pub pattern: Pattern,
    /// How its callees are chosen.
    pub policy: Policy,
    /// Since when it is, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Something changed in a realm. Each names the session that it changed with: the last subscriber to leave is the
/// one that a subscription is deleted with.
#[derive(Debug)]
pub enum Notice {
    /// A session came in.
    Joined(Guest),
    /// A session left.
    Left(Guest),
    /// There is a new subscription; its first subscriber is told of next.
    SubscriptionCreated(SessionId, SubscriptionFacts),
    /// A session takes part in a subscription. One that binds several queues to a pattern does so several times.
    Subscribed(SessionId, SubscriptionId),
    /// It does no longer.
    Unsubscribed(SessionId, SubscriptionId),
    /// Nobody takes part any more.
    SubscriptionDeleted(SessionId, SubscriptionId),
    /// There is a new registration; its first callee is told of next.
    RegistrationCreated(SessionId, RegistrationFacts),
    /// A session takes part in a registration.
    Registered(SessionId, RegistrationId),
    /// It does no longer.
    Unregistered(SessionId, RegistrationId),
    /// Nobody takes part any more.
    RegistrationDeleted(SessionId, RegistrationId),
}

impl Notice {
    /// What it costs the mailbox that it lies in, in bytes.
    pub fn cost(&self) -> usize {
        128 + match self {
            Notice::SubscriptionCreated(_, facts) => facts.pattern.as_str().len(),
            Notice::RegistrationCreated(_, facts) => facts.pattern.as_str().len(),
            Notice::Joined(_)
            | Notice::Left(_)
            | Notice::Subscribed(..)
            | Notice::Unsubscribed(..)
            | Notice::SubscriptionDeleted(..)
            | Notice::Registered(..)
            | Notice::Unregistered(..)
            | Notice::RegistrationDeleted(..) => 0,
        }
    }
}

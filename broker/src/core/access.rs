//! Who somebody is, and what they may do. One place decides for both languages.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use crate::core::index::TooManyHoleSets;
use crate::core::name::Name;

/// Names that begin so belong to WAMP's router.
pub const WAMP_PREFIX: &str = "wamp.";

/// Names that begin so belong to the house.
pub const HOUSE_PREFIX: &str = "tandem.";

/// What the names of queues for answers begin with. Whoever was told such a name may send to it.
pub const REPLY_PREFIX: &str = "tandem.reply.";

/// How the broker itself is known to be who it is.
const HOUSE_METHOD: &str = "internal";

/// Identifies a session in its realm: 1 to 2^53, random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Where a peer connects from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Socket(SocketAddr),
    /// From this process, or over a wire that has no addresses.
    Local,
}

impl Peer {
    /// True when the peer is on this machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Peer::Socket(address) => address.ip().to_canonical().is_loopback(),
            Peer::Local => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Socket(address) => address.fmt(f),
            Peer::Local => f.write_str("local"),
        }
    }
}

/// Somebody, as the house knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user's name; for somebody anonymous, one that was made up.
    pub id: Arc<str>,
    /// The role that permissions are given to.
    pub role: Arc<str>,
    /// How they proved who they are: `anonymous`, `ticket` and so on.
    pub method: &'static str,
}

impl Principal {
    /// The broker itself. No peer can be it: no method that proves who somebody is bears this name.
    pub fn house() -> Principal {
        Principal { id: "tandem".into(), role: "tandem".into(), method: HOUSE_METHOD }
    }

    /// True for the broker itself.
    pub fn is_house(&self) -> bool {
        self.method == HOUSE_METHOD
    }
}

/// What a peer says to prove who they are.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub user: Arc<str>,
    /// A password or ticket.
    pub secret: Arc<str>,
    /// The method that they chose.
    pub method: &'static str,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The house says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The user is unknown, or the secret is wrong: which of the two is not said.
    #[error("the user is unknown or the secret is wrong")]
    WrongSecret,
    /// Nobody is let in without a name.
    #[error("authentication is required")]
    AuthenticationRequired,
    /// It could not be found out; not the peer's fault.
    #[error("authentication failed for a technical reason")]
    AuthenticationFailed,
    /// There is no such realm.
    #[error("there is no realm {0:?}")]
    NoSuchRealm(String),
    /// The name belongs to the router.
    #[error("{0:?} is reserved")]
    Reserved(String),
    /// A limit of the configuration was reached.
    #[error("no more than {1} {0} are allowed")]
    TooMany(&'static str, usize),
    /// A queue has no room.
    #[error("queue {0:?} is full")]
    QueueFull(Name),
    /// There is no such queue, and it is not to be made.
    #[error("there is no queue {0:?}")]
    NoSuchQueue(Name),
    /// A queue is not like somebody wants it.
    #[error("queue {0:?} exists with other properties: {1}")]
    OtherProperties(Name, String),
    /// A queue does not keep the messages that it took.
    #[error("queue {0:?} does not keep its messages: nothing of the past can be read from it")]
    NothingKept(Name),
    /// Others use it.
    #[error("{0} is in use by others")]
    InUse(String),
    /// There is no such durable subscription.
    #[error("there is no durable subscription {0:?}")]
    NoSuchDurable(String),
    /// The queue belongs to another session.
    #[error("queue {0:?} belongs to another session")]
    NotOwner(Name),
    /// Nobody registered the procedure.
    #[error("there is no procedure {0:?}")]
    NoSuchProcedure(Name),
    /// Somebody registered the procedure before.
    #[error("procedure {0:?} is registered already")]
    ProcedureExists(String),
    /// Those who registered the procedure choose among them otherwise.
    #[error("procedure {0:?} is registered with another policy")]
    OtherPolicy(String),
    /// All callees have as much to do as they may.
    #[error("the callees of {0:?} take no more calls at a time")]
    Busy(Name),
    /// No callee takes arguments in parts.
    #[error("no callee of {0:?} takes progressive calls")]
    NotInParts(Name),
    /// The callee cannot take a call now.
    #[error("the callee of {0:?} takes no calls at the moment")]
    Unavailable(Name),
    /// The session does not hold such a subscription.
    #[error("no such subscription")]
    NoSuchSubscription,
    /// The house took a subscription away.
    #[error("the subscription was revoked")]
    Revoked,
    /// Nothing of the past is kept for the subscription.
    #[error("no history is kept for the subscription")]
    HistoryUnavailable,
    /// The session does not hold such a registration.
    #[error("no such registration")]
    NoSuchRegistration,
    /// A delivery that the session settles is not in its care.
    #[error("no such delivery")]
    NoSuchDelivery,
    /// The pattern would make the search for matches slow for everybody.
    #[error("{0}")]
    TooManyPatterns(#[from] TooManyHoleSets),
    /// A number that must be new is in use.
    #[error("request {0} is still in flight")]
    RequestInUse(u64),
}

/// What [`Authenticator::authenticate`] returns.
pub type Authenticating = Pin<Box<dyn Future<Output = Result<Principal, Refusal>> + Send>>;

/// Finds out who somebody is.
pub trait Authenticator: Send + Sync {
    /// Who a peer is that does not say; `None` when they must say.
    fn anonymous(&self, peer: &Peer) -> Option<Principal>;

    /// Checks what a peer says. May take its time: the pump awaits it.
    fn authenticate(&self, credentials: Credentials, peer: &Peer) -> Authenticating;
}

/// What somebody wants to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish to a topic.
    Publish,
    /// Subscribe to topics.
    Subscribe,
    /// Call a procedure.
    Call,
    /// Register a procedure.
    Register,
    /// Put into a queue.
    Send,
    /// Take from a queue.
    Consume,
}

/// Decides whether somebody may do something with a name, or with all that a pattern spelled so means. What
/// belongs to the router and to the house is nobody's to write, to serve or to queue at.
pub fn check(who: &Principal, action: Action, name: &str) -> Result<(), Refusal> {
    let reserved = name.starts_with(WAMP_PREFIX) || name.starts_with(HOUSE_PREFIX);
    match action {
        _ if who.is_house() => Ok(()),
        Action::Send if name.starts_with(REPLY_PREFIX) => Ok(()),
        Action::Publish | Action::Register | Action::Send | Action::Consume if reserved => {
            Err(Refusal::Reserved(name.to_owned()))
        }
        Action::Publish | Action::Subscribe | Action::Call | Action::Register => Ok(()),
        Action::Send | Action::Consume => Ok(()),
    }
}

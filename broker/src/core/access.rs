//! Who somebody is, and what they may do. One place decides for both languages.
//!
//! [`rules`] decide at once; what they leave open an [`authorizer`](authorizer::Authorizer) decides in its time. What
//! a subscription gets of what it matches passes a [`gate`].

pub mod authorizer;
pub mod gate;
pub mod rules;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::access::authorizer::Question;
use crate::core::index::TooManyHoleSets;
use crate::core::name::Name;
use crate::core::proxied::Proxied;
use crate::core::secure::{Certificate, Secure};
use crate::core::store::Unstorable;

/// Names that begin so belong to WAMP's router.
pub const WAMP_PREFIX: &str = "wamp.";

/// Names that begin so belong to the house.
pub const HOUSE_PREFIX: &str = "tandem.";

/// What the names of queues for answers begin with. Whoever was told such a name may send to it.
pub const REPLY_PREFIX: &str = "tandem.reply.";

/// The role of administrators.
pub const ADMIN_ROLE: &str = "admin";

/// Procedures of the router that only administrators call, unless a rule of the configuration names them for others.
pub const GUARDED_PROCEDURES: &[&str] = &[
    "wamp.session.kill",
    "wamp.session.kill_by_authid",
    "wamp.session.kill_by_authrole",
    "wamp.session.kill_all",
    "wamp.session.modify_details",
    "wamp.registration.remove_callee",
    "wamp.subscription.remove_subscriber",
];

/// How the broker itself is known to be who it is.
const HOUSE_METHOD: &str = "internal";

/// Identifies a session in its realm: 1 to 2^53, random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A peer at a Unix socket, as far as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Where the socket is.
    pub path: Arc<str>,
    /// The number of its user.
    pub user: u32,
    /// The number of its process, where the system says so.
    pub process: Option<i32>,
}

impl fmt::Display for UnixPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}, user {}", self.path, self.user)?;
        self.process.map_or(Ok(()), |process| write!(f, ", process {process}"))
    }
}

/// Where a peer connects from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Socket(SocketAddr),
    /// Over TLS.
    Secure(Arc<Secure>),
    /// Over a Unix socket.
    Unix(Arc<UnixPeer>),
    /// Behind a proxy.
    Proxied(Arc<Proxied>),
    /// From this process, or over a wire that has no addresses.
    Local,
}

impl Peer {
    /// True when the peer is on this machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Peer::Socket(address) => address.ip().to_canonical().is_loopback(),
            Peer::Secure(secure) => secure.address.ip().to_canonical().is_loopback(),
            Peer::Unix(_) | Peer::Local => true,
            // Whoever a proxy says that it is.
            Peer::Proxied(_) => false,
        }
    }

    /// Where the peer is on the network, if it is on one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Peer::Socket(address) => Some(*address),
            Peer::Secure(secure) => Some(secure.address),
            Peer::Proxied(proxied) => Some(proxied.address),
            Peer::Unix(_) | Peer::Local => None,
        }
    }

    /// True when nobody on the way can read what the peer sends, or there is no way.
    pub fn is_private(&self) -> bool {
        match self {
            Peer::Secure(_) => true,
            Peer::Proxied(proxied) => proxied.is_private,
            Peer::Socket(_) | Peer::Unix(_) | Peer::Local => self.is_loopback(),
        }
    }

    /// True when its TLS ends here, also where it goes through a proxy.
    pub fn is_over_tls(&self) -> bool {
        self.secure().is_some()
    }

    /// The same peer where it speaks over several connections: no single one of them can be bound to.
    pub fn unbound(&self) -> Peer {
        match self {
            Peer::Secure(secure) => {
                Peer::Secure(Arc::new(Secure { exporter: None, ..Secure::clone(secure) }))
            }
            Peer::Proxied(proxied) => Peer::Proxied(Arc::new(proxied.unbound())),
            Peer::Socket(_) | Peer::Unix(_) | Peer::Local => self.clone(),
        }
    }

    /// Bytes that bind a proof to the peer's connection; see [`Secure::exporter`].
    pub fn exporter(&self) -> Option<&[u8; 32]> {
        self.secure()?.exporter.as_ref()
    }

    /// The certificate that the peer has shown and that was found good.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.secure()?.certificate.as_ref()
    }

    fn secure(&self) -> Option<&Secure> {
        match self {
            Peer::Secure(secure) => Some(secure),
            Peer::Proxied(proxied) => proxied.secure.as_ref(),
            Peer::Socket(_) | Peer::Unix(_) | Peer::Local => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Socket(address) => address.fmt(f),
            Peer::Secure(secure) => secure.address.fmt(f),
            Peer::Unix(peer) => peer.fmt(f),
            Peer::Proxied(proxied) => proxied.fmt(f),
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
    /// Who says so.
    pub provider: Provider,
    /// How far the operator trusts them, if there is a word about it.
    pub trust: Option<u32>,
}

/// Who says who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The configuration.
    Static,
    /// An application.
    Dynamic,
    /// Whoever signed the token that they brought.
    Token,
}

impl Provider {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Static => "static",
            Provider::Dynamic => "dynamic",
            Provider::Token => "token",
        }
    }
}

impl Principal {
    /// Somebody who the configuration says is who they are.
    pub fn new(id: impl Into<Arc<str>>, role: impl Into<Arc<str>>, method: &'static str) -> Principal {
        Principal { id: id.into(), role: role.into(), method, provider: Provider::Static, trust: None }
    }

    /// The broker itself. No peer can be it: no method that proves who somebody is bears this name.
    pub fn house() -> Principal {
        Principal::new("tandem", "tandem", HOUSE_METHOD)
    }

    /// True for the broker itself.
    pub fn is_house(&self) -> bool {
        self.method == HOUSE_METHOD
    }
}

/// Who wants to be let in, where, and how.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// The realm.
    pub realm: Arc<str>,
    /// The user's name; may be empty where a key says who it is.
    pub user: Arc<str>,
    /// The method that they chose.
    pub method: &'static str,
    /// The session that it is to be, if that is known.
    pub session: Option<SessionId>,
    /// What they said beside that: an object of JSON.
    pub extra: Option<Arc<str>>,
}

/// What a peer says to prove who they are.
#[derive(Clone)]
pub struct Credentials {
    /// Who they say they are.
    pub applicant: Applicant,
    /// A password or ticket.
    pub secret: Arc<str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("applicant", &self.applicant).finish_non_exhaustive()
    }
}

/// What the opening handshake of a wire brought to prove who the peer is: HTTP's `Authorization`. A session keeps it
/// until its peer was found out, and no longer.
#[derive(Clone)]
pub struct Presented {
    /// Who they say they are, if they say: a token says it itself.
    pub user: Option<Arc<str>>,
    /// A password or token.
    pub secret: Arc<str>,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Who somebody was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub principal: Principal,
    /// The realm to let them into, if it is not the one that they asked for.
    pub realm: Option<Arc<str>>,
    /// What they are told beside that: an object of JSON.
    pub extra: Option<Arc<str>>,
    /// For how long it holds, if not for as long as they stay.
    pub lifetime: Option<Duration>,
}

impl From<Principal> for Grant {
    fn from(principal: Principal) -> Grant {
        Grant { principal, realm: None, extra: None, lifetime: None }
    }
}

/// What an application keeps of a user, to be challenged by.
#[derive(Clone)]
pub struct Record {
    /// Who it is, if it can prove that.
    pub grant: Grant,
    /// What the proof is judged by; which names there are is for the method to say. Numbers are in digits.
    pub fields: HashMap<String, String>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("grant", &self.grant).finish_non_exhaustive()
    }
}

/// The house says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The user is unknown, or the secret is wrong: which of the two is not said.
    #[error("the user is unknown or the secret is wrong")]
    WrongSecret,
    /// The peer sent a secret that others can read on its way.
    #[error("secrets are taken over TLS only; this one was sent in the clear")]
    NotPrivate,
    /// Nobody is let in without a name.
    #[error("authentication is required")]
    AuthenticationRequired,
    /// It could not be found out; not the peer's fault.
    #[error("authentication failed for a technical reason")]
    AuthenticationFailed,
    /// A token was good once.
    #[error("the token has expired")]
    TokenExpired,
    /// A token is good, and not for the session that was to go on by it.
    #[error("the session cannot be renewed: {0}")]
    NotRenewable(&'static str),
    /// Too many attempts failed before; for how many seconds no other is judged.
    #[error("too many logins failed: try again in {0} s")]
    TooManyFailures(u64),
    /// There is no such realm.
    #[error("there is no realm {0:?}")]
    NoSuchRealm(String),
    /// The name belongs to the router.
    #[error("{0:?} is reserved")]
    Reserved(String),
    /// There is no permission for it.
    #[error("there is no permission to {action} {name:?}")]
    Forbidden {
        /// What was to be done.
        action: Action,
        /// With what: a name or a pattern, as it is spelled.
        name: Box<str>,
    },
    /// No rule decides whether there is a permission: somebody is to be asked.
    #[error("it is not known yet whether there is a permission")]
    Undecided(Box<Question>),
    /// It could not be found out whether there is a permission; not the peer's fault.
    #[error("it could not be found out whether there is a permission")]
    AuthorizationFailed,
    /// Who publishes or calls is not to be told.
    #[error("there is no permission to tell others who publishes or calls")]
    DisclosureForbidden,
    /// A limit of the configuration was reached.
    #[error("no more than {1} {0} are allowed")]
    TooMany(&'static str, usize),
    /// A queue has no room.
    #[error("queue {0:?} is full")]
    QueueFull(Name),
    /// A message is to be kept, or was, and cannot be.
    #[error("{0}")]
    Unstorable(#[from] Unstorable),
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
pub type Authenticating = Pin<Box<dyn Future<Output = Result<Grant, Refusal>> + Send>>;

/// What [`Authenticator::look_up`] returns.
pub type LookingUp = Pin<Box<dyn Future<Output = Result<Record, Refusal>> + Send>>;

/// Finds out who somebody is. [`Refusal::WrongSecret`] says that they are not who they say, and slows down those
/// who try again; any other refusal, that it could not be found out.
pub trait Authenticator: Send + Sync {
    /// Who a peer is that does not say; `None` when they must say.
    fn anonymous(&self, peer: &Peer) -> Option<Principal>;

    /// Who a peer is by the certificate that it has shown; `user` is who it says, if it says. `None` where the
    /// certificate is nobody's, or could be that of several.
    fn recognize(&self, _peer: &Peer, _user: Option<&str>) -> Option<Principal> {
        None
    }

    /// Whether a peer may send a secret as it is: a ticket, a password.
    fn takes_secrets(&self, _peer: &Peer) -> bool {
        true
    }

    /// Checks what a peer says. May take its time: the pump awaits it.
    fn authenticate(&self, credentials: Credentials, peer: &Peer) -> Authenticating;

    /// Whether a secret alone may say who somebody is, as a token does.
    fn takes_tokens(&self) -> bool {
        false
    }

    /// Judges the token by which a session is to go on that came in by one before. At once: it asks nobody.
    fn renew(&self, _credentials: &Credentials, _peer: &Peer) -> Result<Grant, Refusal> {
        Err(Refusal::WrongSecret)
    }

    /// Whether it keeps what is needed to challenge users by this method.
    fn looks_up(&self, _method: &str) -> bool {
        false
    }

    /// What it keeps of a user. May take its time, too.
    fn look_up(&self, _applicant: Applicant, _peer: &Peer) -> LookingUp {
        Box::pin(std::future::ready(Err(Refusal::WrongSecret)))
    }
}

/// What somebody wants to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl Action {
    /// All of them, each at the place that it is the number of.
    pub const ALL: [Action; 6] =
        [Action::Publish, Action::Subscribe, Action::Call, Action::Register, Action::Send, Action::Consume];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Publish => "publish",
            Action::Subscribe => "subscribe",
            Action::Call => "call",
            Action::Register => "register",
            Action::Send => "send",
            Action::Consume => "consume",
        }
    }

    /// The action that is called so.
    pub fn from_word(word: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether others are told who publishes or calls: as whoever does it wishes, unless it was said what is to be.
pub fn disclosure(wished: bool, said: Option<bool>) -> Result<bool, Refusal> {
    match said {
        Some(false) if wished => Err(Refusal::DisclosureForbidden),
        Some(said) => Ok(said),
        None => Ok(wished),
    }
}

//! What went wrong: the one place that turns a refusal of the house into a URI.
//!
//! Beyond the specification's URIs there are a few of ours, `tandem.error.*`, for what it has no word for.

use tandem_protocols::wamp::error::{self, Violation};

use crate::core::access::Refusal;
use crate::core::access::authorizer::Question;
use crate::core::name::InvalidName;

/// A limit of the configuration was reached.
pub(super) const LIMIT_REACHED: &str = "tandem.error.limit_reached";
/// Too many logins failed. Not that of a secret that is wrong: a client that gets this one may well have the right
/// one, and is to try it again later.
pub(super) const TOO_MANY_FAILURES: &str = "tandem.error.too_many_failures";
/// A token was good once: its client is to get another.
pub(super) const TOKEN_EXPIRED: &str = "tandem.error.token_expired";
/// The session's own token has.
pub(super) const CLOSE_TOKEN_EXPIRED: &str = "tandem.close.token_expired";
/// A queue has no room.
pub(super) const QUEUE_FULL: &str = "tandem.error.queue_full";
/// A message is to be kept, and cannot be.
pub(super) const NOT_STORED: &str = "tandem.error.not_stored";
/// There is no such queue, or not what is wanted of it.
pub(super) const NO_SUCH_QUEUE: &str = "tandem.error.no_such_queue";
/// A queue is not like somebody wants it.
pub(super) const OTHER_PROPERTIES: &str = "tandem.error.other_properties";
/// The session holds no such delivery.
pub(super) const NO_SUCH_DELIVERY: &str = "tandem.error.no_such_delivery";
/// The peer does not read what it asked for.
pub(super) const SLOW_CONSUMER: &str = "tandem.close.slow_consumer";

/// The callees of a procedure are chosen otherwise. The specification has no word; clients know Crossbar's.
pub(super) const OTHER_POLICY: &str = "wamp.error.procedure_exists_with_different_invocation_policy";
/// All callees are busy. `concurrency` is an option of Crossbar's, and so is what clients expect of it.
pub(super) const MAX_CONCURRENCY_REACHED: &str = "crossbar.error.max_concurrency_reached";

/// A message could not be followed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The peer broke the language: ABORT.
    Violation(Violation),
    /// The request fails: ERROR, with this URI and a sentence.
    Refused(&'static str, String),
    /// Somebody is to be asked first, and then the message taken again.
    Undecided(Box<Question>),
}

impl Fault {
    /// An option that asks for what is not there.
    pub(super) fn option(name: &str) -> Fault {
        Fault::Refused(error::OPTION_NOT_ALLOWED, format!("the option {name} is not supported"))
    }

    /// Arguments of one of the router's own procedures that do not suit it.
    pub(super) fn argument(sentence: &str) -> Fault {
        Fault::Refused(error::INVALID_ARGUMENT, sentence.to_owned())
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Fault {
        match violation.uri() {
            error::PROTOCOL_VIOLATION => Fault::Violation(violation),
            uri => Fault::Refused(uri, violation.into_message()),
        }
    }
}

impl From<InvalidName> for Fault {
    fn from(invalid: InvalidName) -> Fault {
        Fault::Refused(error::INVALID_URI, format!("the URI {invalid}"))
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        match refusal {
            Refusal::RequestInUse(_) => Fault::Violation(Violation::new(refusal.to_string())),
            Refusal::Undecided(question) => Fault::Undecided(question),
            _ => Fault::Refused(uri(&refusal), refusal.to_string()),
        }
    }
}

/// The URI of a refusal.
pub(super) fn uri(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::WrongSecret | Refusal::NotPrivate => error::AUTHENTICATION_DENIED,
        Refusal::AuthenticationRequired => error::AUTHENTICATION_REQUIRED,
        Refusal::AuthenticationFailed => error::AUTHENTICATION_FAILED,
        Refusal::TokenExpired => TOKEN_EXPIRED,
        Refusal::NotRenewable(_) => error::NOT_AUTHORIZED,
        Refusal::TooManyFailures(_) => TOO_MANY_FAILURES,
        Refusal::NoSuchRealm(_) => error::NO_SUCH_REALM,
        Refusal::Reserved(_) => error::INVALID_URI,
        Refusal::Forbidden { .. } => error::NOT_AUTHORIZED,
        // It is asked for first; what is left of it then is a failure.
        Refusal::Undecided(_) | Refusal::AuthorizationFailed => error::AUTHORIZATION_FAILED,
        Refusal::DisclosureForbidden => error::OPTION_DISALLOWED_DISCLOSE_ME,
        Refusal::TooMany(..) | Refusal::TooManyPatterns(_) => LIMIT_REACHED,
        Refusal::QueueFull(_) => QUEUE_FULL,
        Refusal::Unstorable(_) => NOT_STORED,
        Refusal::NoSuchQueue(_) | Refusal::NoSuchDurable(_) | Refusal::NothingKept(_) => NO_SUCH_QUEUE,
        Refusal::OtherProperties(..) => OTHER_PROPERTIES,
        Refusal::InUse(_) | Refusal::NotOwner(_) => error::NOT_AUTHORIZED,
        Refusal::NoSuchProcedure(_) => error::NO_SUCH_PROCEDURE,
        Refusal::ProcedureExists(_) => error::PROCEDURE_ALREADY_EXISTS,
        Refusal::OtherPolicy(_) => OTHER_POLICY,
        Refusal::Busy(_) => MAX_CONCURRENCY_REACHED,
        Refusal::NotInParts(_) => error::FEATURE_NOT_SUPPORTED,
        Refusal::Unavailable(_) => error::UNAVAILABLE,
        Refusal::NoSuchSubscription | Refusal::Revoked => error::NO_SUCH_SUBSCRIPTION,
        Refusal::HistoryUnavailable => error::HISTORY_UNAVAILABLE,
        Refusal::NoSuchRegistration => error::NO_SUCH_REGISTRATION,
        Refusal::NoSuchDelivery => NO_SUCH_DELIVERY,
        Refusal::RequestInUse(_) => error::PROTOCOL_VIOLATION,
    }
}

//! What can be wrong with a message, and the URIs by which WAMP says so.

use std::borrow::Cow;

use thiserror::Error;

use crate::payload::Format;
use crate::payload::skip::Malformed;

/// The peer broke the language.
///
/// It is one word, because nearly everything that reads a message returns something or this.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {}", .0.uri, .0.message)]
pub struct Violation(Box<Broken>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Broken {
    uri: &'static str,
    message: Cow<'static, str>,
}

impl Violation {
    /// A violation of the protocol.
    #[must_use]
    #[cold]
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self::with_uri(PROTOCOL_VIOLATION, message)
    }

    /// A violation with an error URI of its own.
    #[must_use]
    #[cold]
    pub fn with_uri(uri: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Broken { uri, message: message.into() }))
    }

    /// What to answer with: an error URI, [`PROTOCOL_VIOLATION`] unless another says more.
    #[must_use]
    pub fn uri(&self) -> &'static str {
        self.0.uri
    }

    /// For humans. It names what is wrong and repeats nothing that the peer sent.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The same, to keep.
    #[must_use]
    pub fn into_message(self) -> String {
        self.0.message.into_owned()
    }

    /// The same, with the name of the place it was found in put first.
    #[must_use]
    #[cold]
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.0.message = format!("{place}: {}", self.0.message).into();
        self
    }
}

impl From<Malformed> for Violation {
    #[cold]
    fn from(malformed: Malformed) -> Self {
        Self::new(format!("malformed message: {malformed}"))
    }
}

/// Our caller asked for something that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Misuse {
    /// Arguments are to be converted before they are written.
    #[error("arguments in {found:?} cannot be part of a message in {expected:?}")]
    OtherFormat {
        /// The encoding of the message.
        expected: Format,
        /// The encoding of the arguments.
        found: Format,
    },
    /// A body is to be turned into arguments before it is written.
    #[error("a body is no argument of a WAMP message")]
    Body,
    /// More than 4 GiB cannot be one message.
    #[error("the message is too large for any transport")]
    TooLarge,
}

macro_rules! uris {
    ($($(#[$doc:meta])* $name:ident = $uri:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $uri;)*

        #[cfg(test)]
        const ALL: &[&str] = &[$($name),*];
    };
}

// Basic profile, section "Predefined URIs", and the advanced profile's additions.
uris! {
    /// Something is no URI, or none that is allowed in its place.
    INVALID_URI = "wamp.error.invalid_uri";
    /// No procedure is registered under the URI.
    NO_SUCH_PROCEDURE = "wamp.error.no_such_procedure";
    /// The procedure is registered already.
    PROCEDURE_ALREADY_EXISTS = "wamp.error.procedure_already_exists";
    /// The session holds no such registration.
    NO_SUCH_REGISTRATION = "wamp.error.no_such_registration";
    /// The session holds no such subscription.
    NO_SUCH_SUBSCRIPTION = "wamp.error.no_such_subscription";
    /// The arguments do not suit the procedure.
    INVALID_ARGUMENT = "wamp.error.invalid_argument";
    /// The peer broke the protocol.
    PROTOCOL_VIOLATION = "wamp.error.protocol_violation";
    /// The permission is missing.
    NOT_AUTHORIZED = "wamp.error.not_authorized";
    /// Whether there is a permission could not be found out.
    AUTHORIZATION_FAILED = "wamp.error.authorization_failed";
    /// The permission is missing; what the advanced profile says for [`NOT_AUTHORIZED`].
    AUTHORIZATION_DENIED = "wamp.error.authorization_denied";
    /// Whether the permission exists must be asked for by authenticating.
    AUTHORIZATION_REQUIRED = "wamp.error.authorization_required";
    /// The credentials are wrong.
    AUTHENTICATION_DENIED = "wamp.error.authentication_denied";
    /// The credentials could not be checked.
    AUTHENTICATION_FAILED = "wamp.error.authentication_failed";
    /// There are no credentials.
    AUTHENTICATION_REQUIRED = "wamp.error.authentication_required";
    /// None of the authentication methods offered is available.
    NO_MATCHING_AUTH_METHOD = "wamp.error.no_matching_auth_method";
    /// There is no such principal.
    NO_SUCH_PRINCIPAL = "wamp.error.no_such_principal";
    /// There is no such realm.
    NO_SUCH_REALM = "wamp.error.no_such_realm";
    /// There is no such role.
    NO_SUCH_ROLE = "wamp.error.no_such_role";
    /// There is no such session.
    NO_SUCH_SESSION = "wamp.error.no_such_session";
    /// The call was canceled.
    CANCELED = "wamp.error.canceled";
    /// The call took too long.
    TIMEOUT = "wamp.error.timeout";
    /// All callees refused for want of resources.
    NO_AVAILABLE_CALLEE = "wamp.error.no_available_callee";
    /// The callee cannot take the call now.
    UNAVAILABLE = "wamp.error.unavailable";
    /// The router or a peer lacks what was asked for.
    FEATURE_NOT_SUPPORTED = "wamp.error.feature_not_supported";
    /// The caller may not disclose itself, or be disclosed.
    OPTION_DISALLOWED_DISCLOSE_ME = "wamp.error.option_disallowed.disclose_me";
    /// The option may not be used.
    OPTION_NOT_ALLOWED = "wamp.error.option_not_allowed";
    /// A router could not be reached by another.
    NETWORK_FAILURE = "wamp.error.network_failure";
    /// The payload is too large for its receiver.
    PAYLOAD_SIZE_EXCEEDED = "wamp.error.payload_size_exceeded";
    /// The payload cannot be written in the receiver's encoding.
    INVALID_PAYLOAD = "wamp.error.invalid_payload";
    /// No events of the past are kept for the subscription.
    HISTORY_UNAVAILABLE = "wamp.error.history_unavailable";
    /// A payload could not be read by those it is meant for.
    PPT_NOT_SUPPORTED = "wamp.error.payload_passthru_not_supported";
    /// The session ends in the normal way.
    CLOSE_NORMAL = "wamp.close.normal";
    /// The realm closes.
    CLOSE_REALM = "wamp.close.close_realm";
    /// The answer to a GOODBYE.
    GOODBYE_AND_OUT = "wamp.close.goodbye_and_out";
    /// Somebody ended the session.
    CLOSE_KILLED = "wamp.close.killed";
    /// The router shuts down.
    SYSTEM_SHUTDOWN = "wamp.close.system_shutdown";
    /// The peer was silent for too long.
    CLOSE_TIMEOUT = "wamp.close.timeout";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wamp::uri::{Rule, is_uri};

    #[test]
    fn every_constant_is_a_uri_and_stands_once() {
        let mut seen = std::collections::HashSet::new();
        for uri in ALL {
            assert!(is_uri(uri, Rule::Strict) && seen.insert(uri), "{uri}");
        }
    }
}

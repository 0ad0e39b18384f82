//! What can go wrong while somebody proves who they are.

use thiserror::Error;

use crate::wamp::error::{AUTHENTICATION_DENIED, AUTHENTICATION_FAILED, AUTHENTICATION_REQUIRED, Violation};

/// Why there is no session. Nothing in it tells an unknown user from a wrong secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// The peer broke the language.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The client left out what its method needs.
    #[error("{0} is missing")]
    Required(&'static str),
    /// The client's proof is wrong.
    #[error("the credentials are wrong")]
    Denied,
    /// The router's proof is wrong: it does not know the client, or is another router.
    #[error("the router did not prove who it is")]
    RouterDenied,
    /// The proof cannot be made or checked.
    #[error("{0}")]
    Failed(&'static str),
}

impl AuthError {
    /// The error URI for an ABORT.
    #[must_use]
    pub fn uri(&self) -> &'static str {
        match self {
            Self::Violation(violation) => violation.uri(),
            Self::Required(_) => AUTHENTICATION_REQUIRED,
            Self::Denied | Self::RouterDenied => AUTHENTICATION_DENIED,
            Self::Failed(_) => AUTHENTICATION_FAILED,
        }
    }
}

/// A credential of a configuration is none. The message repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidCredential(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_uri() {
        for (error, uri) in [
            (AuthError::from(Violation::new("nonce is not a string")), "wamp.error.protocol_violation"),
            (AuthError::Required("nonce"), "wamp.error.authentication_required"),
            (AuthError::Denied, "wamp.error.authentication_denied"),
            (AuthError::RouterDenied, "wamp.error.authentication_denied"),
            (AuthError::Failed("no such binding"), "wamp.error.authentication_failed"),
        ] {
            assert_eq!(error.uri(), uri, "{error}");
        }
    }
}

//! Tickets: the client sends its secret as it is. Small, for there is no more to the method.
//!
//! Only for transports that nobody else reads. How tickets are kept is not decided here.

use crate::wamp::auth::crypto::{same, sha256};
use crate::wamp::auth::error::AuthError;
use crate::wamp::dict::Dict;
use crate::wamp::message::Authenticate;

/// The name of the method.
pub const METHOD: &str = "ticket";

/// Whether the client sent this ticket; gives WELCOME.Details.authextra. The time it takes tells nothing of
/// the ticket.
///
/// # Errors
///
/// [`AuthError::Denied`].
pub fn verify(authenticate: &Authenticate, ticket: &str) -> Result<Dict, AuthError> {
    // Hashes are of one length, so that not even the ticket's comes out.
    if same(&sha256(authenticate.signature.as_bytes()), &sha256(ticket.as_bytes())) {
        Ok(Dict::new())
    } else {
        Err(AuthError::Denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_right_or_wrong() {
        let sent = Authenticate { signature: "secret".to_owned(), extra: Dict::new() };
        assert_eq!(verify(&sent, "secret"), Ok(Dict::new()));
        for ticket in ["", "secre", "secret ", "Secret"] {
            assert_eq!(verify(&sent, ticket), Err(AuthError::Denied));
        }
    }
}

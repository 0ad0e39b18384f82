//! How a client proves who it is: WAMP-CRA, SCRAM, cryptosign and tickets.
//!
//! Each method has two sides that know nothing of each other. The router makes a CHALLENGE and keeps what is
//! pending, which judges the AUTHENTICATE that answers it: once, for `verify` consumes it. The client answers
//! a CHALLENGE with its secret. Both are without IO: nonces, salts and the time come in as arguments.
//!
//! Which method is tried, who may use it, how long an answer may take and whether the transport is secure
//! enough is not decided here. Deriving a key from a password is made to be slow: never on the thread of a
//! connection.
//!
//! ```
//! use tandem_protocols::wamp::auth::cra::{self, CraCredential, CraSubject};
//! use tandem_protocols::wamp::id::Id;
//!
//! // As a configuration keeps it: the key, not the password.
//! let credential = CraCredential::derive("secret", "a salt of this user", 1000, 32).unwrap().to_string();
//!
//! let credential: CraCredential = credential.parse().unwrap();
//! let subject = CraSubject {
//!     authid: "peter",
//!     authrole: "user",
//!     authprovider: "static",
//!     nonce: "LHRTC9zeOIrt_9U3",
//!     unix_ms: 1_403_454_985_448,
//!     session: Id::new(3_251_278_072_152_162).unwrap(),
//! };
//! let (challenge, pending) = cra::challenge(&credential, &subject);
//! let authenticate = cra::respond(&challenge, "secret").unwrap();
//! assert!(pending.verify(&authenticate).is_ok());
//! ```

mod channel;
pub mod cra;
mod crypto;
pub mod cryptosign;
mod error;
pub mod scram;
pub mod ticket;

pub use channel::{BindingKind, ChannelBinding};
pub use error::{AuthError, InvalidCredential};

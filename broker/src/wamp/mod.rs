//! WAMP, as the house speaks it: what becomes of each message between HELLO and GOODBYE.
//!
//! Follow a message: `session` reads it and, until its sender is let in, judges it by the rules of
//! `opening`, of which secrets that are not sent are in `credentials`, or in `records` that an application
//! keeps; the `dialogue` with a peer that was let in does what the message asks, each in the file of its noun:
//! `pubsub`, `rpc`, `queue`, `testament`, `history`. What is said to the peer goes through its `voice`; what
//! goes wrong is a `fault` until it is an ERROR or an ABORT; `luggage` is what travels with a
//! payload, and a `timestamp` how the language writes a time.
//!
//! The `meta` API is nobody's session: it is a member of the realm like any other, and is called like any other.
//!
//! Bytes and the rules that hold for both ends are in `tandem_protocols::wamp`.

mod arguments;
mod credentials;
mod dialogue;
mod fault;
mod luggage;
mod meta;
mod opening;
mod patterns;
mod protocol;
mod records;
mod session;
mod settings;
mod timestamp;
mod voice;

pub use self::credentials::{InvalidUser, WampCredentials, WampUser};
pub use self::meta::MetaApi;
pub use self::protocol::Wamp;
pub use self::settings::{Strictness, WampSettings};

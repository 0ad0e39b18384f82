//! STOMP, as the house speaks it: what a destination means, and what becomes of each frame.
//!
//! Follow a frame: `session` reads it off the wire and lets its sender in; the `dialogue` with a peer
//! that was let in does what the frame asks, each command in the file of its noun: `subscriptions`,
//! `acknowledgement`, `transactions`, `calls`. What is said to the peer goes through its `voice`,
//! and a `message` is what a publication becomes. What comes again and again is `usual`. What headers ask
//! of queues is read in `terms` and `selector`. What goes wrong is a `fault` until it is an ERROR.
//!
//! Bytes and the rules that hold for both ends are in `tandem_protocols::stomp`.

mod destination;
mod dialogue;
mod fault;
mod headers;
mod message;
mod protocol;
mod selector;
mod session;
mod settings;
mod terms;
mod usual;
mod voice;

pub use self::protocol::{STREAM, Stomp};
pub use self::selector::read_filter;
pub use self::settings::Settings;

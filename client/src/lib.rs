//! Clients of WAMP and STOMP, for tests and load generators.
//!
//! [`dial`] makes connections; a [`transport::Transport`] moves messages over one; its users speak
//! a language over a transport. Whoever owns a client drives it: nothing here spawns a task, so pings are
//! answered and heart-beats sent while a method is awaited, and at no other time.
//!
//! Every level is open to the one below it, so that a test can also say what no client should: a
//! link sends any message in any order, a transport any frame or bytes.

#![forbid(unsafe_code)]

pub mod dial;
pub mod error;
mod rawsocket;
pub mod transport;
mod websocket;

pub use error::Error;

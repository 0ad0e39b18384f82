//! Clients of WAMP and STOMP.

#![forbid(unsafe_code)]

pub mod address;
pub mod arguments;
pub mod backoff;
#[allow(dead_code, reason = "for the sessions, which come next")]
mod buffer;
pub mod connector;
pub mod error;
mod message;
pub mod raw;
pub mod wamp;
pub mod wire;

pub use address::Address;
pub use backoff::Backoff;
pub use buffer::{Gap, Overflow};
pub use connector::Connector;
pub use error::Error;

//! Clients of WAMP and STOMP.

#![forbid(unsafe_code)]

pub mod address;
pub mod arguments;
pub mod backoff;
mod buffer;
pub mod connector;
mod dialer;
pub mod doorway;
pub mod error;
pub mod event;
mod longpoll;
mod message;
pub mod raw;
pub mod stomp;
pub mod tls;
pub mod wamp;
pub mod wire;

pub use address::Address;
pub use backoff::Backoff;
pub use buffer::{Gap, Overflow};
pub use connector::Connector;
pub use doorway::Doorway;
pub use error::Error;
pub use event::ClientEvent;
pub use tls::TlsOptions;
pub use wire::Wire;

/// For what `#[derive(WampError)]` makes, and nobody else.
#[doc(hidden)]
pub mod __private {
    pub use serde;
}

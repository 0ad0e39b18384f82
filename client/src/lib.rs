//! Clients of WAMP and STOMP, for Tandem and for other brokers that speak them.
//!
//! - [`wamp::Client`]: publish and subscribe, calls and procedures, in [WAMP v2](wamp).
//! - [`stomp::Client`]: topics, work queues, acknowledgement and transactions, in [STOMP 1.0 to 1.2](stomp).
//!
//! Both keep a session over lost connections, make of payloads what serde makes of them, and hold nothing without a
//! limit. A session runs as a task of the tokio runtime in which `connect` is called, and ends with its last handle.
//!
//! ```no_run
//! use tandem_client::wamp::{Client, Error};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let client = Client::builder("ws://127.0.0.1:8080/").realm("realm1").connect().await?;
//!     let mut greetings = client.subscribe::<String>("hello").await?;
//!     client.publish("hello").args(("Hello from Rust",)).include_me().await?;
//!     if let Some(greeting) = greetings.next().await {
//!         println!("{}", greeting?.payload);
//!     }
//!     client.close().await;
//!     Ok(())
//! }
//! ```
//!
//! `docs/guides/client-crate.md` has a program for each use, and what one must know; `client/examples/` has them as they
//! run. [`Address`] says where a broker can be; [`Connector`] how it is reached, with TLS, compression and headers, and
//! leads into a broker in this process as well. [`raw`] has the messages as they are, one by one, for load generators and
//! tests.

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

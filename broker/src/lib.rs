//! The Tandem broker as a library: the house that WAMP and STOMP clients meet in.
//!
//! [`Broker::builder`] makes it a part of an application:
//!
//! ```
//! use tandem_broker::Broker;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let broker = Broker::builder().realm("app").listen("127.0.0.1:0".parse()?).start()?;
//!     println!("ws://{}/", broker.addresses()[0]);
//!     broker.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! | you want | look at |
//! |---|---|
//! | listeners, realms, users, a store of a broker in your program | [`Builder`]; all that a configuration file can say, [`config`] |
//! | clients in the same process | [`Broker::wamp`], [`Broker::stomp`] |
//! | connections that your application accepts, such as a route of axum | [`Broker::entrance`] |
//! | to say who is let in, and who may do what | [`core::access::Authenticator`], [`core::access::authorizer::Authorizer`] |
//! | to keep messages elsewhere | [`core::store::Store`] |
//! | to see how it is | [`Broker::server`], [`metrics`] |
//!
//! `docs/embedding.md` goes through all of it, and `broker/examples/` has programs. [`server::Server`] is the broker without an application around it, as the daemon `tandem`
//! starts it ([`cli`]). Everything else is public for the tests of this repository, and for whoever writes another
//! wing: the floors of the house are in `docs/architecture.md`.

#![forbid(unsafe_code)]

pub mod authenticator;
pub mod authorizer;
pub mod cli;
pub mod config;
pub mod core;
pub mod embed;
pub mod front;
pub mod local;
pub mod memory;
pub mod metrics;
pub mod server;
pub mod stomp;
pub mod store;
pub mod tokens;
pub mod users;
pub mod wamp;

pub use embed::{Broker, Builder};

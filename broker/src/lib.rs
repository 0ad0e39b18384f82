//! The Tandem broker as a library: the house that WAMP and STOMP clients meet in.
//!
//! [`Broker::builder`] makes one of it in an application; [`server::Server`] starts it. The floors of the house are in `docs/architecture.md`.

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

//! The Tandem broker as a library: the house that WAMP and STOMP clients meet in.

#![forbid(unsafe_code)]

pub mod config;
pub mod core;
pub mod front;
pub mod metrics;

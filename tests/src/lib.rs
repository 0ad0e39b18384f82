//! What the tests over real sockets have in common: a broker to talk to.

#![forbid(unsafe_code)]

pub mod broker;
pub mod daemon;

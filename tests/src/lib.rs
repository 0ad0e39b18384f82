//! What the tests over real sockets have in common: a broker to talk to, and peers that misbehave.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

pub mod attacker;
pub mod broker;
pub mod certificates;
pub mod daemon;
pub mod disk;
pub mod guide;
pub mod house;
pub mod peers;
pub mod poller;

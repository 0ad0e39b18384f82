//! A load generator for message brokers, and a checker of what they deliver.
//!
//! It knows no broker: what it loads is told by a URL. Every message carries who sent it, the how-manieth of
//! theirs it is, when it was due, and a checksum ([`payload`]); what comes is checked to come once, in order and
//! whole ([`checker`]), and only that is counted. A run is a warm-up, a time that is measured, and the time
//! until all has come ([`stage`]).
//!
//! `tandem bench` is [`run::run`]. Sender and receiver share a process, so that their clock is one, and a
//! publisher can wait for its slowest receiver: what is measured is what the broker moves, not what it drops.

#![forbid(unsafe_code)]

pub mod calls;
pub mod checker;
pub mod course;
pub mod error;
pub mod idle;
pub mod language;
pub mod options;
pub mod patterns;
pub mod payload;
pub mod peer;
pub mod process;
pub mod progress;
pub mod pubsub;
pub mod queue;
pub mod report;
pub mod run;
pub mod stage;
pub mod target;
pub mod wire;

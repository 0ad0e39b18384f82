//! The languages that Tandem speaks, as sans-io codecs and rules.
//!
//! Nothing here opens a socket, reads a clock or imports another crate of Tandem. The two languages do
//! not know each other; both know [`payload`], which is what they carry.

#![forbid(unsafe_code)]

pub mod payload;
pub mod stomp;
pub mod wamp;
pub mod websocket;

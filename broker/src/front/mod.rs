//! The front door: one port that speaks everything, the opening handshake, and the pump.
//!
//! [`listener`] accepts and tells by the first bytes what a connection speaks; [`http`] answers what is
//! HTTP, the opening handshake among it; [`connection`] is the pump, on a [`framing`]. No language is named
//! here but in what its peers send first.

pub mod connection;
pub mod framing;
pub mod gate;
pub mod http;
pub mod listener;
pub mod rawsocket;
pub mod websocket;
pub mod wire;

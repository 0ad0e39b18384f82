//! The front door: one port that speaks everything, the opening handshake, and the pump.
//!
//! [`listener`] accepts and tells by the first bytes what a connection speaks; [`http`] answers what is
//! HTTP, the opening handshake among it; [`connection`] is the pump, on a [`transport`]. No language is
//! named here: [`door`] gets a table of them.

pub mod connection;
pub mod door;
pub mod framing;
pub mod gate;
pub mod http;
pub mod listener;
pub mod rawsocket;
pub mod transport;
pub mod unix;
pub mod websocket;
pub mod wire;

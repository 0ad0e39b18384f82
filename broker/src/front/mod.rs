//! The front door: one port that speaks everything, the opening handshake, and the pump.
//!
//! [`listener`] accepts and tells by the first bytes what a connection speaks, in [`tls`] or in the clear; [`http`]
//! answers what is HTTP, the opening handshake among it; [`longpoll`] and [`sockjs`] are
//! sessions over several requests;
//! [`connection`] is the pump, on a [`transport`]. No language is named here: [`door`] gets a table of them.

pub mod alarm;
pub mod answer;
pub mod authorization;
pub mod certificates;
pub mod compression;
pub mod connection;
pub mod cors;
pub mod door;
pub mod executor;
pub mod files;
pub mod framing;
pub mod gate;
pub mod hosts;
pub mod http;
pub mod listener;
pub mod longpoll;
pub mod pace;
pub mod proxies;
pub mod proxy_protocol;
pub mod rawsocket;
pub mod readiness;
pub mod sockjs;
pub mod stay;
pub mod tls;
pub mod transport;
pub mod unix;
pub mod unwelcome;
pub mod websocket;
pub mod wire;

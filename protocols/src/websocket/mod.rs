//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692), sans-io: what carries both languages.
//!
//! [`handshake`], [`origin`] and [`extensions`] agree, [`frame`] writes, [`message`] reads; [`deflate`] and
//! [`utf8`] are what reading and writing need. There is no socket, clock or chance in here: mask keys and
//! nonces are arguments, and [`message::Decoder::incomplete`] tells whoever has a clock that one should run.

pub mod deflate;
pub mod extensions;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod origin;
pub mod utf8;

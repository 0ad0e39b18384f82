//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692), sans-io: what carries both languages.
//!
//! There is no socket, clock or chance in here: mask keys and nonces are arguments.

pub mod deflate;
pub mod extensions;
pub mod frame;
pub mod utf8;
